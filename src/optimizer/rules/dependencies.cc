// Rules about which operators run at all, and what they wait for.
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "optimizer/rules/rules.h"
#include "plan/operator_reads.h"

namespace halo {

std::vector<std::string> UnusedOperators::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  for (const PlannedOperator& planned : state.plan.operators) {
    LogicalNode& node = state.node(planned);
    if (node.needed) continue;
    node.removed = true;
    changes.push_back(fmt::format("{} is not run: no output needs it", state.NameOf(planned)));
  }
  // What is not run makes no KV.
  if (!changes.empty()) {
    for (const OptimizerSource& source : state.sources) LinkKvSources(*source.plan);
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

namespace {

/// True if `op` waits for all of `inputs` already, directly or through others.
bool WaitsForAll(const LogicalPlan& plan, OperatorIndex op, const std::set<OperatorIndex>& inputs) {
  std::set<OperatorIndex> before;
  std::vector<OperatorIndex> open = plan.at(op).waits_for;
  while (!open.empty()) {
    const OperatorIndex one = open.back();
    open.pop_back();
    if (!before.insert(one).second) continue;
    open.insert(open.end(), plan.at(one).waits_for.begin(), plan.at(one).waits_for.end());
  }
  return std::includes(before.begin(), before.end(), inputs.begin(), inputs.end());
}

bool Writes(const LogicalPlan& plan) {
  return std::any_of(plan.nodes.begin(), plan.nodes.end(), [&](const LogicalNode& node) {
    const Operator& op = plan.operator_of(node.op);
    return !op.is_inference() && op.tool->effect == ToolEffect::kWrite;
  });
}

}  // namespace

std::vector<std::string> GuardsFirst::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  std::vector<std::vector<std::vector<OperatorIndex>>> guards_of;  // [sources][operators]
  for (const OptimizerSource& source : state.sources) {
    // The order of writes, and what happens before them, is part of what a workflow says.
    guards_of.push_back(Writes(*source.plan)
                            ? std::vector<std::vector<OperatorIndex>>(source.plan->nodes.size())
                            : GuardsOf(*source.plan));
  }
  for (const PlannedOperator& planned : state.plan.operators) {
    const LogicalPlan& plan = *state.sources[planned.source].plan;
    LogicalNode& node = state.node(planned);
    const std::vector<OperatorIndex>& guards =
        guards_of[planned.source][static_cast<size_t>(node.op)];
    if (node.removed || !node.needed || guards.empty()) continue;
    std::set<OperatorIndex> asked;
    std::string names;
    for (const OperatorIndex guard : guards) {
      const std::vector<OperatorIndex> inputs = ConditionInputs(plan.operator_of(guard));
      asked.insert(inputs.begin(), inputs.end());
      names += (names.empty() ? "" : " or ") + plan.operator_of(guard).id;
    }
    const bool comes_first =
        std::all_of(asked.begin(), asked.end(), [&](OperatorIndex one) { return one < node.op; });
    const bool is_tool = node.model == kNoModel;
    if (!comes_first || (is_tool && !WaitsForAll(plan, node.op, asked))) continue;
    node.wanted_by = guards;
    asked.insert(node.waits_for.begin(), node.waits_for.end());
    node.waits_for.assign(asked.begin(), asked.end());
    changes.push_back(fmt::format("{} is run where {} goes ahead", state.NameOf(planned), names));
  }
  return changes;
}

}  // namespace halo
