#pragma once

#include <string>

#include "base/hash.h"
#include "sql/sql_lexer.h"

namespace halo {

/// What its database's EXPLAIN says of one call of a query.
struct QueryCost {
  SqlDialect dialect = SqlDialect::kDuckDb;
  double units = 0.0;  ///< DuckDB: rows that its operators hand on; PostgreSQL: its planner's cost
  std::string
      choice;  ///< in words, which of several plans it runs under, and why; "": none to make
};

/// Seconds of a call by its cost alone.
struct QueryRate {
  double call_s = 0.0;       ///< of the least call
  double unit_s = 0.0;       ///< for each unit beyond
  const char* explain = "";  ///< whose units: "DuckDB's EXPLAIN"

  /// Connections end a statement that takes longer.
  static constexpr double kMost_s = 30.0;
  double SecondsOf(const QueryCost& cost) const;
};

/// Measured where Halo is made (docs/cost_model.md). What a machine's databases take is told by its
/// own runs: the quotient of both is their pace.
QueryRate DefaultQueryRate(SqlDialect dialect);

/// Under which OperatorHistory keeps the pace of a kind of database: `engine_s`, the seconds that
/// calls took, beside `profile_s`, what DefaultQueryRate says of them.
Signature QueryPaceSignature(SqlDialect dialect);
/// OperatorRecord::profile there: seconds beside those of another rate say nothing of this one.
std::string QueryRateName(SqlDialect dialect);

}  // namespace halo
