// PostgresBackend, AskPostgres and CheckOnPostgres against a real server of the test's own.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "sql/sql_functions.h"
#include "support/test_postgres.h"
#include "tool/census.h"
#include "tool/sql/postgres_backend.h"
#include "tool/sql/postgres_costs.h"

namespace halo {
namespace {

using test::Census;
using test::CountThreads;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Json = nlohmann::ordered_json;

constexpr const char* kSleep = "SELECT pg_sleep(600)";

/// A backend with one connection, "db", and what is needed to ask it.
class Asker {
 public:
  explicit Asker(PostgresConnection connection) {
    connection.name = "db";
    backend_ =
        std::make_unique<PostgresBackend>(std::vector{std::move(connection)}, mailbox_, clock_);
  }
  explicit Asker(int32_t sessions = 4)
      : Asker(PostgresConnection{"db", TestPostgres::Shared().url(), sessions, 30'000'000}) {}

  static ToolCall Read(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    ToolCall call;
    SqlCall sql;
    sql.connection = "db";
    sql.text = text;
    sql.arguments = std::move(arguments);
    call.what = std::move(sql);
    return call;
  }
  static ToolCall Write(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    ToolCall call = Read(text, std::move(arguments));
    call.effect = ToolEffect::kWrite;
    return call;
  }

  ToolCallId Submit(ToolCall call) {
    call.id = ++ids_;
    backend_->Submit(std::move(call));
    return ids_;
  }
  void Cancel(ToolCallId id) { backend_->Cancel(id); }
  void End() { backend_.reset(); }
  int64_t NowUs() const { return clock_.NowUs(); }

  /// The completion of a call, waited for.
  ToolCompletion Await(ToolCallId id) {
    constexpr int64_t kMostUs = 100'000'000;
    const int64_t end_us = clock_.NowUs() + kMostUs;
    while (!completions_.contains(id)) {
      if (clock_.NowUs() > end_us) throw std::runtime_error("a call has no completion");
      Take(1'000'000);
    }
    return completions_.at(id);
  }
  ToolCompletion Ask(ToolCall call) { return Await(Submit(std::move(call))); }
  /// What is in the mailbox, without waiting.
  size_t CountCompletions() {
    Take(0);
    return completions_.size();
  }

 private:
  void Take(int64_t most_us) {
    for (ToolCompletion& each : mailbox_.Take(most_us)) {
      const ToolCallId id = each.id;
      EXPECT_TRUE(completions_.emplace(id, std::move(each)).second) << "two completions";
    }
  }

  SteadyClock clock_;
  ToolMailbox mailbox_;
  std::map<ToolCallId, ToolCompletion> completions_;
  ToolCallId ids_ = 0;
  std::unique_ptr<PostgresBackend> backend_;
};

/// "code: message", with "!" in front where another attempt may do better; "" without a failure.
std::string FailureOf(const ToolCompletion& completion) {
  if (!completion.failure) return "";
  return (completion.failure->retriable ? "!" : "") + completion.failure->code + ": " +
         completion.failure->message;
}

Json RowsOf(const ToolCompletion& completion) {
  EXPECT_EQ(FailureOf(completion), "");
  return completion.failure ? Json() : completion.value.at("rows");
}

class PostgresTest : public testing::Test {
 protected:
  TestPostgres& server() { return TestPostgres::Shared(); }
  std::string running() const {
    return "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'halo' AND state = "
           "'active' AND query LIKE '%pg_sleep%'";
  }
  void AwaitNoSessions() {
    server().Await("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'halo'", "0");
  }
};

TEST_F(PostgresTest, ValuesArriveExactly) {
  Asker asker;
  const Json rows = RowsOf(asker.Ask(Asker::Read(R"(SELECT
      true AS b, 32767::int2 AS i2, -2147483648 AS i4, 9223372036854775807 AS i8, 7::oid AS o,
      0.1::float4 AS f4, 0.1::float8 + 0.2 AS f8, 'NaN'::float8 AS nan, '-Infinity'::float8 AS inf,
      12345678901234567890.1234567890::numeric AS n, 12.50 AS m, 'NaN'::numeric AS nn,
      'a''b' AS t, 'x'::char(3) AS c, 'ab'::varchar(9) AS v, 'n'::name AS na,
      DATE '2026-01-31' AS d, DATE '0044-03-15 BC' AS bc, DATE '12026-01-01' AS far,
      'infinity'::date AS forever, TIME '09:05:00.25' AS ti, TIMETZ '09:05+02' AS tz,
      TIMESTAMP '2026-01-31 12:30:00' AS ts, TIMESTAMPTZ '2026-01-31 12:30:00.5+02' AS tstz,
      TIMESTAMP '0044-03-15 01:02:03 BC' AS tsbc,
      INTERVAL '1 year 2 months 3 days 4 hours 5 minutes 6.5 seconds' AS iv, INTERVAL '0' AS i0,
      '123e4567-e89b-12d3-a456-426614174000'::uuid AS u,
      '{"b": [1, null], "a": "x"}'::json AS j, '1.10'::jsonb AS jb, 'null'::jsonb AS jn,
      ARRAY[1, NULL, 3] AS a, ARRAY[['a', '"'], ['{,}', NULL]] AS a2, ARRAY[1.10, 2] AS an,
      ARRAY['{"k": 1}']::jsonb[] AS aj, '{}'::int[] AS a0, NULL::int AS nu,
      '192.168.0.1'::inet AS ip, int4range(1, 5) AS r, ROW(1, 'x')::text AS ro)")));
  EXPECT_EQ(rows, Json::parse(R"~([{
      "b": true, "i2": 32767, "i4": -2147483648, "i8": 9223372036854775807, "o": 7,
      "f4": 0.1, "f8": 0.30000000000000004, "nan": "nan", "inf": "-inf",
      "n": "12345678901234567890.1234567890", "m": "12.50", "nn": "nan",
      "t": "a'b", "c": "x  ", "v": "ab", "na": "n",
      "d": "2026-01-31", "bc": "-000043-03-15", "far": "+012026-01-01",
      "forever": "infinity", "ti": "09:05:00.25", "tz": "09:05:00+02:00",
      "ts": "2026-01-31T12:30:00", "tstz": "2026-01-31T10:30:00.5Z",
      "tsbc": "-000043-03-15T01:02:03",
      "iv": "P1Y2M3DT4H5M6.5S", "i0": "PT0S",
      "u": "123e4567-e89b-12d3-a456-426614174000",
      "j": {"b": [1, null], "a": "x"}, "jb": 1.10, "jn": null,
      "a": [1, null, 3], "a2": [["a", "\""], ["{,}", null]], "an": ["1.10", "2"],
      "aj": [{"k": 1}], "a0": [], "nu": null,
      "ip": "192.168.0.1", "r": "[1,5)", "ro": "(1,x)"}])~"));
}

TEST_F(PostgresTest, ParametersComeBackAsTheyWere) {
  struct Case {
    SqlParameterType type;
    bool is_list;
    Json value;
    std::string sql = "SELECT $1 AS x";
  };
  const std::vector<Case> cases = {
      {SqlParameterType::kText, false, "a'b\\\"; DROP TABLE t; -- ünï\n"},
      {SqlParameterType::kInteger, false, INT64_MIN},
      {SqlParameterType::kDouble, false, 0.30000000000000004},
      {SqlParameterType::kDouble, false, "-inf"},
      {SqlParameterType::kBoolean, false, false},
      {SqlParameterType::kDecimal, false, "98765432109876543210.01234567890123456789"},
      {SqlParameterType::kDate, false, "2024-02-29"},
      {SqlParameterType::kDate, false, "-000043-03-15"},
      {SqlParameterType::kTime, false, "23:59:59.999999"},
      {SqlParameterType::kTimestamp, false, "2026-01-31T12:30:00.123456"},
      {SqlParameterType::kTimestamp, false, "2026-01-31T12:30:00Z"},
      {SqlParameterType::kUuid, false, "123e4567-e89b-12d3-a456-426614174000"},
      {SqlParameterType::kJson,
       false,
       {{"b", {1, nullptr, "x"}}, {"a", 1.5}},
       "SELECT $1::json AS x"},
      {SqlParameterType::kJson, false, {{"a", 1}}, "SELECT $1::jsonb AS x"},
      {SqlParameterType::kAny, false, "x", "SELECT $1::text AS x"},
      {SqlParameterType::kAny, false, 7, "SELECT $1::int AS x"},
      {SqlParameterType::kAny, true, {"a", nullptr}, "SELECT $1::text[] AS x"},
      {SqlParameterType::kInteger, false, nullptr},
      {SqlParameterType::kText, true, {"", "NULL", nullptr, "a\"b\\c", "{x,y}", " "}},
      {SqlParameterType::kInteger, true, {1, nullptr, 3}},
      {SqlParameterType::kDouble, true, {1.5, "nan"}},
      {SqlParameterType::kBoolean, true, {true, false}},
      {SqlParameterType::kDecimal, true, {"1.10", "2"}},
      {SqlParameterType::kDate, true, {"2026-01-31", "infinity"}},
      {SqlParameterType::kTime, true, {"01:02:03"}},
      {SqlParameterType::kTimestamp, true, {"2026-01-31T12:30:00Z"}},
      {SqlParameterType::kUuid, true, {"123e4567-e89b-12d3-a456-426614174000"}},
      {SqlParameterType::kText, true, Json::array()},
      {SqlParameterType::kText, true, nullptr},
  };
  Asker asker;
  for (const Case& one : cases) {
    const Json rows = RowsOf(asker.Ask(Asker::Read(one.sql, {{one.type, one.is_list, one.value}})));
    EXPECT_EQ(rows, Json::array({{{"x", one.value}}})) << one.value;
  }
  EXPECT_EQ(
      FailureOf(asker.Ask(Asker::Read("SELECT $1, $2", {{SqlParameterType::kText, false, "a"},
                                                        {SqlParameterType::kDate, false, "b"}}))),
      "bad_parameter: parameter 2: expected a date such as 2026-01-31, got b");
}

TEST_F(PostgresTest, TypesOfTheUsersOwn) {
  server().Rows(
      "CREATE TYPE mood AS ENUM ('good', 'so so'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);"
      "CREATE TABLE felt (m mood, ms mood[], p positive, ps positive[], b box[], i int2vector);"
      "INSERT INTO felt VALUES ('so so', '{good,NULL}', 3, '{4,5}', '{(1,1),(0,0)}', '1 2')");
  Asker asker;
  const Json expected = Json::parse(R"~([{"m": "so so", "ms": ["good", null], "p": 3, "ps": [4, 5],
      "b": "{(1,1),(0,0)}", "i": "1 2"}])~");
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT * FROM felt"))), expected);
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT * FROM felt LIMIT 1"))), expected);
  EXPECT_THAT(FailureOf(asker.Ask(Asker::Read("SELECT 1, '\\x00'::bytea AS raw"))),
              HasSubstr("bad_column: column 'raw' is bytea"));
}

TEST_F(PostgresTest, ColumnsOfOneNameGetNumbers) {
  Asker asker;
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT 1 AS a, 2 AS a, 3 AS a_2, 4 AS a"))).dump(),
            R"([{"a":1,"a_2":2,"a_2_2":3,"a_3":4}])");
}

TEST_F(PostgresTest, WritesSayWhatTheyChanged) {
  server().Rows("CREATE TABLE counted (a int)");
  Asker asker;
  EXPECT_EQ(asker.Ask(Asker::Write("INSERT INTO counted VALUES (1), (2), (3)")).value.dump(),
            R"({"rows":[],"rowcount":3})");
  EXPECT_EQ(asker.Ask(Asker::Write("DELETE FROM counted WHERE a > 1 RETURNING a")).value.dump(),
            R"({"rows":[{"a":2},{"a":3}],"rowcount":2})");
  EXPECT_EQ(FailureOf(asker.Ask(Asker::Write("VACUUM counted"))), "");  // allows no transaction
  EXPECT_EQ(server().Value("SELECT count(*) FROM counted"), "1");
}

TEST_F(PostgresTest, SeveralStatementsRunAtOnceOnOneThread) {
  Asker asker(6);
  RowsOf(asker.Ask(Asker::Read("SELECT 1")));
  const size_t threads = CountThreads();
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 9; ++i) ids.push_back(asker.Submit(Asker::Read(kSleep)));
  server().Await(running(), "6");  // the others wait
  EXPECT_EQ(CountThreads(), threads);
  for (const ToolCallId id : ids) asker.Cancel(id);
  for (const ToolCallId id : ids)
    EXPECT_EQ(FailureOf(asker.Await(id)), "cancelled: the call was cancelled");
  server().Await(running(), "0");
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT 2 AS x"))), Json::parse(R"([{"x": 2}])"));
}

TEST_F(PostgresTest, StatementsArePreparedOnceAndNotKeptForever) {
  Asker asker(1);
  for (int i = 0; i < 5; ++i)
    RowsOf(asker.Ask(Asker::Read("SELECT $1 + 1 AS x", {{SqlParameterType::kInteger, false, i}})));
  const char* query =
      "SELECT count(*) AS n, sum(generic_plans + custom_plans)::int AS used FROM "
      "pg_prepared_statements WHERE statement = 'SELECT $1 + 1 AS x'";
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read(query))), Json::parse(R"([{"n": 1, "used": 5}])"));
  for (int i = 0; i < 300; ++i)
    RowsOf(asker.Ask(Asker::Read("SELECT " + std::to_string(i) + " AS x")));
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT count(*) AS n FROM pg_prepared_statements"))),
            Json::parse(R"([{"n": 256}])"));
}

TEST_F(PostgresTest, APreparedStatementOutlivesAChangeOfItsTable) {
  server().Rows("CREATE TABLE changing (a int); INSERT INTO changing VALUES (1)");
  Asker asker(1);
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT * FROM changing"))).dump(), R"([{"a":1}])");
  server().Rows("ALTER TABLE changing ADD b text DEFAULT 'x'");
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT * FROM changing"))).dump(),
            R"([{"a":1,"b":"x"}])");
}

TEST_F(PostgresTest, ReadsCannotWrite) {
  server().Rows(
      "CREATE TABLE guarded (a int); CREATE FUNCTION sneak() RETURNS int LANGUAGE sql AS "
      "'INSERT INTO guarded VALUES (1) RETURNING a'; CREATE SEQUENCE numbers");
  Asker asker(1);
  const auto refused = [&](const char* text) {
    EXPECT_THAT(FailureOf(asker.Ask(Asker::Read(text))),
                testing::AllOf(testing::StartsWith("not_allowed: 25006: "),
                               HasSubstr("declare effect: write")))
        << text;
  };
  refused("INSERT INTO guarded VALUES (1)");
  refused("SELECT sneak()");
  refused("SELECT nextval('numbers')");
  refused("CREATE TABLE other (a int)");
  // What a statement sets for its session is gone with it.
  for (const char* text : {"SELECT set_config('default_transaction_read_only', 'off', false)",
                           "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", "COMMIT",
                           "SET TimeZone = 'Asia/Tokyo'"}) {
    asker.Ask(Asker::Read(text));
    refused("SELECT sneak()");
  }
  EXPECT_NE(FailureOf(asker.Ask(Asker::Read("DO $$ BEGIN COMMIT; PERFORM sneak(); END $$"))), "");
  EXPECT_NE(FailureOf(asker.Ask(Asker::Read("COPY guarded TO STDOUT"))), "");
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT TIMESTAMPTZ '2026-01-31 00:00Z' AS x"))).dump(),
            R"([{"x":"2026-01-31T00:00:00Z"}])");
  EXPECT_EQ(server().Value("SELECT count(*) FROM guarded"), "0");
  EXPECT_EQ(FailureOf(asker.Ask(Asker::Write("SELECT sneak()"))), "");
  EXPECT_EQ(server().Value("SELECT count(*) FROM guarded"), "1");
}

TEST_F(PostgresTest, TooLongAStatementIsEnded) {
  Asker asker(PostgresConnection{"db", server().url(), 2, 200'000});
  EXPECT_THAT(
      FailureOf(asker.Ask(Asker::Read(kSleep))),
      HasSubstr("!timeout: the statement took longer than the connection's limit of 0.2 s"));
  EXPECT_THAT(FailureOf(asker.Ask(Asker::Write(kSleep))), HasSubstr("!timeout: "));
  ToolCall late = Asker::Read(kSleep);
  late.deadline_us = asker.NowUs() + 100'000;
  EXPECT_EQ(FailureOf(asker.Ask(std::move(late))),
            "deadline: the call took longer than its deadline allows");
  // One that never gets a session.
  Asker narrow(1);
  const ToolCallId first = narrow.Submit(Asker::Read(kSleep));
  server().Await(running(), "1");
  ToolCall second = Asker::Read("SELECT 1");
  second.deadline_us = narrow.NowUs() + 50'000;
  EXPECT_EQ(FailureOf(narrow.Ask(std::move(second))),
            "deadline: the call took longer than its deadline allows");
  narrow.Cancel(first);
  EXPECT_EQ(FailureOf(narrow.Await(first)), "cancelled: the call was cancelled");
}

TEST_F(PostgresTest, LargeResultsStopAtTheirLimits) {
  Asker asker(1);
  ToolCall rows = Asker::Read("SELECT generate_series(1, 1000000000) AS x");
  std::get<SqlCall>(rows.what).most_rows = 10;
  EXPECT_EQ(FailureOf(asker.Ask(rows)),
            "result_too_large: the result has more than 10 rows: add a LIMIT, or raise most_rows");
  std::get<SqlCall>(rows.what).text = "SELECT generate_series(1, 10) AS x";
  EXPECT_EQ(RowsOf(asker.Ask(rows)).size(), 10U);

  ToolCall bytes = Asker::Read("SELECT repeat('x', 1048576) AS x FROM generate_series(1, 10)");
  EXPECT_EQ(FailureOf(asker.Ask(bytes)),
            "result_too_large: the result has more than 8388608 bytes: choose fewer columns or "
            "rows, or raise most_bytes");
  std::get<SqlCall>(bytes.what).most_bytes = 16 << 20;
  EXPECT_EQ(RowsOf(asker.Ask(bytes)).dump().size(), 10U * (1'048'576 + 8) + 11);
  std::get<SqlCall>(bytes.what).text = "SELECT repeat('x', 10485760) AS x";
  EXPECT_EQ(RowsOf(asker.Ask(bytes))[0]["x"].get<std::string>().size(), 10'485'760U);
}

TEST_F(PostgresTest, BytesThatAreNotUtf8FailTheirCallOnly) {
  server().Rows(
      "CREATE DATABASE bytes ENCODING 'SQL_ASCII' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'");
  Asker asker(PostgresConnection{"db", server().UrlOf("halo", "bytes"), 1, 30'000'000});
  EXPECT_THAT(FailureOf(asker.Ask(Asker::Read("SELECT 'a' AS x UNION ALL SELECT E'\\xff'"))),
              HasSubstr("invalid_value: 22021: "));
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT E'\\xc3\\xa9' AS x"))).dump(), R"([{"x":"é"}])");
}

TEST_F(PostgresTest, ErrorsSayWhereAndWhy) {
  Asker asker;
  EXPECT_EQ(FailureOf(asker.Ask(Asker::Read("SELECT 1 / 0"))),
            "sql_error: 22012: division by zero");
  EXPECT_EQ(FailureOf(asker.Ask(Asker::Read("SELECT nothing FROM pg_class"))),
            "sql_error: 42703: column \"nothing\" does not exist (at character 8)");
  EXPECT_THAT(FailureOf(asker.Ask(Asker::Read("SELECT 1; SELECT 2"))),
              HasSubstr("cannot insert multiple commands"));
  EXPECT_THAT(FailureOf(asker.Ask(
                  Asker::Read("SELECT $1::int, $2::int", {{SqlParameterType::kAny, false, 1}}))),
              HasSubstr("08P01"));
  ToolCall other = Asker::Read("SELECT 1");
  std::get<SqlCall>(other.what).connection = "nowhere";
  EXPECT_EQ(FailureOf(asker.Ask(other)), "bad_connection: there is no connection 'nowhere'");
}

TEST_F(PostgresTest, PlanHintsHoldForOneStatement) {
  server().Rows(
      "CREATE TABLE planned (id int PRIMARY KEY, t text); INSERT INTO planned SELECT i, 'x' FROM "
      "generate_series(1, 5000) i; ANALYZE planned");
  Asker asker(1);
  const auto plan = [&](std::vector<std::pair<std::string, std::string>> settings, bool writes) {
    ToolCall call = Asker::Read("EXPLAIN (COSTS off) SELECT * FROM planned WHERE id = $1",
                                {{SqlParameterType::kInteger, false, 7}});
    std::get<SqlCall>(call.what).settings = std::move(settings);
    if (writes) call.effect = ToolEffect::kWrite;
    return RowsOf(asker.Ask(call)).dump();
  };
  const std::vector<std::pair<std::string, std::string>> hints = {{"enable_indexscan", "off"},
                                                                  {"enable_bitmapscan", "off"}};
  for (int i = 0; i < 8; ++i) {  // often enough for a plan that the server keeps
    EXPECT_THAT(plan({}, false), HasSubstr("Index Scan"));
    EXPECT_THAT(plan(hints, false), HasSubstr("Seq Scan"));
    EXPECT_THAT(plan(hints, true), HasSubstr("Seq Scan"));
    EXPECT_THAT(plan({}, true), HasSubstr("Index Scan"));
  }
  ToolCall call = Asker::Read("SELECT 1");
  std::get<SqlCall>(call.what).settings = {{"search_path", "x"}};
  EXPECT_THAT(FailureOf(asker.Ask(call)), HasSubstr("bad_setting: the setting 'search_path'"));
  std::get<SqlCall>(call.what).settings = {{"enable_seqscan", "on'; DROP TABLE planned; --"}};
  EXPECT_THAT(FailureOf(asker.Ask(call)), HasSubstr("bad_setting: setting enable_seqscan: 22023"));
  EXPECT_EQ(server().Value("SELECT count(*) FROM planned"), "5000");
}

TEST_F(PostgresTest, DeadlockFailsOneOfTwoWriters) {
  server().Rows(R"(CREATE TABLE locked (id int PRIMARY KEY, n int);
      INSERT INTO locked VALUES (1, 0), (2, 0);
      CREATE FUNCTION swap(first int, second int) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        UPDATE locked SET n = n + 1 WHERE id = first;
        PERFORM pg_advisory_xact_lock(1000 + first);
        WHILE (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid IN (1001, 1002)) < 2 LOOP
          PERFORM pg_sleep(0.01);
        END LOOP;
        UPDATE locked SET n = n + 1 WHERE id = second;
      END $$)");
  Asker asker;
  const ToolCallId one = asker.Submit(Asker::Write("SELECT swap(1, 2)"));
  const ToolCallId two = asker.Submit(Asker::Write("SELECT swap(2, 1)"));
  std::multiset<std::string> codes;
  for (const ToolCallId id : {one, two}) {
    const ToolCompletion completion = asker.Await(id);
    codes.insert(completion.failure ? FailureOf(completion).substr(0, 9) : "");
  }
  EXPECT_THAT(codes, ElementsAre("", "!deadlock"));
  EXPECT_EQ(server().Value("SELECT sum(n) FROM locked"), "2");
}

TEST_F(PostgresTest, AServerThatIsDownFailsCallsUntilItIsBack) {
  TestPostgres own;
  Asker asker(PostgresConnection{"db", own.url(), 2, 30'000'000});
  RowsOf(asker.Ask(Asker::Read("SELECT 1")));
  const ToolCallId read = asker.Submit(Asker::Read(kSleep));
  const ToolCallId write = asker.Submit(Asker::Write(kSleep));
  own.Await(running(), "2");
  own.Stop();
  EXPECT_THAT(FailureOf(asker.Await(read)), HasSubstr("!connection: "));
  EXPECT_THAT(FailureOf(asker.Await(write)), testing::StartsWith("connection: "));
  const std::string down = FailureOf(asker.Ask(Asker::Read("SELECT 1")));
  EXPECT_THAT(down, HasSubstr("!connection: connection 'db': "));
  own.Start();
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT 1 AS x"))).dump(), R"([{"x":1}])");
}

TEST_F(PostgresTest, ASessionThatIsEndedFailsWhatRanOnIt) {
  Asker asker(2);
  const ToolCallId read = asker.Submit(Asker::Read(kSleep));
  server().Await(running(), "1");
  const char* end =
      "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = "
      "'halo'";
  EXPECT_EQ(server().Value(end), "1");
  EXPECT_THAT(FailureOf(asker.Await(read)),
              HasSubstr("!connection: 57P01: terminating connection"));
  // A new session is opened, also where an idle one was ended without a word.
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT 1 AS x"))).dump(), R"([{"x":1}])");
  EXPECT_EQ(server().Value(end), "1");
  AwaitNoSessions();
  EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT 2 AS x"))).dump(), R"([{"x":2}])");
  ToolCall twice = Asker::Write(kSleep);
  twice.idempotent = true;
  const ToolCallId write = asker.Submit(std::move(twice));
  server().Await(running(), "1");
  server().Value(end);
  EXPECT_THAT(FailureOf(asker.Await(write)), HasSubstr("!connection: 57P01"));
}

TEST_F(PostgresTest, FewerSessionsThanWantedDoTheWork) {
  // The server has 20, of which 3 are for its owner.
  server().Rows("CREATE ROLE app LOGIN");
  PostgresConnection connection{"db", server().UrlOf("app", "postgres"), 40, 30'000'000};
  Asker asker(connection);
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 100; ++i)
    ids.push_back(
        asker.Submit(Asker::Read("SELECT pg_sleep(0.01), " + std::to_string(i) + " AS x")));
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(RowsOf(asker.Await(ids[i]))[0]["x"], i);
  asker.End();
  AwaitNoSessions();

  // With none left, there is nothing to wait for.
  server().Rows("ALTER ROLE app CONNECTION LIMIT 0");
  Asker none(connection);
  EXPECT_THAT(FailureOf(none.Ask(Asker::Read("SELECT 1"))),
              HasSubstr("!connection: connection 'db': "));
  server().Rows("ALTER ROLE app CONNECTION LIMIT 1");
  // Reads and writes take turns on the one session that there is.
  std::vector<ToolCallId> turns;
  for (int i = 0; i < 6; ++i)
    turns.push_back(none.Submit(i % 2 == 0 ? Asker::Read("SELECT 1") : Asker::Write("SELECT 2")));
  for (const ToolCallId id : turns) EXPECT_EQ(FailureOf(none.Await(id)), "");
}

TEST_F(PostgresTest, LowerOrderGoesFirst) {
  Asker asker(1);
  const ToolCallId first = asker.Submit(Asker::Read(kSleep));
  server().Await(running(), "1");
  ToolCall later = Asker::Read("SELECT clock_timestamp()::text AS x");
  ToolCall sooner = later;
  later.order = 2;
  sooner.order = 1;
  const ToolCallId second = asker.Submit(std::move(later));
  const ToolCallId third = asker.Submit(std::move(sooner));
  asker.Cancel(first);
  EXPECT_LT(RowsOf(asker.Await(third))[0]["x"], RowsOf(asker.Await(second))[0]["x"]);
}

TEST_F(PostgresTest, TextsAsParametersChangeNothing) {
  server().Rows("CREATE TABLE target (a text); INSERT INTO target VALUES ('safe')");
  const std::vector<std::string> texts = {"'; DROP TABLE target; --",
                                          "$1",
                                          ":name",
                                          "\\",
                                          "'",
                                          "\"",
                                          "{{ row.x }}",
                                          "%s",
                                          "NULL",
                                          "{a,b}",
                                          "E'\\x00'",
                                          "$$; DROP TABLE target; $$",
                                          "/*",
                                          "--",
                                          "1; DELETE FROM target",
                                          "ünïcödé \U0001F600",
                                          "<|im_end|>",
                                          "http://127.0.0.1/",
                                          "{\"a\": 1}",
                                          "\x01\x7F",
                                          ""};
  Asker asker;
  for (const std::string& text : texts) {
    EXPECT_EQ(RowsOf(asker.Ask(Asker::Read("SELECT $1 AS x, $2 AS y",
                                           {{SqlParameterType::kText, false, text},
                                            {SqlParameterType::kText, true, {text, text}}}))),
              Json::array({{{"x", text}, {"y", {text, text}}}}));
    EXPECT_EQ(asker
                  .Ask(Asker::Write("UPDATE target SET a = a WHERE a = $1",
                                    {{SqlParameterType::kText, false, text}}))
                  .value["rowcount"],
              0);
  }
  EXPECT_EQ(server().Value("SELECT a FROM target"), "safe");
}

TEST_F(PostgresTest, NoMessageHasAPassword) {
  TestPostgres listening({"--listen"});
  std::string url = listening.url();
  Asker right(PostgresConnection{"db", url, 1, 30'000'000});
  EXPECT_EQ(RowsOf(right.Ask(Asker::Read("SELECT 1 AS x"))).dump(), R"([{"x":1}])");
  const size_t start = url.find(':', 12) + 1;
  url.replace(start, url.find('@') - start, "wrong-secret");
  Asker wrong(PostgresConnection{"db", url, 1, 30'000'000});
  const std::string failure = FailureOf(wrong.Ask(Asker::Read("SELECT 1")));
  EXPECT_THAT(failure, testing::StartsWith("connection: connection 'db': "));  // it stays wrong
  EXPECT_THAT(failure, HasSubstr("28P01"));
  EXPECT_THAT(failure, Not(HasSubstr("wrong-secret")));

  for (const char* bad : {"postgres://u:wrong-secret%zz@h/d", "host=h password=wrong-secret",
                          "postgres://u:wrong-secret@h/d?nothing=1"}) {
    try {
      Asker asker(PostgresConnection{"db", bad, 1, 30'000'000});
      ADD_FAILURE() << bad;
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), HasSubstr("connection 'db': its URL cannot be read"));
      EXPECT_THAT(error.what(), Not(HasSubstr("wrong-secret")));
    }
  }
}

TEST_F(PostgresTest, NothingIsLeftBehind) {
  AwaitNoSessions();
  const Census before{};
  {
    Asker asker(3);
    RowsOf(asker.Ask(Asker::Read("SELECT 1")));
    EXPECT_NE(FailureOf(asker.Ask(Asker::Read("SELECT 1 / 0"))), "");
    std::vector<ToolCallId> ids;
    for (int i = 0; i < 5; ++i)
      ids.push_back(asker.Submit(i % 2 == 0 ? Asker::Read(kSleep) : Asker::Write(kSleep)));
    server().Await(running(), "3");
    asker.End();  // what runs and what waits
    EXPECT_EQ(asker.CountCompletions(), 7U);
    for (const ToolCallId id : ids)
      EXPECT_EQ(FailureOf(asker.Await(id)), "cancelled: the call was cancelled");
    Asker idle(2);
  }
  AwaitNoSessions();
  EXPECT_EQ(Census(), before);
}

// ---- the catalogue

TEST_F(PostgresTest, OurListCoversTheServersVolatileFunctions) {
  // Not those that only the server itself can call, nor methods of TABLESAMPLE and access methods.
  const auto names = server().Rows(
      "SELECT DISTINCT proname FROM pg_proc WHERE provolatile = 'v' AND pronamespace = "
      "'pg_catalog'::regnamespace AND prorettype NOT IN ('trigger'::regtype, "
      "'language_handler'::regtype, 'index_am_handler'::regtype, 'table_am_handler'::regtype, "
      "'tsm_handler'::regtype) AND proname NOT LIKE 'plpgsql%'");
  EXPECT_GT(names.size(), 100U);
  for (const auto& name : names) EXPECT_TRUE(IsVolatileFunction(name[0])) << name[0];
}

TEST_F(PostgresTest, AskingTheCatalogue) {
  const std::string database = server().UrlOf("halo", "asked");
  server().Rows("CREATE DATABASE asked");
  const PostgresConnection connection{"db", database, 1, 30'000'000};
  TestPostgres::Rows(
      "CREATE TABLE t (a int); CREATE SCHEMA s; CREATE FUNCTION roll() RETURNS float8 LANGUAGE sql "
      "VOLATILE AS 'SELECT random()'; CREATE FUNCTION s.look() RETURNS int LANGUAGE sql STABLE AS "
      "'SELECT 1'; CREATE FUNCTION plain(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1'; "
      "CREATE FUNCTION \"Odd\"() RETURNS int LANGUAGE sql AS 'SELECT 1'",
      database);
  PostgresCatalogue catalogue = AskPostgres(connection,
                                            {{"", "roll"},
                                             {"", "look"},
                                             {"s", "look"},
                                             {"public", "look"},
                                             {"", "plain"},
                                             {"", "Odd"},
                                             {"", "odd"},
                                             {"", "sum"},
                                             {"pg_catalog", "now"},
                                             {"", "nothing"}},
                                            {{"", "t"}});
  EXPECT_THAT(catalogue.volatile_functions,
              ElementsAre(SqlName{"", "roll"}, SqlName{"", "look"}, SqlName{"s", "look"},
                          SqlName{"", "Odd"}, SqlName{"pg_catalog", "now"}));
  EXPECT_THAT(catalogue.volatile_views, IsEmpty());
  EXPECT_FALSE(catalogue.writes_spread);

  TestPostgres::Rows(
      "CREATE VIEW calm AS SELECT a, plain(a) FROM t; CREATE VIEW today AS SELECT CURRENT_DATE AS "
      "d; "
      "CREATE VIEW s.deep AS SELECT * FROM today JOIN t ON true; CREATE VIEW rolled AS SELECT "
      "roll()",
      database);
  catalogue = AskPostgres(connection, {},
                          {{"", "calm"},
                           {"", "today"},
                           {"s", "deep"},
                           {"", "deep"},
                           {"", "rolled"},
                           {"", "t"},
                           {"", "pg_stat_activity"},
                           {"public", "deep"}});
  EXPECT_THAT(catalogue.volatile_views,
              ElementsAre(SqlName{"", "today"}, SqlName{"s", "deep"}, SqlName{"", "deep"},
                          SqlName{"", "rolled"}, SqlName{"", "pg_stat_activity"}));
  EXPECT_TRUE(catalogue.writes_spread);
}

TEST_F(PostgresTest, WritesSpreadThroughCascadesTriggersAndPartitions) {
  const std::vector<std::string> causes = {
      "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a ON DELETE CASCADE)",
      "CREATE TABLE a (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
      "RETURN NULL; END'; CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f()",
      "CREATE TABLE a (id int); CREATE RULE r AS ON INSERT TO a DO ALSO NOTIFY n",
      "CREATE TABLE a (id int) PARTITION BY RANGE (id)",
      "CREATE TABLE a (id int); CREATE TABLE b () INHERITS (a)",
  };
  for (size_t i = 0; i < causes.size(); ++i) {
    const std::string name = "spread" + std::to_string(i);
    server().Rows("CREATE DATABASE " + name);
    const PostgresConnection connection{"db", server().UrlOf("halo", name), 1, 30'000'000};
    TestPostgres::Rows("CREATE TABLE x (id int PRIMARY KEY); CREATE TABLE y (x int REFERENCES x)",
                       connection.url);
    EXPECT_FALSE(AskPostgres(connection, {}, {}).writes_spread);
    TestPostgres::Rows(causes[i], connection.url);
    EXPECT_TRUE(AskPostgres(connection, {}, {}).writes_spread) << causes[i];
  }
}

TEST_F(PostgresTest, CheckingStatementsExecutesNothing) {
  server().Rows("CREATE TABLE checked (a int, d date)");
  const PostgresConnection connection{"db", server().url(), 1, 30'000'000};
  const auto check = [&](const std::string& sql, std::vector<SqlArgument> types) {
    std::string fault;
    const SqlStatement statement = ReadSqlStatement(sql, SqlDialect::kPostgres, fault);
    EXPECT_EQ(fault, "");
    return CheckOnPostgres(connection, statement, types);
  };
  EXPECT_EQ(check("DELETE FROM checked WHERE a = :a AND d = :d",
                  {{SqlParameterType::kInteger, false, {}}, {SqlParameterType::kDate, false, {}}}),
            "");
  EXPECT_EQ(check("SELECT b FROM checked", {}),
            "42703: column \"b\" does not exist (at character 8)");
  EXPECT_THAT(check("SELECT a FROM checked WHERE a = :a", {{SqlParameterType::kDate, false, {}}}),
              HasSubstr("operator does not exist: integer = date"));
  EXPECT_THAT(check("SELEC 1", {}), HasSubstr("42601"));

  PostgresConnection nowhere = connection;
  nowhere.url = "postgres://u@/d?host=%2Fnowhere";
  try {
    AskPostgres(nowhere, {}, {});
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("connection 'db': connection to server on socket"));
  }
}

/// Units under each plan; empty if nothing is known.
std::vector<double> UnitsOf(const PostgresConnection& connection, const std::string& sql,
                            std::vector<SqlArgument> types = {},
                            decltype(QueryToCost::plans) plans = {}) {
  std::string fault;
  const SqlStatement statement = ReadSqlStatement(sql, SqlDialect::kPostgres, fault);
  EXPECT_EQ(fault, "") << sql;
  types.resize(statement.parameters.size());
  const QueryCosts costs = AskPostgresCosts(connection, {{&statement, types, std::move(plans)}});
  EXPECT_EQ(costs.why_not, "");
  return costs.units.at(0);
}

TEST_F(PostgresTest, CostsAreThoseOfThePlanThatServesAllValues) {
  server().Rows(
      "CREATE TABLE cheap (id int PRIMARY KEY, t text, d date); CREATE TABLE dear (id int PRIMARY "
      "KEY, t text, d date); INSERT INTO cheap SELECT i, 'x', '2020-01-01' FROM generate_series(1, "
      "100) i; INSERT INTO dear SELECT i, 'x', '2020-01-01' FROM generate_series(1, 20000) i; "
      "ANALYZE cheap; ANALYZE dear");
  const PostgresConnection connection{"db", server().url(), 1, 30'000'000};
  const auto one = [&](const std::string& sql, std::vector<SqlArgument> types = {}) {
    const std::vector<double> units = UnitsOf(connection, sql, std::move(types));
    EXPECT_EQ(units.size(), 1U) << sql;
    return units.empty() ? -1.0 : units[0];
  };
  EXPECT_GT(one("SELECT * FROM dear"), 20.0 * one("SELECT * FROM cheap"));
  EXPECT_GT(one("SELECT * FROM dear WHERE t = :t"),
            10.0 * one("SELECT * FROM dear WHERE id = :id"));
  EXPECT_GT(
      one("SELECT * FROM dear WHERE t || :t LIKE :x AND d < :d",
          {{}, {}, {SqlParameterType::kDate, false, nullptr}}),
      one("SELECT * FROM dear WHERE id = :id", {{SqlParameterType::kInteger, false, nullptr}}));
  EXPECT_GT(
      one("SELECT * FROM dear WHERE id = ANY(:ids)", {{SqlParameterType::kInteger, true, nullptr}}),
      0.0);

  const decltype(QueryToCost::plans) plans = {
      {{"enable_indexscan", "off"}, {"enable_bitmapscan", "off"}}, {}, {{"enable_seqscan", "off"}}};
  const std::vector<double> each =
      UnitsOf(connection, "SELECT * FROM dear WHERE id = :id", {}, plans);
  ASSERT_EQ(each.size(), 3U);
  EXPECT_GT(each[0], 10.0 * each[1]);
  EXPECT_DOUBLE_EQ(each[1], each[2]);
  // Where there is no other way, a forbidden step costs what it costs.
  EXPECT_NEAR(UnitsOf(connection, "SELECT * FROM dear", {}, {{{"enable_seqscan", "off"}}}).at(0),
              one("SELECT * FROM dear"), 1e-3);
}

TEST_F(PostgresTest, AskingForCostsExecutesNothing) {
  server().Rows(
      "CREATE TABLE asked (id int); INSERT INTO asked VALUES (1), (2); CREATE SEQUENCE asked_ids; "
      "CREATE FUNCTION sneaks(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN INSERT INTO "
      "asked VALUES ($1); PERFORM nextval(''asked_ids''); RETURN $1; END'");
  const PostgresConnection connection{"db", server().url(), 1, 1'000'000};
  for (const char* sql :
       {"DELETE FROM asked", "SELECT nextval('asked_ids')", "SELECT * FROM asked FOR UPDATE",
        "SELECT pg_sleep(60)", "SELECT random()", "EXPLAIN ANALYZE SELECT * FROM asked",
        "SELECT * FROM nowhere", "SELECT id FROM asked WHERE id = :a AND id = :b::date",
        // It says that it depends on its argument alone, so that the planner calls it.
        "SELECT sneaks(7)"})
    EXPECT_THAT(UnitsOf(connection, sql), IsEmpty()) << sql;
  EXPECT_THAT(UnitsOf(connection, "SELECT * FROM asked", {}, {{}, {{"search_path", "x"}}}),
              IsEmpty());
  EXPECT_THAT(UnitsOf(connection, "SELECT * FROM asked", {}, {{{"work_mem", "much"}}}), IsEmpty());
  EXPECT_EQ(server().Value("SELECT count(*) FROM asked"), "2");
  EXPECT_EQ(server().Value("SELECT is_called FROM asked_ids"), "f");
  AwaitNoSessions();

  // What one query cannot be asked leaves the next as it is.
  std::string fault;
  const SqlStatement broken = ReadSqlStatement("SELECT x FROM asked", SqlDialect::kPostgres, fault);
  const SqlStatement sound = ReadSqlStatement("SELECT id FROM asked", SqlDialect::kPostgres, fault);
  const QueryCosts costs = AskPostgresCosts(connection, {{&broken, {}, {}}, {&sound, {}, {}}});
  EXPECT_THAT(costs.units.at(0), IsEmpty());
  EXPECT_EQ(costs.units.at(1).size(), 1U);

  PostgresConnection nowhere = connection;
  nowhere.url = "postgres://u@/d?host=%2Fnowhere";
  const QueryCosts none = AskPostgresCosts(nowhere, {{&sound, {}, {}}});
  EXPECT_THAT(none.why_not, HasSubstr("connection 'db': connection to server on socket"));
  EXPECT_THAT(none.units.at(0), IsEmpty());
}

TEST_F(PostgresTest, ALockedTableIsNotWaitedForLong) {
  server().Rows("CREATE TABLE held (id int)");
  const PostgresConnection connection{"db", server().url(), 1, 30'000'000};
  Asker asker;
  const ToolCallId lock =
      asker.Submit(Asker::Write("DO $$ BEGIN LOCK TABLE held; PERFORM pg_sleep(600); END $$"));
  server().Await(
      "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND "
      "relation = 'held'::regclass",
      "1");
  EXPECT_THAT(UnitsOf(connection, "SELECT * FROM held"), IsEmpty());
  asker.Cancel(lock);
  EXPECT_THAT(FailureOf(asker.Await(lock)), HasSubstr("cancelled"));
  EXPECT_EQ(UnitsOf(connection, "SELECT * FROM held").size(), 1U);
}

TEST(PostgresPlanTest, PlansAreRead) {
  EXPECT_EQ(UnitsOfPostgresPlan(R"([{"Plan": {"Node Type": "Seq Scan", "Total Cost": 12.5}}])"),
            12.5);
  for (const char* text : {"", "{}", "[]", "[1]", R"([{"Plan": 1}])", R"([{"Plan": {}}])",
                           R"([{"Plan": {"Total Cost": "1"}}])"})
    EXPECT_EQ(UnitsOfPostgresPlan(text), std::nullopt) << text;
}

}  // namespace
}  // namespace halo
