// What `halo simulate` does with files.
#include "session/simulated_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "optimizer/cost_profile.h"
#include "optimizer/operator_history.h"
#include "plan/node_signature.h"
#include "session/planning.h"
#include "workflow/workflow.h"

namespace halo::test {
namespace {

using testing::HasSubstr;

class SimulatedRunTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "simulated_run_" +
              testing::UnitTest::GetInstance()->current_test_info()->name();
    std::filesystem::create_directories(folder_);
    Write("flow.yaml",
          "start_ops: [a, b]\nend_ops: [c]\nops:\n"
          "  a: {model: big, prompt: \"Say a.\", max_tokens: 40}\n"
          "  b: {model: big, prompt: \"Say b.\", max_tokens: 40, temperature: 0}\n"
          "  c: {model: big, prompt: \"Judge.\", input_ops: [a, b], max_tokens: 20}\n");
    Write("rows.jsonl",
          "{\"id\": \"x\", \"prompt\": \"is it so\"}\n{\"id\": \"y\", \"prompt\": \"or so\"}\n");
    CostProfile profile;
    profile.machine = "a machine far away";
    profile.threads = 2;
    profile.models.push_back(DefaultProfile("big", int64_t{3} << 30, 1 << 17));
    profile.models.back().model_digest = std::string(32, 'a');
    profile.models.back().measured = true;
    Write("profile.json", ToJson(profile));
    options_.run.inputs = {{folder_ + "/flow.yaml", folder_ + "/rows.jsonl"}};
    options_.run.profile_file = folder_ + "/profile.json";
    options_.run.worker_memory_bytes = int64_t{8} << 30;
    options_.run.planner = "list";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ + "/" + name) << text;
  }
  std::string FileText(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string FaultOf(const SimulationOptions& options) const {
    try {
      Simulate(options);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::string folder_;
  SimulationOptions options_;
};

TEST_F(SimulatedRunTest, RowsRunOnTheVirtualClock) {
  const SimulationReport report = Simulate(options_);
  EXPECT_EQ(report.rows_ok, 2);
  EXPECT_EQ(report.rows_failed, 0);
  ASSERT_EQ(report.operators.size(), 3U);
  for (const SimulatedOperatorReport& op : report.operators) EXPECT_EQ(op.calls, 2) << op.id;
  ASSERT_EQ(report.workers.size(), 1U);
  EXPECT_EQ(report.workers[0].loads, 1);
  // A model of 3 GiB takes more than half a second for every step, by the defaults' rates.
  EXPECT_GT(report.elapsed_s, report.load_s + 10.0);
  EXPECT_NEAR(report.elapsed_s, report.busy_s + report.load_s, 1e-3);
  EXPECT_LT(report.simulating_s, report.elapsed_s);
}

// Simulated workers take what the profile says, whatever slowed this machine's down.
TEST_F(SimulatedRunTest, PacesOfRealRunsDoNotCount) {
  const CostProfile costs = ReadCostProfile(FileText("profile.json"), "profile.json");
  OperatorRecord slow;
  slow.instances = slow.calls = 100.0;
  slow.engine_s = 5000.0;
  slow.profile_s = 100.0;
  slow.profile = ProfileId(costs.models.front());
  OperatorHistory history;
  history.Add(ModelPaceSignature(), costs.models.front().model_digest, slow);
  const SimulationReport without = Simulate(options_);
  Write("history.json", history.ToJson());
  options_.run.history_file = folder_ + "/history.json";
  options_.run.use_history = true;
  EXPECT_DOUBLE_EQ(Simulate(options_).estimated_busy_s, without.estimated_busy_s);
}

TEST_F(SimulatedRunTest, EqualSeedsAreEqualAndOthersDiffer) {
  options_.run.workers = 3;
  options_.rows = 30;
  const std::string once = SimulationJson(Simulate(options_));
  EXPECT_EQ(once, SimulationJson(Simulate(options_)));
  options_.run.seed = 1;
  EXPECT_NE(once, SimulationJson(Simulate(options_)));
}

TEST_F(SimulatedRunTest, RowsAreRepeatedAsRowsOfTheirOwn) {
  options_.rows = 101;
  const SimulationReport report = Simulate(options_);
  EXPECT_EQ(report.rows_ok, 101);
  for (const SimulatedOperatorReport& op : report.operators) {
    EXPECT_EQ(op.calls, 101) << op.id;
    EXPECT_EQ(op.merged, 0) << op.id;
  }
  options_.rows = 1;
  EXPECT_EQ(Simulate(options_).rows_ok, 1);
  options_.rows = 0;
  EXPECT_EQ(Simulate(options_).rows_ok, 0);
}

TEST_F(SimulatedRunTest, MoreWorkersAreFaster) {
  options_.rows = 500;
  const double alone_s = Simulate(options_).elapsed_s;
  options_.run.workers = 16;
  const SimulationReport report = Simulate(options_);
  EXPECT_EQ(report.rows_ok, 500);
  EXPECT_LT(report.elapsed_s, alone_s / 4.0);
  for (const SimulatedWorkerReport& worker : report.workers) EXPECT_GT(worker.calls, 0);
}

TEST_F(SimulatedRunTest, ModelsCostWhatTheyAreToldTo) {
  Write("flow.yaml", "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: other, prompt: \"Say.\"}\n");
  EXPECT_THAT(SimulationText(Simulate(options_)), HasSubstr("careful defaults"));
  options_.costs_as = {{"other", "big"}};
  const SimulationReport report = Simulate(options_);
  EXPECT_THAT(SimulationText(report), testing::Not(HasSubstr("careful defaults")));
  EXPECT_GE(report.workers[0].peak_memory_bytes, int64_t{3} << 30);
  options_.costs_as = {{"other", "bag"}};
  EXPECT_THAT(FaultOf(options_), HasSubstr("--as: the profile has no model 'bag'"));
  options_.costs_as = {{"another", "big"}};
  EXPECT_THAT(FaultOf(options_), HasSubstr("no operator of the workflow has the model 'another'"));
}

TEST_F(SimulatedRunTest, WhatIsWrongIsSaidBeforeAnythingRuns) {
  options_.run.worker_memory_bytes = int64_t{2} << 30;
  EXPECT_THAT(FaultOf(options_), HasSubstr("--worker-memory: big needs 3200 MiB"));
  options_.run.worker_memory_bytes = int64_t{8} << 30;
  options_.run.inputs[0].rows = "-";
  EXPECT_THAT(FaultOf(options_), HasSubstr("reads its rows twice"));
  options_.run.inputs[0].rows = folder_ + "/rows.jsonl";
  options_.run.profile_file = folder_ + "/nothing.json";
  EXPECT_THAT(FaultOf(options_), HasSubstr("cannot be read"));
  options_.run.profile_file = folder_ + "/rows.jsonl";
  EXPECT_NE(FaultOf(options_), "");
}

TEST_F(SimulatedRunTest, TheNaiveRunIsSlowerAndMergesNothing) {
  Write("rows.jsonl", "{\"prompt\": \"same\"}\n{\"prompt\": \"same\"}\n");
  const SimulationReport shared = Simulate(options_);
  EXPECT_EQ(shared.operators[1].merged, 1);
  options_.run.naive = true;
  const SimulationReport naive = Simulate(options_);
  EXPECT_EQ(naive.operators[1].merged, 0);
  EXPECT_GT(naive.elapsed_s, shared.elapsed_s);
}

/// Two models of which a worker holds one, and three workers.
class ReplanningTest : public SimulatedRunTest {
 protected:
  void SetUp() override {
    SimulatedRunTest::SetUp();
    Write("flow.yaml",
          "start_ops: [a, b]\nend_ops: [a, b]\nops:\n"
          "  a: {model: big, prompt: \"Say a.\", max_tokens: 400}\n"
          "  b: {model: other, prompt: \"Say b.\", max_tokens: 400}\n");
    options_.run.workers = 3;
    options_.run.worker_memory_bytes = int64_t{6} << 30;
    options_.run.planner = "auto";
    options_.rows = 600;
    options_.moves_calls = false;  // what planning anew does by itself
  }

  /// Two models alike, whose loads take so long.
  static CostProfile CostsWhereLoadsTake(double seconds) {
    CostProfile profile;
    profile.machine = "a machine far away";
    profile.threads = 2;
    for (const char* name : {"big", "other"}) {
      profile.models.push_back(DefaultProfile(name, int64_t{3} << 30, 1 << 17));
      profile.models.back().model_digest = std::string(32, *name);
      profile.models.back().measured = true;
      profile.models.back().load_s = seconds;
    }
    return profile;
  }
  void LoadsTake(double seconds) const {
    Write("profile.json", ToJson(CostsWhereLoadsTake(seconds)));
  }
  void AnswersAreAs(const OperatorHistory& history) {
    Write("history.json", history.ToJson());
    options_.run.history_file = folder_ + "/history.json";
    options_.run.use_history = true;
  }

  /// What runs with answers of these lengths have left.
  OperatorHistory HistoryOf(double tokens_of_a, double tokens_of_b) const {
    const Workflow workflow = LoadWorkflow(folder_ + "/flow.yaml");
    const LogicalPlan plan = MakeLogicalPlan(workflow);
    const std::vector<OperatorIdentity> identities = IdentifyOperators(plan, "prompt");
    OperatorHistory history;
    for (size_t op = 0; op < 2; ++op) {
      constexpr double kCalls = 1000.0, kPrompt = 20.0;
      const double tokens = op == 0 ? tokens_of_a : tokens_of_b;
      OperatorRecord record;
      record.instances = record.calls = kCalls;
      record.prompt_tokens = kCalls * kPrompt;
      record.output_tokens = kCalls * tokens;
      record.output_tokens_squared = kCalls * tokens * tokens;
      history.Add(identities[op].signature, std::string(32, op == 0 ? 'b' : 'o'), record);
    }
    return history;
  }
  SimulationReport RunBelieving(const OperatorHistory& believed) {
    options_.believed = &believed;
    return Simulate(options_);
  }
};

/// Conversations of many turns, whose KV lies where they began: a plan of the rest that has them go
/// on elsewhere computes all of it again.
TEST_F(SimulatedRunTest, ARevisionLeavesNoConversationBehind) {
  constexpr int kConversations = 10, kTurns = 40;
  std::string starts, ends, ops;
  for (int i = 0; i < kConversations * kTurns; ++i) {
    const std::string id = "o" + std::to_string(i);
    const bool is_first = i < kConversations, is_last = i >= kConversations * (kTurns - 1);
    if (is_first) starts += (i > 0 ? ", " : "") + id;
    if (is_last) ends += (i % kConversations > 0 ? ", " : "") + id;
    ops += "  " + id + ": {model: big, prompt: \"Step " + std::to_string(i) + ".\", max_tokens: 16";
    if (!is_first) ops += ", input_ops: [o" + std::to_string(i - kConversations) + "]";
    ops += "}\n";
  }
  Write("flow.yaml", "start_ops: [" + starts + "]\nend_ops: [" + ends + "]\nops:\n" + ops);
  options_.run.workers = 4;
  options_.run.planner = "auto";
  options_.rows = 64;
  const SimulationReport replanned = Simulate(options_);
  options_.run.replan = false;
  const SimulationReport kept = Simulate(options_);
  EXPECT_EQ(replanned.rows_ok, 64);
  EXPECT_LT(replanned.elapsed_s, 1.05 * kept.elapsed_s);
}

/// Each model is loaded on its own workers, as many as its answers are thought to take.
TEST_F(ReplanningTest, TheRestIsPlannedByWhatAnswersTurnOutToBe) {
  LoadsTake(8000.0);
  const OperatorHistory right = HistoryOf(300.0, 20.0), wrong = HistoryOf(20.0, 300.0);
  AnswersAreAs(right);
  const double known_s = RunBelieving(right).elapsed_s;
  options_.run.replan = false;
  const double misled_s = RunBelieving(wrong).elapsed_s;
  options_.run.replan = true;
  const SimulationReport replanned = RunBelieving(wrong);
  EXPECT_GT(misled_s, 1.5 * known_s);
  // What is lost is the first answers, until which nothing is known, and loads made for nothing.
  EXPECT_LT(replanned.elapsed_s - known_s, 0.25 * (misled_s - known_s));
  ASSERT_FALSE(replanned.replannings.empty());
  const Replanning& first = replanned.replannings.front();
  EXPECT_GT(first.current_s, kWorthReplanning * first.revised_s);
  EXPECT_THAT(first.why, HasSubstr("answers with 20 tokens"));
  EXPECT_EQ(replanned.rows_ok, 600);
}

TEST_F(ReplanningTest, WhereLoadsAreCheapAWrongPriorCostsAtMostATenth) {
  LoadsTake(60.0);
  const OperatorHistory right = HistoryOf(300.0, 20.0);
  AnswersAreAs(right);
  const double known_s = RunBelieving(right).elapsed_s;
  for (const auto& [a, b] : {std::pair(20.0, 300.0), {300.0, 300.0}, {3.0, 3.0}}) {
    const OperatorHistory wrong = HistoryOf(a, b);
    EXPECT_LT(RunBelieving(wrong).elapsed_s, 1.1 * known_s) << a << " " << b;
  }
}

/// Passes take so many times as long.
void Stretch(ModelProfile& costs, double times) {
  for (PrefillPoint& point : costs.prefill) {
    point.base_s *= times;
    point.context_s *= times;
  }
  for (DecodePoint& point : costs.decode) {
    point.base_s *= times;
    point.context_s *= times;
  }
}

/// A profile in which the passes of one of the two models take `times` as long as they do.
class StaleProfileTest : public ReplanningTest {
 protected:
  struct Elapsed {
    double known_s = 0.0;      ///< planned by what the workers do
    double misled_s = 0.0;     ///< by the stale profile, to the end
    double replanned_s = 0.0;  ///< the same, planned anew on the way
  };
  Elapsed Run(double loads_s, double times) {
    LoadsTake(loads_s);
    const OperatorHistory history = HistoryOf(300.0, 20.0);
    AnswersAreAs(history);
    Elapsed elapsed;
    elapsed.known_s = RunBelieving(history).elapsed_s;
    CostProfile stale = CostsWhereLoadsTake(loads_s);
    Stretch(stale.models[0], times);
    options_.believed_costs = &stale;
    elapsed.replanned_s = RunBelieving(history).elapsed_s;
    options_.run.replan = false;
    elapsed.misled_s = RunBelieving(history).elapsed_s;
    options_.run.replan = true;
    options_.believed_costs = nullptr;
    return elapsed;
  }
};

TEST_F(StaleProfileTest, CostsAtMostATenthWhereItIsWithinTwiceTheTruth) {
  for (const double loads_s : {60.0, 2000.0, 4000.0, 8000.0}) {
    for (const double times : {0.5, 0.7, 1.5, 2.0}) {
      const Elapsed elapsed = Run(loads_s, times);
      EXPECT_LT(elapsed.replanned_s, 1.1 * elapsed.known_s) << loads_s << " " << times;
    }
  }
}

/// As in a run, where workers with little to do take calls from others. Where a load is a third of
/// the run, the one that sets the first placement right is a tenth of three workers' time by
/// itself.
TEST_F(StaleProfileTest, CostsAtMostATenthHoweverStaleWhereCallsMove) {
  options_.moves_calls = true;
  for (const auto& [loads_s, most] :
       {std::pair(60.0, 1.1), {2000.0, 1.1}, {4000.0, 1.1}, {8000.0, 1.2}}) {
    for (const double times : {1.0 / 30.0, 0.1, 1.0 / 3.0, 0.5, 2.0, 3.0, 10.0, 30.0}) {
      const Elapsed elapsed = Run(loads_s, times);
      EXPECT_LT(elapsed.replanned_s, most * elapsed.known_s) << loads_s << " " << times;
    }
  }
}

TEST_F(StaleProfileTest, PassesThatTakeThirtyTimesAsLongAsExpectedShowInTime) {
  for (const double loads_s : {2000.0, 8000.0}) {
    const Elapsed elapsed = Run(loads_s, 1.0 / 30.0);
    EXPECT_GT(elapsed.misled_s, 1.5 * elapsed.known_s) << loads_s;
    EXPECT_LT(elapsed.replanned_s - elapsed.known_s, 0.6 * (elapsed.misled_s - elapsed.known_s))
        << loads_s;
  }
}

}  // namespace
}  // namespace halo::test
