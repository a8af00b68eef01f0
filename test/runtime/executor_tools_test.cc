#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

#include "base/random.h"
#include "runtime/executor.h"
#include "runtime/simulated_tools.h"
#include "runtime/tool_results.h"
#include "support/simulated_run.h"
#include "support/test_models.h"

namespace halo::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Ge;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Le;
using testing::SizeIs;

constexpr int64_t kSecond = 1'000'000;

std::string Graph(const std::string& nodes) {
  return "graph:\n  connections: {shop: \"duckdb::memory:\"}\n  allow_hosts: [example.org]\n"
         "  defaults: {model: m}\n  nodes:\n    - {id: in, type: input, outputs: [q]}\n" +
         nodes;
}

/// One read over HTTP that rows with equal q share, and that is tried again.
std::string SharedGet(const std::string& more = "retry: {max: 3, backoff_s: 1}") {
  return Graph("    - {id: get, type: http, url: \"http://example.org/{{ q }}\", coalesce: true, " +
               more + "}\n");
}

/// A call as a simulated tool saw it begin.
struct Start {
  std::string op, row;
  int32_t attempt;
  int64_t time_us;
};

/// A workflow on simulated engines and tools that share a virtual clock.
class ToolRig {
 public:
  using Script = std::function<ScriptedResult(const ToolCall&)>;

  explicit ToolRig(const std::string& yaml, Script script, int32_t concurrency = 32)
      : rig_(yaml, "flow.yaml", {}), script_(std::move(script)) {
    SimulatedToolOptions options;
    options.concurrency = concurrency;
    options.timeline = rig_.timeline;
    options.script = [this](const ToolCall& call) {
      starts.push_back(
          {call.script_operator, call.script_row, call.script_attempt, rig_.clock.NowUs()});
      return script_(call);
    };
    tools = std::make_unique<SimulatedTools>(options, rig_.clock);
  }

  ExecutorOptions Options(ExecutorOptions options = {}) {
    options.tools = tools.get();
    options.tool_setup.connections["shop"] = {SqlDialect::kDuckDb, {}, {}, false};
    return options;
  }

  RunReport Run(const std::vector<Json>& rows, ExecutorOptions options = {},
                int64_t row_timeout_us = 0) {
    ListFeed feed = ListFeed::Of(rows);
    RunSource source = rig_.Source(feed, sink);
    source.row_timeout_us = row_timeout_us;
    const StopFlag stop{0};
    RunReport report = Executor({source}, Options(options), rig_.clock, nullptr).Run(stop);
    ExpectAccounting(report);
    return report;
  }

  /// "row@seconds" of each start, in order.
  std::vector<std::string> Starts(const std::string& op = "get") const {
    std::vector<std::string> shown;
    for (const Start& start : starts) {
      if (start.op == op)
        shown.push_back(start.row + "@" + std::to_string(start.time_us / kSecond));
    }
    return shown;
  }

  std::vector<std::string> Statuses() const { return StatusesOf(sink); }
  static std::vector<std::string> StatusesOf(const ListSink& sink) {
    std::vector<std::string> statuses;
    for (const Json& row : sink.rows)
      statuses.push_back(row["error"].is_null() ? "ok" : row["error"]["code"].get<std::string>());
    return statuses;
  }

  SimulatedRig& rig() { return rig_; }
  int64_t now_us() const { return rig_.clock.NowUs(); }

  std::vector<Start> starts;
  ListSink sink;
  std::unique_ptr<SimulatedTools> tools;

 private:
  SimulatedRig rig_;
  Script script_;
};

ScriptedResult Value(Json value, int64_t latency_us = 0) {
  return {std::move(value), latency_us, std::nullopt, 0};
}

ScriptedResult Fails(const std::string& code, bool retriable, int64_t retry_after_us = 0,
                     int64_t latency_us = 0) {
  return {nullptr, latency_us, Failure{"", code, "it said " + code, retriable}, retry_after_us};
}

std::vector<Json> Questions(const std::vector<std::string>& questions) {
  std::vector<Json> rows;
  for (const std::string& q : questions) rows.push_back({{"q", q}});
  return rows;
}

const OperatorCounts& CountsOf(const RunReport& report, const std::string& id, size_t source = 0) {
  for (const OperatorCounts& counts : report.operators) {
    if (counts.id == id && counts.source == source) return counts;
  }
  ADD_FAILURE() << "no operator " << id;
  return report.operators.front();
}

/// Calls something when a call of a tool has ended, as an instance sees it.
class OnEnd final : public RunObserver {
 public:
  explicit OnEnd(std::function<void(const ToolCallRecord&)> then) : then_(std::move(then)) {}
  void OnToolCall(const ToolCallRecord& record) override { then_(record); }

 private:
  std::function<void(const ToolCallRecord&)> then_;
};

// ---- lines

TEST(ExecutorToolsTest, AQueryDoesNotWaitForAWebService) {
  ToolRig rig(
      Graph("    - {id: get, type: http, url: \"http://example.org/{{ q }}\"}\n"
            "    - {id: other, type: http, url: \"http://example.org:81/{{ q }}\"}\n"
            "    - {id: ask, type: db_query, connection: shop, sql: \"SELECT :q AS v\",\n"
            "       parameters: {q: \"{{ q }}\"}}\n"),
      [](const ToolCall& call) {
        const bool is_query = std::holds_alternative<SqlCall>(call.what);
        return Value(is_query ? Json{{"rows", Json::array()}, {"rowcount", 0}} : Json("A"),
                     is_query ? kSecond : 10 * kSecond);
      },
      /*concurrency=*/1);
  rig.Run(Questions({"x", "y", "z"}));
  EXPECT_THAT(rig.Starts("get"), ElementsAre("0@0", "1@10", "2@20"));
  EXPECT_THAT(rig.Starts("other"), ElementsAre("0@0", "1@10", "2@20")) << "a host of its own";
  EXPECT_THAT(rig.Starts("ask"), ElementsAre("0@0", "1@1", "2@2"));
  EXPECT_EQ(rig.tools->peak_running(), 1);
  EXPECT_EQ(rig.now_us(), 30 * kSecond);
}

// ---- retries

TEST(ExecutorToolsTest, FailuresThatMayGoAwayAreTriedAgainMoreAndMoreSlowly) {
  ToolRig rig(SharedGet(), [](const ToolCall& call) {
    return call.script_attempt < 3 ? Fails("connection", true) : Value("A");
  });
  const RunReport report = rig.Run(Questions({"x"}));
  EXPECT_THAT(rig.Statuses(), ElementsAre("ok"));
  ASSERT_THAT(rig.starts, SizeIs(4));
  for (int i = 0; i < 3; ++i) {
    const int64_t wait_us =
        rig.starts[static_cast<size_t>(i) + 1].time_us - rig.starts[static_cast<size_t>(i)].time_us;
    EXPECT_GE(wait_us, (kSecond << i) / 2);
    EXPECT_LE(wait_us, kSecond << i);
  }
  EXPECT_EQ(CountsOf(report, "get").calls, 4);
  EXPECT_EQ(CountsOf(report, "get").executed, 1);
}

TEST(ExecutorToolsTest, NobodyIsAskedAgainSoonerThanTheyWant) {
  ToolRig rig(SharedGet(), [](const ToolCall& call) {
    return call.script_attempt == 0 ? Fails("http_status", true, 30 * kSecond) : Value("A");
  });
  rig.Run(Questions({"x"}));
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "0@30"));
}

TEST(ExecutorToolsTest, TheLastFailureCounts) {
  ToolRig rig(SharedGet("retry: {max: 2, backoff_s: 1}"), [](const ToolCall& call) {
    return Fails("attempt" + std::to_string(call.script_attempt), true);
  });
  const RunReport report = rig.Run(Questions({"x", "x", "y"}));
  EXPECT_THAT(rig.Statuses(), ElementsAre("attempt2", "attempt2", "attempt2"));
  EXPECT_THAT(rig.starts, SizeIs(6));
  EXPECT_EQ(CountsOf(report, "get").merged, 1);
  EXPECT_EQ(CountsOf(report, "get").failed, 3);
}

TEST(ExecutorToolsTest, WritesAreMadeOnceUnlessTheyMayBeMadeTwice) {
  const auto write = [](const std::string& more) {
    return Graph(
        "    - {id: get, type: http, method: POST, url: \"http://example.org/\", json: {q: \"{{ q "
        "}}\"}" +
        more + "}\n");
  };
  for (const bool idempotent : {false, true}) {
    ToolRig rig(write(idempotent ? ", idempotent: true" : ""), [](const ToolCall& call) {
      return call.script_attempt == 0 ? Fails("connection", true) : Value("A");
    });
    rig.Run(Questions({"x"}));
    EXPECT_THAT(rig.Statuses(), ElementsAre(idempotent ? "ok" : "connection"));
    EXPECT_EQ(rig.starts.size(), idempotent ? 2U : 1U);
  }
}

TEST(ExecutorToolsTest, AWriteOfSqlIsNeverRepeatedAndNeverShared) {
  ToolRig rig(
      Graph("    - {id: get, type: db_query, sql: \"INSERT INTO t VALUES (1)\", effect: write}\n"),
      [](const ToolCall&) { return Fails("connection", true); });
  rig.Run(Questions({"x", "x", "x"}));
  EXPECT_THAT(rig.starts, SizeIs(3));
  EXPECT_THAT(rig.Statuses(), ElementsAre("connection", "connection", "connection"));
}

// ---- limits of time

TEST(ExecutorToolsTest, ACallHasItsOwnLimitAndIsTriedAgain) {
  ToolRig rig(SharedGet("timeout_s: 2, retry: {max: 1, backoff_s: 0}"), [](const ToolCall& call) {
    return Value("A", call.script_attempt == 0 || call.script_row == "1" ? 5 * kSecond : kSecond);
  });
  rig.Run(Questions({"x", "y"}));
  EXPECT_THAT(rig.Statuses(), ElementsAre("ok", "timeout"));
  EXPECT_THAT(rig.sink.rows[1]["error"]["message"].get<std::string>(), HasSubstr("2.0 s"));
  EXPECT_EQ(rig.sink.rows[1]["error"]["operator"], "get");
}

TEST(ExecutorToolsTest, EachOperatorHasTheOutcomeOfItsOwnLimit) {
  const std::string get =
      "type: http, url: \"http://example.org/{{ q }}\", coalesce: true, retry: {max: 0}";
  ToolRig rig(Graph("    - {id: get, " + get +
                    ", timeout_s: 2, on_error: null}\n    - {id: patient, " + get + "}\n"),
              [](const ToolCall&) { return Value("A", 5 * kSecond); });
  rig.Run(Questions({"x"}));
  EXPECT_EQ(rig.sink.rows[0]["outputs"].dump(), R"({"get":null,"patient":"A"})");
}

TEST(ExecutorToolsTest, ARowsDeadlineEndsItsCalls) {
  ToolRig rig(SharedGet(), [](const ToolCall&) { return Value("A", 60 * kSecond); });
  rig.Run(Questions({"x", "y"}), {}, 5 * kSecond);
  EXPECT_THAT(rig.Statuses(), ElementsAre("deadline", "deadline"));
  EXPECT_EQ(rig.now_us(), 5 * kSecond);
}

TEST(ExecutorToolsTest, ARowDoesNotWaitForAnAttemptThatItHasNoTimeFor) {
  ToolRig rig(SharedGet(),
              [](const ToolCall&) { return Fails("http_status", true, 3600 * kSecond, kSecond); });
  const RunReport report = rig.Run(Questions({"x", "x"}), {}, 5 * kSecond);
  EXPECT_THAT(rig.Statuses(), ElementsAre("http_status", "http_status"));
  EXPECT_LE(rig.now_us(), 5 * kSecond);
  EXPECT_EQ(CountsOf(report, "get").failed, 2);
}

// ---- followers

TEST(ExecutorToolsTest, EqualCallsAreMadeOnce) {
  ToolRig rig(SharedGet(), [](const ToolCall& call) {
    return Value(std::get<HttpCall>(call.what).url, kSecond);
  });
  const RunReport report = rig.Run(Questions({"x", "y", "x", "x", "y", "z"}));
  EXPECT_THAT(rig.starts, SizeIs(3));
  EXPECT_EQ(CountsOf(report, "get").logical, 6);
  EXPECT_EQ(CountsOf(report, "get").merged, 3);
  EXPECT_EQ(rig.sink.rows[3]["outputs"]["get"], "http://example.org/x");
}

TEST(ExecutorToolsTest, FollowersShareAFailureThatIsTheCalls) {
  ToolRig rig(SharedGet(), [](const ToolCall&) { return Fails("http_status", false, 0, kSecond); });
  const RunReport report = rig.Run(Questions({"x", "x", "x"}));
  EXPECT_THAT(rig.Statuses(), ElementsAre("http_status", "http_status", "http_status"));
  EXPECT_THAT(rig.starts, SizeIs(1));
  // Failures are not kept: who comes later asks again.
  EXPECT_EQ(CountsOf(report, "get").failed, 3);
}

/// Two sources of one workflow, the first with a deadline for its rows.
struct TwoSources {
  explicit TwoSources(ToolRig& the_rig, int64_t first_timeout_us)
      : rig(the_rig),
        first(ListFeed::Of(Questions({"x"}))),
        second(ListFeed::Of(Questions({"x", "x"}))) {
    first_source = rig.rig().Source(first, first_sink);
    first_source.row_timeout_us = first_timeout_us;
    first_source.priority = 1;
    second_source = rig.rig().Source(second, rig.sink);
  }
  RunReport Run(RunObserver* observer = nullptr) {
    const StopFlag stop{0};
    RunReport report =
        Executor({first_source, second_source}, rig.Options(), rig.rig().clock, observer).Run(stop);
    ExpectAccounting(report);
    return report;
  }
  ToolRig& rig;
  ListFeed first, second;
  ListSink first_sink;
  RunSource first_source, second_source;
};

TEST(ExecutorToolsTest, FollowersOfALateLeaderMakeTheCallAnew) {
  ToolRig rig(SharedGet(), [](const ToolCall&) { return Value("A", 60 * kSecond); });
  TwoSources two(rig, 5 * kSecond);
  const RunReport report = two.Run();
  EXPECT_THAT(ToolRig::StatusesOf(two.first_sink), ElementsAre("deadline"));
  EXPECT_THAT(rig.Statuses(), ElementsAre("ok", "ok"));
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "0@5"));
  EXPECT_EQ(CountsOf(report, "get", 1).executed, 1);
  EXPECT_EQ(CountsOf(report, "get", 1).merged, 1);
}

TEST(ExecutorToolsTest, WhoHasTimeTakesOverAWaitingCall) {
  ToolRig rig(SharedGet(), [](const ToolCall& call) {
    return call.script_attempt == 0 ? Fails("http_status", true, 30 * kSecond) : Value("A");
  });
  TwoSources two(rig, 5 * kSecond);
  const RunReport report = two.Run();
  EXPECT_THAT(ToolRig::StatusesOf(two.first_sink), ElementsAre("http_status"));
  EXPECT_THAT(rig.Statuses(), ElementsAre("ok", "ok"));
  // Nobody asks before the other side wants it.
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "0@30"));
  EXPECT_EQ(CountsOf(report, "get", 1).executed, 1);
}

// ---- cancellation

/// `first` ends after a second; its end cancels rows.
std::string CancelGraph() {
  return Graph(
      "    - {id: first, type: http, url: \"http://example.org/first/{{ row.id }}\"}\n"
      "    - {id: get, type: http, url: \"http://example.org/{{ q }}\", coalesce: true, retry: "
      "{max: 3}}\n");
}

std::vector<std::string> StatusesWhenCancelled(ToolRig& rig,
                                               const std::vector<int64_t>& cancelled) {
  ListFeed feed = ListFeed::Of({{{"id", 0}, {"q", "x"}},
                                {{"id", 1}, {"q", "x"}},
                                {{"id", 2}, {"q", "x"}},
                                {{"id", 9}, {"q", "y"}}});
  Executor* executor = nullptr;
  OnEnd observer([&](const ToolCallRecord& record) {
    if (record.op.id != "first" || record.row.id != 9) return;
    for (const int64_t row : cancelled) executor->CancelRow(0, row);
  });
  Executor run({rig.rig().Source(feed, rig.sink)}, rig.Options(), rig.rig().clock, &observer);
  executor = &run;
  const StopFlag stop{0};
  ExpectAccounting(run.Run(stop));
  return rig.Statuses();
}

ScriptedResult Slowly(const ToolCall& call) {
  return Value("A", call.script_operator == "first" ? kSecond : 60 * kSecond);
}

TEST(ExecutorToolsTest, ACancelledFollowerLeavesTheOthers) {
  ToolRig rig(CancelGraph(), Slowly);
  EXPECT_THAT(StatusesWhenCancelled(rig, {1}), ElementsAre("ok", "cancelled", "ok", "ok"));
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "9@0"));
}

TEST(ExecutorToolsTest, ACancelledLeaderLeavesTheOthers) {
  ToolRig rig(CancelGraph(), Slowly);
  EXPECT_THAT(StatusesWhenCancelled(rig, {0}), ElementsAre("cancelled", "ok", "ok", "ok"));
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "9@0"));
}

TEST(ExecutorToolsTest, WhenAllAreCancelledNothingIsMadeAnew) {
  ToolRig rig(CancelGraph(), Slowly);
  EXPECT_THAT(StatusesWhenCancelled(rig, {2, 1, 0}),
              ElementsAre("cancelled", "cancelled", "cancelled", "ok"));
  EXPECT_THAT(rig.Starts(), ElementsAre("0@0", "9@0"));
  ToolRig alone(CancelGraph(), Slowly);
  EXPECT_THAT(StatusesWhenCancelled(alone, {3}), ElementsAre("ok", "ok", "ok", "cancelled"));
}

TEST(ExecutorToolsTest, ARowIsCancelledWhileItsCallWaitsToBeMadeAgain) {
  ToolRig rig(CancelGraph(), [](const ToolCall& call) {
    if (call.script_operator == "first" || call.script_row == "9") return Value("A", kSecond);
    return call.script_attempt == 0 ? Fails("http_status", true, 3600 * kSecond) : Value("A");
  });
  EXPECT_THAT(StatusesWhenCancelled(rig, {0, 1, 2}),
              ElementsAre("cancelled", "cancelled", "cancelled", "ok"));
  EXPECT_LT(rig.now_us(), 10 * kSecond);
}

// ---- stopping

TEST(ExecutorToolsTest, StoppingFinishesWhatRuns) {
  const std::string yaml = Graph(
      "    - {id: get, type: http, url: \"http://example.org/{{ q }}\"}\n"
      "    - {id: then, type: http, url: \"http://example.org/then\", params: {g: \"{{ get "
      "}}\"}}\n");
  for (const int asked : {1, 2}) {
    ToolRig rig(yaml, [&](const ToolCall& call) {
      return Value("A", call.script_row == "0" ? kSecond : 10 * kSecond);
    });
    ListFeed feed = ListFeed::Of(Questions({"a", "b", "c", "d"}));
    StopFlag stop{0};
    OnEnd observer([&](const ToolCallRecord&) { stop = asked; });
    const RunReport report =
        Executor({rig.rig().Source(feed, rig.sink)}, rig.Options(), rig.rig().clock, &observer)
            .Run(stop);
    ExpectAccounting(report, 4);
    EXPECT_EQ(report.end, RunEnd::kInterrupted);
    EXPECT_EQ(report.rows_unfinished, 4);
    EXPECT_EQ(CountsOf(report, "get").executed, asked == 1 ? 4 : 1);
    EXPECT_EQ(CountsOf(report, "then").unfinished, 4);
    EXPECT_LT(rig.now_us(), asked == 1 ? 11 * kSecond : 2 * kSecond);
  }
}

TEST(ExecutorToolsTest, StoppingDoesNotWaitForAnotherAttempt) {
  ToolRig rig(SharedGet(), [&](const ToolCall& call) {
    return call.script_row == "2" ? Value("A", kSecond)
                                  : Fails("http_status", true, 3600 * kSecond);
  });
  ListFeed feed = ListFeed::Of(Questions({"x", "x", "y"}));
  StopFlag stop{0};
  OnEnd observer([&](const ToolCallRecord&) { stop = 1; });
  const RunReport report =
      Executor({rig.rig().Source(feed, rig.sink)}, rig.Options(), rig.rig().clock, &observer)
          .Run(stop);
  ExpectAccounting(report, 3);
  EXPECT_LT(rig.now_us(), 2 * kSecond);
  EXPECT_THAT(rig.Statuses(), ElementsAre("http_status", "http_status", "ok"));
}

// ---- writes and what was read

TEST(ExecutorToolsTest, AReadBehindAWriteOfItsTableIsMadeAgain) {
  ToolRig rig(
      Graph("    - {id: before, type: db_query, sql: \"SELECT sum(n) FROM stock\"}\n"
            "    - {id: take, type: db_query, sql: \"UPDATE stock SET n = n - 1\", effect: write}\n"
            "    - {id: after, type: db_query, sql: \"SELECT sum(n) FROM stock\"}\n"
            "    - {id: other, type: db_query, sql: \"SELECT sum(n) FROM prices\"}\n"
            "  edges:\n    - {from: before, to: take}\n    - {from: take, to: after}\n    - {from: "
            "take, to: other}\n"),
      [](const ToolCall&) {
        return Value(Json::parse(R"({"rows": [], "rowcount": 0})"), kSecond);
      });
  ExecutorOptions options;
  options.window = 1;
  const RunReport report = rig.Run(Questions({"a", "b", "c"}), options);
  EXPECT_EQ(CountsOf(report, "take").calls, 3);
  EXPECT_EQ(CountsOf(report, "after").executed, 3);
  // What one row read last is what the next one reads first.
  EXPECT_EQ(CountsOf(report, "before").executed, 1);
  EXPECT_EQ(CountsOf(report, "before").merged, 2);
  EXPECT_EQ(CountsOf(report, "other").executed, 1);
}

TEST(ExecutorToolsTest, BehindAWriteThatMayMakeViewsAnyWriteMayShow) {
  ToolRig rig(
      Graph("    - {id: view, type: db_query, sql: \"CREATE OR REPLACE VIEW v AS SELECT * FROM "
            "stock\", effect: write}\n"
            "    - {id: before, type: db_query, sql: \"SELECT sum(n) FROM v\"}\n"
            "    - {id: take, type: db_query, sql: \"UPDATE stock SET n = n - 1\", effect: write}\n"
            "    - {id: after, type: db_query, sql: \"SELECT sum(n) FROM v\"}\n"
            "  edges:\n    - {from: view, to: before}\n    - {from: before, to: take}\n    - "
            "{from: take, to: after}\n"),
      [](const ToolCall&) {
        return Value(Json::parse(R"({"rows": [], "rowcount": 0})"), kSecond);
      });
  const RunReport report = rig.Run(Questions({"a"}));
  EXPECT_EQ(CountsOf(report, "before").executed, 1);
  EXPECT_EQ(CountsOf(report, "after").executed, 1);
}

// ---- sharing never changes a result

/// Nine operators of every kind over a few values.
std::string ManyTools() {
  std::string nodes;
  for (int i = 0; i < 3; ++i) {
    const std::string n = std::to_string(i);
    nodes +=
        "    - {id: sql" + n +
        ", type: db_query, sql: \"SELECT :q\", parameters: {q: \"{{ q }}\"}, retry: {max: " + n +
        ", backoff_s: 1}}\n";
    nodes += "    - {id: http" + n + ", type: http, url: \"http://example.org/{{ q }}/" +
             std::to_string(i / 2) +
             "\", coalesce: true, retry: {max: 1, backoff_s: 1}, on_error: null}\n";
    nodes += "    - {id: deep" + n +
             ", type: http, url: \"http://example.org/deep\", params: {v: \"{{ sql" + n +
             ".rowcount }}\", w: \"{{ http" + n +
             " }}\"}, coalesce: true, retry: {max: 0}, on_error: skip}\n";
  }
  return Graph(nodes);
}

/// What a call gives is a function of what it asks, and of the attempt.
ScriptedResult Answer(const ToolCall& call) {
  std::string asked;
  if (const auto* sql = std::get_if<SqlCall>(&call.what)) {
    asked = sql->text + sql->arguments.at(0).value.dump();
  } else {
    asked = std::get<HttpCall>(call.what).url;
  }
  const uint64_t draw = Hash64(asked);
  ScriptedResult result = Value({{"rowcount", draw % 100}, {"of", asked}},
                                static_cast<int64_t>(draw % 7) * kSecond / 3);
  if (draw % 5 == 0) result.failure = Failure{"", "gone", "for good", false};
  if (draw % 3 == 0 && call.script_attempt <= static_cast<int32_t>(draw % 4))
    result.failure = Failure{"", "busy", "for now", true};
  return result;
}

TEST(ExecutorToolsTest, SharingChangesNoRow) {
  std::vector<std::string> questions;
  RandomStream draws(11);
  for (int i = 0; i < 60; ++i) questions.push_back("q" + std::to_string(draws.Below(9)));
  std::string expected;
  int64_t naive_calls = 0;
  for (const bool naive : {true, false}) {
    for (const int32_t concurrency : {1, 4, 64}) {
      ToolRig rig(ManyTools(), Answer, concurrency);
      ExecutorOptions options;
      options.naive = naive;
      options.all_outputs = true;
      options.tool_setup.concurrency = concurrency;
      const RunReport report = rig.Run(Questions(questions), options);
      const std::string rows = JoinRows(rig.sink.rows);
      if (expected.empty()) expected = rows;
      EXPECT_EQ(rows, expected);
      int64_t calls = 0, merged = 0;
      for (const OperatorCounts& counts : report.operators) {
        calls += counts.calls;
        merged += counts.merged;
      }
      EXPECT_EQ(static_cast<size_t>(calls), rig.starts.size());
      if (naive) {
        naive_calls = calls;
        EXPECT_EQ(merged, 0);
      } else {
        EXPECT_GT(merged, 100);
        EXPECT_LT(calls, naive_calls / 2);  // failures are not kept
      }
    }
  }
}

TEST(ExecutorToolsTest, NaiveMakesOneCallAtATime) {
  ToolRig rig(ManyTools(), Answer);
  ExecutorOptions options;
  options.naive = true;
  rig.Run(Questions({"a", "a", "b"}), options);
  EXPECT_EQ(rig.tools->peak_running(), 1);
}

// ---- results beyond memory

Signature Key(int i) { return SignatureBuilder().Add(int64_t{i}).Finish(); }

ToolResult Result(int i) {
  return std::make_shared<const Json>(Json{
      {"rows", {{{"n", i}, {"t", std::string(100, 'x')}, {"d", 0.1 * i}, {"big", UINT64_MAX}}}},
      {"rowcount", 1}});
}

TEST(ToolResultsTest, OlderResultsComeBackFromTheFile) {
  ToolResults results(FreshFolder("tool_results"), 1000);
  for (int i = 0; i < 200; ++i) results.Put(Key(i), Result(i));
  for (const int start : {199, 0, 100, 0}) {
    for (int i = start; i < std::min(start + 50, 200); ++i) {
      const ToolResult found = results.Find(Key(i));
      ASSERT_NE(found, nullptr) << i;
      EXPECT_EQ(found->dump(), Result(i)->dump());
      results.Put(Key(i), Result(i));  // again
    }
  }
  EXPECT_EQ(results.Find(Key(200)), nullptr);
  EXPECT_EQ(results.failure(), "");
}

TEST(ToolResultsTest, OneThatIsLargerThanMemoryIsKept) {
  ToolResults results(FreshFolder("tool_results_large"), 10);
  const auto large = std::make_shared<const Json>(std::string(100'000, 'x'));
  results.Put(Key(1), large);
  EXPECT_EQ(results.Find(Key(1)), large);
  results.Put(Key(2), Result(2));
  ASSERT_NE(results.Find(Key(1)), nullptr);
  EXPECT_EQ(*results.Find(Key(1)), *large);
  EXPECT_EQ(results.Find(Key(2))->dump(), Result(2)->dump());
}

TEST(ToolResultsTest, WithoutAFolderOlderOnesAreForgotten) {
  ToolResults results("", 1000);
  for (int i = 0; i < 100; ++i) results.Put(Key(i), Result(i));
  EXPECT_EQ(results.Find(Key(0)), nullptr);
  ASSERT_NE(results.Find(Key(99)), nullptr);
  results.Put(Key(200), std::make_shared<const Json>(nullptr));
  ASSERT_NE(results.Find(Key(200)), nullptr);
  EXPECT_TRUE(results.Find(Key(200))->is_null());
}

TEST(ToolResultsTest, ARunSharesWhatWasSpilled) {
  // Each result is large; few fit into memory, all are asked for again much later.
  ToolRig rig(SharedGet("retry: {max: 0}"), [](const ToolCall& call) {
    return Value(std::get<HttpCall>(call.what).url + std::string(1000, 'x'));
  });
  std::vector<std::string> questions;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 50; ++i) questions.push_back("q" + std::to_string(i));
  }
  ExecutorOptions options;
  options.window = 1;
  options.spill_folder = FreshFolder("tool_results_run");
  const RunReport report = rig.Run(Questions(questions), options);
  EXPECT_EQ(CountsOf(report, "get").executed, 50);
  EXPECT_EQ(CountsOf(report, "get").merged, 100);
  EXPECT_THAT(report.notices, IsEmpty());
}

}  // namespace
}  // namespace halo::test
