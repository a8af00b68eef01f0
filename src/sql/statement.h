#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// Which server's lexical rules a statement follows.
enum class SqlDialect : uint8_t { kDuckDb, kPostgres };

/// A name with its schema ("" if it has none), in lower case unless it was quoted.
struct SqlName {
  std::string schema, name;

  friend bool operator==(const SqlName&, const SqlName&) = default;
  friend auto operator<=>(const SqlName&, const SqlName&) = default;
};

/// One SQL statement taken apart by its words, without a catalogue. It errs on the careful side:
/// what might write counts as a write, what might differ from call to call as volatile.
///
/// Comments (nested ones too), '...', E'...' and dollar-quoted texts and "..." identifiers are
/// never taken for words of the statement.
struct SqlStatement {
  std::string text;                     ///< as written, with `:name` replaced by $1, $2, ...
  std::vector<std::string> parameters;  ///< [number - 1] their names, each once
  /// `text` without comments, runs of blanks outside quotes as one: equal for equal statements.
  std::string normalized;
  bool writes = false;
  bool is_volatile = false;        ///< a read whose value may differ between two calls
  std::vector<SqlName> functions;  ///< called in it, sorted: to be looked up in a catalogue
  std::vector<SqlName> relations;  ///< that may be read, sorted; names of WITH are left out
  std::vector<SqlName> written;    ///< that a write changes, sorted; empty: not known
};

/// Takes a statement apart. `fault` says what is wrong with it if anything is: an open quote or
/// comment, several statements, a parameter written as $1 or ?, no statement at all.
SqlStatement ReadSqlStatement(std::string_view text, SqlDialect dialect, std::string& fault);

}  // namespace halo
