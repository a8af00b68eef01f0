#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halo {

/// Inclusive range of code points.
using CharacterRange = std::pair<uint32_t, uint32_t>;

/// One expression of a grammar. A tree of bounded height.
struct GrammarExpression {
  enum class Kind : uint8_t {
    kSequence,    ///< children one after another; none: the empty text
    kChoice,      ///< one of the children
    kLiteral,     ///< `text`
    kCharacters,  ///< one character of `ranges`
    kRule,        ///< what rule number `rule` says
    kRepeat       ///< the only child, `least` to `most` times
  };
  Kind kind = Kind::kSequence;
  std::vector<GrammarExpression> children;
  std::string text;                    ///< UTF-8, never empty
  std::vector<CharacterRange> ranges;  ///< ascending, disjoint, without surrogates, never empty
  int32_t rule = -1;
  int32_t least = 0;
  int32_t most = 0;    ///< kUnbounded: no limit
  int32_t height = 1;  ///< levels of this tree, at most kMaxExpressionHeight

  static constexpr int32_t kUnbounded = -1;
};

struct GrammarRule {
  std::string name;
  GrammarExpression body;
  size_t offset = 0;  ///< of the rule in the text
};

/// A grammar as it is written, with names resolved.
struct GrammarRules {
  std::vector<GrammarRule> rules;
  int32_t root = -1;
};

inline constexpr size_t kMaxGrammarBytes = size_t{4} << 20;
inline constexpr int32_t kMaxGrammarGroups = 200;  ///< groups inside groups
inline constexpr int32_t kMaxExpressionHeight = 1000;
inline constexpr int32_t kMaxGrammarRules = 20'000;
inline constexpr int32_t kMaxGrammarRepetitions = 1'000'000;  ///< in `{least,most}`

/// Reads GBNF, llama.cpp's grammar notation: rules `name ::= ...`, of which `root` is the whole
/// text; "literals" and [classes] with \n \r \t \\ \" \[ \] \- \xNN \uNNNN \UNNNNNNNN, `.`, groups,
/// `|`, and `* + ? {n} {n,} {n,m}` behind an item. Comments begin with #. Rules over token ids
/// (`<[12]>`) are refused, since a grammar is one of texts here.
///
/// A parser of ours, since llama.cpp's is internal, writes repetitions out (`x{0,1000}` becomes a
/// thousand rules), recurses without a bound and prints its errors.
///
/// Throws Error(kWorkflow) with line and column in the text; `name` is what the error calls it.
GrammarRules ParseGrammar(std::string_view text, const std::string& name);

/// Throws Error(kWorkflow) for the place `offset` of a grammar's text.
[[noreturn]] void ThrowGrammarError(std::string_view text, const std::string& name, size_t offset,
                                    const std::string& message);

/// All code points that are not in `ranges` (ascending, disjoint), surrogates left out.
std::vector<CharacterRange> ComplementOf(const std::vector<CharacterRange>& ranges);
/// Sorted, joined where they meet, without surrogates.
std::vector<CharacterRange> NormalizedRanges(std::vector<CharacterRange> ranges);

/// The UTF-8 bytes of a code point that is no surrogate and at most U+10FFFF.
void AppendUtf8(uint32_t code_point, std::string& text);

}  // namespace halo
