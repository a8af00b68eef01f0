#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

struct PlannerOptions {
  double budget_s = 0.2;    ///< of beam, dp and milp: after it, the best schedule so far
  int32_t beam_width = 64;  ///< of beam
  /// Seconds since some beginning; injected so that tests do not depend on the machine. Null: no
  /// budget is kept, and only `most_states` bounds the search.
  std::function<double()> now_s;
  int64_t most_states = 2'000'000;  ///< not of milp
  /// For milp: a schedule that is known already; none longer is looked for. Null: that of `list`.
  const Schedule* known = nullptr;
};

/// Every planner: same problem, same schedule (where the budget in time does not end it). Each
/// throws by HALO_CHECK as VerifyProblem does.
///
/// - list: upward rank (HEFT: Topcuoglu, Hariri and Wu 2002), earliest end, over a table of rules
/// of how
///   dear sharing out is; milliseconds for 1,000 operators. The first schedule for all others.
/// - beam: the best few partial schedules by bound, task by task.
/// - dp: anytime. Up to 40 calls and 16 workers: list and a narrow beam, a local search, then
/// branch and bound over
///   partial schedules, where one that is nowhere earlier than another of the same content is
///   dropped (dynamic programming: the same set done, the same models and KV on workers, equal
///   workers interchanged), then the local search again. Above: list under rules and ranks that
///   wander, then the local search.
/// - milp: the exact optimum by mixed integer programming (COIN-OR CBC), in the space of all
/// schedules;
///   for small problems. A budget only where now_s is set; CBC looks at it now and then. Shares no
///   search with dp. CBC is not safe to run in two threads at once.
/// - auto: dp, which picks by size and is never worse than list.
///
/// What is proved: lower_bound_s always holds. dp's tree places a task's shards together, so where
/// two tasks may both be shared out it leaves out the schedules in which they cross (one first on
/// this worker, the other first on that one). Those the local search reaches, but no bound of dp's
/// is then better than LowerBound(), and such a schedule is called optimal only if it meets that.
/// milp's proof holds to 1e-6 of the makespan.
///
/// Tried, on 51 random problems of 7 to 10 calls on 2 to 4 workers, each with 30,000 states; over
/// the best known, mean and worst:
///   list 5.4 % and 19 %; beam of 64 0.8 % and 6.6 %; local search alone 0.6 % and 7.0 %; tree
///   alone 0.24 % and 5.3 % (it searches 42 of the 51 to the end); dp as it is 0.15 % and 4.6 %,
///   with 1.5 million states 0.00 %. So neither half is left out. Beam for large problems was
///   rejected: at 50 and 80 calls 15 to 74 % over the bound in 1 to 3 s, where list is 11 to 19 %
///   in 2 ms; and so was a local search from plain list there: at 200 calls 6.3 to 9.0 % over the
///   bound in 0.8 s, with wandering ranks 2.7 to 6.3 %, at 1,000 calls 6.1 to 9.9 % against 2.6
///   to 7.0 %.
Schedule PlanByDp(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByBeam(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByList(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanByMilp(const SchedulingProblem& problem, const PlannerOptions& options);
Schedule PlanAutomatically(const SchedulingProblem& problem, const PlannerOptions& options);

/// How many states `auto` may look at: 15 to 30 ms of a core for most. States instead of seconds,
/// so that a plan, and what EXPLAIN prints of it, is the same on any machine and however busy that
/// is.
int64_t AutomaticStates(const SchedulingProblem& problem);

/// By the name of `--planner`. Throws Error(kUsage) naming those there are.
Schedule PlanByName(const std::string& name, const SchedulingProblem& problem,
                    const PlannerOptions& options);

}  // namespace halo
