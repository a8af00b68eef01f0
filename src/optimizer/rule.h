#pragma once

#include <memory>
#include <string>
#include <vector>

#include "optimizer/cardinality.h"
#include "plan/physical_plan.h"

namespace halo {

/// What rules work on: the logical plans, which they rewrite, and the physical plan, in which they
/// say what they found.
struct OptimizerState {
  std::vector<OptimizerSource>& sources;
  const CardinalityEstimator& estimator;
  PhysicalPlan& plan;

  LogicalNode& node(const PlannedOperator& planned) const {
    return sources[planned.source].plan->nodes[static_cast<size_t>(planned.op)];
  }
  const Operator& operator_of(const PlannedOperator& planned) const {
    return sources[planned.source].plan->operator_of(planned.op);
  }
  /// "id", or "id of workflow" where there are several.
  std::string NameOf(const PlannedOperator& planned) const;
};

/// One way of making a plan better without changing an answer. Stateless.
class Rule {
 public:
  virtual ~Rule() = default;
  virtual const char* name() const = 0;
  /// What it does and why, in a sentence.
  virtual const char* what() const = 0;
  /// Rewrites the plans; says each change in a sentence. Nothing to do: empty.
  virtual std::vector<std::string> Apply(OptimizerState& state) const = 0;
};

/// All rules in the order in which they run (the reason for each place stands in rules.cc).
const std::vector<std::unique_ptr<Rule>>& AllRules();

}  // namespace halo
