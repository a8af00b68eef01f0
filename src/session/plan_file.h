#pragma once

#include <set>
#include <string>
#include <vector>

#include "plan/logical_plan.h"
#include "plan/physical_plan.h"

namespace halo {

/// Carries out what a saved plan says (`explain --format json`) in place of the rules that would
/// decide it: layouts, what runs, what waits for what, the order of operators. `layouts_only`: as
/// the reference, which takes from a plan what prompts are made of and nothing else.
///
/// Throws Error(kUsage) naming `path` where it is no plan, or not one of these workflows: operators
/// that are missing or unknown, a layout where the workflow has written another, a wait that the
/// workflow does not know, an operator that is left out though an output needs it.
void ApplyPlanFile(const std::string& text, const std::string& path,
                   const std::vector<LogicalPlan*>& plans, bool layouts_only);

/// How many workers a saved plan is for, 1 to 1,024. Throws Error(kUsage) naming `path` where it
/// does not say.
int32_t WorkersOfPlanFile(const std::string& text, const std::string& path);

/// Puts the placements of a saved plan in place of those of `plan`, which is of the same workflows
/// (ApplyPlanFile). Throws Error(kUsage) naming `path` where they are for another number of
/// workers, are not one for each share of each operator that runs a model, or have impossible
/// times.
void ApplyPlacements(const std::string& text, const std::string& path, PhysicalPlan& plan);

/// The rules that a loaded plan takes the place of.
std::set<std::string> RulesOfPlanFiles();

}  // namespace halo
