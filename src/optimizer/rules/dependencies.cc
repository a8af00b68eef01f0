// Rules about which operators run at all, and what they wait for.
#include <fmt/format.h>

#include <algorithm>

#include "optimizer/rules/rules.h"

namespace halo {

std::vector<std::string> UnusedOperators::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  for (const PlannedOperator& planned : state.plan.operators) {
    LogicalNode& node = state.node(planned);
    if (node.needed) continue;
    node.removed = true;
    changes.push_back(fmt::format("{} is not run: no output needs it", state.NameOf(planned)));
  }
  for (const OptimizerSource& source : state.sources) {
    for (LogicalNode& node : source.plan->nodes) {
      std::erase_if(node.waits_for, [&](OperatorIndex input) {
        return source.plan->at(input).removed && !node.removed;
      });
    }
  }
  return changes;
}

std::vector<std::string> TightDependencies::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  for (const PlannedOperator& planned : state.plan.operators) {
    LogicalNode& node = state.node(planned);
    if (node.removed || node.waits_for == node.inputs) continue;
    for (const OperatorIndex input : node.waits_for) {
      const bool reads =
          std::find(node.inputs.begin(), node.inputs.end(), input) != node.inputs.end();
      if (reads) continue;
      changes.push_back(fmt::format("{} does not wait for {}", state.NameOf(planned),
                                    state.sources[planned.source].plan->operator_of(input).id));
    }
    node.waits_for = node.inputs;
  }
  return changes;
}

}  // namespace halo
