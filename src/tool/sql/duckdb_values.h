#pragma once

#include <duckdb.h>

#include <string>

#include "sql/duck_database.h"
#include "tool/tool.h"

namespace halo {

using DuckValue = DuckHandle<duckdb_value, duckdb_destroy_value>;

/// The value that stands for a parameter, typed as the argument says. Null with a `fault` that says
/// what was expected where the argument does not read as its type.
duckdb_value MakeDuckValue(const SqlArgument& argument, std::string& fault);

}  // namespace halo
