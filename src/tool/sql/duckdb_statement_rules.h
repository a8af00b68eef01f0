#pragma once

#include <duckdb.h>

#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "sql/duck_database.h"
#include "sql/statement.h"
#include "tool/sql/duckdb_catalogue.h"

namespace halo {

/// Which statements may be prepared at all, by their words: a type tells neither PRAGMA, which
/// DuckDB turns into a SELECT, nor what EXPLAIN ANALYZE executes, and a function that stands for a
/// table may do anything.
class DuckDbStatementRules {
 public:
  /// Reads what there is in the database. Throws Error(kIo).
  explicit DuckDbStatementRules(DuckDatabase& database);

  /// "" or why not.
  std::string WhyRefused(const std::string& text) const;

 private:
  /// Views and macros that come to a function which is refused, through others too.
  void FindRefusedViews(const std::vector<DuckDbDefinition>& definitions);

  std::set<std::string> table_functions_;
  std::set<SqlName> refused_;
};

/// Whether a prepared statement may be executed. `writes`: it is declared to.
bool MayRun(duckdb_statement_type type, bool writes);
/// What to say where it may not.
std::string WhyItMayNot(bool writes);

/// By its first word, for what becomes a SELECT when it is prepared: PRAGMA, CALL and their like
/// are not among them.
bool BeginsLikeAQuery(std::string_view normalized);

}  // namespace halo
