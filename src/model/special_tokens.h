#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "model/span.h"

namespace halo {

/// A token that llama.cpp cuts out of a text before it tokenizes what is left.
struct SpecialToken {
  TokenId id = 0;
  std::string text;
  bool user_defined = false;  ///< else a control token or the unknown token
  bool strip_left = false;    ///< white space before it is dropped
  bool strip_right = false;   ///< white space after it is dropped
};

/// Finds every occurrence of many tokens' texts in one pass (a byte trie).
class SpecialTokenFinder {
 public:
  struct Match {
    size_t begin = 0;
    int32_t rank = 0;  ///< index into the tokens given to Build
  };

  void Build(const std::vector<SpecialToken>& tokens);
  /// Appends all matches that lie in text[begin, end), overlapping ones too.
  void Find(std::string_view text, size_t begin, size_t end, std::vector<Match>* matches) const;

 private:
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node
  std::vector<int32_t> rank_of_node_;             // -1: no token ends here
  bool starts_[256] = {};
};

/// A piece of a prompt after special tokens were cut out: one token, or text[begin, end) that is
/// none.
struct PromptFragment {
  TokenId token = -1;  ///< -1: text
  size_t begin = 0;
  size_t end = 0;
};

/// llama.cpp's partition of a text by its special tokens (longest text first, earlier ones bind,
/// white space dropped where a token asks for it), except that a token counts only if it lies
/// within one of `template_ranges` (begin, end). `tokens` must be in llama.cpp's order of
/// precedence and `finder` built from them.
std::vector<PromptFragment> PartitionBySpecialTokens(
    std::string_view text, const std::vector<std::pair<size_t, size_t>>& template_ranges,
    const std::vector<SpecialToken>& tokens, const SpecialTokenFinder& finder);

}  // namespace halo
