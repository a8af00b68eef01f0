#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "workflow_faults.h"

namespace halo {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::SizeIs;

/// A graph with a connection and one tool, whose keys after `id` begin in line 6, each indented by
/// six spaces.
std::string Tool(const std::vector<std::string>& lines,
                 const std::string& connections = "{shop: \"duckdb::memory:\"}") {
  std::string text = "graph:\n  connections: " + connections +
                     "\n  nodes:\n    - {id: in, type: input, outputs: [a, b]}\n    - id: tool\n";
  for (const std::string& line : lines) text += "      " + line + "\n";
  return text;
}

std::string Query(const std::vector<std::string>& more, const std::string& sql = "SELECT 1") {
  std::vector<std::string> lines = {"type: db_query", "sql: \"" + sql + "\""};
  lines.insert(lines.end(), more.begin(), more.end());
  return Tool(lines);
}

std::string Http(const std::vector<std::string>& more,
                 const std::string& url = "http://example.org/x") {
  std::vector<std::string> lines = {"type: http", "url: \"" + url + "\""};
  lines.insert(lines.end(), more.begin(), more.end());
  return Tool(lines);
}

std::string Function(const std::vector<std::string>& more, const std::string& name = "concat") {
  std::vector<std::string> lines = {"type: processor", "processor: " + name};
  lines.insert(lines.end(), more.begin(), more.end());
  return Tool(lines);
}

const ToolSpec& SpecOf(const Workflow& workflow) { return *workflow.operators.front().tool; }

ToolSpec Read(const std::string& text) { return SpecOf(ParseWorkflow(text, "flow.yaml")); }

std::vector<std::string> MessagesOf(const std::string& text) {
  std::vector<std::string> messages;
  try {
    ParseWorkflow(text, "flow.yaml");
  } catch (const Error& error) {
    for (const Diagnostic& fault : error.diagnostics()) messages.push_back(fault.message);
  }
  return messages;
}

// ---- what may be written at all

TEST(ToolKeysTest, UnknownKeysAndMissingOnes) {
  ExpectFaults(Query({"sqll: x"}), {{8, 7, "unknown key 'sqll'"}});
  ExpectFaults(Query({"url: x"}), {{8, 7, "unknown key 'url'"}});
  ExpectFaults(Http({"post_llm: true"}), {{8, 7, "unknown key 'post_llm'"}});
  ExpectFaults(Tool({"type: db_query"}), {{5, 7, "a query has no sql"}});
  ExpectFaults(Tool({"type: http"}), {{5, 7, "an HTTP call has no url"}});
  ExpectFaults(Tool({"type: processor"}), {{5, 7, "a function has no processor"}});
  Read(Tool({"type: http", "sleep_s: 1"}));
}

TEST(ToolKeysTest, BooleansAreBooleans) {
  const std::string text =
      "graph:\n  connections: {shop: \"duckdb::memory:\"}\n  nodes:\n    - {id: in, type: input, "
      "outputs: [a]}\n"
      "    - id: say\n      model: m\n      prompt: \"{{ found }}\"\n      db_queries:\n"
      "        - {name: found, sql: \"SELECT 1\", post_llm: \"false\"}\n";
  ExpectFaults(text, {{9, 52, "post_llm: expected true or false, got 'false' in quotes"}});
  ExpectFaults(Query({"coalesce: \"true\""}), {{8, 17, "coalesce: expected true or false"}});
  ExpectFaults(Query({"idempotent: yes"}), {{8, 19, "idempotent: expected true or false"}});
}

TEST(ToolKeysTest, EmbeddedToolsNeedNamesAndKinds) {
  const auto embedded = [](const std::string& key, const std::string& entry) {
    return "graph:\n  connections: {shop: \"duckdb::memory:\"}\n  nodes:\n    - {id: in, type: "
           "input, outputs: [a]}\n"
           "    - id: say\n      model: m\n      prompt: x\n      " +
           key + ":\n        - " + entry + "\n";
  };
  ExpectFaults(embedded("db_queries", "{sql: \"SELECT 1\"}"), {{9, 11, "a query has no name"}});
  ExpectFaults(embedded("tool_calls", "{url: \"http://example.org\"}"),
               {{9, 11, "a tool call has no name"}});
  ExpectFaults(embedded("tool_calls", "{name: x, kind: sql, url: \"http://example.org\"}"),
               {{9, 27, "kind: expected http or processor"}});
  ExpectFaults(embedded("db_queries", "SELECT 1"), {{9, 11, "db_queries: expected a mapping"}});
}

// ---- secrets

TEST(ToolKeysTest, SecretsStandInHeadersAndConnectionsOnly) {
  const std::string refused = "may stand in headers and connections only";
  const std::string secret = "${env:TOKEN}";
  ExpectFaults(Http({}, "http://example.org/" + secret), {{7, 12, refused}});
  ExpectFaults(Http({}, "http://example.org/?k=" + secret), {{7, 12, refused}});
  ExpectFaults(Http({}, "http://" + secret + "/"), {{7, 12, "a host that is written out"}});
  ExpectFaults(Http({"params: {k: \"" + secret + "\"}"}), {{8, 19, refused}});
  ExpectFaults(Http({"json: {k: [\"x" + secret + "\"]}"}), {{8, 18, refused}});
  ExpectFaults(Http({"body: \"${file:key}\""}), {{8, 13, refused}});
  ExpectFaults(Http({"timeout_s: \"" + secret + "\""}), {{8, 18, refused}});
  ExpectFaults(Query({}, "SELECT '" + secret + "'"), {{7, 12, refused}});
  ExpectFaults(Query({"parameters: {p: \"" + secret + "\"}"}, "SELECT :p"), {{8, 23, refused}});
  ExpectFaults(Function({"inputs: [a]", "config: {separator: \"" + secret + "\"}"}, "join"),
               {{9, 27, refused}});
  ExpectFaults(Function({"inputs: [a]", "config: {command: [x, \"${file:key}\"]}"}, "exec"),
               {{9, 29, refused}});
}

TEST(ToolKeysTest, SecretsOfHeadersAreReadPieceByPiece) {
  const ToolSpec spec = Read(Http({"headers: {A: \"Bearer ${env:TOKEN} {{ a }}\", B: \"plain\"}"}));
  const auto& http = std::get<HttpSpec>(spec.what);
  ASSERT_EQ(http.headers.size(), 2U);
  EXPECT_TRUE(http.headers[0].second.has_secret());
  EXPECT_EQ(http.headers[0].second.pieces[1].secret, "env:TOKEN");
  EXPECT_FALSE(http.headers[1].second.has_secret());
  // What looks like a secret and is none would be sent as it stands.
  for (const char* wrong : {"${evn:TOKEN}", "${TOKEN}", "${env:}", "${file:}", "${env:TOKEN"})
    ExpectFaults(Http({std::string("headers: {A: \"x ") + wrong + "\"}"}),
                 {{8, 20, "${env:NAME} or ${file:PATH}"}});
}

TEST(ToolKeysTest, SecretsOfConnections) {
  const Workflow workflow = ParseWorkflow(
      Tool({"type: db_query", "sql: SELECT 1"}, "{shop: \"postgres://u:${env:PW}@h/d\"}"), "f");
  EXPECT_EQ(workflow.connections[0].url, "postgres://u:${env:PW}@h/d");
  ExpectFaults(Tool({"type: db_query", "sql: SELECT 1"}, "{shop: \"postgres://u:${PW}@h/d\"}"),
               {{2, 23, "${env:NAME} or ${file:PATH}"}});
}

// ---- URLs

TEST(ToolKeysTest, AHostIsWrittenOut) {
  for (const char* url :
       {"http://{{ a }}/x", "http://{{ a }}.example.org/x", "http://example.org{{ a }}", "{{ a }}",
        "http://example.org:{{ a }}/", "http://user@example.org/", "http://user:pw@example.org/",
        "ftp://example.org/", "file:///etc/passwd", "example.org/x", "http:///x", "http://",
        "http://a b/", "http://example.org\\\\@evil.org/", "HTTP://example.org/"}) {
    SCOPED_TRACE(url);
    ExpectFaults(Http({}, url), {{7, 12, "http:// or https://, then a host that is written out"}});
  }
  for (const char* url : {"http://example.org", "https://example.org:8443/{{ a }}?x={{ b }}",
                          "http://[::1]:80/", "http://127.0.0.1"})
    Read(Http({}, url));
  ExpectFaults(Http({}, "http://example.org/#part"), {{7, 12, "a fragment"}});
}

TEST(ToolKeysTest, BodiesBelongToMethodsThatSendThem) {
  ExpectFaults(Http({"method: GET", "json: {a: 1}"}), {{5, 7, "sends no body"}});
  ExpectFaults(Http({"method: HEAD", "body: x"}), {{5, 7, "sends no body"}});
  ExpectFaults(Http({"json: {a: 1}", "body: x"}), {{5, 7, "both json and body"}});
  ExpectFaults(Http({"method: get"}), {{8, 15, "method: expected GET"}});
  ExpectFaults(Http({"params: {a: 1}", "query: {a: 1}"}),
               {{9, 14, "params and query mean the same"}});
  ExpectFaults(Http({"query: {a: 1}", "params: {a: 1}"}),
               {{9, 15, "params and query mean the same"}});
  EXPECT_EQ(std::get<HttpSpec>(Read(Http({"json: {a: 1}"})).what).method, "POST");
  EXPECT_EQ(std::get<HttpSpec>(Read(Http({})).what).method, "GET");
}

TEST(ToolKeysTest, TimesAreNumbersOrTemplates) {
  for (const char* key : {"timeout_s", "timeout_ms", "sleep_s", "latency_ms"}) {
    const std::string k = key;
    const auto column = static_cast<int32_t>(9 + k.size());
    ExpectFaults(Http({k + ": -1"}), {{8, column, k + ": expected a number of at least 0"}});
    ExpectFaults(Http({k + ": soon"}), {{8, column, k + ": expected a number of at least 0"}});
    ExpectFaults(Http({k + ": [1]"}), {{8, column, k + ": expected a number of at least 0"}});
    Read(Http({k + ": \"{{ a }}\""}));
    Read(Http({k + ": 0.5"}));
  }
}

// ---- queries

TEST(ToolKeysTest, EveryParameterIsGivenAndUsed) {
  ExpectFaults(Query({}, "SELECT :p"),
               {{5, 7, "the query reads :p, and parameters does not give it"}});
  ExpectFaults(Query({"parameters: {pp: 1}"}, "SELECT :p"),
               {{5, 7, "the query reads :p, and parameters does not give it (did you mean 'pp'?)"},
                {5, 7, "the query has no :pp"}});
  ExpectFaults(Query({"parameters: {p: 1}"}), {{5, 7, "the query has no :p"}});
  ExpectFaults(Query({"parameters: {p: 1, q: 2}"}, "SELECT :p, ':q', \\\"a:q\\\" -- :q"),
               {{5, 7, "the query has no :q"}});
  ExpectFaults(Query({"parameters: [1]"}, "SELECT :p"),
               {{5, 7, "the query reads :p"}, {8, 19, "parameters: expected a mapping"}});
  ExpectFaults(Query({"parameters: {p: 1}", "param_types: {q: int}"}, "SELECT :p"),
               {{9, 21, "param_types: there is no parameter 'q'"}});
  // One that only one server's text reads is read.
  Read(Tool({"type: db_query", "sql: {duckdb: \"SELECT 1\", postgres: \"SELECT :p\"}",
             "parameters: {p: 1}"}));
}

TEST(ToolKeysTest, TypesAreKnownWords) {
  for (const char* type : {"datetime", "Int", "text[][]", "[]", "int []", "3"})
    ExpectFaults(Query({"parameters: {p: 1}", std::string("param_types: {p: \"") + type + "\"}"},
                       "SELECT :p"),
                 {{9, 24, "param_types.p: expected the type of a parameter"}});
  const ToolSpec spec =
      Read(Query({"param_types: {p: \"date[]\"}", "parameters: {p: \"{{ a }}\"}"}, "SELECT :p"));
  EXPECT_EQ(std::get<SqlSpec>(spec.what).parameters[0].type, SqlParameterType::kDate);
  EXPECT_TRUE(std::get<SqlSpec>(spec.what).parameters[0].is_list);
}

TEST(ToolKeysTest, StatementsAreOneEach) {
  ExpectFaults(Query({}, "SELECT 1; SELECT 2"), {{7, 12, "a second statement"}});
  ExpectFaults(Query({}, "SELECT $1"), {{7, 12, "parameters are written as :name"}});
  ExpectFaults(Query({}, "SELECT 'open"), {{7, 12, ""}});
  ExpectFaults(Query({}, "-- nothing"), {{7, 12, "there is no statement"}});
  ExpectFaults(Tool({"type: db_query", "sql: {mysql: \"SELECT 1\"}"}),
               {{7, 13, "sql: expected duckdb or postgres, got 'mysql'"}});
  ExpectFaults(Tool({"type: db_query", "sql: {}"}),
               {{7, 12, "sql: expected a text, or one for duckdb or postgres"}});
  ExpectFaults(Query({"most_rows: 0"}), {{8, 18, "most_rows: expected a whole number from 1"}});
  ExpectFaults(Query({"result_mappings: [x]"}), {{8, 24, "result_mappings: expected a mapping"}});
  ExpectFaults(Query({"plans: {a: b}"}), {{8, 14, "plans: expected a list of plans"}});
  ExpectFaults(Query({"plans: [{setings: {}}]"}),
               {{8, 16, "unknown key 'setings' in a plan (did you mean 'settings'?)"}});
}

TEST(ToolKeysTest, WritesAreDeclared) {
  for (const char* sql :
       {"INSERT INTO t VALUES (1)", "WITH a AS (SELECT 1) DELETE FROM t", "SELECT nextval('s')",
        "DROP TABLE t", "EXPLAIN ANALYZE DELETE FROM t", "COPY t TO 'x'"})
    ExpectFaults(Query({}, sql), {{5, 7,
                                   "the statement may write, and queries only read unless they say "
                                   "otherwise: add effect: write"}});
  ExpectFaults(Query({"effect: read"}, "DELETE FROM t"), {{5, 7, "add effect: write"}});
  EXPECT_EQ(Read(Query({"effect: write"}, "DELETE FROM t")).effect, ToolEffect::kWrite);
  ExpectFaults(Query({"effect: writes"}), {{8, 15, "effect: expected pure, read or write"}});
}

TEST(ToolKeysTest, WritesAreNeitherSharedNorRepeated) {
  ExpectFaults(Query({"effect: write", "coalesce: true"}, "DELETE FROM t"),
               {{5, 7, "coalesce: a write is never shared"}});
  ExpectFaults(Http({"method: POST", "coalesce: true"}),
               {{5, 7, "coalesce: a write is never shared"}});
  ExpectFaults(Http({"method: DELETE", "retry: {max: 1}"}),
               {{5, 7, "retry: a write is made again only if it may be made twice"}});
  ExpectFaults(Query({"effect: write", "retry: {max: 2}"}, "DELETE FROM t"),
               {{5, 7, "add idempotent: true"}});
  const auto retries = [](const std::string& text) {
    return ParseWorkflow(text, "f").operators[0].retry.max;
  };
  EXPECT_EQ(retries(Http({"method: POST"})), 0);
  EXPECT_EQ(retries(Http({"method: POST", "retry: {max: 0}"})), 0);
  EXPECT_GT(retries(Http({"method: PUT", "idempotent: true"})), 0);
  EXPECT_EQ(retries(Http({"method: PUT", "idempotent: true", "retry: {max: 7}"})), 7);
  EXPECT_GT(retries(Http({})), 0);
  EXPECT_EQ(retries(Http({"retry: {max: 0}"})), 0);
  EXPECT_FALSE(Read(Http({})).coalesce);
  EXPECT_TRUE(Read(Query({})).coalesce);
  EXPECT_FALSE(Read(Query({"cache: off"})).coalesce);
  EXPECT_FALSE(Read(Query({"coalesce: false"})).coalesce);
  EXPECT_TRUE(Read(Http({"method: POST", "effect: read", "coalesce: true"})).coalesce);
}

TEST(ToolKeysTest, WhatLaterRunsMayTake) {
  const auto policy = [](const std::string& text) {
    return ParseWorkflow(text, "f").operators[0].cache;
  };
  EXPECT_EQ(policy(Query({"cache: 60"})).most_s, 60.0);
  EXPECT_FALSE(policy(Query({"cache: 60"})).off);
  EXPECT_TRUE(policy(Query({"cache: off"})).off);
  EXPECT_TRUE(policy(Query({"cache: 0"})).off);
  EXPECT_FALSE(policy(Query({"cache: auto"})).off);
  EXPECT_EQ(policy(Query({})).most_s, std::nullopt);
  ExpectFaults(Http({"method: POST", "cache: 60"}),
               {{5, 7, "cache: what a write did is not kept"}});
  ExpectFaults(Query({"cache: -1"}), {{8, 14, "cache: expected auto, off or a number of seconds"}});
  ExpectFaults(Query({"cache: on"}), {{8, 14, "cache: expected auto, off or a number of seconds"}});
}

// ---- connections

TEST(ToolKeysTest, AQueryKnowsItsConnection) {
  ExpectFaults(Query({"connection: shp"}),
               {{8, 19, "connection: there is no 'shp' in connections (did you mean 'shop'?)"}});
  ExpectFaults(
      Tool({"type: db_query", "sql: SELECT 1"}, "{a: \"duckdb::memory:\", b: \"duckdb::memory:\"}"),
      {{5, 7, "there are several connections: say which one the query asks (connection: a)"}});
  EXPECT_EQ(std::get<SqlSpec>(Read(Query({})).what).connection, "shop");
  EXPECT_EQ(
      std::get<SqlSpec>(Read(Tool({"type: db_query", "sql: SELECT 1"}, "{}")).what).connection,
      "default");
}

TEST(ToolKeysTest, ConnectionsAreOfTwoKinds) {
  const std::vector<std::string> query = {"type: db_query", "sql: SELECT 1"};
  for (const char* url : {"mysql://h/d", "data.duckdb", "http://h/", "duckd:x"})
    ExpectFaults(Tool(query, std::string("{shop: \"") + url + "\"}"),
                 {{2, 23, "expected duckdb:PATH, duckdb::memory: or postgres://..."}});
  ExpectFaults(Tool(query, "[x]"), {{2, 16, "connections: expected a mapping"}});
  ExpectFaults(Tool(query, "{shop: {url: \"postgres://h/d\", files: {t: a.csv}}}"),
               {{2, 23, "only a duckdb connection can have them"}});
  ExpectFaults(Tool(query, "{shop: {files: {t: a.txt}}}"), {{2, 35, "a file that ends in .csv"}});
  ExpectFaults(Tool(query, "{shop: {file: {t: a.csv}}}"),
               {{2, 24, "unknown key 'file' in a connection (did you mean 'files'?)"}});
  const Workflow workflow = ParseWorkflow(Tool(query, "{shop: {files: {t: a.csv}}}"), "f");
  EXPECT_EQ(workflow.connections[0].url, "duckdb::memory:");
  ExpectFaults(
      "graph:\n  allow_hosts: [\"http://x/\"]\n  nodes: [{id: in, type: input, outputs: [a]}, {id: "
      "t, type: http, url: \"http://x\"}]\n",
      {{2, 17, "allow_hosts: expected a host such as example.com"}});
}

// ---- functions

TEST(ToolKeysTest, FunctionsAndTheirConfigsAreChecked) {
  ExpectFaults(Function({"inputs: [a]"}, "concatt"),
               {{7, 18, "there is no function 'concatt' (did you mean 'concat'?)"}});
  ExpectFaults(Function({"inputs: [a]"}, "top_k"), {{5, 7, "top_k: config needs k"}});
  ExpectFaults(Function({"inputs: [a]", "config: {k: 0, bye: x}"}, "top_k"),
               {{9, 15, "top_k: unknown key 'bye'"}, {9, 15, "top_k: config needs k"}});
  ExpectFaults(Function({"inputs: [a]", "config: {regex: {y: \"(\"}}"}, "regex_param_extractor"),
               {{9, 15, "regex_param_extractor: regex.y:"}});
  ExpectFaults(Function({"inputs: [a]", "config: [1]"}, "join"),
               {{9, 15, "config: expected a mapping"}});
  ExpectFaults(Function({"inputs: [a]", "config: {command: ls}"}, "exec"),
               {{9, 15, "exec: config needs command"}});
}

// ---- values

TEST(ToolKeysTest, TemplatesAreOneExpressionOrText) {
  // Blanks around an expression are not part of its value.
  const ToolSpec spec =
      Read(Query({"parameters: {p: \"{{ a }}\", q: \"{{a}} and {{b}}\", r: \" {{ a }}\", s: \"a\", "
                  "t: 5, u: \"5\", v: [\"{{ a }}\", {k: \"{{ b }}\"}]}"},
                 "SELECT :p, :q, :r, :s, :t, :u, :v"));
  const auto& sql = std::get<SqlSpec>(spec.what);
  const std::map<std::string, nlohmann::ordered_json> values = {
      {"a", 1}, {"b", nlohmann::ordered_json::parse("[2]")}};
  std::vector<std::string> shown;
  for (const SqlParameterSpec& parameter : sql.parameters)
    shown.push_back(parameter.value.Evaluate(values).dump());
  EXPECT_THAT(shown,
              ElementsAre("1", "\"1 and [2]\"", "1", "\"a\"", "5", "\"5\"", "[1,{\"k\":[2]}]"));
}

TEST(ToolKeysTest, NamesInTemplatesAreThere) {
  EXPECT_THAT(MessagesOf(Query({"parameters: {p: \"{{ nobody }}\"}"}, "SELECT :p")),
              ElementsAre(HasSubstr("unknown name 'nobody'")));
  EXPECT_THAT(MessagesOf(Query({"required_inputs: [nobody.x]"})),
              ElementsAre(HasSubstr("required_inputs: unknown name 'nobody'")));
  EXPECT_THAT(MessagesOf(Http({}, "http://example.org/{{ nobody }}")), SizeIs(1));
  EXPECT_THAT(MessagesOf(Http({"headers: {X: \"${env:T} {{ nobody }}\"}"})), SizeIs(1));
  EXPECT_THAT(MessagesOf(Function({"inputs: [nobody]"})),
              ElementsAre(HasSubstr("nothing produces 'nobody'")));
  EXPECT_THAT(MessagesOf(Query({"parameters: {p: \"{{ a \"}"}, "SELECT :p")), SizeIs(1));
}

}  // namespace
}  // namespace halo
