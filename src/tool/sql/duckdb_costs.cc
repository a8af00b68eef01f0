#include "tool/sql/duckdb_costs.h"

#include <algorithm>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "tool/sql/duckdb_failure.h"
#include "tool/sql/duckdb_values.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Made-up values: each greater than the one before, or less, so that one of both leaves room
/// between the bounds of a range. What is without a type is a text or a number.
struct Sample {
  bool rises;
  SqlParameterType untyped;
};
constexpr Sample kSamples[] = {{true, SqlParameterType::kText},
                               {true, SqlParameterType::kInteger},
                               {false, SqlParameterType::kText},
                               {false, SqlParameterType::kInteger}};

Json SampleValue(SqlParameterType type, int number) {
  const std::string digits = std::to_string(number);
  switch (type) {
    case SqlParameterType::kInteger:
      return number;
    case SqlParameterType::kDouble:
      return static_cast<double>(number);
    case SqlParameterType::kBoolean:
      return true;
    case SqlParameterType::kDecimal:
      return digits;
    case SqlParameterType::kDate:
      return "20" + digits + "-01-01";
    case SqlParameterType::kTime:
      return "12:" + digits + ":00";
    case SqlParameterType::kTimestamp:
      return "20" + digits + "-01-01T00:00:00";
    case SqlParameterType::kUuid:
      return "000000" + digits + "-0000-0000-0000-000000000000";
    case SqlParameterType::kJson:
      return digits;
    case SqlParameterType::kAny:
    case SqlParameterType::kText:
      break;
  }
  return "x" + digits;
}

/// What DuckDB takes a parameter for, where it says so.
SqlParameterType ExpectedType(duckdb_type type, SqlParameterType otherwise) {
  switch (type) {
    case DUCKDB_TYPE_VARCHAR:
      return SqlParameterType::kText;
    case DUCKDB_TYPE_BOOLEAN:
      return SqlParameterType::kBoolean;
    case DUCKDB_TYPE_FLOAT:
    case DUCKDB_TYPE_DOUBLE:
    case DUCKDB_TYPE_DECIMAL:
      return SqlParameterType::kDouble;
    case DUCKDB_TYPE_TINYINT:
    case DUCKDB_TYPE_SMALLINT:
    case DUCKDB_TYPE_INTEGER:
    case DUCKDB_TYPE_BIGINT:
    case DUCKDB_TYPE_HUGEINT:
    case DUCKDB_TYPE_UTINYINT:
    case DUCKDB_TYPE_USMALLINT:
    case DUCKDB_TYPE_UINTEGER:
    case DUCKDB_TYPE_UBIGINT:
      return SqlParameterType::kInteger;
    case DUCKDB_TYPE_DATE:
      return SqlParameterType::kDate;
    case DUCKDB_TYPE_TIME:
      return SqlParameterType::kTime;
    case DUCKDB_TYPE_TIMESTAMP:
    case DUCKDB_TYPE_TIMESTAMP_TZ:
      return SqlParameterType::kTimestamp;
    case DUCKDB_TYPE_UUID:
      return SqlParameterType::kUuid;
    default:
      return otherwise;
  }
}

/// False if a value does not fit.
bool BindSamples(duckdb_prepared_statement statement, const std::vector<SqlArgument>& types,
                 const Sample& sample) {
  constexpr int kFirst = 40;  // of two digits, as are those on both sides
  for (size_t i = 0; i < types.size(); ++i) {
    const int step = static_cast<int>(i % 20);
    SqlArgument argument = types[i];
    if (argument.type == SqlParameterType::kAny)
      argument.type = ExpectedType(duckdb_param_type(statement, i + 1), sample.untyped);
    argument.value = SampleValue(argument.type, sample.rises ? kFirst + step : kFirst - step);
    if (argument.is_list) argument.value = Json::array({argument.value});
    std::string fault;
    const DuckValue value(MakeDuckValue(argument, fault));
    if (!fault.empty() || duckdb_bind_value(statement, i + 1, value.get()) != DuckDBSuccess)
      return false;
  }
  return true;
}

/// The plan that EXPLAIN gives: its one row's second column. "" without one.
std::string PlanText(duckdb_prepared_statement explain) {
  DuckResult result;
  if (duckdb_execute_prepared(explain, result.out()) != DuckDBSuccess) return "";
  const DuckChunk chunk(duckdb_fetch_chunk(*result.out()));
  const bool is_plan = chunk.get() != nullptr && duckdb_data_chunk_get_size(chunk.get()) == 1 &&
                       duckdb_data_chunk_get_column_count(chunk.get()) == 2;
  if (!is_plan) return "";
  auto* values = static_cast<duckdb_string_t*>(
      duckdb_vector_get_data(duckdb_data_chunk_get_vector(chunk.get(), 1)));
  return {duckdb_string_t_data(values), duckdb_string_t_length(*values)};
}

bool IsSelect(duckdb_connection connection, const std::string& text) {
  DuckStatement prepared;
  return duckdb_prepare(connection, text.c_str(), prepared.out()) == DuckDBSuccess &&
         duckdb_prepared_statement_type(prepared.get()) == DUCKDB_STATEMENT_TYPE_SELECT;
}

std::map<std::string, double> TableRows(DuckDatabase& database) {
  const std::string tables =
      " FROM (SELECT table_name, max(estimated_size) AS size FROM duckdb_tables() WHERE $1 = '' "
      "GROUP BY table_name) ORDER BY table_name";
  const std::vector<std::string> names = database.Texts("SELECT table_name" + tables, "");
  const std::vector<std::string> sizes = database.Texts("SELECT size::VARCHAR" + tables, "");
  std::map<std::string, double> rows;
  for (size_t i = 0; i < std::min(names.size(), sizes.size()); ++i)
    rows[names[i]] = std::stod(sizes[i]);
  return rows;
}

std::optional<double> UnitsOf(duckdb_connection connection, const QueryToCost& query,
                              const std::map<std::string, double>& table_rows) {
  const std::string text = "EXPLAIN (FORMAT json) " + query.statement->text;
  DuckStatement explain;
  if (duckdb_prepare(connection, text.c_str(), explain.out()) != DuckDBSuccess ||
      duckdb_nparams(explain.get()) != query.types.size())
    return std::nullopt;
  for (const Sample& sample : kSamples) {
    if (!BindSamples(explain.get(), query.types, sample)) continue;
    if (auto units = UnitsOfDuckDbPlan(PlanText(explain.get()), table_rows)) return units;
    if (query.types.empty()) break;
  }
  return std::nullopt;
}

double NumberOf(const Json& info, const char* key) {
  const auto found = info.find(key);
  if (found == info.end() || !found->is_string()) return 0.0;
  const auto& text = found->get_ref<const std::string&>();
  double number = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

std::string TextOf(const Json& info, const char* key) {
  const auto found = info.find(key);
  return found == info.end() || !found->is_string() ? "" : found->get<std::string>();
}

/// Rows that an operator hands on; of a scan, that it reads: a filter within it looks at each.
double RowsOf(const Json& info, const std::map<std::string, double>& table_rows) {
  /// The share that DuckDB takes a filter of which it knows nothing to keep.
  constexpr double kFilteredShare = 0.2;
  const double rows = NumberOf(info, "Estimated Cardinality");
  if (!info.contains("Filters")) return rows;
  if (TextOf(info, "Type").find("Index") != std::string::npos) return rows;
  const auto table = table_rows.find(TextOf(info, "Table"));
  if (table != table_rows.end()) return std::max(rows, table->second);
  return info.contains("Function") ? rows / kFilteredShare : rows;
}

}  // namespace

std::optional<double> UnitsOfDuckDbPlan(const std::string& json,
                                        const std::map<std::string, double>& table_rows) {
  const Json plan = Json::parse(json, nullptr, false);
  if (!plan.is_array() || plan.empty()) return std::nullopt;
  double units = 0.0;
  std::vector<const Json*> left = {&plan};
  while (!left.empty()) {
    const Json& nodes = *left.back();
    left.pop_back();
    for (const Json& node : nodes) {
      if (!node.is_object() || !node.contains("name")) return std::nullopt;
      if (TextOf(node, "name").starts_with("EMPTY_RESULT")) return std::nullopt;
      if (const auto info = node.find("extra_info"); info != node.end() && info->is_object())
        units += RowsOf(*info, table_rows);
      if (const auto children = node.find("children");
          children != node.end() && children->is_array())
        left.push_back(&*children);
    }
  }
  return units;
}

QueryCosts DuckDbCosts(DuckDatabase& database, duckdb_connection connection,
                       const DuckDbStatementRules& rules, const DuckDbCatalogue& catalogue,
                       const std::vector<QueryToCost>& queries) {
  QueryCosts costs;
  costs.units.resize(queries.size());
  if (queries.empty()) return costs;
  try {
    const std::map<std::string, double> table_rows = TableRows(database);
    database.Execute("SET disabled_optimizers = 'statistics_propagation'");
    for (size_t i = 0; i < queries.size(); ++i) {
      const SqlStatement& statement = *queries[i].statement;
      const bool may_ask =
          !statement.writes && !statement.is_volatile && BeginsLikeAQuery(statement.normalized) &&
          !HasName(statement.functions, catalogue.volatile_functions) &&
          !HasName(statement.relations, catalogue.volatile_relations) &&
          rules.WhyRefused(statement.text).empty() && IsSelect(connection, statement.text);
      if (!may_ask) continue;
      if (const auto units = UnitsOf(connection, queries[i], table_rows)) costs.units[i] = {*units};
    }
    database.Execute("RESET disabled_optimizers");
  } catch (const Error& error) {
    costs.why_not = DuckMessage(error.what());
  }
  return costs;
}

QueryCosts AskDuckDbCosts(const DuckDbConnection& connection,
                          const std::vector<QueryToCost>& queries) {
  QueryCosts costs;
  costs.units.resize(queries.size());
  if (queries.empty()) return costs;
  const bool is_file = !connection.path.empty();
  std::error_code ignored;
  if (is_file && !std::filesystem::is_regular_file(connection.path, ignored)) {
    costs.why_not = "connection '" + connection.name + "': there is no file " + connection.path;
    return costs;
  }
  try {
    DuckDatabase database({}, {connection.path, is_file});
    const DuckDbStatementRules rules(database);
    MakeDuckDbFileViews(database.connection(), connection.files);
    const DuckDbCatalogue catalogue = ReadDuckDbCatalogue(database);
    std::vector<std::string> files;
    for (const auto& [table, file] : connection.files) files.push_back(file);
    database.Confine(files);
    costs = DuckDbCosts(database, database.connection(), rules, catalogue, queries);
  } catch (const Error& error) {
    costs.why_not = DuckMessage(error.what());
  }
  if (!costs.why_not.empty())
    costs.why_not = "connection '" + connection.name + "': " + costs.why_not;
  return costs;
}

}  // namespace halo
