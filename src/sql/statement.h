#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "sql/sql_lexer.h"

namespace halo {

/// A name with what stands before its last dot ("" if nothing does): a schema, in DuckDB also a
/// database. As the server compares names: in lower case unless PostgreSQL was given it quoted.
struct SqlName {
  std::string schema, name;

  friend bool operator==(const SqlName&, const SqlName&) = default;
  friend auto operator<=>(const SqlName&, const SqlName&) = default;
};

/// One SQL statement taken apart by its words, without a catalogue. It errs on the careful side:
/// what might write counts as a write, what might differ from call to call as volatile. What words
/// cannot tell is for a catalogue (AskPostgres): functions and views of the user's own, triggers.
/// What nobody looks for: operators and types of the user's own whose functions are volatile, and
/// in PostgreSQL a bound text 'now' that is read as a time.
///
/// Comments (nested ones too), '...', E'...' and dollar-quoted texts and "..." identifiers are
/// never taken for words of the statement.
struct SqlStatement {
  std::string text;                     ///< as written, with `:name` replaced by $1, $2, ...
  std::vector<std::string> parameters;  ///< [number - 1] their names, each once
  /// `text` without comments and closing semicolons, runs of blanks outside quotes as one: equal
  /// for equal statements. A line break stays one where it joins two texts.
  std::string normalized;
  bool writes = false;  ///< or locks rows, or changes the session
  /// Its value may differ between two calls though no table has changed.
  bool is_volatile = false;
  std::vector<SqlName> functions;  ///< called in it, sorted: to be looked up in a catalogue
  /// That may be read, sorted; names of WITH are left out where they are meant. In DuckDB also the
  /// file of FROM 'a.csv', as written.
  std::vector<SqlName> relations;
  /// That a write changes, sorted; empty: not known. What functions and triggers change is not
  /// among them.
  std::vector<SqlName> written;
};

/// Takes a statement apart. `fault` says what is wrong with it if anything is, with the place: an
/// open quote or comment, several statements, a parameter written as $1 or ?, no statement at all.
SqlStatement ReadSqlStatement(std::string_view text, SqlDialect dialect, std::string& fault);

}  // namespace halo
