#pragma once

#include <string>
#include <utility>
#include <vector>

#include "sql/statement.h"
#include "tool/tool.h"

namespace halo {

/// A read whose cost a database is asked for, before a run.
struct QueryToCost {
  const SqlStatement* statement = nullptr;  ///< outlives the question
  std::vector<SqlArgument> types;           ///< [parameters] without values
  /// Settings of the server under each of which it may run; none: as the server is.
  std::vector<std::vector<std::pair<std::string, std::string>>> plans;
};

/// What a database's EXPLAIN says of queries. A unit is the database's own; seconds are for the
/// optimizer to make of it (optimizer/query_cost.h).
struct QueryCosts {
  /// [queries][plans, one where the query has none]; empty: nothing is known of the query.
  std::vector<std::vector<double>> units;
  std::string why_not;  ///< the database could not be asked at all; else ""
};

}  // namespace halo
