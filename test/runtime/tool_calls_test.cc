#include "runtime/tool_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <set>

#include "base/error.h"
#include "workflow/workflow.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;
using Values = std::map<std::string, Json>;

ToolSetup TestSetup() {
  ToolSetup setup;
  setup.connections["shop"] = {SqlDialect::kDuckDb, {}, {}, false};
  setup.connections["other"] = {SqlDialect::kDuckDb, {}, {}, false};
  setup.connections["server"] = {SqlDialect::kPostgres, {}, {}, false};
  setup.secrets = {{"env:TOKEN", "hunter2"}, {"env:OTHER", "hunter3"}, {"file:key", "hunter4"}};
  return setup;
}

/// A graph of one tool, `tool`, with the keys `keys`, that reads the columns a and b.
Workflow OneTool(const std::string& keys) {
  return ParseWorkflow(
      "graph:\n"
      "  connections: {shop: \"duckdb::memory:\", other: \"duckdb::memory:\", server: "
      "\"postgres://h/d\"}\n"
      "  allow_hosts: [example.org]\n"
      "  nodes:\n"
      "    - {id: in, type: input, outputs: [a, b]}\n"
      "    - {id: tool, " +
          keys + "}\n",
      "flow.yaml");
}

std::string Query(const std::string& sql, const std::string& more = "") {
  return "type: db_query, connection: shop, sql: \"" + sql + "\"" +
         (more.empty() ? "" : ", " + more);
}

std::string Http(const std::string& url, const std::string& more = "") {
  return "type: http, url: \"" + url + "\"" + (more.empty() ? "" : ", " + more);
}

/// What a tool with these keys makes of these values.
BuiltToolCall Build(const std::string& keys, const Values& values,
                    const ToolSetup& setup = TestSetup(), uint64_t draw_key = 1) {
  const Workflow workflow = OneTool(keys);
  const Operator& op = workflow.operators.front();
  return ToolCallBuilder(op, setup).Build(values, draw_key);
}

Failure FailureOf(const std::string& keys, const Values& values) {
  try {
    Build(keys, values);
  } catch (const Failure& failure) {
    return failure;
  }
  ADD_FAILURE() << "it was built: " << keys;
  return {};
}

const HttpCall& HttpOf(const BuiltToolCall& built) { return std::get<HttpCall>(built.call.what); }
const SqlCall& SqlOf(const BuiltToolCall& built) { return std::get<SqlCall>(built.call.what); }

std::string UrlOf(const std::string& keys, const Values& values) {
  return HttpOf(Build(keys, values)).url;
}

/// Sets of calls that are equal among themselves, and to none of the other sets.
void ExpectClasses(const std::vector<std::vector<BuiltToolCall>>& classes) {
  std::map<Signature, size_t> class_of;
  for (size_t i = 0; i < classes.size(); ++i) {
    std::set<Signature> signatures;
    for (const BuiltToolCall& built : classes[i]) {
      ASSERT_TRUE(built.may_share) << "class " << i;
      signatures.insert(built.request);
    }
    EXPECT_EQ(signatures.size(), 1U) << "class " << i;
    for (const Signature& signature : signatures) {
      const auto [found, is_new] = class_of.emplace(signature, i);
      EXPECT_TRUE(is_new) << "class " << i << " is equal to class " << found->second;
    }
  }
}

// ---- queries

TEST(ToolCallsTest, QueriesAreEqualWhereTextConnectionValuesAndLimitsAre) {
  const Values one = {{"a", 1}, {"b", "x"}};
  const auto with = [&](const std::string& sql, const std::string& more, const Values& values) {
    return Build(Query(sql, more), values);
  };
  const std::string p = "parameters: {p: \"{{ a }}\"}";
  ExpectClasses({
      // Blanks, comments, a semicolon and the names of parameters are nothing.
      {with("SELECT x FROM t WHERE y = :p", p, one),
       with("SELECT  x\\nFROM t WHERE y = :p;", p, one),
       with("SELECT x /* c */ FROM t WHERE y = :p -- end", p, one),
       with("SELECT x FROM t WHERE y = :q", "parameters: {q: \"{{ a }}\"}", one),
       with("SELECT x FROM t WHERE y = :p", "parameters: {p: 1}", one),
       with("SELECT x FROM t WHERE y = :p", p + ", result_mappings: {z: 0.x}", one),
       with("SELECT x FROM t WHERE y = :p", p + ", prompt_rows: 3", one)},
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", 2}, {"b", ""}})},
      // The number, its text and its double are different values.
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", "1"}, {"b", ""}})},
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", 1.0}, {"b", ""}})},
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", true}, {"b", ""}})},
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", nullptr}, {"b", ""}})},
      {with("SELECT x FROM t WHERE y = :p", p, {{"a", "null"}, {"b", ""}})},
      // Types.
      {with("SELECT x FROM t WHERE y = :p", p + ", param_types: {p: int}", one)},
      {with("SELECT x FROM t WHERE y = :p", p + ", param_types: {p: text}", one)},
      {with("SELECT x FROM t WHERE y = :p", p + ", param_types: {p: \"text[]\"}",
            {{"a", Json::array({"1"})}, {"b", ""}})},
      {with("SELECT x FROM t WHERE y = :p", p + ", param_types: {p: text}",
            {{"a", Json::array({"1"})}, {"b", ""}})},
      // What is in quotes is.
      {with("SELECT 'a  b'", "", one)},
      {with("SELECT 'a b'", "", one)},
      {with("SELECT 'A b'", "", one)},
      // Limits, retries and times decide on failures.
      {with("SELECT x FROM t WHERE y = :p", p + ", most_rows: 5", one)},
      {with("SELECT x FROM t WHERE y = :p", p + ", most_bytes: 5", one)},
      {with("SELECT x FROM t WHERE y = :p", p + ", retry: {max: 1}", one)},
      {with("SELECT x FROM t WHERE y = :p", p + ", timeout_s: 1", one)},
      {Build("type: db_query, connection: other, sql: \"SELECT x FROM t WHERE y = :p\", " + p,
             one)},
      {Build("type: db_query, connection: server, sql: \"SELECT x FROM t WHERE y = :p\", " + p,
             one),
       Build("type: db_query, connection: server, sql: {postgres: \"SELECT x FROM t WHERE y = "
             ":p\", duckdb: \"SELECT 5 + :p\"}, " +
                 p,
             one)},
      {Build("type: db_query, connection: server, sql: \"SELECT x FROM t WHERE y = :p\", plans: "
             "[{settings: {enable_hashjoin: \"off\"}}], " +
                 p,
             one)},
      {Build("type: db_query, connection: server, sql: \"SELECT x FROM t WHERE y = :p\", plans: "
             "[{settings: {enable_hashjoin: \"on\"}}], " +
                 p,
             one)},
  });
}

TEST(ToolCallsTest, ValuesThatAreWrittenTogetherAreKeptApart) {
  const std::string two = "parameters: {p: \"{{ a }}\", q: \"{{ b }}\"}";
  const auto with = [&](Json a, Json b) {
    return Build(Query("SELECT :p, :q", two), {{"a", std::move(a)}, {"b", std::move(b)}});
  };
  ExpectClasses({{with("ab", "c")},
                 {with("a", "bc")},
                 {with("abc", "")},
                 {with("", "abc")},
                 {with("c", "ab")}});
}

TEST(ToolCallsTest, WhatMayChangeOrChangesIsNeverShared) {
  const Values values = {{"a", 1}, {"b", 2}};
  const auto shared = [&](const std::string& keys, const ToolSetup& setup = TestSetup()) {
    return Build(keys, values, setup).may_share;
  };
  EXPECT_TRUE(shared(Query("SELECT 1")));
  EXPECT_FALSE(shared(Query("SELECT now()")));
  EXPECT_FALSE(shared(Query("SELECT pg_catalog.now()")));
  EXPECT_FALSE(shared(Query("SELECT 1", "coalesce: false")));
  EXPECT_FALSE(shared(Query("SELECT 1", "cache: off")));
  EXPECT_FALSE(shared(Query("DELETE FROM t", "effect: write")));
  EXPECT_FALSE(shared(Query("SELECT 1", "effect: write")));
  EXPECT_FALSE(shared(Http("http://example.org/x")));
  EXPECT_TRUE(shared(Http("http://example.org/x", "coalesce: true")));
  EXPECT_FALSE(shared(Http("http://example.org/x", "coalesce: true, cache: off")));
  EXPECT_FALSE(shared(Http("http://example.org/x", "method: POST, idempotent: true")));
  EXPECT_TRUE(shared(Http("http://example.org/x", "method: POST, effect: read, coalesce: true")));
  EXPECT_FALSE(shared("type: processor, processor: concat, inputs: [a]"));
  EXPECT_TRUE(shared("type: processor, processor: concat, inputs: [a], coalesce: true"));
  ToolSetup off = TestSetup();
  off.share = false;
  EXPECT_FALSE(shared(Query("SELECT 1"), off));
}

TEST(ToolCallsTest, TheCatalogueCountsWithAndWithoutASchema) {
  ToolSetup setup = TestSetup();
  setup.connections["shop"].volatile_functions = {{"", "dice"}};
  setup.connections["shop"].volatile_relations = {{"", "clock"}};
  for (const char* sql :
       {"SELECT dice()", "SELECT main.dice()", "SELECT DICE()", "SELECT * FROM clock",
        "SELECT * FROM main.clock", "SELECT * FROM \\\"Clock\\\"",
        "SELECT * FROM a JOIN data.main.clock USING (id)"})
    EXPECT_FALSE(Build(Query(sql), {}, setup).may_share) << sql;
  EXPECT_TRUE(Build(Query("SELECT * FROM clocks"), {}, setup).may_share);
}

TEST(ToolCallsTest, ParametersKeepTheirTypes) {
  const Values values = {{"a", Json::parse(R"({"n": 5, "t": "x", "l": [1, null]})")},
                         {"b", nullptr}};
  const SqlCall call = SqlOf(Build(Query("SELECT :n, :t, :l, :null, :both, :list, :const, :missing",
                                         "parameters: {t: \"{{ a.t }}\", n: \"{{ a.n }}\", l: \"{{ "
                                         "a.l }}\", \"null\": \"{{ b }}\", "
                                         "both: \"{{ a.n }} and {{ a.t }}\", list: [\"{{ a.n }}\", "
                                         "2, [\"{{ a.t }}\"]], const: user_query, "
                                         "missing: null}, "
                                         "param_types: {n: int, list: json}"),
                                   values));
  EXPECT_EQ(call.text, "SELECT $1, $2, $3, $4, $5, $6, $7, $8");
  std::vector<std::string> shown;
  for (const SqlArgument& argument : call.arguments) shown.push_back(argument.value.dump());
  EXPECT_THAT(shown, ElementsAre("5", "\"x\"", "[1,null]", "null", "\"5 and x\"", "[5,2,[\"x\"]]",
                                 "\"user_query\"", "null"));
  EXPECT_EQ(call.arguments[0].type, SqlParameterType::kInteger);
  EXPECT_EQ(call.arguments[1].type, SqlParameterType::kAny);
  EXPECT_EQ(call.arguments[5].type, SqlParameterType::kJson);
}

TEST(ToolCallsTest, MissingInputsFailTheCall) {
  const std::string keys =
      Query("SELECT :p", "parameters: {p: \"{{ a.n }}\"}, required_inputs: [a.n, b]");
  EXPECT_EQ(FailureOf(keys, {{"a", {{"n", 1}}}, {"b", nullptr}}).code, "missing_input");
  EXPECT_THAT(FailureOf(keys, {{"a", {{"n", nullptr}}}, {"b", 1}}).message, HasSubstr("'a.n'"));
  EXPECT_EQ(FailureOf(keys, {{"a", "text"}, {"b", 1}}).code, "missing_input");
  EXPECT_EQ(SqlOf(Build(keys, {{"a", {{"n", 1}}}, {"b", 0}})).arguments.size(), 1U);
  // A template that reads what is not there says so.
  EXPECT_NE(FailureOf(Query("SELECT :p", "parameters: {p: \"{{ a.n.m }}\"}"),
                      {{"a", {{"n", 1}}}, {"b", 1}})
                .message,
            "");
}

TEST(ToolCallsTest, PlansAreForPostgres) {
  const std::string plan =
      "sql: \"SELECT 1\", plans: [{settings: {work_mem: 64MB, enable_seqscan: \"off\"}}, "
      "{settings: {x: y}}]";
  EXPECT_THAT(SqlOf(Build("type: db_query, connection: server, " + plan, {})).settings,
              ElementsAre(std::pair<std::string, std::string>("work_mem", "64MB"),
                          std::pair<std::string, std::string>("enable_seqscan", "off")));
  EXPECT_TRUE(SqlOf(Build("type: db_query, connection: shop, " + plan, {})).settings.empty());
  // Of several plans one may be chosen; calls under different ones are not equal.
  const Workflow workflow = OneTool("type: db_query, connection: server, " + plan);
  const Operator& op = workflow.operators.front();
  ToolSetup setup = TestSetup();
  const BuiltToolCall first = ToolCallBuilder(op, setup).Build({}, 1);
  setup.plans[op.tool.get()] = 1;
  const BuiltToolCall second = ToolCallBuilder(op, setup).Build({}, 1);
  EXPECT_THAT(SqlOf(second).settings, testing::ElementsAre(testing::Pair("x", "y")));
  EXPECT_NE(first.request, second.request);
}

// ---- HTTP

TEST(ToolCallsTest, DataStaysWithinItsPlaceInAUrl) {
  const auto path = [](const Json& value) {
    return UrlOf(Http("http://example.org/v1/{{ a }}/x?k={{ b }}&c=1"),
                 {{"a", value}, {"b", value}});
  };
  EXPECT_EQ(path("plain-1_2.3~"), "http://example.org/v1/plain-1_2.3~/x?k=plain-1_2.3~&c=1");
  EXPECT_EQ(path("a/../b"), "http://example.org/v1/a%2F..%2Fb/x?k=a%2F..%2Fb&c=1");
  EXPECT_EQ(path("?q=1&r#f"), "http://example.org/v1/%3Fq%3D1%26r%23f/x?k=%3Fq%3D1%26r%23f&c=1");
  EXPECT_EQ(path("@evil.org:80/"),
            "http://example.org/v1/%40evil.org%3A80%2F/x?k=%40evil.org%3A80%2F&c=1");
  EXPECT_EQ(path("na\xC3\xAFve \xF0\x9F\xA6\x86"),
            "http://example.org/v1/na%C3%AFve%20%F0%9F%A6%86/x?k=na%C3%AFve%20%F0%9F%A6%86&c=1");
  EXPECT_EQ(path("%2e%2e"), "http://example.org/v1/%252e%252e/x?k=%252e%252e&c=1");
  EXPECT_EQ(path(std::string("\r\n\0\x7f", 4)),
            "http://example.org/v1/%0D%0A%00%7F/x?k=%0D%0A%00%7F&c=1");
  EXPECT_EQ(path(5), "http://example.org/v1/5/x?k=5&c=1");
  EXPECT_EQ(path(Json::parse(R"(["a"])")),
            "http://example.org/v1/%5B%22a%22%5D/x?k=%5B%22a%22%5D&c=1");
}

TEST(ToolCallsTest, DataNeverWalksUpAPath) {
  for (const char* value : {".", ".."}) {
    for (const char* url :
         {"http://example.org/v1/{{ a }}/x", "http://example.org/v1/{{ a }}",
          "http://example.org/{{ a }}?x=1", "http://example.org/v1/{{ a }}{{ b }}/x"})
      EXPECT_EQ(FailureOf(Http(url), {{"a", value}, {"b", ""}}).code, "bad_url") << url << value;
  }
  EXPECT_EQ(FailureOf(Http("http://example.org/.{{ a }}/x"), {{"a", "."}, {"b", ""}}).code,
            "bad_url");
  EXPECT_EQ(UrlOf(Http("http://example.org/{{ a }}"), {{"a", "..."}}), "http://example.org/...");
  EXPECT_EQ(UrlOf(Http("http://example.org/x?y={{ a }}"), {{"a", ".."}}),
            "http://example.org/x?y=..");
}

TEST(ToolCallsTest, WhatTheAuthorWroteStaysAsItIs) {
  EXPECT_EQ(UrlOf(Http("http://example.org"), {}), "http://example.org/");
  EXPECT_EQ(UrlOf(Http("http://example.org?x=1"), {}), "http://example.org/?x=1");
  EXPECT_EQ(UrlOf(Http("http://example.org:8080/a%20b/\xC3\xA9 c?x=[1]"), {}),
            "http://example.org:8080/a%20b/%C3%A9%20c?x=[1]");
  // What a template makes of its own text is the author's.
  EXPECT_EQ(UrlOf(Http("http://example.org/{{ 'a/b' }}/{{ a }}"), {{"a", "c/d"}}),
            "http://example.org/a/b/c%2Fd");
}

TEST(ToolCallsTest, ParamsAreEncodedAndRepeated) {
  const auto url = [](const std::string& params, const Values& values = {}) {
    return UrlOf(Http("http://example.org/p", "params: {" + params + "}"), values);
  };
  EXPECT_EQ(url("x: \"{{ a }}\", y: \"{{ b }}\"", {{"a", "1&2=3 +\xC3\xA9"}, {"b", 5}}),
            "http://example.org/p?x=1%262%3D3%20%2B%C3%A9&y=5");
  EXPECT_EQ(url("x: [1, \"{{ a }}\", null, true]", {{"a", "z"}}),
            "http://example.org/p?x=1&x=z&x=true");
  EXPECT_EQ(url("x: \"{{ a }}\"", {{"a", Json::parse("[1, [2, 3]]")}}),
            "http://example.org/p?x=1&x=2&x=3");
  EXPECT_EQ(url("x: \"{{ a }}\", y: null", {{"a", nullptr}}), "http://example.org/p");
  EXPECT_EQ(url("x: \"{{ a }}\"", {{"a", ""}}), "http://example.org/p?x=");
  EXPECT_EQ(url("x: {k: 1}"), "http://example.org/p?x=%7B%22k%22%3A1%7D");
  EXPECT_EQ(url("\"a b&\": 1"), "http://example.org/p?a%20b%26=1");
  EXPECT_EQ(UrlOf(Http("http://example.org/p?z=0", "query: {x: 1}"), {}),
            "http://example.org/p?z=0&x=1");
}

TEST(ToolCallsTest, BodiesAreJsonOrText) {
  const auto call = [](const std::string& more, const Values& values = {}) {
    return HttpOf(Build(Http("http://example.org/p", more), values));
  };
  const HttpCall json =
      call("json: {q: \"{{ a }}\", n: [1, \"{{ b }}\"]}", {{"a", "x\"}"}, {"b", 2}});
  EXPECT_EQ(json.method, "POST");
  EXPECT_EQ(*json.body, R"({"q":"x\"}","n":[1,2]})");
  ASSERT_EQ(json.headers.size(), 1U);
  EXPECT_EQ(json.headers[0].value, "application/json");
  EXPECT_EQ(call("json: {a: 1}, headers: {content-type: application/x}").headers.size(), 1U);
  EXPECT_EQ(*call("json: \"{{ a }}\"", {{"a", "text"}}).body, "\"text\"");
  EXPECT_EQ(*call("body: \"{{ a }}!\"", {{"a", "x{{ b }}"}}).body, "x{{ b }}!");
  EXPECT_TRUE(call("body: text").headers.empty());
  EXPECT_EQ(*call("body: {a: 1}").body, R"({"a":1})");
  EXPECT_EQ(call("body: {a: 1}").headers.size(), 1U);
  EXPECT_EQ(call("method: PUT").method, "PUT");
  EXPECT_FALSE(call("method: PUT").body.has_value());
}

TEST(ToolCallsTest, RequestsAreEqualWhereAllThatIsSentIs) {
  const Values values = {{"a", "x"}, {"b", "y"}};
  const auto with = [&](const std::string& more, const std::string& url = "http://example.org/p") {
    return Build(Http(url, "effect: read, coalesce: true" + (more.empty() ? "" : ", " + more)),
                 values);
  };
  ExpectClasses({
      {with(""), with("method: GET"), with("prompt_rows: 3")},
      {with("", "http://example.org/p?a=x"), with("", "http://example.org/p?a={{ a }}"),
       with("params: {a: x}"), with("params: {a: \"{{ a }}\"}")},
      {with("", "http://example.org/p/x")},
      {with("", "https://example.org/p")},
      {with("", "http://example.org:8080/p")},
      {with("method: HEAD")},
      {with("method: POST")},
      {with("method: PUT")},
      {with("headers: {a: x}"), with("headers: {a: \"{{ a }}\"}")},
      {with("headers: {a: y}")},
      {with("headers: {b: x}")},
      {with("headers: {a: x, b: x}")},
      {with("headers: {a: \"${env:TOKEN}\"}")},
      {with("headers: {a: \"${env:OTHER}\"}")},
      {with("headers: {a: \"env:TOKEN\"}")},
      {with("headers: {a: \"Bearer ${env:TOKEN}\"}")},
      // JSON is sent with its type, the same text as a body without one.
      {with("json: {a: x}"), with("body: {a: x}"), with("json: {a: \"{{ a }}\"}")},
      {with("body: '{\"a\":\"x\"}'")},
      {with("method: POST, body: \"\"")},
      {with("response_path: a")},
      {with("method: POST, response_path: a")},
      {with("body: a")},
      {with("most_bytes: 100")},
      {with("retry: {max: 1}")},
      {with("timeout_s: 1"), with("timeout_ms: 1000")},
      {with("latency_s: 1")},
      {with("latency_s: 2")},
  });
}

TEST(ToolCallsTest, SecretsReachHeadersAndNothingElse) {
  const std::string keys = Http("http://example.org/{{ a }}",
                                "coalesce: true, headers: {Authorization: \"Bearer "
                                "${env:TOKEN}/${file:key} {{ a }}\", X: \"{{ a }}\"}");
  const Values values = {{"a", "${env:TOKEN}"}};
  const BuiltToolCall built = Build(keys, values);
  const HttpCall& call = HttpOf(built);
  ASSERT_EQ(call.headers.size(), 2U);
  EXPECT_EQ(call.headers[0].value, "Bearer hunter2/hunter4 ${env:TOKEN}");
  EXPECT_TRUE(call.headers[0].is_secret);
  // A row's text names no secret.
  EXPECT_EQ(call.headers[1].value, "${env:TOKEN}");
  EXPECT_FALSE(call.headers[1].is_secret);
  EXPECT_THAT(call.url, Not(HasSubstr("hunter")));
  // The key does not know what a secret is.
  ToolSetup rotated = TestSetup();
  rotated.secrets["env:TOKEN"] = "changed";
  EXPECT_EQ(Build(keys, values, rotated).request, built.request);
  EXPECT_EQ(HttpOf(Build(keys, values, rotated)).headers[0].value,
            "Bearer changed/hunter4 ${env:TOKEN}");
}

TEST(ToolCallsTest, FailuresDoNotRepeatAllOfAValue) {
  const std::string large(1'000'000, 'x');
  const Failure failure =
      FailureOf(Http("http://example.org/", "latency_s: \"{{ a }}\""), {{"a", large}});
  EXPECT_EQ(failure.code, "bad_value");
  EXPECT_LT(failure.message.size(), 400U);
  std::string accents;
  for (int i = 0; i < 1000; ++i) accents += "\xC3\xA9";
  EXPECT_NO_THROW((void)Json(FailureOf(Http("http://example.org/", "timeout_s: \"{{ a }}\""),
                                       {{"a", "x" + accents}})
                                 .message)
                      .dump());
}

// ---- time

TEST(ToolCallsTest, LatenciesHaveTheirMeanAndScale) {
  for (const double mean_s : {0.5, 3.0, 20.0}) {
    const Workflow workflow = OneTool("type: http, sleep_s: \"{{ a }}\"");
    ToolSetup setup = TestSetup();
    const ToolCallBuilder builder(workflow.operators.front(), setup);
    constexpr int kDraws = 20'000;
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const auto latency_us =
          HttpOf(builder.Build({{"a", mean_s}}, static_cast<uint64_t>(i))).latency_us;
      ASSERT_GE(latency_us, 0);
      const double seconds = static_cast<double>(latency_us) * 1e-6;
      sum += seconds;
      squares += seconds * seconds;
    }
    const double mean = sum / kDraws, variance = squares / kDraws - mean * mean;
    // Chi-square with `mean` degrees of freedom: the variance is twice the mean. Six deviations.
    EXPECT_NEAR(mean, mean_s, 6 * std::sqrt(2 * mean_s / kDraws));
    EXPECT_NEAR(variance / (2 * mean_s), 1.0, 0.2);
  }
}

TEST(ToolCallsTest, LatenciesAreReproducibleAndScaled) {
  const auto latency = [](uint64_t key, double scale,
                          const std::string& keys = "type: http, sleep_s: 3") {
    ToolSetup setup = TestSetup();
    setup.latency_scale = scale;
    return HttpOf(Build(keys, {{"a", 1}}, setup, key)).latency_us;
  };
  EXPECT_EQ(latency(7, 1), latency(7, 1));
  EXPECT_NE(latency(7, 1), latency(8, 1));
  EXPECT_NEAR(static_cast<double>(latency(7, 0.5)), static_cast<double>(latency(7, 1)) / 2, 1.0);
  EXPECT_EQ(latency(7, 0), 0);
  EXPECT_EQ(latency(7, 1, "type: http, sleep_ms: 3000"), latency(7, 1));
  EXPECT_EQ(latency(7, 1, "type: http, sleep_s: 0"), 0);
  // Without an address a declared latency stands in for the call, with one it is added to it.
  const BuiltToolCall alone = Build("type: http, latency_s: 3", {});
  EXPECT_EQ(HttpOf(alone).latency_mode, HttpLatencyMode::kSimulated);
  EXPECT_EQ(HttpOf(Build(Http("http://example.org/", "latency_s: 3"), {})).latency_mode,
            HttpLatencyMode::kPadded);
  EXPECT_EQ(HttpOf(Build(Http("http://example.org/", "sleep_s: 3"), {})).latency_mode,
            HttpLatencyMode::kSimulated);
  EXPECT_EQ(HttpOf(Build(Http("http://example.org/", "timeout_s: 3"), {})).latency_mode,
            HttpLatencyMode::kLive);
}

TEST(ToolCallsTest, TimesAreNumbers) {
  const auto timeout = [](const std::string& key, Json value) {
    return Build(Http("http://example.org/", key + ": \"{{ a }}\""), {{"a", std::move(value)}})
        .call.timeout_us;
  };
  EXPECT_EQ(timeout("timeout_s", 1.5), 1'500'000);
  EXPECT_EQ(timeout("timeout_s", "1.5"), 1'500'000);
  EXPECT_EQ(timeout("timeout_ms", 20), 20'000);
  EXPECT_EQ(timeout("timeout_s", 1e300), 1'000'000'000'000'000);
  // However short, it is a limit.
  EXPECT_EQ(timeout("timeout_s", 1e-9), 1);
  for (const Json& value : {Json(-1), Json("abc"), Json(""), Json(nullptr), Json(true),
                            Json::array({1}), Json("1e999")})
    EXPECT_EQ(FailureOf(Http("http://example.org/", "timeout_s: \"{{ a }}\""), {{"a", value}}).code,
              "bad_value")
        << value;
}

// ---- functions

TEST(ToolCallsTest, FunctionsGetTheirInputsInOrder) {
  const BuiltToolCall built = Build(
      "type: processor, processor: join, config: {separator: \"-\"}, inputs: [b, a], outputs: [x, "
      "y]",
      {{"a", 1}, {"b", nullptr}});
  const auto& call = std::get<FunctionCall>(built.call.what);
  EXPECT_EQ(call.inputs.dump(), R"({"b":null,"a":1})");
  EXPECT_EQ(call.config.dump(), R"({"separator":"-"})");
  EXPECT_THAT(call.outputs, ElementsAre("x", "y"));
  EXPECT_EQ(built.call.effect, ToolEffect::kPure);
}

TEST(ToolCallsTest, FunctionsAreEqualWhereConfigAndInputsAre) {
  const auto with = [](const std::string& more, const Values& values) {
    return Build("type: processor, coalesce: true, " + more, values);
  };
  const Values one = {{"a", 1}, {"b", 1}};
  ExpectClasses({
      {with("processor: join, inputs: [a]", one),
       with("processor: join, inputs: [a], outputs: [z]", one)},
      {with("processor: concat, inputs: [a]", one)},
      {with("processor: join, inputs: [a], config: {separator: x}", one)},
      {with("processor: join, inputs: [a]", {{"a", "1"}, {"b", 1}})},
      {with("processor: join, inputs: [b]", one)},  // what a program is told has names
      {with("processor: join, inputs: [a, b]", one)},
  });
}

// ---- outputs

TEST(ToolOutputTest, QueriesGiveThemselvesAndWhatIsMapped) {
  const Workflow workflow = OneTool(
      Query("SELECT 1", "outputs: [found], result_mappings: {first: 0.title, deep: 1.tags.0}"));
  const ToolSpec& tool = *workflow.operators.front().tool;
  const Json result =
      Json::parse(R"({"rows": [{"title": "A"}, {"title": "B", "tags": ["t"]}], "rowcount": 2})");
  EXPECT_EQ(ToolOutput(tool, result, "found"), result);
  EXPECT_EQ(ToolOutput(tool, result, "first"), "A");
  EXPECT_EQ(ToolOutput(tool, result, "deep"), "t");
  const Json none = Json::parse(R"({"rows": [], "rowcount": 0})");
  EXPECT_EQ(ToolOutput(tool, none, "first"), nullptr);
  EXPECT_EQ(ToolOutput(tool, none, "nothing"), nullptr);
}

TEST(ToolOutputTest, OthersGiveTheirValueOrItsFields) {
  const auto output = [](const std::string& outputs, const char* result, const char* name) {
    const Workflow workflow = OneTool(Http("http://example.org/", "outputs: [" + outputs + "]"));
    return ToolOutput(*workflow.operators.front().tool, Json::parse(result), name).dump();
  };
  EXPECT_EQ(output("x", R"({"x": 1, "y": 2})", "x"), R"({"x":1,"y":2})");
  EXPECT_EQ(output("x, y", R"({"x": 1, "z": 2})", "x"), "1");
  EXPECT_EQ(output("x, y", R"({"x": 1, "z": 2})", "y"), "null");
  EXPECT_EQ(output("x, y", "[1, 2]", "y"), "[1,2]");
  EXPECT_EQ(output("x, y", "null", "y"), "null");
  const Workflow unnamed = OneTool(Http("http://example.org/"));
  EXPECT_EQ(ToolOutput(*unnamed.operators.front().tool, 5, "tool"), 5);
}

// ---- prompts

PromptLimits Limits(int32_t rows, int32_t chars, int32_t tokens) { return {rows, chars, tokens}; }

Json Rows(int count) {
  Json rows = Json::array();
  for (int i = 0; i < count; ++i) rows.push_back({{"n", i}, {"t", "x"}});
  return {{"rows", rows}, {"rowcount", count}};
}

TEST(ShownInPromptTest, WhatFitsIsShownAsItIs) {
  for (const char* text : {"null", "5", "\"text\"", "[]", "{}",
                           R"({"rows": [{"a": 1}], "rowcount": 1})", R"([[1, 2], {"k": ["v"]}])"}) {
    const Json value = Json::parse(text);
    EXPECT_EQ(ShownInPrompt(value, {}, nullptr), value);
  }
}

TEST(ShownInPromptTest, RowsAreCutAndItSaysSo) {
  EXPECT_EQ(ShownInPrompt(Rows(3), Limits(2, 400, 1500), nullptr).dump(),
            R"({"rows":[{"n":0,"t":"x"},{"n":1,"t":"x"}],"rows_shown":"2 of 3","rowcount":3})");
  EXPECT_EQ(ShownInPrompt(Rows(2), Limits(2, 400, 1500), nullptr), Rows(2));
  // A list that stands alone gets an element in the form of the others.
  EXPECT_EQ(ShownInPrompt(Rows(4)["rows"], Limits(2, 400, 1500), nullptr).dump(),
            R"~([{"n":0,"t":"x"},{"n":1,"t":"x"},{"n":"(2 more not shown)","t":"..."}])~");
  EXPECT_EQ(ShownInPrompt(Json::parse("[1, 2, 3]"), Limits(1, 400, 1500), nullptr).dump(),
            R"~([1,"(2 more not shown)"])~");
  EXPECT_EQ(ShownInPrompt(Json::parse(R"({"k": [[1, 2, 3], [4]]})"), Limits(2, 400, 1500), nullptr)
                .dump(),
            R"~({"k":[[1,2,"(1 more not shown)"],[4]]})~");
}

TEST(ShownInPromptTest, TextsAreCutInCharacters) {
  const auto shown = [](const std::string& text, int32_t chars) {
    return ShownInPrompt({{"t", text}}, Limits(5, chars, 1500), nullptr)["t"].get<std::string>();
  };
  EXPECT_EQ(shown("abcdef", 6), "abcdef");
  EXPECT_EQ(shown("abcdefg", 6), "abcdef...(1 more characters)");
  EXPECT_EQ(shown("\xC3\xA9\xC3\xA9\xC3\xA9", 3), "\xC3\xA9\xC3\xA9\xC3\xA9");
  EXPECT_EQ(shown("\xC3\xA9\xF0\x9F\xA6\x86\xC3\xA9", 2),
            "\xC3\xA9\xF0\x9F\xA6\x86...(1 more characters)");
  // A text that is all of the output is not within it.
  EXPECT_EQ(ShownInPrompt(std::string(1000, 'a'), Limits(5, 10, 1500), nullptr),
            std::string(1000, 'a'));
}

size_t TokensOf(const Json& value) {
  return (value.is_string() ? value.get<std::string>() : value.dump()).size() / 4;
}

TEST(ShownInPromptTest, ResultsAreCutToTheirTokens) {
  Json wide = Json::array();
  for (int i = 0; i < 5; ++i)
    wide.push_back({{"a", std::string(300, 'a')}, {"b", std::string(300, 'b')}});
  const Json result = {{"rows", wide}, {"rowcount", 5}};
  for (const int32_t tokens : {2000, 700, 300, 100, 50, 30}) {
    const Json shown = ShownInPrompt(result, Limits(5, 400, tokens), nullptr);
    EXPECT_LE(TokensOf(shown), static_cast<size_t>(tokens)) << shown;
    EXPECT_EQ(shown == result, tokens == 2000);
    const std::string text = shown.is_string() ? shown.get<std::string>() : shown.dump();
    if (tokens < 2000) {
      EXPECT_THAT(text, testing::AnyOf(HasSubstr("of 5"), HasSubstr("more"))) << text;
    }
  }
  const Json text = ShownInPrompt(std::string(100'000, 'x'), Limits(5, 400, 100), nullptr);
  EXPECT_LE(TokensOf(text), 100U);
  EXPECT_THAT(text.get<std::string>(), HasSubstr("more characters)"));
}

TEST(ShownInPromptTest, LimitsAreKeptForLargeResultsWithLargeLimits) {
  // Values under limits that would let all of them through but for the tokens.
  Json rows = Json::array();
  for (int i = 0; i < 50'000; ++i) rows.push_back({{"n", i}, {"t", "some text of a row"}});
  const Json shown = ShownInPrompt({{"rows", std::move(rows)}, {"rowcount", 50'000}},
                                   Limits(1 << 20, 1 << 20, 200), nullptr);
  EXPECT_LE(TokensOf(shown), 200U);
  EXPECT_THAT(shown.dump(), HasSubstr("of 50000"));
  std::string accents;
  for (int i = 0; i < 500'000; ++i) accents += "\xC3\xA9";
  const Json text = ShownInPrompt(accents, Limits(5, 400, 200), nullptr);
  EXPECT_LE(TokensOf(text), 200U);
  EXPECT_NO_THROW((void)text.dump());
}

}  // namespace
}  // namespace halo
