#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "sql/duck_database.h"
#include "tool/sql/duckdb_backend.h"
#include "tool/sql/duckdb_catalogue.h"
#include "tool/sql/duckdb_statement_rules.h"
#include "tool/sql/query_costs.h"

namespace halo {

/// What DuckDB expects queries to cost; executes none of them. What writes, what calls volatile
/// functions and what the rules refuse is not asked about. `connection` is one of the database's,
/// with its files as views; the database is confined, and not locked yet.
///
/// DuckDB plans a statement anew with the values that are bound to it, and a filter for which a
/// table's least and greatest values leave nothing is planned as an empty result. The run's values
/// are not known yet, and no made-up one is harmless then (not only NULL): so that rule of DuckDB's
/// optimizer is off meanwhile.
QueryCosts DuckDbCosts(DuckDatabase& database, duckdb_connection connection,
                       const DuckDbStatementRules& rules, const DuckDbCatalogue& catalogue,
                       const std::vector<QueryToCost>& queries);

/// The same of a database that is not open: its file is opened to read, whatever a run does with
/// it, and is not made.
QueryCosts AskDuckDbCosts(const DuckDbConnection& connection,
                          const std::vector<QueryToCost>& queries);

/// Rows that the operators of a plan (EXPLAIN (FORMAT json)) hand on, added up: the cost function
/// C_out of Cluet and Moerkotte, "On the complexity of generating optimal left-deep processing
/// trees with cross products" (ICDT 1995), with scans, which count all rows of what they read. Leis
/// et al., "How good are query optimizers, really?" (PVLDB 9, 2015) find that such a sum of tuples
/// foretells running times no worse than costs of many parameters do. `table_rows`: table name ->
/// its rows. Nothing if the text is no plan, or one whose result is known to be empty.
std::optional<double> UnitsOfDuckDbPlan(const std::string& json,
                                        const std::map<std::string, double>& table_rows);

}  // namespace halo
