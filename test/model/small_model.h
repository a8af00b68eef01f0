#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halo::test {

/// Element lists for GGUF headers written by tests, encoded as in the file (type, count, elements).
std::string EncodeTexts(const std::vector<std::string>& texts);
std::string EncodeInt32s(const std::vector<int32_t>& numbers);
std::string EncodeUint32s(const std::vector<uint32_t>& numbers);

/// A GPT-2-like vocabulary of 600 tokens as bytes of a GGUF file: every byte, 343 pairs with their
/// merges, and the control token <|endoftext|> (id 599).
std::string SmallVocabulary();

/// The same kind of thing for the other family, SentencePiece's: <unk>, <s>, </s>, byte tokens and
/// pairs, 600 tokens.
std::string SmallSentencePieceVocabulary();

/// Bytes of a random model over SmallVocabulary: 2 layers of width 64. `architecture` is "llama" or
/// "qwen3"; the bytes of a vocabulary may be given. Makes and removes files in `folder`.
std::string SmallModel(const std::string& folder, const std::string& architecture = "llama",
                       const std::string& vocabulary = SmallVocabulary());

void WriteFile(const std::string& path, std::string_view bytes);
std::string ReadFile(const std::string& path);

}  // namespace halo::test
