#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "sql/duck_database.h"
#include "sql/statement.h"

namespace halo {

/// Lets a connection read files as tables: name -> file. Before DuckDatabase::Lock. Throws
/// Error(kIo).
void MakeDuckDbFileViews(duckdb_connection connection,
                         const std::vector<std::pair<std::string, std::string>>& files);

/// What DuckDB's catalogue says about names, for statements whose text alone does not tell. Names
/// are in lower case, without a schema.
struct DuckDbCatalogue {
  /// Macros and views of the user's own among them, those that use volatile ones included.
  std::set<SqlName> volatile_functions, volatile_relations;
  /// There are views, or macros that read tables: a write to a table changes what they show.
  bool writes_spread = false;
};

/// Asks a database. Throws Error(kIo).
DuckDbCatalogue ReadDuckDbCatalogue(DuckDatabase& database);

/// A view or a macro of the user's own: what it says when it is used.
struct DuckDbDefinition {
  SqlName name;
  bool is_view = false;
  SqlStatement statement;
  bool is_readable = true;
};

/// Those of a database. Throws Error(kIo).
std::vector<DuckDbDefinition> ReadDuckDbDefinitions(DuckDatabase& database);

/// True if one of `names` is in `known`, whatever its schema.
bool HasName(const std::vector<SqlName>& names, const std::set<SqlName>& known);

}  // namespace halo
