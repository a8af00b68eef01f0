// Random workloads through the real optimizer and scheduler on 1 to 64 simulated workers.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "sim/simulation_harness.h"

namespace halo::test {
namespace {

constexpr uint64_t kWorkloads = 2000;

TEST(SimulationTest, RandomWorkloadsKeepEveryPromise) {
  Played sum;
  int64_t with_many = 0, failed_rows = 0, merged = 0;
  for (uint64_t seed = 1; seed <= kWorkloads && !HasFailure(); ++seed) {
    const Workload workload = MakeWorkload(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(workload.workers) +
                 " workers\n" + workload.yaml);
    const Played played = Play(workload, false);
    // Another seed of three is enough for what takes as long again.
    if (seed % 3 == 0) {
      EXPECT_EQ(Play(workload, true).rows, played.rows);
    }
    with_many += played.workers_used > 1 ? 1 : 0;
    failed_rows += played.report.counts.rows_failed;
    sum.steps += played.steps;
    sum.calls += played.calls;
    sum.loads += played.loads;
    sum.tool_calls += played.tool_calls;
    sum.reused_tokens += played.reused_tokens;
    sum.spills += played.spills;
    for (const OperatorCounts& op : played.report.operators) merged += op.merged;
    sum.most_overtaken = std::max(sum.most_overtaken, played.most_overtaken);
  }
  // The workloads would show little if these were rare.
  EXPECT_GT(with_many, 300);
  EXPECT_GT(sum.steps, 100'000);
  EXPECT_GT(sum.calls, 50'000);
  EXPECT_GT(sum.loads, 3'000);
  EXPECT_GT(sum.tool_calls, 2'000);
  EXPECT_GT(sum.reused_tokens, 50'000);
  EXPECT_GT(sum.spills, 1'000);
  EXPECT_GT(merged, 1'000);
  EXPECT_EQ(failed_rows, 0);
  RecordProperty("steps", std::to_string(sum.steps));
  RecordProperty("calls", std::to_string(sum.calls));
  RecordProperty("loads", std::to_string(sum.loads));
  RecordProperty("tool_calls", std::to_string(sum.tool_calls));
  RecordProperty("most_overtaken", std::to_string(sum.most_overtaken));
}

TEST(SimulationTest, SoDoThoseWhoseCallsMoveToIdleWorkers) {
  int64_t moved = 0;
  for (uint64_t seed = 1; seed <= kWorkloads / 4 && !HasFailure(); ++seed) {
    Workload workload = MakeWorkload(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(workload.workers) +
                 " workers\n" + workload.yaml);
    const std::string rows = Play(workload, false).rows;
    workload.moves_calls = true;
    const Played played = Play(workload, false);
    EXPECT_EQ(played.rows, rows);
    moved += played.moved;
  }
  EXPECT_GT(moved, 100);
}

TEST(SimulationTest, AGraphOfAThousandOperatorsRuns) {
  constexpr int32_t kOperators = 1000;
  constexpr int64_t kRows = 4;
  const Played played = Play(MakeLargeGraph(kOperators, kRows, 7), false);
  EXPECT_EQ(played.report.counts.rows_ok, kRows);
  EXPECT_EQ(played.calls, kOperators * kRows);
  EXPECT_GT(played.workers_used, 1);
}

}  // namespace
}  // namespace halo::test
