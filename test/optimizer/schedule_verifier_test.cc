#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "optimizer/planners/planners.h"

namespace halo {
namespace {

using ::testing::HasSubstr;

/// Two equal workers of 10 bytes, models a and b of 6; a is on worker 0.
///   0 draft (a, 10 s, or 5 in two) -> 1 search (tool, 2 s) -> 2 review (a, 8 s, or 4), lag 1
///                                  -> 3 judge (b, 6 s), lag 0.5 of the draft
///   2 takes the KV of 0 along, which saves 2 s (1 a half)
SchedulingProblem SmallProblem() {
  SchedulingProblem problem;
  problem.models = {{.name = "a", .load_s = {3, 3}, .weights_bytes = {6, 6}},
                    {.name = "b", .load_s = {4, 4}, .weights_bytes = {6, 6}}};
  problem.workers = {{.name = "w0", .memory_bytes = 10, .resident = {0}},
                     {.name = "w1", .memory_bytes = 10, .resident = {}}};
  problem.tasks = {
      {.name = "draft", .model = 0, .work_s = {{10, 10}, {5, 5}}, .kv_bytes = {2, 2}},
      {.name = "search", .parents = {{0, 1.0}}, .tool_s = 2},
      {.name = "review",
       .model = 0,
       .parents = {{0, 1.0}, {1, 1.0}},
       .work_s = {{8, 8}, {4, 4}},
       .kv_bytes = {4, 4},
       .kv_source = 0,
       .kv_saved_s = {2, 2}},
      {.name = "judge", .model = 1, .parents = {{0, 0.5}}, .work_s = {{6, 6}}, .kv_bytes = {1, 1}}};
  return problem;
}

/// draft 0..10 on worker 0, search 10..12, review 12..18 there; judge 7..13 on worker 1 after its
/// load.
Schedule GoodSchedule() {
  Schedule schedule;
  schedule.shards = {
      {.task = 0, .worker = 0, .start_s = 0, .end_s = 10},
      {.task = 2, .worker = 0, .start_s = 12, .end_s = 18, .takes_kv = true},
      {.task = 3, .worker = 1, .start_s = 7, .end_s = 13, .load_s = 4},
  };
  schedule.tool_start_s = {0, 10, 0, 0};
  schedule.makespan_s = 18;
  return schedule;
}

TEST(ScheduleVerifierTest, AcceptsASchedule) {
  VerifyProblem(SmallProblem());
  EXPECT_EQ(FaultOf(SmallProblem(), GoodSchedule()), "");
}

TEST(ScheduleVerifierTest, AcceptsSharesThatFindTheirKv) {
  Schedule schedule;
  // Both halves of the review where the same halves of the draft were; the judge last, on worker 1.
  schedule.shards = {
      {.task = 0, .shard = 0, .shards = 2, .worker = 0, .start_s = 0, .end_s = 5},
      {.task = 2,
       .shard = 0,
       .shards = 2,
       .worker = 0,
       .start_s = 10,
       .end_s = 13,
       .takes_kv = true},
      {.task = 0, .shard = 1, .shards = 2, .worker = 1, .start_s = 3, .end_s = 8, .load_s = 3},
      {.task = 2,
       .shard = 1,
       .shards = 2,
       .worker = 1,
       .start_s = 10,
       .end_s = 13,
       .takes_kv = true},
      {.task = 3, .worker = 1, .start_s = 17, .end_s = 23, .load_s = 4, .dropped = {0}},
  };
  schedule.tool_start_s = {0, 8, 0, 0};
  schedule.makespan_s = 23;
  EXPECT_EQ(FaultOf(SmallProblem(), schedule), "");
  std::swap(schedule.shards[1].shard, schedule.shards[3].shard);
  EXPECT_THAT(FaultOf(SmallProblem(), schedule), HasSubstr("there is no KV to take"));
}

struct Wrong {
  const char* name;
  void (*change)(Schedule*);
  const char* fault;
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.name; }

class FaultTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(FaultTest, IsFound) {
  Schedule schedule = GoodSchedule();
  GetParam().change(&schedule);
  EXPECT_THAT(FaultOf(SmallProblem(), schedule), HasSubstr(GetParam().fault));
}

INSTANTIATE_TEST_SUITE_P(
    ScheduleVerifierTest, FaultTest,
    ::testing::Values(
        Wrong{"NotPlaced", [](Schedule* s) { s->shards.pop_back(); }, "not placed"},
        Wrong{"NoSuchTask", [](Schedule* s) { s->shards[2].task = 4; }, "there is not"},
        Wrong{"NoSuchWorker", [](Schedule* s) { s->shards[2].worker = 2; }, "no such worker"},
        Wrong{"ToolOnWorker", [](Schedule* s) { s->shards[2].task = 1; }, "needs no worker"},
        Wrong{"WrongOrder", [](Schedule* s) { std::swap(s->shards[0], s->shards[1]); },
              "by worker"},
        Wrong{"HalfMissing", [](Schedule* s) { s->shards[0].shards = 2; }, "says that there are 2"},
        Wrong{"ShareTwice", [](Schedule* s) { s->shards[0].shard = 1; }, "every share once"},
        Wrong{"TooManyShards",
              [](Schedule* s) { s->shards.push_back({.task = 3, .worker = 1, .start_s = 20}); },
              "more shards than it may"},
        Wrong{"Busy",
              [](Schedule* s) {
                s->shards[1].start_s = 9;
                s->shards[1].end_s = 15;
              },
              "busy"},
        Wrong{"NoTimeToLoad",
              [](Schedule* s) {
                s->shards[2].start_s = 3;
                s->shards[2].end_s = 9;
              },
              "busy"},
        Wrong{"LoadForgotten", [](Schedule* s) { s->shards[2].load_s = 0; }, "loads for"},
        Wrong{"LoadedTwice", [](Schedule* s) { s->shards[1].load_s = 3; }, "loads for"},
        Wrong{"DroppedTwice", [](Schedule* s) { s->shards[2].dropped = {0}; }, "not resident"},
        Wrong{"DroppedButUsed", [](Schedule* s) { s->shards[1].dropped = {0}; }, "loads for"},
        Wrong{"MemoryExceeded",
              [](Schedule* s) {
                s->shards[2] = {.task = 3, .worker = 0, .start_s = 22, .end_s = 28, .load_s = 4};
                s->makespan_s = 28;
              },
              "bytes of 10"},
        Wrong{"TooShort", [](Schedule* s) { s->shards[2].end_s = 12; }, "takes 5"},
        Wrong{"KvForgotten", [](Schedule* s) { s->shards[1].takes_kv = false; }, "takes 6"},
        Wrong{"KvOfNone", [](Schedule* s) { s->shards[2].takes_kv = true; }, "no KV"},
        Wrong{"BeforeParent",
              [](Schedule* s) {
                s->shards[1].start_s = 11;
                s->shards[1].end_s = 17;
                s->makespan_s = 17;
              },
              "its parents allow 12"},
        Wrong{"BeforeShareOfParent",
              [](Schedule* s) {
                s->shards[2].start_s = 4;
                s->shards[2].end_s = 10;
              },
              "its parents allow 7"},
        Wrong{"ToolLate",
              [](Schedule* s) {
                s->tool_start_s[1] = 10.5;
                s->shards[1].start_s = 12.5;
                s->shards[1].end_s = 18.5;
                s->makespan_s = 18.5;
              },
              "a tool begins when it may"},
        Wrong{"MakespanWrong", [](Schedule* s) { s->makespan_s = 17; }, "makespan is 18"},
        Wrong{"BoundTooHigh", [](Schedule* s) { s->lower_bound_s = 19; }, "lower bound"},
        Wrong{"NotProved", [](Schedule* s) { s->proved_optimal = true; }, "called optimal"}),
    [](const auto& wrong) { return wrong.param.name; });

TEST(VerifyProblemTest, RefusesWhatContradictsItself) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  SchedulingProblem problem = SmallProblem();
  problem.tasks[0].parents = {{3, 1.0}};
  EXPECT_DEATH(VerifyProblem(problem), "parents come earlier");
  problem = SmallProblem();
  problem.tasks[3].kv_bytes = {5, 5};
  EXPECT_DEATH(VerifyProblem(problem), "can hold the task");
  problem = SmallProblem();
  problem.tasks[3].parents[0].lag = 0.0;
  EXPECT_DEATH(VerifyProblem(problem), "a lag is a share");
  problem = SmallProblem();
  problem.tasks[2].kv_source = 3;
  EXPECT_DEATH(VerifyProblem(problem), "kv_source is a parent");
  problem = SmallProblem();
  problem.workers[0].resident = {0, 1};
  EXPECT_DEATH(VerifyProblem(problem), "loaded at first fits");
  problem = SmallProblem();
  problem.models[0].load_s = {3};
  EXPECT_DEATH(VerifyProblem(problem), "one a worker");
}

}  // namespace
}  // namespace halo
