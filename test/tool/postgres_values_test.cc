// Parameters as texts and texts as values, without a server.

#include "tool/sql/postgres_values.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tool/sql/postgres_session.h"

namespace halo {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;

std::string TextOf(const SqlArgument& argument) {
  std::string fault;
  const PostgresArguments texts = TextsOfArguments({argument}, fault);
  if (!fault.empty()) return "fault: " + fault;
  return texts.texts.at(0).value_or("NULL");
}

struct ParameterCase {
  SqlParameterType type;
  Json value;
  std::string text;
};

TEST(PostgresParameters, AreTexts) {
  const std::vector<ParameterCase> cases = {
      {SqlParameterType::kAny, "x", "x"},
      {SqlParameterType::kAny, 7, "7"},
      {SqlParameterType::kAny, true, "true"},
      {SqlParameterType::kAny, {{"a", 1}}, R"({"a":1})"},
      {SqlParameterType::kAny, nullptr, "NULL"},
      {SqlParameterType::kText, 12, "12"},
      {SqlParameterType::kInteger, "-9223372036854775808", "-9223372036854775808"},
      {SqlParameterType::kInteger, "+5", "5"},
      {SqlParameterType::kInteger, 3.0, "3"},
      {SqlParameterType::kDouble, 0.1, "0.1"},
      {SqlParameterType::kDouble, "nan", "nan"},
      {SqlParameterType::kDecimal, "123456789012345678901234567890.123456789",
       "123456789012345678901234567890.123456789"},
      {SqlParameterType::kDecimal, 0.05, "0.05"},
      {SqlParameterType::kDecimal, -3, "-3"},
      {SqlParameterType::kBoolean, "False", "false"},
      {SqlParameterType::kDate, "2024-02-29", "2024-02-29"},
      {SqlParameterType::kDate, "-000043-03-15", "0044-03-15 BC"},
      {SqlParameterType::kDate, "+012026-01-01", "12026-01-01"},
      {SqlParameterType::kTime, "12:30", "12:30"},
      {SqlParameterType::kTime, "12:30:00.123456", "12:30:00.123456"},
      {SqlParameterType::kTimestamp, "2026-01-31T12:30:00Z", "2026-01-31 12:30:00Z"},
      {SqlParameterType::kTimestamp, "2026-01-31 12:30:00+05:30", "2026-01-31 12:30:00+05:30"},
      {SqlParameterType::kTimestamp, "2026-01-31", "2026-01-31 00:00:00"},
      {SqlParameterType::kUuid, "123E4567-e89b-12d3-a456-426614174000",
       "123E4567-e89b-12d3-a456-426614174000"},
      {SqlParameterType::kJson, {{"b", 1}, {"a", {1, 2}}}, R"({"b":1,"a":[1,2]})"},
      {SqlParameterType::kJson, R"({"a": 1.10})", R"({"a": 1.10})"},
  };
  for (const ParameterCase& one : cases)
    EXPECT_EQ(TextOf({one.type, false, one.value}), one.text) << one.value;
}

TEST(PostgresParameters, AreRefusedWhereTheyAreNotOfTheirType) {
  const std::vector<ParameterCase> cases = {
      {SqlParameterType::kInteger, "9223372036854775808", "a whole number"},
      {SqlParameterType::kInteger, 1.5, "a whole number of at most 64 bits, got 1.5"},
      {SqlParameterType::kInteger, "12abc", "got 12abc"},
      {SqlParameterType::kInteger, true, "a whole number"},
      {SqlParameterType::kDouble, "1,5", "a number"},
      {SqlParameterType::kDecimal, 0.1 + 0.2, "as text if it has more than 15 digits"},
      {SqlParameterType::kDecimal, "1.2.3", "a decimal number"},
      {SqlParameterType::kBoolean, 1, "true or false"},
      {SqlParameterType::kDate, "2023-02-29", "a date such as 2026-01-31, got 2023-02-29"},
      {SqlParameterType::kDate, "31.1.2026", "a date"},
      {SqlParameterType::kDate, "today", "a date"},
      {SqlParameterType::kDate, 20260131, "a date"},
      {SqlParameterType::kTime, "25:00", "a time"},
      {SqlParameterType::kTimestamp, "now", "a time"},
      {SqlParameterType::kTimestamp, "2026-01-31T12:30:00X", "a time"},
      {SqlParameterType::kUuid, "123", "a UUID"},
      {SqlParameterType::kJson, "{a: 1}", "JSON, got {a: 1}"},
      {SqlParameterType::kText, std::string("a\0b", 3), "a NUL character"},
  };
  for (const ParameterCase& one : cases) {
    EXPECT_THAT(TextOf({one.type, false, one.value}), HasSubstr("fault: parameter 1: "))
        << one.value;
    EXPECT_THAT(TextOf({one.type, false, one.value}), HasSubstr(one.text)) << one.value;
  }
  EXPECT_THAT(TextOf({SqlParameterType::kText, false, std::string(200, 'x')}), HasSubstr("xxx"));
  EXPECT_THAT(TextOf({SqlParameterType::kInteger, false, std::string(200, 'x')}),
              testing::EndsWith("..."));
}

TEST(PostgresParameters, ListsAreLiteralsWithEveryElementQuoted) {
  EXPECT_EQ(TextOf({SqlParameterType::kText, true, {"a", "b \"c\"", "\\", "NULL", nullptr, "{},"}}),
            R"({"a","b \"c\"","\\","NULL",NULL,"{},"})");
  EXPECT_EQ(TextOf({SqlParameterType::kInteger, true, {1, "2", nullptr}}), R"({"1","2",NULL})");
  EXPECT_EQ(TextOf({SqlParameterType::kInteger, true, Json::array()}), "{}");
  EXPECT_EQ(TextOf({SqlParameterType::kInteger, true, nullptr}), "NULL");
  EXPECT_EQ(TextOf({SqlParameterType::kDate, true, {"2026-01-31"}}), R"({"2026-01-31"})");
  EXPECT_THAT(TextOf({SqlParameterType::kInteger, true, {1, "x"}}), HasSubstr("got x"));
  EXPECT_THAT(TextOf({SqlParameterType::kInteger, true, 5}), HasSubstr("expected a list, got 5"));
}

TEST(PostgresParameters, AZoneMakesATimestampWithTimeZone) {
  const auto type = [](Json value, bool is_list) {
    return ParameterType({SqlParameterType::kTimestamp, is_list, std::move(value)});
  };
  EXPECT_EQ(type("2026-01-31T12:30:00", false), 1114U);
  EXPECT_EQ(type("2026-01-31T12:30:00Z", false), 1184U);
  EXPECT_EQ(type(nullptr, false), 1114U);
  EXPECT_EQ(type({"2026-01-31T12:30:00", "2026-01-31T12:30:00+02"}, true), 1185U);
  EXPECT_EQ(ParameterType({SqlParameterType::kAny, false, 1}), 0U);
  EXPECT_EQ(ParameterType({SqlParameterType::kInteger, true, nullptr}), 1016U);
}

Json ValueOf(PostgresType type, const std::string& text, const PostgresArrays& arrays = {}) {
  std::string fault;
  Json value = PostgresValue(type, text, arrays, fault);
  return fault.empty() ? value : Json("fault: " + fault);
}

TEST(PostgresValues, ArraysAreReadWhateverTheyHold) {
  constexpr PostgresType kInts = 1007, kTexts = 1009, kDoubles = 1022, kDates = 1182;
  EXPECT_EQ(ValueOf(kInts, "{}"), Json::array());
  EXPECT_EQ(ValueOf(kInts, "{1,NULL,-3}"), Json({1, nullptr, -3}));
  EXPECT_EQ(ValueOf(kInts, "{{1,2},{3,4}}"), Json({{1, 2}, {3, 4}}));
  EXPECT_EQ(ValueOf(kInts, "[0:2]={1,2,3}"), Json({1, 2, 3}));
  EXPECT_EQ(ValueOf(kTexts, R"({a,"b,c","NULL",NULL,"q\"\\",""})"),
            Json({"a", "b,c", "NULL", nullptr, "q\"\\", ""}));
  EXPECT_EQ(ValueOf(kDoubles, "{1.5,NaN}"), Json({1.5, "nan"}));
  EXPECT_EQ(ValueOf(kDates, "{\"0044-03-15 BC\"}"), Json({"-000043-03-15"}));
  EXPECT_EQ(ValueOf(99'999, "{a,b}", {{99'999, 88'888}}), Json({"a", "b"}));
  EXPECT_EQ(ValueOf(99'999, "{a,b}", {{99'999, 0}}), Json("{a,b}"));
  for (const char* bad : {"", "{", "{1", "{1,", "1}", "{1}x", "[0:1]", "{\"a}", "{{{{{{{1}}}}}}}"})
    EXPECT_THAT(ValueOf(kTexts, bad).dump(), HasSubstr("fault: ")) << bad;
  EXPECT_EQ(ValueOf(25, "\xC3"), Json("fault: not UTF-8"));
}

TEST(PostgresSettings, AreThoseThatChooseAPlan) {
  for (const char* name : {"enable_seqscan", "random_page_cost", "work_mem", "jit", "geqo_seed",
                           "join_collapse_limit", "plan_cache_mode"}) {
    EXPECT_EQ(SettingFault(name, "x"), "") << name;
  }
  for (const char* name :
       {"", "search_path", "role", "statement_timeout", "Enable_seqscan", "enable_seqscan = off; x",
        "session_replication_role", "transaction_cost x", "default_transaction_read_only"}) {
    EXPECT_THAT(SettingFault(name, "x"), HasSubstr("does not choose a plan")) << name;
  }
}

}  // namespace
}  // namespace halo
