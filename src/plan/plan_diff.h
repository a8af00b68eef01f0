#pragma once

#include <string>

namespace halo {

/// What another plan of the same workflows decides otherwise, and what that is expected to cost, as
/// text: operator by operator, then rules, workers and totals. Both are JSON as ExplainJson writes
/// it; `before_name` is what the first is called. Estimates of single operators are left out.
///
/// Throws Error(kUsage) naming the plan that is none, or none of this version.
std::string DiffPlans(const std::string& before, const std::string& before_name,
                      const std::string& after);

}  // namespace halo
