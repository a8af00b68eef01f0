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

}  // namespace

std::vector<std::string> OrderByUrgency::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  size_t first = 0;
  for (const OptimizerSource& source : state.sources) {
    LogicalPlan& plan = *source.plan;
    const size_t count = plan.nodes.size();
    std::vector<double> rank(count, 0.0);  // seconds of a row's longest chain from here on
    for (size_t i = count; i > 0; --i) {
      const PlannedOperator& planned = state.plan.operators[first + i - 1];
      // How long a row's call takes: in a batch, what all of the batch together take.
      const double calls = std::max(1.0, planned.estimate.calls.value);
      const LogicalNode& node = plan.nodes[i - 1];
      const bool is_tool = node.removed || node.model == kNoModel;
      const double together =
          is_tool
              ? 1.0
              : std::min<double>(calls, source.models[static_cast<size_t>(node.model)].sequences);
      rank[i - 1] += planned.estimate.busy_s.value / calls * together;
      for (const OperatorIndex input : plan.nodes[i - 1].waits_for) {
        double& before = rank[static_cast<size_t>(input)];
        before = std::max(before, rank[i - 1]);
      }
    }
    const std::vector<size_t> order = UrgentFirst(plan, rank);
    std::vector<int32_t> before;
    for (const LogicalNode& node : plan.nodes) before.push_back(node.order);
    std::string names;
    for (size_t place = 0; place < count; ++place) {
      plan.nodes[order[place]].order = static_cast<int32_t>(place);
      if (plan.nodes[order[place]].removed) continue;
      names += (names.empty() ? "" : ", ") + plan.operator_of(plan.nodes[order[place]].op).id;
    }
    bool changed = false;
    for (size_t i = 0; i < count; ++i) changed = changed || plan.nodes[i].order != before[i];
    if (changed) changes.push_back("order within a block of rows: " + names);
    first += count;
  }
  return changes;
}

}  // namespace halo
