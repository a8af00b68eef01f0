#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "engine/engine.h"

namespace halo {

/// Guesses how an answer goes on: as it did where its last tokens stood before, in the prompt or in
/// the answer itself (prompt lookup decoding, Saxena 2023; "n-gram" speculation in vLLM). Answers
/// that extract, quote or rewrite are guessed well, at the price of a look at the tokens.
class PromptLookup {
 public:
  static constexpr int32_t kMatch = 3;  ///< last tokens that must stand elsewhere, too

  /// `tokens` (prompt and answer so far) has one more than at the last call. Whether that one was
  /// the guess; nothing: there was none.
  std::optional<bool> Follow(std::span<const TokenId> tokens);
  /// Whether there is a guess.
  bool has_guess() const { return next_ >= 0; }
  /// The next `count` tokens as guessed; has_guess(). A copy that reaches what is still to be
  /// guessed repeats itself.
  std::vector<TokenId> Draft(std::span<const TokenId> tokens, int32_t count) const;

 private:
  int32_t next_ = -1;  // index of the token that is guessed to come again
};

/// How often guesses were right lately.
class GuessRate {
 public:
  void Add(bool right);
  /// Share of guesses that were right; 0 before there were enough to tell.
  double value() const { return guesses_ < kEnough ? 0.0 : right_; }

 private:
  static constexpr int32_t kEnough = 32;
  static constexpr double kWeight = 1.0 / 32.0;  // of the last guess
  double right_ = 0.0;
  int32_t guesses_ = 0;
};

}  // namespace halo
