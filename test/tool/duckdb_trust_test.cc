#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "tool/duckdb_rig.h"

namespace halo::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Type = SqlParameterType;

// ---- trust

/// What must not be possible, with text, whether it is declared a write or not.
class DuckDbTrustTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder("duckdb_trust");
    path_ = MakeDatabase(folder_, "CREATE MACRO runs(s) AS TABLE FROM query(s)");
    WriteFile(declared(), "a\n1\n");
    WriteFile(secret(), "secret\nhidden\n");
    duck_ = std::make_unique<Duck>(std::vector<DuckDbConnection>{
        {.name = "db", .path = path_, .files = {{"x", declared()}}, .may_write = true}});
  }

  std::string declared() const { return folder_ + "/declared.csv"; }
  std::string secret() const { return folder_ + "/secret.csv"; }

  std::string folder_, path_;
  std::unique_ptr<Duck> duck_;
};

TEST_F(DuckDbTrustTest, NeitherReadsNorWritesReachBeyondTheDatabase) {
  const std::string out = QuoteSqlText(folder_ + "/out");
  const std::string in = QuoteSqlText(secret());
  const std::string own = QuoteSqlText(declared());
  const std::vector<std::string> statements = {
      "COPY t TO " + out,
      "COPY t TO " + own,
      "COPY (SELECT 1) TO " + own,
      "COPY t FROM " + in,
      "EXPLAIN ANALYZE COPY t TO " + own,
      "EXPLAIN (ANALYZE) COPY t TO " + own,
      "EXPLAIN ANALYZE INSERT INTO t VALUES (9, 'nine')",
      "COPY FROM DATABASE data TO memory",
      "EXPORT DATABASE " + out,
      "IMPORT DATABASE " + out,
      "ATTACH " + out,
      "ATTACH ':memory:' AS other",
      "DETACH data",
      "USE memory",
      "SET memory_limit = '10GB'",
      "SET enable_external_access = true",
      "SET lock_configuration = false",
      "RESET memory_limit",
      "PRAGMA memory_limit = '10GB'",
      "PRAGMA enable_profiling",
      "PRAGMA import_database(" + out + ")",
      "CALL enable_logging()",
      "CALL enable_logging(storage = 'file', storage_path = " + out + ")",
      "FROM enable_logging(storage = 'file', storage_path = " + out + ")",
      "SELECT * FROM enable_logging()",
      "SELECT * FROM \"enable_logging\"()",
      "SELECT * FROM system.main.enable_logging()",
      "SELECT * FROM ENABLE_LOGGING /* */ ()",
      "SELECT (SELECT count(*) FROM enable_logging())",
      "WITH a AS (FROM enable_logging()) SELECT 1",
      "SELECT 1 UNION ALL SELECT 1 FROM enable_logging()",
      "SELECT * FROM t, LATERAL (FROM enable_logging())",
      "PRAGMA version",
      "PRAGMA database_list",
      "/* */ PRAGMA show_tables",
      "SELECT * FROM query('SELECT 1')",
      "SELECT * FROM query('FROM enable_logging()')",
      "SELECT * FROM query_table('t')",
      "FROM runs('FROM enable_logging()')",
      "SELECT * FROM json_execute_serialized_sql(json_serialize_sql('SELECT 1'))",
      "PRAGMA json_execute_serialized_sql('{}')",
      "SELECT * FROM arrow_scan(1, 2, 3)",
      "SELECT * FROM duckdb_settings()",
      "SELECT * FROM duckdb_secrets()",
      "SELECT * FROM checkpoint()",
      "CHECKPOINT",
      "FORCE CHECKPOINT",
      "VACUUM",
      "BEGIN",
      "COMMIT",
      "PREPARE p AS SELECT 1",
      "EXECUTE p",
      "INSTALL httpfs",
      "LOAD httpfs",
      "LOAD " + out,
      "SELECT * FROM " + in,
      "FROM " + in,
      "SELECT * FROM read_csv(" + in + ")",
      "SELECT * FROM read_csv_auto(" + in + ")",
      "SELECT * FROM read_text(" + in + ")",
      "SELECT * FROM read_blob(" + in + ")",
      "SELECT * FROM read_json(" + in + ")",
      "SELECT * FROM read_parquet(" + in + ")",
      "SELECT * FROM parquet_schema(" + in + ")",
      "SELECT * FROM sniff_csv(" + in + ")",
      "SELECT * FROM glob('/*')",
      "SELECT * FROM 'https://example.com/a.csv'",
      "SELECT * FROM 's3://bucket/a.parquet'",
      "SELECT * FROM " + QuoteSqlText(folder_ + "/*.csv"),
      "CREATE TABLE y AS FROM " + in,
      "CREATE VIEW y AS FROM read_text(" + in + ")",
      "CREATE MACRO y() AS TABLE FROM enable_logging()",
      "CREATE PERSISTENT SECRET s (TYPE s3)",
      "INSERT INTO t SELECT 4, content FROM read_text(" + in + ")",
      "UPDATE t SET name = (SELECT first(content) FROM read_text(" + in + "))",
  };
  const auto files = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  };
  const auto before = files();
  for (const std::string& text : statements) {
    SCOPED_TRACE(text);
    for (const bool writes : {false, true}) {
      EXPECT_NE(duck_->Check(text, writes), "") << (writes ? "as a write" : "as a read");
      const ToolCompletion completion = writes ? duck_->Change(text) : duck_->Ask(text);
      EXPECT_NE(CodeOf(completion), "") << (writes ? "as a write" : "as a read");
      EXPECT_THAT(completion.value.dump(), Not(HasSubstr("hidden")));
      EXPECT_THAT(MessageOf(completion), Not(HasSubstr("hidden")));
    }
  }
  EXPECT_NE(CodeOf(duck_->Ask("SELECT * FROM U&\"enable\\005flogging\"()")), "");
  EXPECT_EQ(files(), before);
  EXPECT_EQ(ReadFile(declared()), "a\n1\n");
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
  EXPECT_EQ(duck_->One("SELECT current_setting('enable_external_access')"), false);
}

TEST_F(DuckDbTrustTest, WhatIsDeclaredAReadDoesNotWrite) {
  for (const char* text : {
           "INSERT INTO t VALUES (4, 'four')",
           "INSERT INTO t VALUES (4, 'four') RETURNING id",
           "WITH a AS (SELECT 4 AS id) INSERT INTO t SELECT id, 'four' FROM a",
           "UPDATE t SET name = 'x'",
           "DELETE FROM t",
           "TRUNCATE t",
           "CREATE TABLE u (a INTEGER)",
           "CREATE TABLE u AS SELECT 1",
           "CREATE OR REPLACE TABLE t AS SELECT 1 AS id",
           "ALTER TABLE t ADD COLUMN x INTEGER",
           "DROP TABLE t",
           "CREATE SEQUENCE s",
       }) {
    SCOPED_TRACE(text);
    EXPECT_THAT(duck_->Check(text, false), HasSubstr("effect: write"));
    const ToolCompletion completion = duck_->Ask(text);
    EXPECT_EQ(CodeOf(completion), "not_allowed");
    EXPECT_THAT(MessageOf(completion), HasSubstr("effect: write"));
    EXPECT_EQ(duck_->Check(text, true), "");
  }
  EXPECT_EQ(duck_->One("SELECT string_agg(name, ',' ORDER BY id) FROM t"), "one,two,three");
}

TEST_F(DuckDbTrustTest, WhatReadsAndMakesRowsIsAllowed) {
  for (const char* text :
       {"SELECT * FROM t", "FROM t", "VALUES (1)", "TABLE t", "DESCRIBE t", "SUMMARIZE t",
        "SHOW TABLES", "EXPLAIN SELECT 1", "WITH a AS (SELECT 1) FROM a", "SELECT * FROM range(3)",
        "SELECT * FROM generate_series(1, 3)", "SELECT unnest([1])", "SELECT * FROM unnest([1, 2])",
        "SELECT * FROM json_each('{}')", "PIVOT t ON name IN ('one') USING count(*)",
        "SELECT version()", "SELECT lower(name), sum(id) FROM t GROUP BY ALL", "SELECT a FROM x"}) {
    SCOPED_TRACE(text);
    EXPECT_EQ(duck_->Check(text, false), "");
    EXPECT_EQ(MessageOf(duck_->Ask(text)), "");
  }
}

TEST_F(DuckDbTrustTest, WritesSayWhatTheyChanged) {
  EXPECT_EQ(duck_->Change("INSERT INTO t VALUES (4, 'four'), (5, 'five')").value.dump(),
            R"({"rows":[],"rowcount":2})");
  EXPECT_EQ(duck_->Change("UPDATE t SET name = 'x' WHERE id > $1", {{Type::kInteger, false, 2}})
                .value["rowcount"],
            3);
  EXPECT_EQ(duck_->Change("DELETE FROM t WHERE id = 1").value["rowcount"], 1);
  EXPECT_EQ(duck_->Change("INSERT INTO t VALUES (8, 'y') RETURNING id, name").value.dump(),
            R"({"rows":[{"id":8,"name":"y"}],"rowcount":1})");
  EXPECT_EQ(duck_->Change("CREATE TABLE u AS SELECT 1 AS a").failure, std::nullopt);
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 5);
}

TEST_F(DuckDbTrustTest, AWriteThatFailsHasNotWritten) {
  // One that says too much, one whose result has no form, one that fails late.
  const ToolCompletion large = duck_->Do(
      {.text = "INSERT INTO t SELECT range, 'n' FROM range(5000) RETURNING id", .most_rows = 10},
      {.effect = ToolEffect::kWrite});
  EXPECT_EQ(CodeOf(large), "result_too_large");
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
  EXPECT_EQ(CodeOf(duck_->Change("INSERT INTO t VALUES (4, 'x') RETURNING 'a'::BLOB")),
            "bad_column");
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
  EXPECT_EQ(
      CodeOf(duck_->Change("INSERT INTO t SELECT range, CASE WHEN range = 4000 THEN error('no') "
                           "ELSE 'n' END FROM range(5000)")),
      "sql_error");
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
}

TEST_F(DuckDbTrustTest, ValuesAreNeverTextOfAStatement) {
  const std::vector<std::string> attacks = {"'; DROP TABLE t; --",
                                            "\" OR 1=1 --",
                                            "1); DELETE FROM t; --",
                                            "$1",
                                            ":id",
                                            "?",
                                            "{{ row.id }}",
                                            "<|im_start|>system",
                                            "http://169.254.169.254/",
                                            "{\"a\": 1}",
                                            "\\'; SELECT 1",
                                            "/* */",
                                            "NULL",
                                            "%",
                                            "_",
                                            "%%",
                                            "U&'\\0041'",
                                            "$$x$$"};
  for (const std::string& attack : attacks) {
    SCOPED_TRACE(attack);
    EXPECT_EQ(duck_->One("SELECT $1", {{Type::kText, false, attack}}), attack);
    EXPECT_EQ(duck_->One("SELECT $1", {{Type::kAny, false, attack}}), attack);
    EXPECT_EQ(duck_->One("SELECT count(*) FROM t WHERE name = $1", {{Type::kText, false, attack}}),
              0);
    EXPECT_EQ(CodeOf(duck_->Ask("SELECT $1", {{Type::kInteger, false, attack}})), "bad_parameter");
    EXPECT_EQ(duck_->Change("INSERT INTO t VALUES (100, $1)", {{Type::kText, false, attack}})
                  .value["rowcount"],
              1);
    EXPECT_EQ(duck_->One("SELECT name FROM t WHERE id = 100"), attack);
    EXPECT_EQ(duck_->Change("DELETE FROM t WHERE name = $1", {{Type::kText, false, attack}})
                  .value["rowcount"],
              1);
  }
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
}

TEST_F(DuckDbTrustTest, CheckNamesWhatIsNotThere) {
  EXPECT_EQ(duck_->Check("SELECT name FROM t WHERE id = :id"), "");
  EXPECT_THAT(duck_->Check("SELECT nam FROM t"), HasSubstr("nam"));
  EXPECT_THAT(duck_->Check("SELECT * FROM tt"), HasSubstr("Catalog Error"));
  EXPECT_THAT(duck_->Check("SELECT nofunction(1)"), HasSubstr("nofunction"));
  EXPECT_THAT(duck_->Check("SELECT * FROM read_csv('x.csv')"), HasSubstr("read_csv"));
  // Nothing was executed.
  EXPECT_EQ(duck_->Check("INSERT INTO t VALUES (9, 'x')", true), "");
  EXPECT_EQ(duck_->One("SELECT count(*) FROM t"), 3);
}

// ---- the catalogue

TEST(DuckDbBackendTest, TheCatalogueTellsWhatIsVolatile) {
  const std::string folder = FreshFolder("duckdb_catalogue");
  const std::string path = MakeDatabase(folder, R"(
      CREATE VIEW Plain AS SELECT * FROM t;
      CREATE VIEW "Clock AS it" AS SELECT now() AS n;
      CREATE VIEW over_clock (n) AS SELECT * FROM "Clock AS it";
      CREATE VIEW over_over AS SELECT * FROM over_clock;
      CREATE MACRO dice(n) AS floor(random() * n);
      CREATE MACRO two_dice(n) AS dice(n) + dice(n);
      CREATE MACRO twice(n) AS n * 2;
      CREATE MACRO drawn() AS (SELECT count(*) FROM over_clock);
      CREATE VIEW by_macro AS SELECT two_dice(6) AS n;)");
  Duck duck({{.name = "db", .path = path}});
  const DuckDbCatalogue catalogue = duck.backend->Ask("db");
  EXPECT_TRUE(catalogue.writes_spread);
  const auto function = [&](const char* name) {
    return catalogue.volatile_functions.contains({"", name});
  };
  const auto view = [&](const char* name) {
    return catalogue.volatile_relations.contains({"", name});
  };
  EXPECT_TRUE(function("random"));
  EXPECT_TRUE(function("now"));
  EXPECT_FALSE(function("lower"));
  EXPECT_TRUE(function("dice"));
  EXPECT_TRUE(function("two_dice"));
  EXPECT_TRUE(function("drawn"));
  EXPECT_FALSE(function("twice"));
  EXPECT_FALSE(view("plain"));
  EXPECT_TRUE(view("clock as it"));
  EXPECT_TRUE(view("over_clock"));
  EXPECT_TRUE(view("over_over"));
  EXPECT_TRUE(view("by_macro"));
}

TEST(DuckDbBackendTest, WritesSpreadWhereSomethingElseShowsTables) {
  const auto spread = [](const char* name, const char* more) {
    Duck duck({{.name = "db", .path = MakeDatabase(FreshFolder(name), more)}});
    return duck.backend->Ask("db").writes_spread;
  };
  EXPECT_FALSE(spread("duckdb_spread_none", "CREATE INDEX i ON t (id)"));
  EXPECT_TRUE(spread("duckdb_spread_view", "CREATE VIEW v AS SELECT * FROM t"));
  EXPECT_TRUE(spread("duckdb_spread_macro", "CREATE MACRO m() AS (SELECT count(*) FROM t)"));
}

}  // namespace
}  // namespace halo::test
