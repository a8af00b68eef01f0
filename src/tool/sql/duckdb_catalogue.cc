#include "tool/sql/duckdb_catalogue.h"

#include <algorithm>
#include <utility>

#include "base/text.h"
#include "sql/sql_lexer.h"

namespace halo {
namespace {

/// What stands behind the AS of a CREATE VIEW; "" if there is none.
std::string BodyOfView(const std::string& text) {
  std::string fault;
  int depth = 0;
  for (const SqlToken& token : ReadSqlTokens(text, SqlDialect::kDuckDb, fault)) {
    depth += token.IsOperator("(") ? 1 : token.IsOperator(")") ? -1 : 0;
    if (depth == 0 && token.IsWord("as"))
      return text.substr(static_cast<size_t>(token.source.data() - text.data()) + 2);
  }
  return "";
}

std::string QuoteName(const std::string& name) {
  std::string quoted = "\"";
  for (const char c : name) {
    if (c == '"') quoted += '"';
    quoted += c;
  }
  return quoted + "\"";
}

}  // namespace

void MakeDuckDbFileViews(duckdb_connection connection,
                         const std::vector<std::pair<std::string, std::string>>& files) {
  for (const auto& [table, file] : files) {
    DuckDatabase::Execute(connection, "CREATE TEMP VIEW " + QuoteName(table) +
                                          " AS SELECT * FROM " + QuoteSqlText(file));
  }
}

std::vector<DuckDbDefinition> ReadDuckDbDefinitions(DuckDatabase& database) {
  std::vector<DuckDbDefinition> definitions;
  const auto add = [&](const std::string& name, bool is_view, const std::string& body) {
    DuckDbDefinition definition{{"", LowerCaseAscii(name)}, is_view, {}, true};
    std::string fault;
    definition.statement = ReadSqlStatement(body, SqlDialect::kDuckDb, fault);
    definition.is_readable = fault.empty();
    definitions.push_back(std::move(definition));
  };
  for (const std::string& view : database.Texts(
           "SELECT DISTINCT view_name FROM duckdb_views() WHERE NOT internal AND NOT temporary AND "
           "$1 = ''",
           "")) {
    for (const std::string& text : database.Texts(
             "SELECT sql FROM duckdb_views() WHERE NOT internal AND view_name = $1", view))
      add(view, true, BodyOfView(text));
  }
  for (const std::string& macro : database.Texts(
           "SELECT DISTINCT function_name FROM duckdb_functions() WHERE NOT internal AND "
           "function_type IN ('macro', 'table_macro') AND $1 = ''",
           "")) {
    for (const std::string& text : database.Texts(
             "SELECT macro_definition FROM duckdb_functions() WHERE NOT internal AND function_type "
             "IN ('macro', 'table_macro') AND function_name = $1",
             macro))
      add(macro, false, "SELECT " + text);
  }
  return definitions;
}

bool HasName(const std::vector<SqlName>& names, const std::set<SqlName>& known) {
  return std::any_of(names.begin(), names.end(), [&](const SqlName& name) {
    return known.contains({"", name.name});
  });
}

DuckDbCatalogue ReadDuckDbCatalogue(DuckDatabase& database) {
  DuckDbCatalogue catalogue;
  // A name that is volatile in one of its forms is volatile.
  for (const std::string& name : database.Texts(
           "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability IN "
           "('VOLATILE', 'CONSISTENT_WITHIN_QUERY') AND $1 = ''",
           "")) {
    catalogue.volatile_functions.insert({"", name});
  }
  const std::vector<DuckDbDefinition> definitions = ReadDuckDbDefinitions(database);
  // They use each other, so what is volatile is found in rounds.
  for (bool found = true; found;) {
    found = false;
    for (const DuckDbDefinition& each : definitions) {
      std::set<SqlName>& changing =
          each.is_view ? catalogue.volatile_relations : catalogue.volatile_functions;
      if (changing.contains(each.name)) continue;
      const bool changes = !each.is_readable || each.statement.is_volatile ||
                           HasName(each.statement.functions, catalogue.volatile_functions) ||
                           HasName(each.statement.relations, catalogue.volatile_relations);
      if (!changes) continue;
      changing.insert(each.name);
      found = true;
    }
  }
  catalogue.writes_spread =
      std::any_of(definitions.begin(), definitions.end(), [](const DuckDbDefinition& each) {
        return each.is_view || !each.is_readable || !each.statement.relations.empty();
      });
  return catalogue;
}

}  // namespace halo
