#pragma once

#include <vector>

#include "optimizer/optimizer.h"

namespace halo {

/// Puts the operators of `plan` onto workers and the clock by the planner that `options` names, and
/// fills workers, models, placements and totals. Costs are the plan's estimates.
void PlaceOperators(const std::vector<OptimizerSource>& sources, const OptimizerOptions& options,
                    PhysicalPlan& plan);

}  // namespace halo
