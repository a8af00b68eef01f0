#include "engine/llama/calibration_points.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <tuple>

namespace halo {
namespace {

/// sequences, tokens, context, is_decode, step
using Key = std::tuple<int32_t, int32_t, int32_t, bool, int32_t>;

std::set<Key> KeysOf(const CalibrationPlan& plan, bool held_out) {
  std::set<Key> keys;
  for (const CalibrationPoint& p : plan.points) {
    if (p.held_out == held_out)
      keys.insert({p.sequences, p.tokens, p.context, p.is_decode, p.step});
  }
  return keys;
}

/// What holds of every plan: passes fit their rooms, rooms fit the memory, nothing that is checked
/// is also learnt from.
void ExpectSound(const CalibrationPlan& plan, const CalibrationLimits& limits) {
  EXPECT_LE(int64_t{plan.wide.sequences} * plan.wide.cells +
                int64_t{plan.deep.sequences} * plan.deep.cells,
            limits.kv_tokens);
  EXPECT_LE(std::max(plan.wide.cells, plan.deep.cells), limits.trained_tokens);
  EXPECT_TRUE(std::is_sorted(plan.contexts.rbegin(), plan.contexts.rend()));
  EXPECT_GT(plan.contexts.back(), 0);
  for (const CalibrationPoint& p : plan.points) {
    const CalibrationRoom& room =
        p.is_decode || p.sequences > plan.deep.sequences ? plan.wide : plan.deep;
    EXPECT_LE(p.sequences, room.sequences);
    EXPECT_LE(p.context + p.TokensOf(p.sequences - 1), room.cells);
    EXPECT_GT(p.TokensOf(0), 0);
    int32_t tokens = 0;
    for (int32_t i = 0; i < p.sequences; ++i) tokens += p.TokensOf(i);
    EXPECT_EQ(tokens, p.sequences * p.tokens);
    EXPECT_LE(p.sequences * p.tokens, limits.batch_tokens);
    EXPECT_TRUE(p.context == 0 ||
                std::count(plan.contexts.begin(), plan.contexts.end(), p.context) == 1);
  }
  const std::set<Key> learnt = KeysOf(plan, false), checked = KeysOf(plan, true);
  for (const Key& key : checked) EXPECT_FALSE(learnt.contains(key));
  EXPECT_EQ(learnt.size() + checked.size(), plan.points.size());  // each once
  EXPECT_TRUE(learnt.contains({1, 1, plan.contexts.front(), true, 0}));
  EXPECT_TRUE(learnt.contains({1, 16, 0, false, 0}));
}

TEST(CalibrationPlan, ALargeMachineMeasuresEverything) {
  const CalibrationLimits limits{8192, 1'000'000, 64, 2048};
  const CalibrationPlan plan = PlanCalibration(limits);
  ExpectSound(plan, limits);
  EXPECT_EQ(plan.wide.sequences, 64);
  for (const int32_t n : {1, 2, 4, 8, 16, 32, 64}) {
    for (const int32_t context : {plan.contexts.front(), plan.contexts.back()})
      EXPECT_TRUE(KeysOf(plan, false).contains({n, 1, context, true, 0})) << n << " at " << context;
  }
  EXPECT_TRUE(KeysOf(plan, false).contains({1, 2048, 0, false, 0}));
  EXPECT_TRUE(KeysOf(plan, false).contains({64, 32, 0, false, 0}));
  EXPECT_GE(KeysOf(plan, true).size(), 10U);
}

TEST(CalibrationPlan, SmallContextsAndLittleMemoryGetFewerPoints) {
  for (const int32_t trained : {64, 100, 256, 1024, 4096}) {
    for (const int64_t kv_tokens : {200, 3000, 20'000}) {
      const CalibrationLimits limits{trained, kv_tokens, 64, 2048};
      SCOPED_TRACE(std::to_string(trained) + " and " + std::to_string(kv_tokens));
      ExpectSound(PlanCalibration(limits), limits);
    }
  }
  // Told apart from a plan by its cells.
  EXPECT_LT(PlanCalibration({63, 100'000, 64, 2048}).wide.cells, kLeastCalibrationCells);
  EXPECT_LT(PlanCalibration({4096, 100, 64, 2048}).wide.cells, kLeastCalibrationCells);
}

TEST(CalibrationPlan, SlowModelsAreMeasuredAtFewerPointsButInEveryDirection) {
  const CalibrationLimits limits{8192, 1'000'000, 64, 2048};
  CalibrationPlan plan = PlanCalibration(limits);
  const double all = plan.TokensOfRound();
  plan.Thin(all);
  EXPECT_EQ(plan.TokensOfRound(), all);
  plan.Thin(all / 2);
  EXPECT_LE(plan.TokensOfRound(), all / 2);
  ExpectSound(plan, limits);
  plan.Thin(0);
  ExpectSound(plan, limits);
  EXPECT_LT(plan.TokensOfRound(), all / 3);
  const std::set<Key> learnt = KeysOf(plan, false);
  EXPECT_TRUE(learnt.contains({4, 128, 0, false, 0}));
  EXPECT_TRUE(learnt.contains({1, 128, plan.contexts.front(), false, 0}));
  EXPECT_TRUE(learnt.contains({16, 16, 0, false, 0}));
  EXPECT_TRUE(learnt.contains({4, 128, 0, false, 16}));
  EXPECT_TRUE(learnt.contains({64, 1, plan.contexts.front(), true, 0}));
  const std::set<Key> checked = KeysOf(plan, true);
  EXPECT_TRUE(checked.contains({1, 90, 0, false, 0}));
  EXPECT_TRUE(checked.contains({12, 1, plan.contexts[1], true, 0}));
}

}  // namespace
}  // namespace halo
