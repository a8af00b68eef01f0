#include "tool/sql/duckdb_statement_rules.h"

#include "base/text.h"
#include "sql/sql_lexer.h"

namespace halo {
namespace {

/// Functions that make rows from their arguments alone: others that stand for tables read or write
/// something, or run text as a statement.
constexpr std::string_view kTableMakers[] = {"range",      "generate_series", "unnest",   "repeat",
                                             "repeat_row", "json_each",       "json_tree"};

}  // namespace

DuckDbStatementRules::DuckDbStatementRules(DuckDatabase& database) {
  const std::vector<std::string> names = database.Texts(
      "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE function_type IN "
      "('table', 'table_macro') AND $1 = ''",
      "");
  table_functions_.insert(names.begin(), names.end());
  for (const std::string_view name : kTableMakers) table_functions_.erase(std::string(name));
  FindRefusedViews(ReadDuckDbDefinitions(database));
}

std::string DuckDbStatementRules::WhyRefused(const std::string& text) const {
  std::string unreadable;  // DuckDB says better what is wrong with it
  const std::vector<SqlToken> tokens = ReadSqlTokens(text, SqlDialect::kDuckDb, unreadable);
  if (!tokens.empty() && tokens[0].IsWord("pragma"))
    return "PRAGMA is not allowed: select from the tables of information_schema instead";
  const bool executes =
      tokens.size() > 1 && tokens[0].IsWord("explain") &&
      (tokens[1].IsWord("analyze") || tokens[1].IsWord("analyse") || tokens[1].IsOperator("("));
  if (executes) return "EXPLAIN ANALYZE is not allowed: it executes what it explains";
  for (const SqlToken& token : tokens) {
    if (token.IsName() && refused_.contains({"", LowerCaseAscii(token.value)}))
      return "'" + token.value +
             "' may not be used: what it is defined by reads, writes or runs something else";
  }
  for (size_t i = 0; i + 1 < tokens.size(); ++i) {
    if (!tokens[i].IsName() || !tokens[i + 1].IsOperator("(")) continue;
    if (!table_functions_.contains(LowerCaseAscii(tokens[i].value))) continue;
    return "the function " + tokens[i].value +
           "() may not be used: it reads, writes or runs something; declare files under the "
           "connection's `files`";
  }
  return "";
}

void DuckDbStatementRules::FindRefusedViews(const std::vector<DuckDbDefinition>& definitions) {
  std::set<SqlName> functions;
  for (const std::string& name : table_functions_) functions.insert({"", name});
  for (const DuckDbDefinition& each : definitions) {
    if (!each.is_view) functions.erase(each.name);  // a macro is judged by what it says
  }
  for (bool found = true; found;) {
    found = false;
    for (const DuckDbDefinition& each : definitions) {
      const bool refused = !each.is_readable || HasName(each.statement.functions, functions) ||
                           HasName(each.statement.functions, refused_) ||
                           HasName(each.statement.relations, refused_);
      if (refused && refused_.insert(each.name).second) found = true;
    }
  }
}

bool MayRun(duckdb_statement_type type, bool writes) {
  if (type == DUCKDB_STATEMENT_TYPE_SELECT || type == DUCKDB_STATEMENT_TYPE_EXPLAIN) return true;
  return writes && (type == DUCKDB_STATEMENT_TYPE_INSERT || type == DUCKDB_STATEMENT_TYPE_UPDATE ||
                    type == DUCKDB_STATEMENT_TYPE_DELETE || type == DUCKDB_STATEMENT_TYPE_CREATE ||
                    type == DUCKDB_STATEMENT_TYPE_ALTER || type == DUCKDB_STATEMENT_TYPE_DROP);
}

std::string WhyItMayNot(bool writes) {
  return writes
             ? "this kind of statement is not allowed: a write may INSERT, UPDATE, DELETE, CREATE, "
               "ALTER or DROP"
             : "the statement does not only read: declare effect: write, if it is to write";
}

bool BeginsLikeAQuery(std::string_view normalized) {
  const size_t begin = normalized.find_first_not_of("( ");
  if (begin == std::string_view::npos) return false;
  std::string word;
  for (const char c : normalized.substr(begin)) {
    if ((c < 'a' || c > 'z') && (c < 'A' || c > 'Z')) break;
    word += static_cast<char>(c >= 'a' ? c - 'a' + 'A' : c);
  }
  static const std::set<std::string> kWords = {
      "SELECT",   "WITH",      "FROM",  "VALUES",  "TABLE",   "EXPLAIN", "SHOW",
      "DESCRIBE", "SUMMARIZE", "PIVOT", "UNPIVOT", "INSERT",  "UPDATE",  "DELETE",
      "MERGE",    "CREATE",    "ALTER", "DROP",    "TRUNCATE"};
  return kWords.contains(word);
}

}  // namespace halo
