#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/grammar_text.h"

namespace halo {

/// Texts that models are made to say in simulations. All are pure functions of what they are given.

/// How long answers are, in tokens.
struct AnswerLengths {
  double mean = 0.0;       ///< 0: not known, any length up to the most is as likely as another
  double deviation = 0.0;  ///< standard deviation, of a log-normal distribution
};

/// Between 1 and `most`; draw 0 and 1 of the stream `key`.
int32_t DrawLength(const AnswerLengths& lengths, int32_t most, uint64_t key);

/// Made-up words of three letters and a space, so that each is one token of four bytes.
std::string DrawWords(int32_t words, uint64_t key);

/// Texts that a grammar admits.
///
/// Every expression knows its shortest text; what a text is to be longer than that is slack, which
/// repetitions and choices spend. So texts end near the length that is asked for where the grammar
/// lets them, and recursion ends.
class GrammarTexts {
 public:
  /// Throws Error(kWorkflow) for a grammar that cannot be read, or has no finite text.
  explicit GrammarTexts(const std::string& gbnf);

  std::string Draw(int64_t bytes, uint64_t key) const;

 private:
  /// Of the shortest text: bytes, then the height of how it is made, so that a choice by size never
  /// goes round in a circle.
  struct Size {
    int64_t bytes = 0;
    int32_t height = 0;
    friend auto operator<=>(const Size&, const Size&) = default;
  };
  class Drawing;

  Size SizeOf(const GrammarExpression& expression) const;
  bool CanGrow(const GrammarExpression& expression) const;

  GrammarRules rules_;
  std::vector<Size> sizes_;  // [rules]
  std::vector<bool> grows_;  // [rules] has texts of several lengths
};

}  // namespace halo
