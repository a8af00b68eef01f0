// The order in which operators of one block of rows go.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "optimizer/rules/rules.h"

namespace halo {
namespace {

/// Ranks are means of samples: chains whose lengths differ by less are equally urgent, and then go
/// in the order that the workflow has them in, which keeps like prompts together.
constexpr double kSameUrgency = 0.1;

/// Operators from the most urgent on: tools, then by classes of `rank`, the first rank of a class
/// being its largest; within a class as in the workflow.
std::vector<size_t> UrgentFirst(const LogicalPlan& plan, const std::vector<double>& rank) {
  std::vector<size_t> order(plan.nodes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return rank[a] > rank[b]; });
  std::vector<double> of_class(order.size());
  for (size_t place = 0; place < order.size(); ++place) {
    const double own = rank[order[place]];
    const double largest = place == 0 ? own : of_class[order[place - 1]];
    of_class[order[place]] = own < largest * (1 - kSameUrgency) ? own : largest;
  }
  const auto place = [&](size_t op) {
    return std::tuple(plan.nodes[op].model != kNoModel, -of_class[op], op);
  };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return place(a) < place(b); });
  return order;
}

/// [operators of the source] Seconds of a row's longest chain from each operator on. `first`: where
/// the source's operators begin in the plan.
std::vector<double> UpwardRanks(const OptimizerSource& source, const PhysicalPlan& physical,
                                size_t first) {
  const LogicalPlan& plan = *source.plan;
  std::vector<double> rank(plan.nodes.size(), 0.0);
  for (size_t i = plan.nodes.size(); i > 0; --i) {
    const PlannedOperator& planned = physical.operators[first + i - 1];
    // How long a row's call takes: in a batch, what all of the batch together take.
    const double calls = std::max(1.0, planned.estimate.calls.value);
    const LogicalNode& node = plan.nodes[i - 1];
    const bool is_tool = node.removed || node.model == kNoModel;
    const double together =
        is_tool ? 1.0
                : std::min<double>(calls, source.models[static_cast<size_t>(node.model)].sequences);
    rank[i - 1] += planned.estimate.busy_s.value / calls * together;
    for (const OperatorIndex input : node.waits_for) {
      double& before = rank[static_cast<size_t>(input)];
      before = std::max(before, rank[i - 1]);
    }
  }
  return rank;
}

}  // namespace

std::vector<std::vector<int32_t>> OrdersByUrgency(const std::vector<OptimizerSource>& sources,
                                                  const PhysicalPlan& plan) {
  std::vector<std::vector<int32_t>> orders;
  size_t first = 0;
  for (const OptimizerSource& source : sources) {
    const size_t count = source.plan->nodes.size();
    const std::vector<size_t> by_place =
        UrgentFirst(*source.plan, UpwardRanks(source, plan, first));
    std::vector<int32_t>& order = orders.emplace_back(count);
    for (size_t place = 0; place < count; ++place)
      order[by_place[place]] = static_cast<int32_t>(place);
    first += count;
  }
  return orders;
}

std::vector<std::string> OrderByUrgency::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  const std::vector<std::vector<int32_t>> orders = OrdersByUrgency(state.sources, state.plan);
  for (size_t s = 0; s < orders.size(); ++s) {
    LogicalPlan& plan = *state.sources[s].plan;
    bool changed = false;
    std::vector<std::string> names(plan.nodes.size());
    for (size_t op = 0; op < plan.nodes.size(); ++op) {
      changed = changed || plan.nodes[op].order != orders[s][op];
      plan.nodes[op].order = orders[s][op];
      if (!plan.nodes[op].removed)
        names[static_cast<size_t>(orders[s][op])] = plan.operator_of(plan.nodes[op].op).id;
    }
    std::erase(names, "");
    if (changed)
      changes.push_back(fmt::format("order within a block of rows: {}", fmt::join(names, ", ")));
  }
  return changes;
}

}  // namespace halo
