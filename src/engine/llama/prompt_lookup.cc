#include "engine/llama/prompt_lookup.h"

#include <algorithm>

#include "base/check.h"

namespace halo {

std::optional<bool> PromptLookup::Follow(std::span<const TokenId> tokens) {
  const auto last = static_cast<int32_t>(tokens.size()) - 1;
  std::optional<bool> right;
  if (next_ >= 0) right = tokens[static_cast<size_t>(next_)] == tokens.back();
  if (right == true) {
    ++next_;
    return right;
  }
  next_ = -1;
  if (last < kMatch) return right;
  // The latest place is the likeliest: what is being copied now was begun near it.
  const std::span<const TokenId> pattern = tokens.last(kMatch);
  const std::span<const TokenId> before = tokens.first(tokens.size() - 1);
  const auto found = std::find_end(before.begin(), before.end(), pattern.begin(), pattern.end());
  if (found != before.end()) next_ = static_cast<int32_t>(found - before.begin()) + kMatch;
  return right;
}

std::vector<TokenId> PromptLookup::Draft(std::span<const TokenId> tokens, int32_t count) const {
  HALO_CHECK(has_guess(), "there is a guess to draft from");
  const std::span<const TokenId> copied = tokens.subspan(static_cast<size_t>(next_));
  std::vector<TokenId> draft;
  for (size_t i = 0; i < static_cast<size_t>(count); ++i)
    draft.push_back(i < copied.size() ? copied[i] : draft[i - copied.size()]);
  return draft;
}

void GuessRate::Add(bool right) {
  ++guesses_;
  // The mean at first, of the last ones later.
  right_ += std::max(kWeight, 1.0 / guesses_) * ((right ? 1.0 : 0.0) - right_);
}

}  // namespace halo
