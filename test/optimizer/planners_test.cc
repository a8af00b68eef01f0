#include "optimizer/planners/planners.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "bench/scheduling_instances.h"
#include "exhaustive_planner.h"

namespace halo {
namespace {

/// Small enough for the exhaustive search, of all kinds.
InstanceShape TinyShape(int32_t index) {
  RandomStream random(static_cast<uint64_t>(index));
  InstanceShape shape;
  shape.workers = 1 + index % 3;
  shape.calls = shape.workers == 1 ? 5 : shape.workers == 2 ? 4 : 3;
  shape.models = 1 + static_cast<int32_t>(random.Below(3));
  shape.most_shards = 1 + static_cast<int32_t>(random.Below(static_cast<uint64_t>(shape.workers)));
  shape.unequal = random.Below(3) == 0;
  shape.tight_memory = random.Below(2) == 0;
  return shape;
}

constexpr int64_t kMostOrders = 400'000;

PlannerOptions ByStates(int64_t most_states) { return {.most_states = most_states}; }

TEST(PlannersTest, AllMakeSchedulesOfAllKindsOfProblems) {
  for (int32_t index = 0; index < 60; ++index) {
    SCOPED_TRACE(ToString(GapShape(index)) + ", seed " + std::to_string(index));
    const SchedulingProblem problem = RandomInstance(GapShape(index), index);
    VerifyProblem(problem);
    const double bound = LowerBound(problem);
    for (const char* name : {"list", "beam", "dp", "auto"}) {
      const Schedule schedule = PlanByName(name, problem, ByStates(5'000));
      EXPECT_EQ(FaultOf(problem, schedule), "") << name;
      EXPECT_GE(schedule.makespan_s, bound * (1 - 1e-9)) << name;
      EXPECT_GE(schedule.lower_bound_s, bound * (1 - 1e-9)) << name;
    }
  }
}

TEST(PlannersTest, BoundsHoldAndWhatIsCalledOptimalIs) {
  int32_t compared = 0, proved = 0;
  for (int32_t index = 0; index < 60; ++index) {
    SCOPED_TRACE(ToString(TinyShape(index)) + ", seed " + std::to_string(index));
    const SchedulingProblem problem = RandomInstance(TinyShape(index), 1'000 + index);
    const std::optional<double> shortest = ShortestMakespan(problem, kMostOrders);
    if (!shortest) continue;
    ++compared;
    EXPECT_LE(LowerBound(problem), *shortest * (1 + 1e-9));
    const Schedule schedule = PlanByDp(problem, ByStates(100'000));
    EXPECT_EQ(FaultOf(problem, schedule), "");
    EXPECT_LE(schedule.lower_bound_s, *shortest * (1 + 1e-9));
    // Of problems as small as these it finds the optimum, whether it can prove that or not.
    EXPECT_NEAR(schedule.makespan_s, *shortest, 1e-6);
    if (schedule.proved_optimal) ++proved;
  }
  EXPECT_GE(compared, 50);
  EXPECT_GE(proved, 30);
}

TEST(PlannersTest, MilpIsTheOptimum) {
  int32_t compared = 0;
  for (int32_t index = 0; index < 60; ++index) {
    SCOPED_TRACE(ToString(TinyShape(index)) + ", seed " + std::to_string(2'000 + index));
    const SchedulingProblem problem = RandomInstance(TinyShape(index), 2'000 + index);
    const std::optional<double> shortest = ShortestMakespan(problem, kMostOrders);
    if (!shortest) continue;
    ++compared;
    const Schedule schedule = PlanByMilp(problem, {});
    EXPECT_EQ(FaultOf(problem, schedule), "");
    EXPECT_TRUE(schedule.proved_optimal);
    EXPECT_NEAR(schedule.makespan_s, *shortest, 2e-6 * *shortest);
  }
  EXPECT_GE(compared, 50);
}

}  // namespace
}  // namespace halo
