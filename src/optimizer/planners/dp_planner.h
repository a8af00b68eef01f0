#pragma once

#include <vector>

#include "optimizer/planners/list_planner.h"

namespace halo {

/// What a search tree found. `bound_s` holds for all schedules of the tree's space: every task is
/// placed whole, all its shards at once, after all that were placed before.
struct TreeResult {
  std::vector<TaskPlacement> best;  ///< empty: nothing better than the schedule that it was given
  double makespan_s = kNever;
  double bound_s = 0.0;
  bool exhausted = false;
};

/// All ways to place a task now that a better schedule may need: every number of shards, every
/// choice of workers (of workers that are alike in all, the first), every least set of models to
/// drop. At more than 6 workers only the sets on which it ends first; false where something was
/// left out.
bool PlacementsOf(const PartialSchedule& state, TaskIndex task,
                  std::vector<TaskPlacement>* placements);

/// Whether two tasks that do not wait for each other might both be shared out, so that there are
/// schedules outside the tree's space: one order on one worker, the other on the next.
bool OrdersMayCross(const ProblemTables& tables);

/// Depth first, children by bound; ends at `share` of the budget.
TreeResult SearchTree(const ProblemTables& tables, double known_s, double share,
                      SearchBudget* budget);

/// The best `width` of each level, a level a task.
std::vector<TaskPlacement> BeamPlacements(const ProblemTables& tables, int32_t width, double share,
                                          SearchBudget* budget, double* makespan_s);

}  // namespace halo
