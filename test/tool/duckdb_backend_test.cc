#include "tool/sql/duckdb_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "sql/duck_database.h"
#include "support/test_models.h"
#include "tool/backend_rig.h"

namespace halo::test {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;
using Type = SqlParameterType;

/// Runs for hours unless it is interrupted.
constexpr const char* kEndless = "SELECT count(*) FROM range(100000000) a, range(100000000) b";

void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// A folder with databases, and a backend on them.
class Duck : public BackendRig {
 public:
  explicit Duck(std::vector<DuckDbConnection> connections = {{"db"}}, int32_t threads = 1)
      : backend(std::make_unique<DuckDbBackend>(std::move(connections), threads, mailbox, clock)) {}

  ToolCallId Submit(SqlCall sql, ToolCall how = {}) {
    how.id = NextId();
    if (sql.connection.empty()) sql.connection = "db";
    how.what = std::move(sql);
    const ToolCallId id = how.id;
    backend->Submit(std::move(how));
    return id;
  }

  ToolCompletion Do(SqlCall sql, ToolCall how = {}) { return Wait(Submit(std::move(sql), how)); }

  ToolCompletion Ask(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    return Do({.text = text, .arguments = std::move(arguments)});
  }

  ToolCompletion Change(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    return Do({.text = text, .arguments = std::move(arguments)}, {.effect = ToolEffect::kWrite});
  }

  /// The one value of the one row of a query that must succeed.
  Json One(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    const ToolCompletion completion = Ask(text, std::move(arguments));
    if (completion.failure) {
      ADD_FAILURE() << text << ": " << completion.failure->code << ": "
                    << completion.failure->message;
      return {};
    }
    EXPECT_EQ(completion.value["rows"].size(), 1U) << text;
    return completion.value["rows"][0].begin().value();
  }

  std::string Check(const std::string& text, bool writes = false,
                    const std::string& connection = "db") {
    std::string fault;
    const SqlStatement statement = ReadSqlStatement(text, SqlDialect::kDuckDb, fault);
    EXPECT_EQ(fault, "") << text;
    return backend->Check(connection, statement, writes);
  }

  std::unique_ptr<DuckDbBackend> backend;
};

/// A database file with a table t(id, name) of three rows.
std::string MakeDatabase(const std::string& folder, const std::string& more = "") {
  const std::string path = folder + "/data.duckdb";
  DuckDatabase database({}, {path, false});
  database.Execute(
      "CREATE TABLE t AS SELECT * FROM (VALUES (1, 'one'), (2, 'two'), (3, 'three')) v(id, name)");
  if (!more.empty()) database.Execute(more);
  return path;
}

// ---- parameters

TEST(DuckDbBackendTest, ValuesOfEveryTypeGoInAndComeOutAsTheyAre) {
  Duck duck;
  struct Case {
    Type type;
    Json value;
    const char* typed;  // how DuckDB calls the type
  };
  const std::vector<Case> cases = {
      {Type::kInteger, 0, "BIGINT"},
      {Type::kInteger, INT64_MAX, "BIGINT"},
      {Type::kInteger, INT64_MIN, "BIGINT"},
      {Type::kInteger, UINT64_MAX, "UBIGINT"},
      {Type::kDouble, 0.1, "DOUBLE"},
      {Type::kDouble, -1.7976931348623157e308, "DOUBLE"},
      {Type::kDouble, 5e-324, "DOUBLE"},
      {Type::kDouble, "inf", "DOUBLE"},
      {Type::kDouble, "-inf", "DOUBLE"},
      {Type::kDouble, "nan", "DOUBLE"},
      {Type::kBoolean, true, "BOOLEAN"},
      {Type::kBoolean, false, "BOOLEAN"},
      {Type::kDecimal, "12.50", "DECIMAL(4,2)"},
      {Type::kDecimal, "-0.0001", "DECIMAL(5,4)"},
      {Type::kDecimal, "99999999999999999999999999999999999999", "DECIMAL(38,0)"},
      {Type::kDecimal, "-1234567890123456789.1234567890123456789", "DECIMAL(38,19)"},
      {Type::kDate, "2024-02-29", "DATE"},
      {Type::kDate, "0001-01-01", "DATE"},
      {Type::kDate, "9999-12-31", "DATE"},
      {Type::kTime, "00:00:00", "TIME"},
      {Type::kTime, "23:59:59.999999", "TIME"},
      {Type::kTimestamp, "2026-01-31T12:30:00", "TIMESTAMP"},
      {Type::kTimestamp, "1969-12-31T23:59:59.000001", "TIMESTAMP"},
      {Type::kDate, "infinity", "DATE"},
      {Type::kDate, "-infinity", "DATE"},
      {Type::kTimestamp, "infinity", "TIMESTAMP"},
      {Type::kTimestamp, "-infinity", "TIMESTAMP"},
      {Type::kUuid, "00000000-0000-0000-0000-000000000000", "UUID"},
      {Type::kUuid, "ffffffff-ffff-ffff-ffff-fffffffffffe", "UUID"},
      {Type::kUuid, "7f3b9c1e-0a1b-4c2d-8e3f-123456789abc", "UUID"},
      {Type::kText, "", "VARCHAR"},
      {Type::kText, "it's \"quoted\" \\ back\n\t\x01\x1f%;--", "VARCHAR"},
      {Type::kText, "na\xC3\xAFve \xF0\x9F\xA6\x86", "VARCHAR"},
      {Type::kAny, "text", "VARCHAR"},
      {Type::kAny, 7, "BIGINT"},
      {Type::kAny, 0.5, "DOUBLE"},
      {Type::kAny, true, "BOOLEAN"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.value.dump());
    EXPECT_EQ(duck.One("SELECT $1", {{each.type, false, each.value}}), each.value);
    EXPECT_EQ(duck.One("SELECT typeof($1)", {{each.type, false, each.value}}), each.typed);
    // NULL of every type.
    EXPECT_EQ(duck.One("SELECT $1", {{each.type, false, nullptr}}), nullptr);
  }
}

TEST(DuckDbBackendTest, ValuesWrittenInOtherFormsMeanTheSame) {
  Duck duck;
  const auto out = [&](Type type, Json value) {
    return duck.One("SELECT $1", {{type, false, std::move(value)}});
  };
  EXPECT_EQ(out(Type::kInteger, "42"), 42);
  EXPECT_EQ(out(Type::kInteger, "18446744073709551615"), UINT64_MAX);
  EXPECT_EQ(out(Type::kDouble, "2.5e3"), 2500.0);
  EXPECT_EQ(out(Type::kDouble, 3), 3.0);
  EXPECT_EQ(out(Type::kBoolean, "true"), true);
  EXPECT_EQ(out(Type::kDecimal, 12), "12");
  EXPECT_EQ(out(Type::kDecimal, 0.1), "0.1");
  EXPECT_EQ(out(Type::kDecimal, "+.5"), "0.5");
  EXPECT_EQ(out(Type::kTime, "12:30"), "12:30:00");
  EXPECT_EQ(out(Type::kTimestamp, "2026-01-31"), "2026-01-31T00:00:00");
  EXPECT_EQ(out(Type::kTimestamp, "2026-01-31 12:30:00.25"), "2026-01-31T12:30:00.25");
  EXPECT_EQ(out(Type::kTimestamp, "2026-01-31T12:30:00Z"), "2026-01-31T12:30:00");
  EXPECT_EQ(out(Type::kUuid, "7F3B9C1E0A1B4C2D8E3F123456789ABC"),
            "7f3b9c1e-0a1b-4c2d-8e3f-123456789abc");
  EXPECT_EQ(out(Type::kText, 5), "5");
  EXPECT_EQ(out(Type::kText, Json::parse(R"({"a": [1, "x"]})")), R"({"a":[1,"x"]})");
  EXPECT_EQ(out(Type::kAny, Json::parse("[1, 2]")), "[1,2]");
}

TEST(DuckDbBackendTest, ListsKeepEveryElement) {
  Duck duck;
  const auto out = [&](Type type, const char* list) {
    return duck.One("SELECT $1", {{type, true, Json::parse(list)}}).dump();
  };
  EXPECT_EQ(out(Type::kInteger, "[1, null, 3]"), "[1,null,3]");
  for (const Type type : {Type::kAny, Type::kText, Type::kInteger, Type::kDecimal, Type::kDate})
    EXPECT_EQ(out(type, "[]"), "[]");
  EXPECT_EQ(out(Type::kDecimal, "[null, \"1.50\", 2]"), R"([null,"1.50","2.00"])");
  EXPECT_EQ(out(Type::kInteger, R"(["7", 9223372036854775807])"), "[7,9223372036854775807]");
  EXPECT_EQ(out(Type::kText, R"(["a'b", "", null, "NULL"])"), R"(["a'b","",null,"NULL"])");
  EXPECT_EQ(out(Type::kDouble, "[0.1, 2]"), "[0.1,2.0]");
  EXPECT_EQ(out(Type::kBoolean, "[true, false]"), "[true,false]");
  EXPECT_EQ(out(Type::kDate, R"(["2024-02-29"])"), R"(["2024-02-29"])");
  EXPECT_EQ(out(Type::kTime, R"(["12:30:00"])"), R"(["12:30:00"])");
  EXPECT_EQ(out(Type::kTimestamp, R"(["2024-02-29T01:02:03"])"), R"(["2024-02-29T01:02:03"])");
  EXPECT_EQ(out(Type::kUuid, R"(["7f3b9c1e-0a1b-4c2d-8e3f-123456789abc"])"),
            R"(["7f3b9c1e-0a1b-4c2d-8e3f-123456789abc"])");
  EXPECT_EQ(duck.One("SELECT count(*) FROM range(10) t(x) WHERE x = ANY($1)",
                     {{Type::kInteger, true, Json::parse("[2, 4, 40]")}}),
            2);
  EXPECT_EQ(duck.One("SELECT $1 IS NULL", {{Type::kText, true, nullptr}}), true);
}

TEST(DuckDbBackendTest, DecimalsOfAListLoseNoDigit) {
  Duck duck;
  const auto out = [&](const char* list) {
    return duck.Ask("SELECT unnest($1) AS d ORDER BY 1",
                    {{Type::kDecimal, true, Json::parse(list)}});
  };
  const ToolCompletion fine = out(R"(["1.5", "0.123456789012345678", "20000000000000000000"])");
  ASSERT_EQ(MessageOf(fine), "");
  EXPECT_EQ(fine.value["rows"].dump(),
            R"([{"d":"0.123456789012345678"},{"d":"1.500000000000000000"},)"
            R"({"d":"20000000000000000000.000000000000000000"}])");
  // Twenty digits before the point and nineteen behind it have no type in common.
  const ToolCompletion wide = out(R"(["20000000000000000000", "0.1234567890123456789"])");
  EXPECT_EQ(CodeOf(wide), "bad_parameter");
  EXPECT_THAT(MessageOf(wide), HasSubstr("38 digits"));
}

TEST(DuckDbBackendTest, JsonArrivesAsJson) {
  Duck duck;
  const Json value = Json::parse(R"({"b": [1, {"c": "d'e"}], "a": null})");
  EXPECT_EQ(duck.One("SELECT json_extract_string($1, '$.b[1].c')", {{Type::kJson, false, value}}),
            "d'e");
  EXPECT_EQ(duck.One("SELECT $1::JSON", {{Type::kJson, false, value}}), value);
  EXPECT_EQ(duck.One("SELECT $1::JSON", {{Type::kJson, false, R"({"x": 1})"}}).dump(),
            R"({"x":1})");
}

TEST(DuckDbBackendTest, WhatDoesNotFitItsTypeSaysWhatWasExpected) {
  Duck duck;
  struct Case {
    Type type;
    bool is_list;
    Json value;
    const char* expected;
  };
  const std::vector<Case> cases = {
      {Type::kInteger, false, "4x", "expected a whole number"},
      {Type::kInteger, false, 1.5, "expected a whole number"},
      {Type::kInteger, false, "", "expected a whole number"},
      {Type::kInteger, false, "99999999999999999999", "expected a whole number"},
      {Type::kDouble, false, "1,5", "expected a number"},
      {Type::kBoolean, false, "yes", "expected true or false"},
      {Type::kBoolean, false, 1, "expected true or false"},
      {Type::kDecimal, false, "1e5", "expected a decimal number"},
      {Type::kDecimal, false, "123456789012345678901234567890123456789", "at most 38 digits"},
      {Type::kDecimal, false, "1.2.3", "expected a decimal number"},
      {Type::kDecimal, false, "-", "expected a decimal number"},
      {Type::kDate, false, "2023-02-29", "expected a date such as 2026-01-31"},
      {Type::kDate, false, "26-01-31", "expected a date such as 2026-01-31"},
      {Type::kDate, false, "2026-01-31x", "expected a date"},
      {Type::kDate, false, "2026-13-01", "expected a date"},
      {Type::kDate, false, 20260131, "expected a date"},
      {Type::kTime, false, "25:00:00", "expected a time such as 12:30:00"},
      {Type::kTime, false, "12:30:00.1234567", "expected a time"},
      {Type::kTimestamp, false, "2026-01-31T12:30:00+02:00", "expected a time such as"},
      {Type::kTimestamp, false, "today", "expected a time such as"},
      {Type::kUuid, false, "7f3b9c1e", "expected a UUID"},
      {Type::kUuid, false, "7f3b9c1e-0a1b-4c2d-8e3f-123456789abg", "expected a UUID"},
      {Type::kJson, false, "{not json", "expected JSON"},
      {Type::kInteger, true, 5, "expected a list"},
      {Type::kInteger, true, Json::parse(R"([1, "x"])"), "expected a whole number"},
      {Type::kDate, true, Json::parse(R"(["2026-02-30"])"), "expected a date"},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.value.dump());
    const ToolCompletion completion =
        duck.Ask("SELECT $1", {{each.type, each.is_list, each.value}});
    EXPECT_EQ(CodeOf(completion), "bad_parameter");
    EXPECT_THAT(MessageOf(completion), HasSubstr("parameter 1: "));
    EXPECT_THAT(MessageOf(completion), HasSubstr(each.expected));
    EXPECT_FALSE(completion.failure && completion.failure->retriable);
  }
  // A long value is not repeated in full, and not cut within a character.
  std::string long_text;
  for (int i = 0; i < 1000; ++i) long_text += "\xC3\xA9";
  const ToolCompletion completion = duck.Ask("SELECT $1", {{Type::kDate, false, "x" + long_text}});
  EXPECT_LT(MessageOf(completion).size(), 300U);
  EXPECT_NO_THROW((void)Json(MessageOf(completion)).dump());
}

TEST(DuckDbBackendTest, TextThatIsNotUtf8FailsItsCallAlone) {
  Duck duck;
  for (const Type type : {Type::kAny, Type::kText, Type::kJson, Type::kDate}) {
    const ToolCompletion completion = duck.Ask("SELECT $1", {{type, false,
                                                              "a\xFF"
                                                              "b"}});
    EXPECT_EQ(CodeOf(completion), "bad_parameter") << static_cast<int>(type);
  }
  const ToolCompletion list =
      duck.Ask("SELECT $1", {{Type::kText, true, Json::array({"fine", "\xC3"})}});
  EXPECT_EQ(CodeOf(list), "bad_parameter");
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, MissingAndSurplusArgumentsAreFailures) {
  Duck duck;
  EXPECT_NE(CodeOf(duck.Ask("SELECT $1, $2", {{Type::kInteger, false, 1}})), "");
  EXPECT_NE(CodeOf(duck.Ask("SELECT 1", {{Type::kInteger, false, 1}})), "");
  // What was bound for an earlier call of the same text is gone.
  EXPECT_EQ(duck.One("SELECT $1", {{Type::kInteger, false, 5}}), 5);
  EXPECT_NE(CodeOf(duck.Ask("SELECT $1")), "");
}

// ---- results

TEST(DuckDbBackendTest, ResultsAreReadAsRowsAre) {
  Duck duck;
  const ToolCompletion completion = duck.Ask(
      "SELECT 1::TINYINT AS i, 170141183460469231731687303715884105727::HUGEINT AS huge, "
      "1.50::DECIMAL(10,2) AS dec, 0.1::FLOAT AS f, 'nan'::DOUBLE AS nan, NULL AS nothing, "
      "DATE '1995-03-05' AS d, TIMESTAMPTZ '2026-01-31 12:30:00+02' AS tz, INTERVAL '1 day' AS iv, "
      "[1, NULL] AS list, {'a': 1, 'b': 'x'} AS struct, MAP {'k': 2} AS map, "
      "'{\"j\": [1]}'::JSON AS js, 'x'::ENUM('x', 'y') AS en, "
      "uuid '7f3b9c1e-0a1b-4c2d-8e3f-123456789abc' AS id, E'a\\nb' AS text");
  ASSERT_EQ(MessageOf(completion), "");
  EXPECT_EQ(completion.value.dump(),
            R"({"rows":[{"i":1,"huge":"170141183460469231731687303715884105727","dec":"1.50",)"
            R"("f":0.1,"nan":"nan","nothing":null,"d":"1995-03-05","tz":"2026-01-31T10:30:00Z",)"
            R"("iv":"P1D","list":[1,null],"struct":{"a":1,"b":"x"},"map":{"k":2},"js":{"j":[1]},)"
            R"("en":"x","id":"7f3b9c1e-0a1b-4c2d-8e3f-123456789abc","text":"a\nb"}],)"
            R"("rowcount":1})");
}

TEST(DuckDbBackendTest, ColumnsOfOneNameAreKeptApart) {
  Duck duck;
  EXPECT_EQ(duck.Ask("SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a, 5 AS A").value["rows"].dump(),
            R"([{"a":1,"a_2":2,"a_2_2":3,"a_3":4,"A":5}])");
}

TEST(DuckDbBackendTest, NoRowsAreAnEmptyList) {
  Duck duck;
  EXPECT_EQ(duck.Ask("SELECT 1 AS a WHERE false").value.dump(), R"({"rows":[],"rowcount":0})");
}

TEST(DuckDbBackendTest, ColumnsAndValuesWithoutAFormAreNamed) {
  Duck duck;
  const ToolCompletion blob = duck.Ask("SELECT 1 AS fine, 'x'::BLOB AS picture");
  EXPECT_EQ(CodeOf(blob), "bad_column");
  EXPECT_THAT(MessageOf(blob), HasSubstr("'picture'"));
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, FaultsAreDuckDbsOwnWordsWithoutAPicture) {
  Duck duck;
  const ToolCompletion missing = duck.Ask("SELECT * FROM nowhere");
  EXPECT_EQ(CodeOf(missing), "sql_error");
  EXPECT_THAT(MessageOf(missing), HasSubstr("nowhere"));
  EXPECT_THAT(MessageOf(missing), Not(HasSubstr("LINE 1")));
  EXPECT_EQ(CodeOf(duck.Ask("SELEC 1")), "sql_error");
  EXPECT_EQ(CodeOf(duck.Ask("SELECT 1; SELECT 2")), "sql_error");
  EXPECT_EQ(CodeOf(duck.Ask("")), "sql_error");
  EXPECT_EQ(CodeOf(duck.Ask("SELECT error('on purpose')")), "sql_error");
  // A fault that comes after the first rows.
  const ToolCompletion late =
      duck.Ask("SELECT CASE WHEN x = 9000 THEN error('late') ELSE '' END FROM range(10000) t(x)");
  EXPECT_EQ(CodeOf(late), "sql_error");
  EXPECT_THAT(MessageOf(late), HasSubstr("late"));
  EXPECT_TRUE(late.value.is_null());
  EXPECT_EQ(CodeOf(duck.Do({.connection = "other", .text = "SELECT 1"})), "bad_connection");
  EXPECT_EQ(CodeOf(duck.Do({.text = "SELECT 1", .settings = {{"a", "b"}}})), "not_allowed");
}

TEST(DuckDbBackendTest, RowsAndBytesHaveLimits) {
  Duck duck;
  EXPECT_EQ(CodeOf(duck.Do({.text = "SELECT * FROM range(5000)", .most_rows = 5000})), "");
  const ToolCompletion rows = duck.Do({.text = "SELECT * FROM range(5001)", .most_rows = 5000});
  EXPECT_EQ(CodeOf(rows), "result_too_large");
  EXPECT_THAT(MessageOf(rows), HasSubstr("more than 5000 rows"));
  EXPECT_THAT(MessageOf(rows), HasSubstr("most_rows"));
  EXPECT_FALSE(rows.failure->retriable);
  const char* wide = "SELECT repeat('x', 1000) AS text FROM range(100)";
  EXPECT_EQ(CodeOf(duck.Do({.text = wide, .most_bytes = 120'000})), "");
  const ToolCompletion bytes = duck.Do({.text = wide, .most_bytes = 50'000});
  EXPECT_EQ(CodeOf(bytes), "result_too_large");
  EXPECT_THAT(MessageOf(bytes), HasSubstr("most_bytes"));
  // Ten megabytes against the default of eight, as one text, one list, one JSON value.
  for (const char* large :
       {"SELECT repeat('x', 10000000)", "SELECT list(range) FROM range(5000000)",
        "SELECT ('[' || repeat('1,', 5000000) || '1]')::JSON",
        "SELECT repeat('x', 1000) FROM range(10000)"})
    EXPECT_EQ(CodeOf(duck.Ask(large)), "result_too_large") << large;
  // The connection is fit for the next call.
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

TEST(DuckDbBackendTest, MemoryHasALimit) {
  Duck duck({{.name = "db", .memory_bytes = int64_t{64} << 20}});
  const ToolCompletion completion = duck.Ask(
      "SELECT count(*) FROM (SELECT DISTINCT hash(x), repeat('y', 100) || x AS y FROM "
      "range(5000000) t(x))");
  EXPECT_EQ(CodeOf(completion), "sql_error");
  EXPECT_THAT(MessageOf(completion), HasSubstr("emory"));
  EXPECT_EQ(duck.One("SELECT 1"), 1);
}

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
  const Census before;
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
