#include "engine/llama/calibration_points.h"

#include <algorithm>

namespace halo {
namespace {

constexpr int32_t kLongContext = 896;  // with 128 cells for steps and short prompts: a round 1,024
constexpr int32_t kShortContext = 64;
constexpr int32_t kSpareCells = 128;
constexpr int32_t kDeepSequences = 4;
constexpr int32_t kDeepCells = 2304;
constexpr int32_t kDecodeCells = 8;  // a reading's steps

struct Shape {
  int32_t sequences, tokens;
};

// What a pass over so many prompts of such a length costs: doublings, as far as the engine goes.
// `essential` ones are measured for slow models, too.
constexpr Shape kEssential[] = {{1, 16}, {1, 128}, {1, 512}, {4, 128}, {16, 16}};
constexpr Shape kFurther[] = {{1, 64},  {1, 256}, {1, 1024}, {1, 2048}, {4, 16},  {4, 64},
                              {4, 256}, {4, 512}, {16, 64},  {16, 128}, {64, 16}, {64, 32}};
constexpr Shape kEssentialInContext[] = {{1, 128}, {4, 128}};
constexpr Shape kFurtherInContext[] = {{1, 16}, {1, 512}, {4, 16}, {16, 16}, {16, 64}, {64, 16}};
constexpr int32_t kDecodes[] = {1, 2, 4, 8, 16, 32, 64};
// Between those points in every direction.
constexpr Shape kEssentialHeldOut[] = {{1, 90}};
constexpr Shape kHeldOut[] = {{1, 700}, {3, 200}, {10, 40}};
constexpr Shape kHeldOutInContext[] = {{1, 384}, {4, 330}, {8, 24}};
// Prompts of lengths that all differ, which llama.cpp computes part by part.
constexpr CalibrationPoint kUneven[] = {{4, 128, 0, false, false, 16},
                                        {16, 32, 0, false, false, 2}};
constexpr CalibrationPoint kHeldOutUneven = {8, 100, 0, false, true, 4};
constexpr int32_t kHeldOutDecodes[] = {3, 12, 24, 48};

int64_t TokensOf(const CalibrationPoint& point) { return int64_t{point.sequences} * point.tokens; }

class Planner {
 public:
  Planner(CalibrationPlan& plan, const CalibrationLimits& limits) : plan_(plan), limits_(limits) {}

  void Add(CalibrationPoint point) {
    const bool is_wide = point.is_decode || point.sequences > plan_.deep.sequences;
    const CalibrationRoom& room = is_wide ? plan_.wide : plan_.deep;
    const int32_t longest = point.TokensOf(point.sequences - 1);
    const int32_t cells = point.context + (point.is_decode ? kDecodeCells : longest);
    if (point.sequences > room.sequences || cells > room.cells) return;
    if (TokensOf(point) > limits_.batch_tokens) return;
    plan_.points.push_back(point);
  }
  template <typename Shapes>
  void AddAll(const Shapes& shapes, int32_t context, bool held_out) {
    for (const Shape& shape : shapes)
      Add({shape.sequences, shape.tokens, context, false, held_out});
  }

 private:
  CalibrationPlan& plan_;
  const CalibrationLimits& limits_;
};

}  // namespace

CalibrationPlan PlanCalibration(const CalibrationLimits& limits) {
  CalibrationPlan plan;
  const int32_t trained = std::max(1, limits.trained_tokens);
  const int64_t most = std::min<int64_t>(trained, limits.kv_tokens / 2);
  plan.wide.cells = static_cast<int32_t>(std::min<int64_t>(kLongContext + kSpareCells, most));
  plan.deep.cells = static_cast<int32_t>(std::min<int64_t>(kDeepCells, most));
  if (plan.wide.cells < kLeastCalibrationCells) return plan;
  // Half of the memory for each room.
  const auto sequences = [&](int32_t cells, int32_t wanted) {
    return static_cast<int32_t>(
        std::clamp<int64_t>(limits.kv_tokens / 2 / cells, 1, std::min(wanted, limits.sequences)));
  };
  plan.wide.sequences = sequences(plan.wide.cells, limits.sequences);
  plan.deep.sequences = sequences(plan.deep.cells, kDeepSequences);

  const int32_t spare = std::min(kSpareCells, plan.wide.cells / 2);
  const int32_t long_context = plan.wide.cells - spare;
  plan.contexts = {long_context, long_context / 2, std::min(kShortContext, long_context / 4)};

  Planner planner(plan, limits);
  planner.AddAll(kEssential, 0, false);
  planner.AddAll(kFurther, 0, false);
  planner.AddAll(kEssentialHeldOut, 0, true);
  planner.AddAll(kHeldOut, 0, true);
  for (const CalibrationPoint& point : kUneven) planner.Add(point);
  planner.Add(kHeldOutUneven);
  planner.AddAll(kEssentialInContext, plan.contexts[0], false);
  planner.AddAll(kFurtherInContext, plan.contexts[0], false);
  planner.AddAll(kHeldOutInContext, plan.contexts[1], true);
  for (const int32_t n : kDecodes) {
    planner.Add({n, 1, plan.contexts[0], true, false});
    planner.Add({n, 1, plan.contexts[2], true, false});
  }
  for (const int32_t n : kHeldOutDecodes) planner.Add({n, 1, plan.contexts[1], true, true});
  return plan;
}

double CalibrationPlan::TokensOfRound() const {
  constexpr double kStepCost = 3.0;  // a decode step's token costs more than a prompt's
  double tokens = 0.0;
  for (const CalibrationPoint& point : points) {
    tokens += static_cast<double>(TokensOf(point)) *
              (point.is_decode ? kDecodeCells * kStepCost / 2.0 : 1.0);
  }
  return tokens;
}

void CalibrationPlan::Thin(double tokens) {
  const auto is_essential = [](const CalibrationPoint& point) {
    if (point.is_decode) return point.sequences <= 16 || !point.held_out;
    if (point.step > 0) return !point.held_out && point.sequences <= 4;
    const auto is_shape = [&](const Shape& shape) {
      return shape.sequences == point.sequences && shape.tokens == point.tokens;
    };
    const auto is_one_of = [&](const auto& shapes) {
      return std::any_of(std::begin(shapes), std::end(shapes), is_shape);
    };
    if (point.held_out) return is_one_of(kEssentialHeldOut);
    return point.context == 0 ? is_one_of(kEssential) : is_one_of(kEssentialInContext);
  };
  while (TokensOfRound() > tokens) {
    // The one with most tokens among those that can be missed.
    auto dearest = points.end();
    for (auto point = points.begin(); point != points.end(); ++point) {
      if (is_essential(*point)) continue;
      if (dearest == points.end() || TokensOf(*point) > TokensOf(*dearest)) dearest = point;
    }
    if (dearest == points.end()) return;
    points.erase(dearest);
  }
}

}  // namespace halo
