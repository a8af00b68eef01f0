// AskDuckDbCosts on databases of the test's own, and its reading of plans.

#include "tool/sql/duckdb_costs.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "tool/duckdb_rig.h"

namespace halo::test {
namespace {

using testing::DoubleEq;
using testing::HasSubstr;
using testing::IsEmpty;

/// Asks a database; questions are texts with `:name` parameters that have no type of their own.
class CostsOf {
 public:
  explicit CostsOf(DuckDbConnection connection) : connection_(std::move(connection)) {}

  /// Units of one statement; -1 if nothing is known of it.
  double Of(const std::string& text, std::vector<SqlArgument> types = {}) {
    std::string fault;
    const SqlStatement statement = ReadSqlStatement(text, SqlDialect::kDuckDb, fault);
    EXPECT_EQ(fault, "") << text;
    types.resize(statement.parameters.size());
    const QueryCosts costs = AskDuckDbCosts(connection_, {{&statement, types, {}}});
    EXPECT_EQ(costs.why_not, "");
    EXPECT_EQ(costs.units.size(), 1U);
    return costs.units[0].empty() ? -1.0 : costs.units[0].at(0);
  }

 private:
  DuckDbConnection connection_;
};

DuckDbConnection FileConnection(const std::string& path) {
  DuckDbConnection connection;
  connection.name = "db";
  connection.path = path;
  return connection;
}

std::string MakeTables(const std::string& folder) {
  return MakeDatabase(
      folder,
      "CREATE TABLE small AS SELECT range AS id, 'name' || range AS name FROM range(1000, 2000);"
      "CREATE TABLE large AS SELECT range AS id, 'name' || range AS name, DATE '1900-01-01' + "
      "CAST(range % 100 AS INTEGER) AS day FROM range(1000, 101000);"
      "CREATE SEQUENCE counter; CREATE MACRO next_one() AS nextval('counter');"
      "CREATE VIEW drawn AS SELECT random() AS r; CREATE VIEW calm AS SELECT * FROM small");
}

TEST(DuckDbCostsTest, LargerTablesAndMoreWorkCostMore) {
  CostsOf costs(FileConnection(MakeTables(FreshFolder("duckdb_costs"))));
  const double small = costs.Of("SELECT * FROM small");
  const double large = costs.Of("SELECT * FROM large");
  EXPECT_GE(small, 1000.0);
  EXPECT_LT(small, 10'000.0);
  EXPECT_GE(large, 100'000.0);
  const double joined = costs.Of("SELECT * FROM large JOIN small USING (id)");
  EXPECT_GT(joined, small + large);
  EXPECT_GT(costs.Of("SELECT name, count(*) FROM large GROUP BY name"), large);
  EXPECT_NEAR(costs.Of("SELECT * FROM calm"), small, small);
}

TEST(DuckDbCostsTest, FiltersOfWhateverValueLookAtTheWholeTable) {
  CostsOf costs(FileConnection(MakeTables(FreshFolder("duckdb_costs_filters"))));
  // No value that could be made up is in the tables: DuckDB alone would plan an empty result.
  for (const char* text :
       {"SELECT * FROM large WHERE id = :a", "SELECT * FROM large WHERE name = :a",
        "SELECT * FROM large WHERE day = :a", "SELECT * FROM large WHERE id >= :a AND id < :b",
        "SELECT * FROM large WHERE day < :b AND day >= :a",
        "SELECT * FROM large WHERE name ILIKE '%' || :a || '%' LIMIT :n",
        "SELECT * FROM large WHERE id % :n = 0"}) {
    const double units = costs.Of(text);
    EXPECT_GE(units, 100'000.0) << text;
    EXPECT_LT(units, 1'000'000.0) << text;
  }
  const std::vector<SqlArgument> types = {{SqlParameterType::kInteger, true, nullptr}};
  EXPECT_GE(costs.Of("SELECT * FROM large WHERE list_contains(:a, id)", types), 100'000.0);
}

TEST(DuckDbCostsTest, EveryTypeHasAValue) {
  CostsOf costs(FileConnection(MakeTables(FreshFolder("duckdb_costs_types"))));
  for (const SqlParameterType type :
       {SqlParameterType::kAny, SqlParameterType::kText, SqlParameterType::kInteger,
        SqlParameterType::kDouble, SqlParameterType::kBoolean, SqlParameterType::kDecimal,
        SqlParameterType::kDate, SqlParameterType::kTime, SqlParameterType::kTimestamp,
        SqlParameterType::kUuid, SqlParameterType::kJson}) {
    for (const bool is_list : {false, true}) {
      EXPECT_GE(costs.Of("SELECT :a AS a, id FROM large", {{type, is_list, nullptr}}), 100'000.0)
          << static_cast<int>(type) << is_list;
    }
  }
}

TEST(DuckDbCostsTest, WhatWritesOrIsVolatileIsNotAskedAbout) {
  const std::string path = MakeTables(FreshFolder("duckdb_costs_refused"));
  CostsOf costs(FileConnection(path));
  for (const char* text :
       {"DELETE FROM small", "INSERT INTO small VALUES (1, 'x')", "SELECT nextval('counter')",
        "SELECT next_one(), id FROM small", "SELECT random() FROM small", "SELECT * FROM drawn",
        "SELECT now(), id FROM small", "CREATE TABLE made AS SELECT 1 AS a", "EXPLAIN SELECT 1",
        "SELECT * FROM read_text('/etc/passwd')", "SELECT * FROM not_there", "PRAGMA version",
        "SELECT * FROM small WHERE false"}) {
    EXPECT_EQ(costs.Of(text), -1.0) << text;
  }
  DuckDatabase database({}, {path, false});
  EXPECT_THAT(database.Texts("SELECT nextval('counter')::VARCHAR WHERE $1 = ''", ""),
              testing::ElementsAre("1"));
  EXPECT_THAT(database.Texts("SELECT count(*)::VARCHAR FROM small WHERE $1 = ''", ""),
              testing::ElementsAre("1000"));
}

TEST(DuckDbCostsTest, NothingIsWritten) {
  const std::string folder = FreshFolder("duckdb_costs_nothing");
  const std::string path = MakeTables(folder);
  const std::string before = ReadFile(path);
  CostsOf(FileConnection(path)).Of("SELECT * FROM large JOIN small USING (id) ORDER BY 2");
  EXPECT_EQ(ReadFile(path), before);

  // A file that the run itself would make is not made by a question.
  DuckDbConnection later = FileConnection(folder + "/later.duckdb");
  later.may_write = true;
  std::string fault;
  const SqlStatement statement = ReadSqlStatement("SELECT 1", SqlDialect::kDuckDb, fault);
  const QueryCosts costs = AskDuckDbCosts(later, {{&statement, {}, {}}});
  EXPECT_THAT(costs.why_not, HasSubstr("connection 'db': there is no file"));
  ASSERT_EQ(costs.units.size(), 1U);
  EXPECT_THAT(costs.units[0], IsEmpty());
  EXPECT_FALSE(std::filesystem::exists(later.path));
}

TEST(DuckDbCostsTest, ABackendAsksWhileItOpens) {
  DuckDbConnection connection = FileConnection(MakeTables(FreshFolder("duckdb_costs_backend")));
  const auto read = [](const char* text) {
    std::string fault;
    return ReadSqlStatement(text, SqlDialect::kDuckDb, fault);
  };
  const SqlStatement filtered = read("SELECT * FROM large WHERE id = :id");
  const SqlStatement writing = read("DELETE FROM small");
  connection.queries = {{&filtered, {{}}, {}}, {&writing, {}, {}}};
  connection.may_write = true;
  const std::string path = connection.path;
  Duck duck({connection});
  const QueryCosts& costs = duck.backend->Costs("db");
  EXPECT_EQ(costs.why_not, "");
  ASSERT_EQ(costs.units.size(), 2U);
  ASSERT_EQ(costs.units[0].size(), 1U);
  EXPECT_EQ(costs.units[0][0],
            CostsOf(FileConnection(path)).Of("SELECT * FROM large WHERE id = :id"));
  EXPECT_THAT(costs.units[1], IsEmpty());
  EXPECT_EQ(duck.One("SELECT count(*) FROM small"), 1000);
  // The run's own statements are planned with all that DuckDB knows, and nothing can be changed.
  EXPECT_THAT(duck.Ask("EXPLAIN SELECT * FROM large WHERE id = 1").value.dump(),
              HasSubstr("EMPTY_RESULT"));
  EXPECT_TRUE(duck.Change("SET disabled_optimizers = 'expression_rewriter'").failure);
}

TEST(DuckDbCostsTest, ADatabaseThatCannotBeReadSaysWhy) {
  const std::string path = FreshFolder("duckdb_costs_broken") + "/broken.duckdb";
  WriteFile(path, std::string(10'000, 'x'));
  std::string fault;
  const SqlStatement statement = ReadSqlStatement("SELECT 1", SqlDialect::kDuckDb, fault);
  const QueryCosts costs = AskDuckDbCosts(FileConnection(path), {{&statement, {}, {}}});
  EXPECT_THAT(costs.why_not, HasSubstr("connection 'db': "));
  EXPECT_THAT(costs.units[0], IsEmpty());
}

TEST(DuckDbCostsTest, DeclaredFilesAreTables) {
  const std::string folder = FreshFolder("duckdb_costs_files");
  DuckDatabase writer({}, {});
  writer.Execute("COPY (SELECT range AS id FROM range(5000)) TO " +
                 QuoteSqlText(folder + "/a.parquet"));
  DuckDbConnection connection;
  connection.name = "db";
  connection.files = {{"a", folder + "/a.parquet"}};
  CostsOf costs(connection);
  EXPECT_GE(costs.Of("SELECT * FROM a"), 5000.0);
  EXPECT_GE(costs.Of("SELECT * FROM a WHERE id = :id"), 5000.0);
}

TEST(DuckDbCostsTest, PlansAreRead) {
  const std::string plan = R"([{"name": "HASH_JOIN", "extra_info": {"Estimated Cardinality": "7"},
    "children": [
      {"name": "SEQ_SCAN ", "children": [], "extra_info":
        {"Table": "t", "Filters": "a=1", "Estimated Cardinality": "20"}},
      {"name": "ORDER_BY", "extra_info": {}, "children": [
        {"name": "READ_CSV", "children": [], "extra_info":
          {"Function": "READ_CSV", "Estimated Cardinality": "50"}}]}]}])";
  EXPECT_THAT(UnitsOfDuckDbPlan(plan, {{"t", 100.0}}), testing::Optional(DoubleEq(157.0)));
  // A table that is not known counts as the plan has it.
  EXPECT_THAT(UnitsOfDuckDbPlan(plan, {}), testing::Optional(DoubleEq(77.0)));
  for (const char* text : {"", "{}", "[]", "[1]", R"([{"children": []}])",
                           R"([{"name": "FILTER", "children": [{"name": "EMPTY_RESULT"}]}])"}) {
    EXPECT_EQ(UnitsOfDuckDbPlan(text, {}), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace halo::test
