#include "tool/function/local_function.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/error.h"

namespace halo {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;
using Json = nlohmann::ordered_json;

Json J(const char* text) { return Json::parse(text); }

std::vector<std::string> Check(const char* function, Json config) {
  return FindLocalFunction(function)->check(config);
}

/// The value of a call with inputs a, b, c ... whose config is fine.
Json NamedValue(const char* function, Json config, Json inputs) {
  FunctionCall call{function, std::move(config), std::move(inputs), {"out"}};
  EXPECT_THAT(FindLocalFunction(function)->check(call.config), IsEmpty());
  return FindLocalFunction(function)->run(call);
}

Json Value(const char* function, Json config, std::vector<Json> inputs) {
  Json named = Json::object();
  for (size_t i = 0; i < inputs.size(); ++i)
    named[std::string(1, static_cast<char>('a' + i))] = std::move(inputs[i]);
  return NamedValue(function, std::move(config), std::move(named));
}

std::string CodeOf(const char* function, Json config, std::vector<Json> inputs) {
  try {
    Value(function, std::move(config), std::move(inputs));
  } catch (const Failure& failure) {
    EXPECT_FALSE(failure.message.empty());
    EXPECT_FALSE(failure.retriable);
    return failure.code;
  }
  return "";
}

/// `text` within `levels` lists, as JSON.
std::string Nested(size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

TEST(LocalFunctionTest, AllAreThereByName) {
  for (const std::string& name : LocalFunctionNames()) {
    ASSERT_NE(FindLocalFunction(name), nullptr) << name;
    EXPECT_EQ(FindLocalFunction(name)->name, name);
    EXPECT_EQ(FindLocalFunction(name)->run == nullptr, name == "exec");
    EXPECT_THAT(Check(name.c_str(), {{"no_such_key", 1}}), Contains(HasSubstr("no_such_key")))
        << name;
  }
  EXPECT_EQ(FindLocalFunction("Join"), nullptr);
  EXPECT_EQ(FindLocalFunction(""), nullptr);
}

TEST(LocalFunctionTest, PathsLeadIntoValues) {
  const Json value = J(R"({"a": [{"b": null}, {"b": [1, 2]}], "": 5, "0": "zero"})");
  const auto at = [&](const char* path) -> std::string {
    const Json* found = FindPath(value, path);
    return found == nullptr ? "nowhere" : found->dump();
  };
  EXPECT_EQ(at(""), value.dump());
  EXPECT_EQ(at("a.1.b.0"), "1");
  EXPECT_EQ(at("a.0.b"), "null");
  EXPECT_EQ(at("0"), "\"zero\"");
  for (const char* path :
       {"b", "a.2", "a.-1", "a.1x", "a.+1", "a.b", "a.0.b.c", "0.0", "a.99999999999999999999999"})
    EXPECT_EQ(at(path), "nowhere") << path;
}

// ---- json_pick

TEST(JsonPickTest, PicksPartsOfValuesAndOfTheirTexts) {
  const Json value = J(R"({"rows": [{"title": "Kettle"}], "rowcount": 1})");
  EXPECT_EQ(Value("json_pick", {{"path", "rows.0.title"}}, {value}), "Kettle");
  EXPECT_EQ(Value("json_pick", {{"path", "rows.0.title"}}, {value.dump()}), "Kettle");
  EXPECT_EQ(Value("json_pick", {{"path", ""}}, {value}), value);
  EXPECT_EQ(
      Value("json_pick", {{"paths", {{"t", "rows.0.title"}, {"n", "rowcount"}}}}, {value}).dump(),
      R"({"t":"Kettle","n":1})");
  EXPECT_EQ(Value("json_pick", {{"path", "0"}}, {J("[null]")}), nullptr);
  EXPECT_EQ(Value("json_pick", {{"path", ""}}, {"no { json"}), "no { json");
  EXPECT_EQ(Value("json_pick", {{"path", ""}}, {"5"}), "5");
}

TEST(JsonPickTest, WhatIsNotThereFails) {
  EXPECT_EQ(CodeOf("json_pick", {{"path", "a.b"}}, {J(R"({"a": {}})")}), "missing_value");
  EXPECT_EQ(CodeOf("json_pick", {{"path", "a"}}, {"text"}), "missing_value");
  EXPECT_EQ(CodeOf("json_pick", {{"path", "a"}}, {nullptr}), "missing_value");
  EXPECT_EQ(CodeOf("json_pick", {{"paths", {{"x", "a"}, {"y", "b"}}}}, {J(R"({"a": 1})")}),
            "missing_value");
  EXPECT_EQ(CodeOf("json_pick", {{"path", "a"}}, {}), "no_input");
}

TEST(JsonPickTest, ATextOfManyLevelsStaysText) {
  // Deeper than rows may be, a value could not be printed again without a stack of its depth.
  const std::string deep = Nested(200'000);
  EXPECT_EQ(Value("json_pick", {{"path", ""}}, {deep}), deep);
  EXPECT_EQ(CodeOf("json_pick", {{"path", "0"}}, {deep}), "missing_value");
  EXPECT_TRUE(Value("json_pick", {{"path", "0"}}, {Nested(20)}).is_array());
}

TEST(JsonPickTest, ConfigFaults) {
  EXPECT_THAT(Check("json_pick", Json::object()), ElementsAre(HasSubstr("config needs path")));
  EXPECT_THAT(Check("json_pick", {{"path", "a"}, {"paths", Json::object()}}),
              ElementsAre(HasSubstr("config needs path")));
  EXPECT_THAT(Check("json_pick", {{"path", 1}}), ElementsAre("path: expected a text"));
  EXPECT_THAT(Check("json_pick", {{"paths", J("[]")}}), ElementsAre("paths: expected a mapping"));
  EXPECT_THAT(Check("json_pick", {{"paths", {{"x", 1}}}}), ElementsAre("paths.x: expected a text"));
  EXPECT_THAT(Check("json_pick", {{"pth", "a"}, {"path", "b"}}),
              ElementsAre(HasSubstr("did you mean 'path'")));
}

// ---- template

TEST(TemplateFunctionTest, RendersItsInputs) {
  EXPECT_EQ(NamedValue("template", {{"template", "{{ name|upper }}: {{ n + 1 }}"}},
                       {{"name", "k\xC3\xA9y"}, {"n", 2}}),
            "K\xC3\xA9Y: 3");
  EXPECT_EQ(NamedValue("template", {{"template", "constant"}}, Json::object()), "constant");
  EXPECT_EQ(NamedValue("template", {{"template", "{% for x in xs %}{{ x }},{% endfor %}"}},
                       {{"xs", J(R"([1, null, "a"])")}}),
            "1,null,a,");
}

TEST(TemplateFunctionTest, ValuesAreNotTemplates) {
  EXPECT_EQ(NamedValue("template", {{"template", "<{{ a }}>"}}, {{"a", "{{ 6 * 7 }}{% raw %}"}}),
            "<{{ 6 * 7 }}{% raw %}>");
}

TEST(TemplateFunctionTest, FaultsBeforeAndDuringARun) {
  EXPECT_THAT(Check("template", Json::object()), ElementsAre(HasSubstr("config needs template")));
  EXPECT_THAT(Check("template", {{"template", 3}}),
              ElementsAre(HasSubstr("config needs template")));
  EXPECT_THAT(Check("template", {{"template", "{{ a "}}), SizeIs(1));
  EXPECT_NE(CodeOf("template", {{"template", "{{ nothing.here }}"}}, {1}), "");
  EXPECT_NE(CodeOf("template",
                   {{"template",
                     "{% for i in range(100000) %}{% for j in range(100000) %}x"
                     "{% endfor %}{% endfor %}"}},
                   {1}),
            "");
}

// ---- join, concat

TEST(JoinTest, JoinsTextsListsAndRows) {
  EXPECT_EQ(Value("join", Json::object(), {"a", J(R"(["b", 2, null, {"k": 1}])"), true}),
            "a\nb\n2\nnull\n{\"k\":1}\ntrue");
  EXPECT_EQ(Value("join", {{"separator", ", "}}, {J(R"({"rows": ["x", "y"], "rowcount": 2})")}),
            "x, y");
  EXPECT_EQ(Value("join", {{"separator", ""}}, {J("[]"), "", "a"}), "a");
  EXPECT_EQ(Value("join", Json::object(), {J("[]")}), "");
  EXPECT_EQ(Value("join", Json::object(), {}), "");
  EXPECT_EQ(Value("concat", Json::object(), {"a", J(R"(["\u00e9", 1])"), nullptr}),
            "a\xC3\xA9"
            "1null");
  EXPECT_THAT(Check("join", {{"separator", 1}}), ElementsAre("separator: expected a text"));
  EXPECT_THAT(Check("concat", {{"separator", ""}}), ElementsAre(HasSubstr("unknown key")));
}

// ---- top_k

TEST(TopKTest, TakesTheGreatestInOrder) {
  EXPECT_EQ(Value("top_k", {{"k", 2}}, {J("[3, 1, 2]")}).dump(), "[3,2]");
  EXPECT_EQ(Value("top_k", {{"k", 2}, {"least", true}}, {J("[3, 1, 2]")}).dump(), "[1,2]");
  EXPECT_EQ(Value("top_k", {{"k", 9}}, {J("[1, 2]")}).dump(), "[2,1]");
  EXPECT_EQ(Value("top_k", {{"k", 1}}, {J("[]")}).dump(), "[]");
  EXPECT_EQ(Value("top_k", {{"k", 1}}, {}).dump(), "[]");
  // Numbers that are texts, as decimals are, count as numbers.
  EXPECT_EQ(Value("top_k", {{"k", 2}}, {J(R"(["9", "10.50", 10])")}).dump(), R"(["10.50",10])");
}

TEST(TopKTest, GoesByAPathAndKeepsTheOrderOfTies) {
  const Json rows = J(R"({"rows": [{"n": "a", "s": {"v": 1}}, {"n": "b", "s": {"v": 2}}, {"n": "c"},
                          {"n": "d", "s": {"v": 2}}, {"n": "e", "s": {"v": null}}], "rowcount": 5})");
  const auto names = [&](Json config) {
    std::string text;
    for (const Json& row : Value("top_k", std::move(config), {rows}))
      text += row["n"].get<std::string>();
    return text;
  };
  EXPECT_EQ(names({{"k", 5}, {"by", "s.v"}}), "bdace");
  EXPECT_EQ(names({{"k", 5}, {"by", "s.v"}, {"least", true}}), "abdce");
  EXPECT_EQ(names({{"k", 3}, {"by", "s.v"}}), "bda");
}

TEST(TopKTest, OrderDoesNotDependOnHowElementsCameIn) {
  // As numbers 9 < 10, as texts "10" < "5a" < "9": texts stand behind numbers, or there is no
  // order.
  const std::vector<Json> elements = {"9", "10", "5a", "b", 2, nullptr, true};
  std::vector<size_t> places = {0, 1, 2, 3, 4, 5, 6};
  const std::string expected = Value("top_k", {{"k", 7}}, {Json(elements)}).dump();
  do {
    Json list = Json::array();
    for (const size_t place : places) list.push_back(elements[place]);
    ASSERT_EQ(Value("top_k", {{"k", 7}}, {list}).dump(), expected) << list;
  } while (std::next_permutation(places.begin(), places.end()));
}

TEST(TopKTest, NumbersBeyondDoubleAreToldApart) {
  EXPECT_EQ(Value("top_k", {{"k", 1}}, {J("[9007199254740992, 9007199254740993]")}).dump(),
            "[9007199254740993]");
  EXPECT_EQ(
      Value("top_k", {{"k", 1}}, {J(R"(["0.10000000000000000001", "0.1000000000000000000200"])")})
          .dump(),
      R"(["0.1000000000000000000200"])");
}

TEST(TopKTest, ConfigFaults) {
  for (const char* config :
       {"{}", R"({"k": 0})", R"({"k": -1})", R"({"k": 1.5})", R"({"k": "3"})", R"({"k": 1000001})"})
    EXPECT_THAT(Check("top_k", J(config)), ElementsAre(HasSubstr("config needs k"))) << config;
  EXPECT_THAT(Check("top_k", J(R"({"k": 1, "by": 1, "least": "yes"})")),
              ElementsAre(HasSubstr("by: expected"), HasSubstr("least: expected")));
}

// ---- majority_vote

TEST(MajorityVoteTest, TheMostFrequentWinsTiesGoToTheFirst) {
  EXPECT_EQ(Value("majority_vote", Json::object(), {"b", "a", J(R"(["a", "b", "a"])")}), "a");
  EXPECT_EQ(Value("majority_vote", Json::object(), {J(R"(["b", "a"])")}), "b");
  EXPECT_EQ(Value("majority_vote", Json::object(), {" yes\n", "no", "yes"}), "yes");
  EXPECT_EQ(Value("majority_vote", Json::object(), {J(R"([{"k": 1}, 5, {"k": 1}])")}).dump(),
            R"({"k":1})");
  EXPECT_EQ(Value("majority_vote", Json::object(), {nullptr, nullptr, "x"}), "x");
  EXPECT_EQ(Value("majority_vote", {{"with_counts", true}}, {"x", nullptr, "y", "x"}).dump(),
            R"({"winner":"x","votes":2,"voters":3})");
  EXPECT_EQ(Value("majority_vote", Json::object(), {"", "  "}), "");
}

TEST(MajorityVoteTest, WithoutVotesItFails) {
  EXPECT_EQ(CodeOf("majority_vote", Json::object(), {}), "no_input");
  EXPECT_EQ(CodeOf("majority_vote", Json::object(), {J("[]"), nullptr}), "no_input");
  EXPECT_THAT(Check("majority_vote", {{"with_counts", 1}}),
              ElementsAre(HasSubstr("true or false")));
}

// ---- compare

TEST(CompareTest, AsNumbersWhereBothAreElseAsTexts) {
  const auto holds = [](const char* op, Json a, Json b) {
    return Value("compare", {{"op", op}}, {std::move(a), std::move(b)}).get<bool>();
  };
  EXPECT_TRUE(holds("<", "9", "10"));
  EXPECT_TRUE(holds("<", "9a", "b"));
  EXPECT_TRUE(holds("<", "10", "9a"));
  EXPECT_TRUE(holds("==", "12.50", 12.5));
  EXPECT_TRUE(holds("==", "1e3", "1000.00"));
  EXPECT_TRUE(holds("==", "-0", 0));
  EXPECT_TRUE(holds("<", "-10", "-9.5"));
  EXPECT_TRUE(holds("<=", 3, 3));
  EXPECT_TRUE(holds(">=", 3, 3));
  EXPECT_FALSE(holds(">", 3, 3));
  EXPECT_FALSE(holds("!=", 3, "3"));
  EXPECT_TRUE(holds("==", "\xC3\xA9", "\xC3\xA9"));
  EXPECT_TRUE(holds("!=", "\xC3\xA9", "e"));
  EXPECT_TRUE(holds("==", nullptr, nullptr));
  EXPECT_TRUE(holds("<", nullptr, -5));
  EXPECT_FALSE(holds("==", nullptr, ""));
  EXPECT_TRUE(holds("==", J("[1]"), "[1]"));
  EXPECT_TRUE(holds("!=", "nan", "inf"));
  EXPECT_TRUE(holds("<", "1e-400", "1e-399"));
  EXPECT_TRUE(holds("<", "1e399", "1e400"));
}

TEST(CompareTest, NumbersLoseNoDigit) {
  const auto equal = [](Json a, Json b) {
    return Value("compare", {{"op", "=="}}, {std::move(a), std::move(b)}).get<bool>();
  };
  EXPECT_FALSE(equal(J("9007199254740993"), J("9007199254740992")));
  EXPECT_FALSE(
      equal("12345678901234567890123456789012345678", "12345678901234567890123456789012345679"));
  EXPECT_TRUE(equal("12345678901234567890.50", "12345678901234567890.5"));
  EXPECT_FALSE(equal(J("18446744073709551615"), "18446744073709551616"));
}

TEST(CompareTest, TakesTheSecondValueFromItsConfig) {
  EXPECT_EQ(Value("compare", {{"op", ">"}, {"value", 100}}, {"100.01"}), true);
  EXPECT_EQ(Value("compare", {{"op", "=="}, {"value", nullptr}}, {nullptr}), true);
  EXPECT_EQ(CodeOf("compare", {{"op", ">"}}, {"1"}), "no_input");
  EXPECT_EQ(CodeOf("compare", {{"op", ">"}, {"value", 1}}, {}), "no_input");
  for (const char* config : {"{}", R"({"op": "="})", R"({"op": 1})"})
    EXPECT_THAT(Check("compare", J(config)), ElementsAre(HasSubstr("config needs op"))) << config;
}

// ---- exec

TEST(ExecConfigTest, ConfigFaults) {
  EXPECT_THAT(Check("exec", {{"command", J(R"(["x", "y"])")}}), IsEmpty());
  for (const char* config :
       {"{}", R"({"command": "ls -l"})", R"({"command": []})", R"({"command": [1]})",
        R"({"command": [""]})", R"({"command": ["a\u0000b"]})"})
    EXPECT_THAT(Check("exec", J(config)), ElementsAre(HasSubstr("config needs command"))) << config;
  const auto limit = [](const char* key, const char* value) {
    Json config = {{"command", {"x"}}};
    config[key] = J(value);
    return Check("exec", config);
  };
  for (const char* key : {"memory_mb", "most_bytes", "processes"}) {
    EXPECT_THAT(limit(key, "1"), IsEmpty()) << key;
    for (const char* value :
         {"0", "-1", "1.5", "\"1\"", "true", "9223372036854775807", "18446744073709551615"})
      EXPECT_THAT(limit(key, value), ElementsAre(HasSubstr(key))) << key << ": " << value;
  }
  EXPECT_THAT(limit("processes", "4294967296"), SizeIs(1));
}

// ---- regex_param_extractor, halo_v2 section 1.8

Json Extract(Json config, Json text) {
  return Value("regex_param_extractor", std::move(config), {std::move(text)});
}

TEST(RegexExtractorTest, TheFirstPatternThatMatchesCounts) {
  EXPECT_EQ(
      Extract(J(R"~({"regex": {"year": ["in (\\d{4})", "\\d{4}"]}})~"), "1999, in 1994 and in 1995")
          .dump(),
      R"({"year":"1994"})");
  EXPECT_EQ(Extract(J(R"~({"regex": {"year": ["in (\\d{4})", "\\d{4}"]}})~"), "1999").dump(),
            R"({"year":"1999"})");
  EXPECT_EQ(Extract(J(R"({"regex": {"year": "x"}})"), "nothing").dump(), "{}");
  EXPECT_EQ(Extract(J(R"({"regex": {}})"), "nothing").dump(), "{}");
  EXPECT_EQ(Extract(J(R"({"regex": {"a": []}})"), "nothing").dump(), "{}");
}

TEST(RegexExtractorTest, GroupsDecideWhatIsTaken) {
  // None: the whole; one: it; several: the first.
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "k\\w+", "b": "k(\\w+)", "c": "(k)(e)(t)"}})~"), "kettle")
                .dump(),
            R"({"a":"kettle","b":"ettle","c":"k"})");
  // A group that took no part gives nothing.
  EXPECT_EQ(Extract(J(R"({"regex": {"a": "k(x)?"}})"), "kettle").dump(), "{}");
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "k()"}})~"), "kettle").dump(), R"({"a":""})");
}

TEST(RegexExtractorTest, AFieldThatEndsInTwoSharesItsPattern) {
  const char* pattern = R"~({"regex": {"year2": "between (\\d+) and (\\d+)"}})~";
  EXPECT_EQ(Extract(J(pattern), "between 1990 and 1999").dump(),
            R"({"year":"1990","year2":"1999"})");
  // The field without the 2 keeps what was found before, and takes the place of a default.
  EXPECT_EQ(Extract(J(R"~({"regex": {"year": "\\d+", "year2": "between (\\d+) and (\\d+)"}})~"),
                    "1970: between 1990 and 1999")
                .dump(),
            R"({"year":"1970","year2":"1999"})");
  EXPECT_EQ(
      Extract(
          J(R"~({"regex": {"year2": "between (\\d+) and (\\d+)"}, "defaults": {"year": "1900"}})~"),
          "between 1990 and 1999")
          .dump(),
      R"({"year":"1990","year2":"1999"})");
  // One group is that group's, for such a field too.
  EXPECT_EQ(Extract(J(R"~({"regex": {"year2": "to (\\d+)"}})~"), "to 1999").dump(),
            R"({"year2":"1999"})");
}

TEST(RegexExtractorTest, FlagsIgnoreCase) {
  EXPECT_EQ(
      Extract(J(R"({"regex": {"a": {"pattern": "KETTLE", "flags": "i"}, "b": {"regex": "KETTLE"},
                       "c": [{"pattern": "x"}, {"pattern": "K.T", "flags": "I"}]}})"),
              "Kettle")
          .dump(),
      R"({"a":"Kettle","c":"Ket"})");
}

TEST(RegexExtractorTest, SeveralAreAListOnlyWhereThatIsAllowed) {
  EXPECT_EQ(
      Extract(J(R"~({"regex": {"n": ["\\d+", "#(\\w)"]}, "allow_multi": ["n"]})~"), "1 22 #a 333")
          .dump(),
      R"({"n":["1","22","333","a"]})");
  EXPECT_EQ(
      Extract(J(R"({"regex": {"n": "\\d+"}, "allow_multi": ["n"], "defaults": {"n": ["0"]}})"),
              "none")
          .dump(),
      R"({"n":["0"]})");
  // Empty matches end, between the bytes of a character never.
  EXPECT_EQ(Extract(J(R"({"regex": {"n": "x*"}, "allow_multi": ["n"]})"), "\xC3\xA9x").dump(),
            R"({"n":["","x",""]})");
  EXPECT_EQ(Extract(J(R"({"regex": {"n": "a(b)?"}, "allow_multi": ["n"]})"), "a ab").dump(),
            R"({"n":["b"]})");
}

TEST(RegexExtractorTest, FoundValuesTakeThePlaceOfDefaults) {
  EXPECT_EQ(
      Extract(J(R"({"regex": {"b": "\\d", "c": "z"}, "defaults": {"a": 1, "b": "x", "c": null}})"),
              "7")
          .dump(),
      R"({"a":1,"b":"7","c":null})");
}

TEST(RegexExtractorTest, ValuesAreNormalizedStepByStep) {
  EXPECT_EQ(
      Extract(J(R"({"regex": {"a": ".*"}, "normalize": {"strip_quotes": true}})"), " \"it's\" ")
          .dump(),
      R"({"a":"it's"})");
  EXPECT_EQ(
      Extract(J(R"({"regex": {"a": ".*"}, "normalize": {"strip_quotes": false}})"), "\"q\"").dump(),
      R"({"a":"\"q\""})");
  EXPECT_EQ(Extract(J(R"({"regex": {"a": ".*"}, "uppercase_fields": ["a"]})"),
                    "br\xC3\xBC"
                    "nd#12")
                .dump(),
            "{\"a\":\"BR\xC3\xBCND#12\"}");
  // Defaults too, and every element of a list.
  EXPECT_EQ(Extract(J(R"({"regex": {"b": "\\w+"}, "allow_multi": ["b"], "defaults": {"a": "x"},
                       "uppercase_fields": ["a", "b"]})"),
                    "c d")
                .dump(),
            R"({"a":"X","b":["C","D"]})");
}

TEST(RegexExtractorTest, EnumsAreMetExactlyThenLooselyThenByPrefix) {
  const auto canonical = [](const char* text) {
    return Extract(
        J(R"({"regex": {"m": ".+"}, "enums": {"m": ["AIR", "REG AIR", "Truck", "TRUCK LOAD"]}})"),
        text)["m"];
  };
  EXPECT_EQ(canonical("AIR"), "AIR");
  EXPECT_EQ(canonical("air"), "AIR");
  EXPECT_EQ(canonical("Reg Air"), "REG AIR");
  EXPECT_EQ(canonical("REGAIR"), "REG AIR");
  EXPECT_EQ(canonical("reg"), "REG AIR");
  EXPECT_EQ(canonical("trucks"), "Truck");
  EXPECT_EQ(canonical("Truck load"), "TRUCK LOAD");
  EXPECT_EQ(canonical("bicycle"), "BICYCLE");
  // An empty value of an enum is no prefix of everything.
  EXPECT_EQ(Extract(J(R"({"regex": {"m": ".+"}, "enums": {"m": ["", "RAIL"]}})"), "rail").dump(),
            R"({"m":"RAIL"})");
  EXPECT_EQ(Extract(J(R"({"regex": {"m": ".+"}, "enums": {"m": ["", "RAIL"]}})"), "bus").dump(),
            R"({"m":"BUS"})");
}

TEST(RegexExtractorTest, DatesBecomeIso) {
  const auto date = [](const char* text) {
    return Extract(J(R"({"regex": {"d": ".+"}, "date_fields": ["d"]})"), text)["d"];
  };
  EXPECT_EQ(date("1995/3/5"), "1995-03-05");
  EXPECT_EQ(date("1995-03-05"), "1995-03-05");
  EXPECT_EQ(date("1996/02/29"), "1996-02-29");
  // What is no such date stays as it is.
  for (const char* text : {"3/5/1995", "1995/13/05", "1995/02/29", "95/3/5", "1995/3", "1995/3/5x",
                           "March 5", "1995/-3/5", "19950/3/5", "1995/3/555"})
    EXPECT_EQ(date(text), text);
}

TEST(RegexExtractorTest, NumbersBecomeNumbers) {
  const auto number = [](const char* text) {
    return Extract(J(R"({"regex": {"n": ".+"}, "numeric_fields": ["n"]})"), text)["n"].dump();
  };
  EXPECT_EQ(number("42"), "42");
  EXPECT_EQ(number("-0.5"), "-0.5");
  EXPECT_EQ(number("007"), "7");
  EXPECT_EQ(number("+3"), "3");
  EXPECT_EQ(number(".25"), "0.25");
  EXPECT_EQ(number("9223372036854775807"), "9223372036854775807");
  for (const char* text :
       {"1,000", "12a", "0x10", "nan", "inf", "1e999", "--1", "+-1", "[1]", "true"})
    EXPECT_EQ(number(text), Json(text).dump());
}

TEST(RegexExtractorTest, ReadsTheFirstInputAsText) {
  EXPECT_EQ(NamedValue("regex_param_extractor", J(R"({"regex": {"a": "\\w+"}})"),
                       {{"x", "first"}, {"y", "second"}})
                .dump(),
            R"({"a":"first"})");
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "\"k\":(\\d)"}})~"), J(R"({"k": 7})")).dump(),
            R"({"a":"7"})");
  EXPECT_EQ(Extract(J(R"({"regex": {"a": "null"}})"), nullptr).dump(), R"({"a":"null"})");
  EXPECT_EQ(CodeOf("regex_param_extractor", J(R"({"regex": {"a": "x"}})"), {}), "no_input");
}

TEST(RegexExtractorTest, TextIsUnicode) {
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "^.(.)"}})~"), "\xC3\xA9\xF0\x9F\xA6\x86x").dump(),
            "{\"a\":\"\xF0\x9F\xA6\x86\"}");
  // Bytes that are no text are replaced, as they are everywhere.
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "b(.*)"}})~"),
                    "\xFF"
                    "b\xC3")
                .dump(),
            "{\"a\":\"\xEF\xBF\xBD\"}");
  EXPECT_EQ(Extract(J(R"~({"regex": {"a": "b(.*)"}})~"), std::string("a\0bc", 4)).dump(),
            R"({"a":"c"})");
}

TEST(RegexExtractorTest, APatternThatATextBlowsUpEndsTheCall) {
  const std::string letters(30'000, 'a');
  struct Case {
    const char* pattern;
    std::string text;
  };
  const std::vector<Case> cases = {
      // What a pattern ends with stands in the text, or none would be tried.
      {"(a+)+$", letters + "!"},
      {"(a|a|b)*c", letters + " c"},
      {"(a*)*b", letters + "!b"},
      // Each place of the text costs little, all of them together too much.
      {"a*[ab]*c", std::string(1'000'000, 'a') + " c"},
      {"\\w+\\s*=", std::string(4'000'000, 'a') + "!="},
      {"(?:\\w+)\\s*\\w+\\s*=", std::string(1200, 'a') + std::string(1'000'000, ' ') + "!="},
  };
  for (const Case& each : cases) {
    SCOPED_TRACE(each.pattern);
    EXPECT_EQ(CodeOf("regex_param_extractor", {{"regex", {{"a", each.pattern}}}}, {each.text}),
              "regex_limit");
  }
  // Matches that are cheap one by one count together.
  EXPECT_EQ(
      CodeOf("regex_param_extractor", {{"regex", {{"a", "a(?=a*b)"}}}, {"allow_multi", {"a"}}},
             {std::string(100'000, 'a') + "b"}),
      "regex_limit");
}

TEST(RegexExtractorTest, LongTextsAreFine) {
  std::string text;
  for (int i = 0; i < 20'000; ++i) text += "word" + std::to_string(i) + " ";
  text += "year: 1994";
  EXPECT_EQ(
      Extract(J(R"~({"regex": {"y": "year: (\\d{4})", "k": {"pattern": "YEAR", "flags": "i"}}})~"),
              text)
          .dump(),
      R"({"y":"1994","k":"year"})");
  EXPECT_EQ(Extract(J(R"({"regex": {"w": "word\\d+"}, "allow_multi": ["w"]})"), text)["w"].size(),
            20'000U);
  EXPECT_EQ(Extract(J(R"~({"regex": {"y": ".*year: (\\d{4})"}})~"), text)["y"], "1994");
}

TEST(RegexExtractorTest, ConfigFaults) {
  const auto check = [](const char* config) { return Check("regex_param_extractor", J(config)); };
  EXPECT_THAT(check("{}"), ElementsAre(HasSubstr("config needs regex")));
  EXPECT_THAT(check(R"({"regex": "x"})"), ElementsAre(HasSubstr("config needs regex")));
  EXPECT_THAT(check(R"({"regex": {"a": "("}})"),
              ElementsAre(testing::AllOf(HasSubstr("regex.a"), HasSubstr("character"))));
  EXPECT_THAT(check(R"({"regex": {"a": 3}})"),
              ElementsAre(HasSubstr("regex.a: expected a pattern")));
  EXPECT_THAT(check(R"({"regex": {"a": ["x", {"flags": "i"}]}})"),
              ElementsAre(HasSubstr("regex.a: expected a pattern")));
  EXPECT_THAT(check(R"({"regex": {"a": {"pattern": "x", "flags": "x"}}})"), SizeIs(1));
  EXPECT_THAT(check(R"({"regex": {"a": {"pattern": "x", "flag": "i"}}})"), SizeIs(1));
  EXPECT_THAT(check(R"({"regex": {}, "defaults": []})"),
              ElementsAre(HasSubstr("defaults: expected a mapping")));
  EXPECT_THAT(check(R"({"regex": {}, "allow_multi": "a"})"),
              ElementsAre(HasSubstr("allow_multi: expected a list")));
  EXPECT_THAT(check(R"({"regex": {}, "numeric_fields": [1]})"),
              ElementsAre(HasSubstr("numeric_fields: expected a list")));
  EXPECT_THAT(check(R"({"regex": {}, "enums": ["A"]})"),
              ElementsAre(HasSubstr("enums: expected a mapping")));
  EXPECT_THAT(check(R"({"regex": {}, "enums": {"m": "A"}})"),
              ElementsAre(HasSubstr("enums.m: expected a list of values")));
  EXPECT_THAT(check(R"({"regex": {}, "normalize": true})"),
              ElementsAre(HasSubstr("normalize: expected")));
  EXPECT_THAT(check(R"({"regex": {}, "normalize": {"strip_quotes": 1}})"),
              ElementsAre(HasSubstr("normalize: expected")));
  EXPECT_THAT(check(R"({"regex": {}, "normalize": {"strip_quote": true}})"),
              ElementsAre(HasSubstr("normalize: expected")));
  EXPECT_THAT(check(R"({"regexp": {}})"), Contains(HasSubstr("did you mean 'regex'")));
}

}  // namespace
}  // namespace halo
