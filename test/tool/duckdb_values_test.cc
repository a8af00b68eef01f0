#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tool/duckdb_rig.h"

namespace halo::test {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;
using Type = SqlParameterType;

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

}  // namespace
}  // namespace halo::test
