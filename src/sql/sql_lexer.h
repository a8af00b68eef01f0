#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// Which server's lexical rules a statement follows. They are one lexer's (DuckDB's began as
/// PostgreSQL's); where the two differ, it is said.
enum class SqlDialect : uint8_t { kDuckDb, kPostgres };

enum class SqlTokenKind : uint8_t {
  kWord,               ///< a keyword or a name without quotes
  kQuotedName,         ///< "..." and U&"..."
  kText,               ///< '...', E'...', U&'...', B'...', X'...', N'...', $tag$...$tag$
  kNumber,             ///< without a sign
  kParameter,          ///< :name
  kNumberedParameter,  ///< $1, $name, and in DuckDB ?
  kOperator,           ///< one byte of an operator or a punctuation mark; `::` whole
};

struct SqlToken {
  SqlTokenKind kind = SqlTokenKind::kOperator;
  std::string_view source;  ///< as written: a part of the text that was read
  /// A word in lower case; a name as the server compares it (in DuckDB in lower case, in PostgreSQL
  /// cut to 63 bytes); what a text has between its quotes, escapes as written; of a parameter its
  /// name. Otherwise as `source`.
  std::string value;
  bool spaced = false;       ///< blanks or comments stand before it
  bool line_before = false;  ///< a line break is among them, outside of block comments

  bool IsWord(std::string_view word) const { return kind == SqlTokenKind::kWord && value == word; }
  bool IsOperator(std::string_view mark) const {
    return kind == SqlTokenKind::kOperator && source == mark;
  }
  bool IsName() const { return kind == SqlTokenKind::kWord || kind == SqlTokenKind::kQuotedName; }
};

/// Takes SQL apart by its lexical rules, comments left out: line comments and nested block
/// comments; texts that go on in the next line ('a' newline 'b') are several tokens. Backslashes
/// escape in E'...' alone (standard_conforming_strings, which sessions of ours set).
///
/// A colon begins a parameter where a name follows it at once, unless it belongs to `::`, or stands
/// behind a value without a blank ({'a':b}, lambda x:x) or within [] and {} behind a value at all
/// (the slice a[low :high]). A word such as LIMIT or AND is no value.
///
/// `fault` says what is wrong, with its line and column: an open quote or comment, a character that
/// no statement has outside of quotes. `text` must be UTF-8 without NUL bytes, and outlive what is
/// returned.
std::vector<SqlToken> ReadSqlTokens(std::string_view text, SqlDialect dialect, std::string& fault);

/// "line 2, column 5" of a byte, in characters.
std::string SqlPlace(std::string_view text, size_t offset);

}  // namespace halo
