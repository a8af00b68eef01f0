#pragma once

#include <string>
#include <vector>

#include "sql/duck_database.h"

namespace halo {

/// Files that a SELECT names.
struct SelectFiles {
  std::vector<std::string> names;  ///< as they are written: paths, or patterns such as part-*.csv
  std::vector<std::string> paths;  ///< that these stand for, as they are now
};

/// Proof that `sql` is one SELECT which can do nothing but read, and the files that it names: the
/// texts that stand for a table (FROM 'rows.parquet') or are the first argument of a function that
/// reads row files (read_csv('a.csv'), read_parquet(['a.parquet', 'b.parquet'])). The person who
/// typed the statement has named these, so they may be read. A path that the statement computes is
/// not among them, and DuckDatabase::Lock keeps it closed.
///
/// Settings alone do not do (DuckDB 1.4.4): allowed paths may be written to as well as read, a
/// locked configuration leaves ATTACH of an allowed path, and `SELECT * FROM
/// enable_logging(storage_path := ...)`, a SELECT by its type, makes every later statement write
/// where it says. So functions that stand for tables are those of a list, and everything is looked
/// up in the syntax tree, never in the text.
///
/// Throws Error(kRows) saying what is not allowed; `database` must not be locked yet.
SelectFiles CheckSelect(DuckDatabase& database, const std::string& sql);

}  // namespace halo
