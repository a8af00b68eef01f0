#include "optimizer/planners/planners.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "base/random.h"
#include "bench/baseline_planners.h"
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

constexpr int64_t kMostOrders = 300'000;

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
  for (int32_t index = 0; index < 40; ++index) {
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
  EXPECT_GE(compared, 25);
  EXPECT_GE(proved, 15);
}

TEST(PlannersTest, MilpIsTheOptimum) {
  int32_t compared = 0;
  for (int32_t index = 0; index < 40; ++index) {
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
  EXPECT_GE(compared, 25);
}

std::string Text(const Schedule& schedule) {
  std::string text;
  for (const PlacedShard& shard : schedule.shards) {
    text += std::to_string(shard.task) + "." + std::to_string(shard.shard) + "@" +
            std::to_string(shard.worker) + ":" + std::to_string(shard.start_s) + " ";
  }
  return text;
}

TEST(PlannersTest, SameProblemSameSchedule) {
  for (const int32_t calls : {8, 60}) {
    const InstanceShape shape{
        .calls = calls, .workers = 4, .models = 3, .most_shards = 4, .tight_memory = true};
    const SchedulingProblem problem = RandomInstance(shape, 7);
    for (const char* name : {"list", "beam", "dp", "auto"}) {
      const Schedule once = PlanByName(name, problem, ByStates(20'000));
      const Schedule again = PlanByName(name, problem, ByStates(20'000));
      EXPECT_EQ(Text(once), Text(again)) << name;
      EXPECT_EQ(once.states, again.states) << name;
    }
  }
}

TEST(PlannersTest, MoreStatesNeverMakeItWorse) {
  for (int32_t index = 100; index < 130; ++index) {
    const SchedulingProblem problem = RandomInstance(GapShape(index), index);
    const double list_s = PlanByList(problem, {}).makespan_s;
    EXPECT_LE(PlanByDp(problem, ByStates(2'000)).makespan_s, list_s * (1 + 1e-9));
  }
}

TEST(PlannersTest, TwoOrdersMayCross) {
  // Two calls of two models, each to be shared out, each worker with one of the models loaded and
  // room for one. Each worker begins with what it has: a on the first, b on the second, then the
  // other way.
  SchedulingProblem problem;
  problem.models = {{.name = "a", .load_s = {4, 4}, .weights_bytes = {1, 1}},
                    {.name = "b", .load_s = {4, 4}, .weights_bytes = {1, 1}}};
  problem.workers = {{.name = "w0", .memory_bytes = 1, .resident = {0}},
                     {.name = "w1", .memory_bytes = 1, .resident = {1}}};
  for (const ResidentIndex model : {0, 1}) {
    problem.tasks.push_back(
        {.name = "t", .model = model, .work_s = {{30, 30}, {10, 10}}, .kv_bytes = {0, 0}});
  }
  EXPECT_EQ(ShortestMakespan(problem, kMostOrders), 24.0);
  EXPECT_DOUBLE_EQ(PlanByMilp(problem, {}).makespan_s, 24.0);
  const Schedule schedule = PlanByDp(problem, ByStates(20'000));
  EXPECT_DOUBLE_EQ(schedule.makespan_s, 24.0);
  EXPECT_LE(schedule.lower_bound_s, 24.0);
  EXPECT_EQ(FaultOf(problem, schedule), "");
}

TEST(PlannersTest, ManyWorkersAndManyOperators) {
  const InstanceShape wide{.calls = 30, .workers = 200, .models = 5, .most_shards = 200};
  const InstanceShape deep{.calls = 800, .workers = 4, .models = 4, .most_shards = 4};
  for (const InstanceShape& shape : {wide, deep}) {
    const SchedulingProblem problem = RandomInstance(shape, 3);
    const Schedule schedule = PlanAutomatically(problem, ByStates(5'000));
    EXPECT_EQ(FaultOf(problem, schedule), "");
    EXPECT_GE(schedule.makespan_s, LowerBound(problem) * (1 - 1e-9));
  }
}

TEST(PlannersTest, NothingAndToolsAlone) {
  SchedulingProblem problem;
  problem.workers = {{.name = "w"}};
  for (const char* name : {"list", "beam", "dp", "milp", "auto"}) {
    const Schedule schedule = PlanByName(name, problem, {});
    EXPECT_EQ(FaultOf(problem, schedule), "") << name;
    EXPECT_TRUE(schedule.proved_optimal) << name;
  }
  problem.tasks = {{.name = "a", .tool_s = 3}, {.name = "b", .parents = {{0, 0.5}}, .tool_s = 2}};
  for (const char* name : {"list", "beam", "dp", "milp", "auto"}) {
    const Schedule schedule = PlanByName(name, problem, {});
    EXPECT_EQ(FaultOf(problem, schedule), "") << name;
    EXPECT_DOUBLE_EQ(schedule.makespan_s, 4.0) << name;  // 3 + half of 2, not 1.5 + 2
    EXPECT_TRUE(schedule.proved_optimal) << name;
  }
}

TEST(PlannersTest, MilpSaysNothingAndKeepsWhatIsKnown) {
  const SchedulingProblem problem = RandomInstance(TinyShape(4), 11);
  const Schedule known = PlanByDp(problem, ByStates(100'000));
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  const Schedule schedule = PlanByMilp(problem, {.known = &known});
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_LE(schedule.makespan_s, known.makespan_s);
  EXPECT_EQ(schedule.planner, "milp");
}

TEST(PlannersTest, UnknownNamesAreRefused) {
  try {
    PlanByName("best", SchedulingProblem{}, {});
    FAIL() << "there is no planner of that name";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("auto, beam, dp, list and milp"));
  }
}

TEST(BaselinesTest, AllMakeSchedules) {
  for (int32_t index = 200; index < 240; ++index) {
    SCOPED_TRACE(ToString(GapShape(index)));
    const SchedulingProblem problem = RandomInstance(GapShape(index), index);
    for (const std::string& name : BaselineNames()) {
      EXPECT_EQ(FaultOf(problem, PlanByBaseline(name, problem, 5)), "") << name;
    }
  }
}

}  // namespace
}  // namespace halo
