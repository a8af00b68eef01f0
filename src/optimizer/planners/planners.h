#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

struct PlannerOptions {
  double budget_s = 0.2;  ///< of dp and milp: after it, the best schedule so far
  int32_t beam_width = 64;
  /// Seconds since some beginning; injected so that tests do not depend on the machine. Null: no
  /// budget is kept, and only `most_states` bounds the search.
  std::function<double()> now_s;
  int64_t most_states = 2'000'000;
  /// For milp: a schedule that is known already; none longer is looked for. Null: that of `list`.
  const Schedule* known = nullptr;
};

/// Every planner: same problem, same schedule (where the budget in time does not end it).
/// - dp: branch and bound over partial schedules; anytime, with a proved bound.
/// - beam: the best few partial schedules by bound; for what dp cannot finish.
/// - list: upward rank (HEFT: Topcuoglu, Hariri and Wu 2002), earliest end; for 1,000 operators.
/// - milp: the exact optimum by mixed integer programming (COIN-OR CBC); small problems only.
/// - auto: list, then beam or dp by size, the best of them.
Schedule PlanByDp(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByBeam(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByList(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByMilp(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanAutomatically(const SchedulingProblem& problem, const PlannerOptions& options);

/// By the name of `--planner`. Throws Error(kUsage) naming those there are.
Schedule PlanByName(const std::string& name, const SchedulingProblem& problem,
                    const PlannerOptions& options);

}  // namespace halo
