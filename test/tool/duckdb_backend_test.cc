#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "base/error.h"
#include "tool/duckdb_rig.h"

namespace halo::test {
namespace {

using testing::AnyOf;
using testing::HasSubstr;
using Type = SqlParameterType;

// ---- time

TEST(DuckDbBackendTest, AStatementEndsAtItsDeadline) {
  Duck duck;
  const int64_t deadline_us = duck.clock.NowUs() + 200'000;
  const ToolCompletion completion = duck.Do({.text = kEndless}, {.deadline_us = deadline_us});
  EXPECT_EQ(CodeOf(completion), "deadline");
  EXPECT_GE(completion.finished_us, deadline_us);
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, AStatementHasTheConnectionsLimit) {
  Duck duck({{.name = "db", .statement_timeout_us = 200'000}});
  const ToolCompletion completion = duck.Ask(kEndless);
  EXPECT_EQ(CodeOf(completion), "timeout");
  EXPECT_TRUE(completion.failure->retriable);
  EXPECT_THAT(MessageOf(completion), HasSubstr("0.2 s"));
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, AResultThatIsCutOffByTimeIsNoResult) {
  Duck duck;
  const ToolCompletion completion = duck.Do(
      {.text =
           "SELECT a.range FROM range(1000000) a, range(1000000) b WHERE (a.range * 7 + b.range) % "
           "100000 = 0",
       .most_rows = int64_t{1} << 40,
       .most_bytes = int64_t{1} << 50},
      {.deadline_us = duck.clock.NowUs() + 300'000});
  EXPECT_EQ(CodeOf(completion), "deadline");
  EXPECT_TRUE(completion.value.is_null());
}

TEST(DuckDbBackendTest, ACallWhoseDeadlineHasPassedIsNotMade) {
  Duck duck({{.name = "db", .may_write = true}});
  ASSERT_EQ(CodeOf(duck.Change("CREATE TABLE t (x INTEGER)")), "");
  const ToolCompletion late =
      duck.Do({.text = "INSERT INTO t VALUES (1)"},
              {.effect = ToolEffect::kWrite, .deadline_us = duck.clock.NowUs() - 1});
  EXPECT_EQ(CodeOf(late), "deadline");
  EXPECT_EQ(duck.One("SELECT count(*) FROM t"), 0);
}

TEST(DuckDbBackendTest, ACallThatWaitsEndsAtItsDeadlineToo) {
  Duck duck;
  const ToolCallId running = duck.Submit({.text = kEndless});
  const ToolCallId waiting =
      duck.Submit({.text = "SELECT 1"}, {.deadline_us = duck.clock.NowUs() + 200'000});
  EXPECT_EQ(CodeOf(duck.Wait(waiting)), "deadline");
  duck.backend->Cancel(running);
  EXPECT_EQ(CodeOf(duck.Wait(running)), "cancelled");
}

TEST(DuckDbBackendTest, CallsAreCancelledWhereverTheyAre) {
  Duck duck;
  const ToolCallId running = duck.Submit({.text = kEndless});
  const ToolCallId waiting = duck.Submit({.text = "SELECT 1"});
  const ToolCallId next = duck.Submit({.text = "SELECT 2"});
  duck.backend->Cancel(waiting);
  EXPECT_EQ(CodeOf(duck.Wait(waiting)), "cancelled");
  duck.backend->Cancel(running);
  duck.backend->Cancel(running);
  const ToolCompletion completion = duck.Wait(running);
  EXPECT_EQ(CodeOf(completion), "cancelled");
  EXPECT_FALSE(completion.failure->retriable);
  EXPECT_EQ(duck.Wait(next).value["rows"][0].begin().value(), 2);
  duck.backend->Cancel(next);  // has ended
  duck.backend->Cancel(999);   // never was
  EXPECT_EQ(duck.One("SELECT 3"), 3);
}

TEST(DuckDbBackendTest, ManyCancellationsAtEveryMoment) {
  Duck duck({{.name = "db"}}, 2);
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 300; ++i) {
    ids.push_back(duck.Submit({.text = i % 3 == 0 ? kEndless : "SELECT 1"}));
    if (i >= 5) duck.backend->Cancel(ids[static_cast<size_t>(i - 5)]);
  }
  for (const ToolCallId id : ids) duck.backend->Cancel(id);
  for (const ToolCallId id : ids) EXPECT_THAT(CodeOf(duck.Wait(id)), AnyOf("", "cancelled"));
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, TheBackendEndsWhateverRunsAndLeavesNothing) {
  { const Duck first; }  // what DuckDB keeps for the process
  const std::string folder = FreshFolder("duckdb_leaves_nothing");
  const std::string path = MakeDatabase(folder);
  WriteFile(folder + "/x.csv", "a,b\n1,2\n");
  const Census before{};
  for (int i = 0; i < 3; ++i) {
    Duck duck({{.name = "db", .path = path, .files = {{"x", folder + "/x.csv"}}}, {.name = "mem"}},
              2);
    EXPECT_EQ(duck.One("SELECT count(*) FROM x"), 1);
    EXPECT_EQ(CodeOf(duck.Ask("SELECT * FROM nowhere")), "sql_error");
    for (int call = 0; call < 4; ++call) duck.Submit({.text = kEndless});
  }
  EXPECT_EQ(Census(), before);
}

// ---- order, threads

TEST(DuckDbBackendTest, OneThreadTakesTheLowestOrderFirst) {
  Duck duck({{.name = "db", .may_write = true}});
  ASSERT_EQ(CodeOf(duck.Change("CREATE TABLE log (n INTEGER)")), "");
  const ToolCallId holding = duck.Submit({.text = kEndless});
  std::vector<ToolCallId> ids;
  for (const int order : {5, 3, 9, 1, 3, 7}) {
    ids.push_back(duck.Submit(
        {.text = "INSERT INTO log VALUES ($1)", .arguments = {{Type::kInteger, false, order}}},
        {.effect = ToolEffect::kWrite, .order = order}));
  }
  duck.backend->Cancel(holding);
  for (const ToolCallId id : ids) EXPECT_EQ(CodeOf(duck.Wait(id)), "");
  EXPECT_EQ(duck.One("SELECT list(n ORDER BY rowid) FROM log").dump(), "[1,3,3,5,7,9]");
  EXPECT_THAT(duck.ended(), testing::IsSupersetOf(ids));
  EXPECT_LT(std::find(duck.ended().begin(), duck.ended().end(), ids[1]),
            std::find(duck.ended().begin(), duck.ended().end(), ids[4]));
}

TEST(DuckDbBackendTest, TwoThreadsWorkAtOnceOnOneDatabase) {
  const std::string path = MakeDatabase(FreshFolder("duckdb_two_threads"));
  Duck duck({{.name = "db", .path = path}}, 2);
  const ToolCallId holding = duck.Submit({.text = kEndless});
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 200; ++i) {
    ids.push_back(duck.Submit({.text = "SELECT name FROM t WHERE id = $1",
                               .arguments = {{Type::kInteger, false, i % 3 + 1}}}));
  }
  const char* names[] = {"one", "two", "three"};
  for (size_t i = 0; i < ids.size(); ++i)
    EXPECT_EQ(duck.Wait(ids[i]).value["rows"][0]["name"], names[i % 3]);
  duck.backend->Cancel(holding);
  EXPECT_EQ(CodeOf(duck.Wait(holding)), "cancelled");
}

TEST(DuckDbBackendTest, WritesOfTwoThreadsAllArrive) {
  Duck duck({{.name = "db", .may_write = true}}, 2);
  ASSERT_EQ(CodeOf(duck.Change("CREATE TABLE log (n INTEGER)")), "");
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 200; ++i) {
    ids.push_back(duck.Submit(
        {.text = "INSERT INTO log VALUES ($1)", .arguments = {{Type::kInteger, false, i}}},
        {.effect = ToolEffect::kWrite}));
  }
  for (const ToolCallId id : ids) {
    const ToolCompletion completion = duck.Wait(id);
    EXPECT_EQ(MessageOf(completion), "");
    EXPECT_EQ(completion.value.dump(), R"({"rows":[],"rowcount":1})");
  }
  EXPECT_EQ(duck.One("SELECT count(DISTINCT n) FROM log"), 200);
}

TEST(DuckDbBackendTest, ManyTextsOnOneConnection) {
  Duck duck;
  // More than are kept prepared, twice.
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 300; ++i) {
      ASSERT_EQ(duck.One("SELECT " + std::to_string(i) + " + $1", {{Type::kInteger, false, round}}),
                i + round);
    }
  }
}

TEST(DuckDbBackendTest, APreparedStatementFollowsItsTable) {
  Duck duck({{.name = "db", .may_write = true}});
  ASSERT_EQ(CodeOf(duck.Change("CREATE TABLE t AS SELECT 1 AS a")), "");
  EXPECT_EQ(duck.Ask("SELECT * FROM t").value["rows"].dump(), R"([{"a":1}])");
  ASSERT_EQ(CodeOf(duck.Change("DROP TABLE t")), "");
  EXPECT_EQ(CodeOf(duck.Ask("SELECT * FROM t")), "sql_error");
  ASSERT_EQ(CodeOf(duck.Change("CREATE TABLE t AS SELECT 'x' AS b, 2 AS c")), "");
  EXPECT_EQ(duck.Ask("SELECT * FROM t").value["rows"].dump(), R"([{"b":"x","c":2}])");
}

// ---- connections

TEST(DuckDbBackendTest, ConnectionsAreTheirOwnDatabases) {
  const std::string path = MakeDatabase(FreshFolder("duckdb_connections"));
  Duck duck({{.name = "db", .path = path}, {.name = "a", .may_write = true}, {.name = "b"}});
  ASSERT_EQ(CodeOf(duck.Do({.connection = "a", .text = "CREATE TABLE t AS SELECT 'mine' AS name"},
                           {.effect = ToolEffect::kWrite})),
            "");
  EXPECT_EQ(duck.Do({.connection = "a", .text = "SELECT name FROM t"}).value["rows"][0]["name"],
            "mine");
  EXPECT_EQ(duck.One("SELECT count(*) FROM t"), 3);
  EXPECT_EQ(CodeOf(duck.Do({.connection = "b", .text = "SELECT name FROM t"})), "sql_error");
}

TEST(DuckDbBackendTest, AFileIsOpenedToReadUnlessTheRunWrites) {
  const std::string path = MakeDatabase(FreshFolder("duckdb_read_only"));
  const std::string bytes = ReadFile(path);
  {
    Duck duck({{.name = "db", .path = path}});
    EXPECT_EQ(duck.One("SELECT count(*) FROM t"), 3);
    const ToolCompletion refused = duck.Change("INSERT INTO t VALUES (4, 'four')");
    EXPECT_EQ(CodeOf(refused), "sql_error");
    EXPECT_THAT(MessageOf(refused), HasSubstr("read-only"));
  }
  EXPECT_EQ(ReadFile(path), bytes);
  EXPECT_FALSE(std::filesystem::exists(path + ".wal"));
  {
    Duck duck({{.name = "db", .path = path, .may_write = true}});
    EXPECT_EQ(duck.Change("INSERT INTO t VALUES (4, 'four'), (5, 'five')").value["rowcount"], 2);
  }
  Duck again({{.name = "db", .path = path}});
  EXPECT_EQ(again.One("SELECT count(*) FROM t"), 5);
}

TEST(DuckDbBackendTest, WhatCannotBeOpenedIsNamed) {
  const std::string folder = FreshFolder("duckdb_open_faults");
  WriteFile(folder + "/text.duckdb", std::string(5000, 'x'));
  const auto message = [&](DuckDbConnection connection) -> std::string {
    try {
      const Duck duck({std::move(connection)});
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kConfig);
      return error.what();
    }
    return "";
  };
  EXPECT_THAT(
      message({.name = "shop", .path = folder + "/none.duckdb"}),
      testing::AllOf(HasSubstr("'shop'"), HasSubstr("none.duckdb"), HasSubstr("no such file")));
  EXPECT_FALSE(std::filesystem::exists(folder + "/none.duckdb"));
  EXPECT_THAT(message({.name = "shop", .path = folder + "/text.duckdb"}), HasSubstr("'shop'"));
  EXPECT_THAT(message({.name = "shop", .files = {{"x", folder + "/none.csv"}}}),
              testing::AllOf(HasSubstr("'shop'"), HasSubstr("none.csv")));
  EXPECT_THAT(message({.name = "shop", .path = folder + "/made.duckdb", .may_write = true}), "");
  EXPECT_TRUE(std::filesystem::exists(folder + "/made.duckdb"));
}

TEST(DuckDbBackendTest, OneFileUnderTwoNamesIsNotWrittenByTwoDatabases) {
  const std::string folder = FreshFolder("duckdb_one_file_twice");
  const std::string path = MakeDatabase(folder);
  std::filesystem::create_symlink(path, folder + "/alias.duckdb");
  for (const std::string& other : {path, folder + "/alias.duckdb", folder + "/./data.duckdb"}) {
    try {
      const Duck duck(
          {{.name = "db", .path = path, .may_write = true}, {.name = "b", .path = other}});
      ADD_FAILURE() << other << " was opened twice, once to write";
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("'b'"));
    }
  }
  // Two that read are fine.
  Duck duck({{.name = "db", .path = path}, {.name = "b", .path = path}});
  EXPECT_EQ(duck.One("SELECT count(*) FROM t"), 3);
  EXPECT_EQ(
      duck.Do({.connection = "b", .text = "SELECT count(*) AS n FROM t"}).value["rows"][0]["n"], 3);
}

TEST(DuckDbBackendTest, DeclaredFilesAreTables) {
  const std::string folder = FreshFolder("duckdb_files");
  WriteFile(folder + "/it's.csv", "id,name\n1,a\n2,\"b,c\"\n");
  WriteFile(folder + "/lines.jsonl", "{\"id\": 1, \"tags\": [\"x\"]}\n{\"id\": 2, \"tags\": []}\n");
  WriteFile(folder + "/array.json", "[{\"id\": 7}]");
  DuckDatabase maker({});
  maker.Execute("COPY (SELECT DATE '1995-03-05' AS d, 1.50::DECIMAL(10,2) AS p) TO " +
                QuoteSqlText(folder + "/p.parquet") + " (FORMAT parquet)");
  Duck duck({{.name = "db",
              .files = {{"comma", folder + "/it's.csv"},
                        {"lines", folder + "/lines.jsonl"},
                        {"list", folder + "/array.json"},
                        {"Odd \"name\"", folder + "/p.parquet"}}}},
            2);
  EXPECT_EQ(duck.Ask("SELECT * FROM comma ORDER BY id").value["rows"].dump(),
            R"([{"id":1,"name":"a"},{"id":2,"name":"b,c"}])");
  EXPECT_EQ(duck.Ask("SELECT * FROM lines ORDER BY id").value["rows"].dump(),
            R"([{"id":1,"tags":["x"]},{"id":2,"tags":[]}])");
  EXPECT_EQ(duck.One("SELECT id FROM list"), 7);
  EXPECT_EQ(duck.Ask("SELECT * FROM \"Odd \"\"name\"\"\"").value["rows"].dump(),
            R"([{"d":"1995-03-05","p":"1.50"}])");
  EXPECT_EQ(duck.Check("SELECT name FROM comma WHERE id = :id"), "");
}

}  // namespace
}  // namespace halo::test
