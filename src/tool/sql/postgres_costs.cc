#include "tool/sql/postgres_costs.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "sql/duck_database.h"
#include "tool/sql/postgres_server.h"
#include "tool/sql/postgres_session.h"
#include "tool/sql/postgres_values.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

using Settings = std::vector<std::pair<std::string, std::string>>;

/// Within a transaction. Nothing where the server refuses.
std::optional<double> UnitsUnder(BlockingPostgres& server, const QueryToCost& query,
                                 const Settings& settings) {
  for (const auto& [name, value] : settings) {
    const bool is_set =
        SettingFault(name, value).empty() &&
        server.RowsUnlessRefused(fmt::format("SET LOCAL {} = {}", name, QuoteSqlText(value)));
    if (!is_set) return std::nullopt;
  }
  // Values are not known yet, and any that are given here would be planned for.
  if (!server.RowsUnlessRefused("SET LOCAL plan_cache_mode = 'force_generic_plan'"))
    return std::nullopt;
  std::vector<PostgresType> types;
  for (const SqlArgument& type : query.types) types.push_back(ParameterType(type));
  if (!server.Prepare(query.statement->text, types, "halo_cost").empty()) return std::nullopt;
  std::string values;
  for (size_t i = 0; i < types.size(); ++i) values += i == 0 ? "(NULL" : ", NULL";
  if (!values.empty()) values += ")";
  const auto plan = server.RowsUnlessRefused("EXPLAIN (FORMAT JSON) EXECUTE halo_cost" + values);
  const bool is_one = plan && plan->size() == 1 && plan->front().size() == 1;
  if (!is_one || !plan->front().front()) return std::nullopt;
  return UnitsOfPostgresPlan(*plan->front().front());
}

/// [plans]; empty if one of them is not known. Each in a transaction that leaves nothing behind.
/// The session's statement limit holds; a lock on a table, which planning needs too, is not waited
/// for as long.
std::vector<double> UnitsOf(BlockingPostgres& server, const QueryToCost& query) {
  std::vector<Settings> plans = query.plans;
  if (plans.empty()) plans.emplace_back();
  std::vector<double> units;
  for (const Settings& settings : plans) {
    server.Rows("BEGIN READ ONLY", {});
    server.Rows("SET LOCAL lock_timeout = '1s'", {});
    const std::optional<double> known = UnitsUnder(server, query, settings);
    server.Rows("ROLLBACK", {});
    server.Rows("DEALLOCATE ALL", {});
    if (!known) return {};
    units.push_back(*known);
  }
  return units;
}

}  // namespace

std::optional<double> UnitsOfPostgresPlan(const std::string& json) {
  constexpr double kForbiddenStep = 1e10;
  const Json plans = Json::parse(json, nullptr, false);
  if (!plans.is_array() || plans.empty() || !plans[0].is_object()) return std::nullopt;
  const auto plan = plans[0].find("Plan");
  if (plan == plans[0].end() || !plan->is_object()) return std::nullopt;
  const auto cost = plan->find("Total Cost");
  if (cost == plan->end() || !cost->is_number()) return std::nullopt;
  return std::fmod(cost->get<double>(), kForbiddenStep);
}

QueryCosts AskPostgresCosts(const PostgresConnection& connection,
                            const std::vector<QueryToCost>& queries) {
  QueryCosts costs;
  costs.units.resize(queries.size());
  if (queries.empty()) return costs;
  try {
    BlockingPostgres server(connection);
    for (size_t i = 0; i < queries.size(); ++i) {
      const SqlStatement& statement = *queries[i].statement;
      if (!statement.writes && !statement.is_volatile) costs.units[i] = UnitsOf(server, queries[i]);
    }
  } catch (const Error& error) {
    costs.why_not = error.what();
  }
  return costs;
}

}  // namespace halo
