#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "optimizer/cardinality.h"
#include "optimizer/planners/scheduling_problem.h"
#include "plan/physical_plan.h"

namespace halo {

struct OptimizerOptions {
  std::set<std::string> rules_off;  ///< names of rules that are not applied
  std::string planner = "auto";
  /// A planner that has no name here, in place of `planner`: another's, to compare with, or one
  /// that shows the problem. What it returns is verified. Null: `planner`.
  std::function<Schedule(const SchedulingProblem&)> place;
  int32_t workers = 1;
  int64_t worker_memory_bytes = 0;
  /// Rows that are carried through the operators together: later operators begin when the first
  /// block is done.
  int64_t rows_side_by_side = 64;
  /// Seconds since some beginning, for the planner's budget and the time that rules took. Null: no
  /// time is measured.
  std::function<double()> now_s;
};

/// Names of the rules that `--naive` does without: all but those that say what prompts are made of,
/// since answers depend on that.
std::set<std::string> RulesOffForNaive();

/// Plans a batch: rewrites the logical plans of `sources` and returns what is to be carried out,
/// with what it is expected to cost. Throws Error(kUsage) for a rule or a planner that there is
/// not. Pure but for `now_s`. `history` may be null.
PhysicalPlan Optimize(std::vector<OptimizerSource>& sources, const OperatorHistory* history,
                      const OptimizerOptions& options);

}  // namespace halo
