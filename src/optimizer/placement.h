#pragma once

#include <vector>

#include "optimizer/optimizer.h"
#include "optimizer/planners/scheduling_problem.h"

namespace halo {

/// The plan as the planners see it, and the way back.
struct ProblemOfPlan {
  SchedulingProblem problem;
  std::vector<size_t> operators;  ///< [tasks] position in PhysicalPlan::operators
};
/// Of the plan's estimates; workers and their memory as `options` say.
ProblemOfPlan MakeProblem(const std::vector<OptimizerSource>& sources,
                          const OptimizerOptions& options, const PhysicalPlan& plan);
/// Where a schedule has the operators.
std::vector<PlacedOperator> PlacementsOf(const ProblemOfPlan& made, const Schedule& schedule);

/// Puts the operators of `plan` onto workers and the clock by the planner that `options` names, and
/// fills workers, models, placements and totals. Costs are the plan's estimates.
void PlaceOperators(const std::vector<OptimizerSource>& sources, const OptimizerOptions& options,
                    PhysicalPlan& plan);

}  // namespace halo
