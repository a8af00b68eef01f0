#pragma once

#include <cstdint>
#include <string>

#include "model/vocabulary.h"
#include "plan/logical_plan.h"
#include "workflow/rows.h"

namespace halo {

/// Tokens of the longest prompt and answer that a run is likely to ask for, from the longest of its
/// first rows and the answers' limits. Only a hint: rows that turn out longer still run.
int64_t EstimateLongestRequest(const LogicalPlan& plan, const RowOptions& rows,
                               const std::string& column, const Vocabulary& vocabulary);

}  // namespace halo
