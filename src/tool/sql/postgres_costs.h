#pragma once

#include <optional>
#include <string>
#include <vector>

#include "tool/sql/postgres_backend.h"
#include "tool/sql/query_costs.h"

namespace halo {

/// What a server's planner expects queries to cost under each of their plans, executing none of
/// them: EXPLAIN of the plan that serves all values alike, in a transaction that is READ ONLY and
/// rolled back. Queries are reads that call no volatile function: what writes or is volatile by its
/// words is not asked about, what only the catalogue knows (AskPostgres) is for the caller to leave
/// out. All plans of a query are known or none is.
QueryCosts AskPostgresCosts(const PostgresConnection& connection,
                            const std::vector<QueryToCost>& queries);

/// The cost in the answer of EXPLAIN (FORMAT JSON), in units of the server's planner (one is a page
/// read in sequence). What the server adds to a step that a setting forbids (10^10 up to version
/// 17) is left out: where there is no other way the step costs what it costs. Nothing if the text
/// is no plan.
std::optional<double> UnitsOfPostgresPlan(const std::string& json);

}  // namespace halo
