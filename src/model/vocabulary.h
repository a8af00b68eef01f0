#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "model/span.h"

struct llama_model;  // llama.cpp's, an opaque handle here

namespace halo {

/// A model file's tokenizer, loaded without its weights. Immutable and safe to use from several
/// threads.
///
/// Tokenizing spans follows contract section 4: special tokens are looked for in template spans
/// only (a special text that begins in one span and ends in the next is not one); everything
/// between two special tokens, template text and data alike, is tokenized together, so that data
/// free of special text gives exactly the ids that llama.cpp gives for the whole string. In that
/// text, whatever spells a special token is cut behind its first character, so that neither
/// llama.cpp's own search for user-defined tokens nor a merge can make the token. User-defined
/// tokens that are runs of white space or single characters count as plain text, not as special.
///
/// SentencePiece vocabularies put a space in front of a text at the start of a prompt and after a
/// special token, as llama.cpp does; text that follows ordinary ids of a token span, or begins a
/// part, gets none.
class Vocabulary {
 public:
  /// Reads `gguf_path`, which must have passed CheckGguf. Throws Error(kModel).
  static std::shared_ptr<const Vocabulary> Load(const std::string& gguf_path);
  ~Vocabulary();

  /// Equal for two files only if the same id means the same text in both and they cut texts by the
  /// same rules.
  const Signature& id() const { return id_; }
  int32_t size() const { return size_; }

  /// Ids of a whole prompt. The beginning-of-sequence token is put in front if the vocabulary asks
  /// for one and the prompt does not already start with it. Slots must have been filled.
  std::vector<TokenId> TokenizePrompt(const std::vector<PromptSpan>& spans) const;
  /// Ids of a part of a prompt: nothing is put in front.
  std::vector<TokenId> TokenizePart(const std::vector<PromptSpan>& spans) const;

  /// The bytes a token stands for in an answer; control tokens stand for nothing. Not necessarily
  /// whole UTF-8.
  const std::string& Piece(TokenId token) const { return pieces_[static_cast<size_t>(token)]; }
  /// Pieces of `tokens` joined, end-of-generation tokens left out. Raw bytes.
  std::string Detokenize(std::span<const TokenId> tokens) const;
  bool IsEndOfGeneration(TokenId token) const {
    return end_of_generation_[static_cast<size_t>(token)];
  }

  /// True for control tokens and for user-defined ones that are more than plain text: what data
  /// never becomes.
  bool IsSteering(TokenId token) const;
  /// The token that ends an answer where nothing else may follow: the end of a turn, else of a
  /// text. -1 if the vocabulary has none.
  TokenId end_token() const { return end_token_; }

  /// Text of the beginning- and end-of-sequence tokens ("" if there are none), as chat templates
  /// want them.
  const std::string& bos_text() const { return bos_text_; }
  const std::string& eos_text() const { return eos_text_; }
  /// The file's own chat template, "" if it has none.
  const std::string& chat_template() const { return chat_template_; }

 private:
  Vocabulary() = default;
  // Implementation detail of the author of vocabulary.cc; extend freely.
  struct Impl;
  std::unique_ptr<Impl> impl_;
  Signature id_;
  int32_t size_ = 0;
  std::vector<std::string> pieces_;      // [size]
  std::vector<bool> end_of_generation_;  // [size]
  TokenId end_token_ = -1;
  std::string bos_text_;
  std::string eos_text_;
  std::string chat_template_;
};

}  // namespace halo
