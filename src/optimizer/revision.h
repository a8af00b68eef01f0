#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optimizer/optimizer.h"

namespace halo {

/// A new plan for what is left of a run under way.
struct PlanRevision {
  double current_s = 0.0;  ///< predicted for the rest, as it is planned now
  double revised_s = 0.0;  ///< the same by this revision; never more than current_s
  std::vector<PlacedOperator> placements;
  std::vector<std::vector<int32_t>> orders;  ///< [sources][operators] LogicalNode::order
  std::string why;  ///< in a sentence: the estimate that is off by most seconds
};

/// Plans the rest of a run anew by what it has turned out to be so far: the same operators, other
/// workers and another order. What is running stays where it is; calls that are made from now on
/// follow the revision.
///
/// `current`: as it is carried out now, with the estimates that it was made with. `observed`: what
/// calls turned out to be, with earlier runs' records for operators that have hardly begun.
/// `left`: [plan operators] share of their instances that have not ended, 0 to 1. Both plans are
/// priced by the same estimates and carried out alike: each worker goes on with whatever can begin
/// first, ties by the operators' order. Pure.
PlanRevision Revise(const std::vector<OptimizerSource>& sources, const PhysicalPlan& current,
                    const OperatorHistory& observed, const std::vector<double>& left,
                    const OptimizerOptions& options);

/// A revision that predicts less than this is not worth the change (10 %).
inline constexpr double kWorthReplanning = 1.1;

}  // namespace halo
