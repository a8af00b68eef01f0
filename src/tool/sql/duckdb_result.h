#pragma once

#include <duckdb.h>

#include <nlohmann/json.hpp>

#include "tool/tool.h"

namespace halo {

/// Executes a statement whose values are bound: {"rows": [{column: value}], "rowcount": n}, within
/// the call's limits of rows and bytes. Throws Failure.
nlohmann::ordered_json ExecuteDuckDb(duckdb_prepared_statement statement, const SqlCall& call);

}  // namespace halo
