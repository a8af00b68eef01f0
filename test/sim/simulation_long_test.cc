// As simulation_test, over more workloads, each with its naive run.
#include <gtest/gtest.h>

#include "sim/simulation_harness.h"

namespace halo::test {
namespace {

TEST(SimulationLongTest, TenThousandRandomWorkloads) {
  constexpr uint64_t kFirst = 100'000, kWorkloads = 10'000;
  for (uint64_t seed = kFirst; seed < kFirst + kWorkloads && !HasFailure(); ++seed) {
    const Workload workload = MakeWorkload(seed);
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(workload.workers) +
                 " workers\n" + workload.yaml);
    EXPECT_EQ(Play(workload, true).rows, Play(workload, false).rows);
  }
}

TEST(SimulationLongTest, AThousandOperatorsOverManyRows) {
  constexpr int32_t kOperators = 1000;
  constexpr int64_t kRows = 64;
  const Workload workload = MakeLargeGraph(kOperators, kRows, 8);
  const Played played = Play(workload, false);
  EXPECT_EQ(played.report.counts.rows_ok, kRows);
  EXPECT_EQ(played.rows, Play(workload, true).rows);
}

}  // namespace
}  // namespace halo::test
