// What runs leave for later ones: who takes what, and what is never kept.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <map>
#include <set>

#include "runtime/executor.h"
#include "runtime/journal.h"
#include "runtime/result_cache.h"
#include "runtime/simulated_tools.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::Pair;

constexpr const char* kChain = R"(start_ops: [a]
end_ops: [b]
ops:
  a: {model: m, prompt: "First.", samples: 2, vote: true}
  b: {model: m, prompt: "Then.", temperature: 0, input_ops: [a]}
)";

std::vector<Json> SomeRows() {
  std::vector<Json> rows;
  for (int i = 0; i < 12; ++i)
    rows.push_back({{"id", "r" + std::to_string(i)}, {"prompt", "text " + std::to_string(i % 9)}});
  return rows;
}

ScriptedReply Reply(const Request& request) {
  ScriptedReply reply;
  reply.text = request.script_operator + " says " + std::to_string(Hash64(request.prompt_text)) +
               " " + std::to_string(request.sampling.draw_key);
  return reply;
}

class CachedExecutor : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-cached-" + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// One run; `made` has the calls that models and tools were asked.
  RunReport Run(RunObserver* observer = nullptr) {
    made = 0;
    SimulatedEngineOptions engine;
    engine.script = [&](const Request& request) {
      ++made;
      return script(request);
    };
    SimulatedRig rig(yaml, "flow.yaml", engine);
    ListFeed feed = ListFeed::Of(rows);
    SimulatedToolOptions tool_options;
    tool_options.timeline = rig.timeline;
    tool_options.script = [&](const ToolCall& call) {
      ++made;
      return tool_script(call);
    };
    SimulatedTools tools(tool_options, rig.clock);
    ResultCache::Options kept;
    kept.folder = folder_;
    kept.now_us = [this] { return now_us; };
    ResultCache cache(kept);
    ExecutorOptions options = how;
    options.tools = &tools;
    options.cache = &cache;
    ListSink sink;
    RunSource source = rig.Source(feed, sink);
    for (ModelBinding& model : source.models) {
      model.content = SignatureBuilder().Add(content).Finish();
      model.computed_by = SignatureBuilder().Add(computed_by).Finish();
    }
    source.tool_contents.assign(rig.plan.nodes.size(), SignatureBuilder().Add(content).Finish());
    const RunReport report = Executor({source}, options, rig.clock, observer).Run(stop);
    ExpectAccounting(report, static_cast<int64_t>(rows.size()));
    written = sink.rows;
    return report;
  }

  std::string folder_;
  std::string yaml = kChain;
  std::vector<Json> rows = SomeRows();
  std::function<ScriptedReply(const Request&)> script = Reply;
  std::function<ScriptedResult(const ToolCall&)> tool_script = [](const ToolCall&) {
    return ScriptedResult{};
  };
  std::string content = "weights", computed_by = "this machine";
  int64_t now_us = 1'800'000'000'000'000;
  ExecutorOptions how;
  StopFlag stop{0};
  int64_t made = 0;
  std::vector<Json> written;
};

TEST_F(CachedExecutor, TheSecondRunMakesNoCall) {
  const RunReport first = Run();
  const std::vector<Json> wanted = written;
  EXPECT_EQ(first.counts.from_cache, 0);
  EXPECT_GT(made, 0);
  const int64_t calls = made;
  const RunReport second = Run();
  EXPECT_EQ(made, 0);
  EXPECT_EQ(JoinRows(written), JoinRows(wanted));
  EXPECT_EQ(second.counts.from_cache, calls);
  EXPECT_GT(second.cached_tokens, 0);
  for (size_t op = 0; op < second.operators.size(); ++op) {
    EXPECT_EQ(second.operators[op].cached, first.operators[op].executed);
    EXPECT_EQ(second.operators[op].executed, 0);
  }
}

TEST_F(CachedExecutor, WhateverAnAnswerDependsOnIsAskedAnew) {
  const auto misses = [&](const std::function<void()>& change) {
    Run();
    const int64_t known = made;
    EXPECT_EQ(known, 0) << "the run before was the same";
    change();
    Run();
    return made;
  };
  Run();
  const auto all = static_cast<int64_t>(3 * rows.size());
  EXPECT_EQ(misses([&] { content = "other weights"; }), all);
  EXPECT_EQ(misses([&] { computed_by = "another build"; }), all);
  EXPECT_EQ(misses([&] { how.seed = 9; }), all);
  EXPECT_EQ(misses([&] { rows[3]["id"] = "another row"; }), 3);
  EXPECT_EQ(misses([&] { rows[3]["prompt"] = "another text"; }), 3);
}

TEST_F(CachedExecutor, ErrorsAreAskedAgain) {
  script = [](const Request& request) {
    ScriptedReply reply = Reply(request);
    if (request.script_operator == "b" && request.script_row == "r4")
      reply.failure = Failure{"", "broken", "it broke", false};
    return reply;
  };
  Run();
  EXPECT_EQ(Run().counts.rows_failed, 1);
  EXPECT_EQ(made, 1);
  script = Reply;
  EXPECT_EQ(Run().counts.rows_failed, 0);
}

TEST_F(CachedExecutor, AResumedRunHasWhatItTookInItsJournal) {
  Run();
  const std::vector<Json> wanted = written;
  {
    Journal journal({folder_ + "/journal.db", ""});
    how.journal = &journal;
    EXPECT_GT(Run().counts.from_cache, 0);
  }
  now_us += 1;
  ClearCache(folder_);
  Journal journal({folder_ + "/journal.db", ""});
  EXPECT_EQ(journal.earlier_calls(), 0) << "no call was made for them";
  how.journal = &journal;
  EXPECT_EQ(Run().counts.from_cache, 0);
  EXPECT_EQ(made, 0);
  EXPECT_EQ(JoinRows(written), JoinRows(wanted));
}

constexpr const char* kTools = R"yaml(
graph:
  connections: {shop: "duckdb:shop.db", log: "duckdb:log.db"}
  nodes:
    - {id: rows, type: input, outputs: [t]}
    - {id: plain, type: db_query, connection: shop, sql: "SELECT 1 WHERE 2 = :t", inputs: [t], outputs: [a],
       parameters: {t: "{{ t }}"}}
    - {id: timed, type: db_query, connection: shop, sql: "SELECT 3 WHERE 4 = :t", inputs: [t], outputs: [b],
       parameters: {t: "{{ t }}"}, cache: 60}
    - {id: pure, type: db_query, connection: shop, sql: "SELECT 5 WHERE 6 = :t", inputs: [t], outputs: [c],
       parameters: {t: "{{ t }}"}, effect: pure}
    - {id: off, type: db_query, connection: shop, sql: "SELECT 7 WHERE 8 = :t", inputs: [t], outputs: [d],
       parameters: {t: "{{ t }}"}, effect: pure, cache: "off"}
    - {id: write, type: db_query, connection: log, sql: "INSERT INTO x VALUES (:t)", inputs: [t], outputs: [e],
       parameters: {t: "{{ t }}"}, effect: write}
    - {id: alone, type: db_query, connection: log, sql: "SELECT 9 FROM x WHERE 10 = :t", inputs: [t], outputs: [f],
       parameters: {t: "{{ t }}"}, cache: 60}
)yaml";

TEST_F(CachedExecutor, ToolsByWhatTheyDo) {
  yaml = kTools;
  rows = {{{"t", 1}}, {{"t", 2}}};
  how.tool_setup.connections["shop"] = how.tool_setup.connections["log"] = {};
  std::multiset<std::string> asked;
  tool_script = [&](const ToolCall& call) {
    asked.insert(call.script_operator);
    ScriptedResult result;
    result.value = {{"rows", Json::array()}, {"rowcount", 0}};
    return result;
  };
  Run();
  EXPECT_EQ(asked.size(), 12U);
  asked.clear();
  now_us += 30'000'000;
  Run();
  EXPECT_THAT(asked,
              ElementsAre("alone", "alone", "off", "off", "plain", "plain", "write", "write"));
  asked.clear();
  now_us += 31'000'000;
  Run();
  EXPECT_EQ(asked.count("timed"), 2U) << "it is too old";
  EXPECT_EQ(asked.count("pure"), 0U) << "it has no age";
  asked.clear();
  content = "another database";
  Run();
  EXPECT_EQ(asked.size(), 12U);
  asked.clear();
  how.tool_setup.share = false;
  Run();
  EXPECT_EQ(asked.size(), 12U);
}

/// Questions by operator: kept, and not.
class Watcher final : public RunObserver {
 public:
  void OnCall(const CallRecord& call) override {
    auto& [kept, missing] = counts[call.op.id];
    ++(call.completion.failure ? missing : kept);
    if (call.completion.failure) {
      EXPECT_EQ(call.completion.failure->code, "not_known");
    }
    EXPECT_NE(call.question, nullptr);
  }
  std::map<std::string, std::pair<int, int>> counts;
};

TEST_F(CachedExecutor, LooksWithoutMakingACall) {
  rows.resize(8);
  Run();
  rows = SomeRows();
  how.only_known = true;
  Watcher watcher;
  const RunReport report = Run(&watcher);
  EXPECT_EQ(made, 0);
  EXPECT_THAT(watcher.counts, ElementsAre(Pair("a", std::pair(16, 8)), Pair("b", std::pair(8, 0))));
  EXPECT_EQ(report.operators[1].unfinished, 4);
}

}  // namespace
}  // namespace halo::test
