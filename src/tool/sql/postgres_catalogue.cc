#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "sql/sql_functions.h"
#include "tool/sql/postgres_backend.h"
#include "tool/sql/postgres_server.h"
#include "tool/sql/postgres_values.h"

namespace halo {
namespace {

/// Functions of a name that are the user's own or an extension's, and not immutable. `name` may
/// stand for several (overloads): one is enough.
///
/// STABLE promises one value within a statement and unchanged tables, which is just what sharing
/// within a run needs: what the function reads is no concern as long as nothing is written. But a
/// stable function may read tables that the statement does not name, so that a write to these would
/// go unnoticed, and it may call now(), which is stable as well. So it counts as volatile. SQL and
/// PL/pgSQL bodies could be looked into, those in C not.
constexpr const char* kFunctionsQuery =
    "SELECT 1 FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
    "WHERE p.proname = $1 AND ($2 = '' OR n.nspname = $2) AND "
    "n.nspname NOT IN ('pg_catalog', 'information_schema') AND p.provolatile <> 'i' LIMIT 1";

/// Views and foreign tables of a name, with their definitions. A name without a schema may be any
/// schema's: which one the search path finds is the session's business.
constexpr const char* kRelationsQuery =
    "SELECT c.relkind::text, CASE WHEN c.relkind = 'v' THEN pg_catalog.pg_get_viewdef(c.oid) END "
    "FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace "
    "WHERE c.relname = $1 AND ($2 = '' OR n.nspname = $2) AND "
    "(c.relkind IN ('v', 'f') OR c.relrowsecurity OR n.nspname = 'pg_catalog')";

/// What makes a write to one table change another, or what a view, a partition or a child shows.
constexpr const char* kSpreadQuery =
    "WITH mine AS (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname NOT IN ('pg_catalog', "
    "'information_schema') AND nspname NOT LIKE 'pg\\_%') "
    "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_class WHERE relnamespace IN (TABLE mine) AND "
    "relkind IN ('v', 'm', 'f', 'p')) OR "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_inherits) OR "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_trigger WHERE NOT tgisinternal) OR "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = "
    "r.ev_class WHERE c.relnamespace IN (TABLE mine) AND r.rulename <> '_RETURN') OR "
    "EXISTS (SELECT 1 FROM pg_catalog.pg_constraint WHERE contype = 'f' AND "
    "(confdeltype IN ('c', 'n', 'd') OR confupdtype IN ('c', 'n', 'd')))";

/// Looks names up, views through to what they are made of.
class CatalogueReader {
 public:
  explicit CatalogueReader(BlockingPostgres& server) : server_(server) {}

  bool IsVolatile(const SqlName& function) {
    return IsVolatileFunction(function.name) ||
           !server_.Rows(kFunctionsQuery, {function.name, function.schema}).empty();
  }

  /// Of a relation: what a statement that reads it would be.
  bool ReadsVolatile(const SqlName& relation) {
    const auto [known, is_new] = relations_.emplace(relation, false);
    if (!is_new) return known->second;  // false while it is being looked at
    bool is_volatile = false;
    for (const auto& row : server_.Rows(kRelationsQuery, {relation.name, relation.schema})) {
      // Not views: tables of other servers, of the server's own state, with rules on who sees what.
      is_volatile |= row[0] != "v" || !row[1] || DefinitionIsVolatile(*row[1]);
    }
    relations_[relation] = is_volatile;
    return is_volatile;
  }

 private:
  bool DefinitionIsVolatile(const std::string& definition) {
    std::string fault;
    const SqlStatement view = ReadSqlStatement(definition, SqlDialect::kPostgres, fault);
    if (!fault.empty() || view.is_volatile || view.writes) return true;
    return std::any_of(view.functions.begin(), view.functions.end(),
                       [&](const SqlName& each) { return IsVolatile(each); }) ||
           std::any_of(view.relations.begin(), view.relations.end(),
                       [&](const SqlName& each) { return ReadsVolatile(each); });
  }

  BlockingPostgres& server_;
  std::map<SqlName, bool> relations_;
};

}  // namespace

PostgresCatalogue AskPostgres(const PostgresConnection& connection,
                              const std::vector<SqlName>& functions,
                              const std::vector<SqlName>& relations) {
  BlockingPostgres server(connection);
  CatalogueReader reader(server);
  PostgresCatalogue catalogue;
  for (const SqlName& function : functions) {
    if (reader.IsVolatile(function)) catalogue.volatile_functions.push_back(function);
  }
  for (const SqlName& relation : relations) {
    if (reader.ReadsVolatile(relation)) catalogue.volatile_views.push_back(relation);
  }
  catalogue.writes_spread = server.Rows(kSpreadQuery, {}).at(0).at(0) == "t";
  return catalogue;
}

std::string CheckOnPostgres(const PostgresConnection& connection, const SqlStatement& statement,
                            const std::vector<SqlArgument>& types) {
  BlockingPostgres server(connection);
  std::vector<PostgresType> numbers;
  for (const SqlArgument& type : types) numbers.push_back(ParameterType(type));
  return server.Prepare(statement.text, numbers);
}

}  // namespace halo
