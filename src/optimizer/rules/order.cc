// The order in which operators of one block of rows go.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <tuple>

#include "optimizer/rules/rules.h"

namespace halo {

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
    std::vector<size_t> order(count);
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      const bool tool_a = plan.nodes[a].model == kNoModel, tool_b = plan.nodes[b].model == kNoModel;
      return std::tuple(!tool_a, -rank[a]) < std::tuple(!tool_b, -rank[b]);
    });
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
