#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace halo {

/// What a regular expression of a JSON Schema (`pattern`) is as a grammar.
struct PatternGrammar {
  std::string expression;  ///< GBNF of a whole JSON string, quotes included
  std::string fault;       ///< why there is none, or ""
  int64_t places = 0;      ///< length of the expression with its repetitions written out
};

/// The strings that `pattern` is found in, as JSON writes them. Written by us, since llama.cpp's
/// conversion takes the pattern for the written string: its `.` and its negated classes match
/// quotes and line ends, which end the string or the JSON.
///
/// Characters, escapes (\d \w \s and their opposites, \n \r \t \f \v \xNN \uNNNN, signs), classes,
/// groups, alternatives and repetitions are known; ^ and $ at the ends of an alternative, where a
/// missing one allows any text there. Each character is written in one way. What has no grammar
/// (back references, look-around, word boundaries) is a fault that says so.
PatternGrammar PatternToGrammar(const std::string& pattern);

/// Throws std::regex_error. A second opinion on `pattern` by the standard library, in time that
/// grows with the text's length times that of the pattern: true if it is found in `text`.
class PatternMatcher {
 public:
  explicit PatternMatcher(const std::string& pattern);
  ~PatternMatcher();
  PatternMatcher(PatternMatcher&&) noexcept;
  bool IsFoundIn(const std::string& text) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
