#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/span.h"

namespace halo::demo {

/// Texts cut into words as GPT-2 does (llama.cpp's pre-tokenizer "gpt-2"): contractions, letters,
/// digits or other signs, each with at most one space before it, and white space. The words
/// together are the text. For ASCII only, which the corpus is.
std::vector<std::string_view> SplitWords(std::string_view text);

/// A byte-level byte-pair encoding: ids 0 .. 255 are the bytes, then come the merges in the order
/// in which they were learned, then the control tokens, which no text becomes.
class BytePairEncoding {
 public:
  using Pair = std::pair<TokenId, TokenId>;

  /// Merges the most frequent pair of neighbours within words, `tokens` - 256 - controls times;
  /// among equals the one of the lowest ids. Throws Error(kUsage) where the texts have too few
  /// pairs, or characters that are not ASCII.
  static BytePairEncoding Train(const std::vector<std::string>& texts, int64_t tokens,
                                std::vector<std::string> controls);

  BytePairEncoding(std::vector<Pair> merges, std::vector<std::string> controls);

  int64_t size() const;
  const std::vector<Pair>& merges() const { return merges_; }
  const std::vector<std::string>& controls() const { return controls_; }
  /// The id of control token `index`.
  TokenId ControlId(size_t index) const;

  /// Ids of a text without control tokens. Throws Error(kUsage) for text that is not ASCII.
  std::vector<TokenId> Encode(std::string_view text) const;
  /// The bytes of a token that is no control token.
  const std::string& BytesOf(TokenId token) const { return pieces_[static_cast<size_t>(token)]; }

 private:
  void EncodeWord(std::string_view word, std::vector<TokenId>& ids) const;

  std::vector<Pair> merges_;
  std::vector<std::string> controls_;
  std::vector<std::string> pieces_;               // [256 + merges]
  std::unordered_map<uint64_t, TokenId> merged_;  // looked up only, never walked
};

}  // namespace halo::demo
