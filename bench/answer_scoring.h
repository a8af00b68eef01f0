#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halo::bench {

/// One thing that is checked of a row's answers. `outputs`: every operator's answer by its id (an
/// operator without one is absent or null, and what needs it does not hold); `expected`: what is
/// true of the row. Throws std::runtime_error if `expected` lacks what is needed to judge.
struct Criterion {
  std::string name;
  bool in_task = false;  ///< a row's task is solved if all criteria of the task hold
  std::function<bool(const nlohmann::json& outputs, const nlohmann::json& expected)> holds;
};

/// What the answers of a shipped workflow are judged by; `workflow` is its file's stem. Reads the
/// forms in which the demo model has learned to answer ("Answer: no.", "Verdict: wait.").
///   customer_messages         expected: product, problem, sentiment, urgency, escalated_by
///   review_extraction_3step   expected: product, months_used, praised, criticized, buys_again
///   multi_turn                expected: topic
///   the others                nothing expected: do later answers follow from the earlier ones?
/// Throws std::invalid_argument for a workflow without criteria.
std::vector<Criterion> CriteriaOf(const std::string& workflow);

/// Whether each criterion holds; before them, whether the task is solved.
std::vector<bool> Score(const std::vector<Criterion>& criteria, const nlohmann::json& outputs,
                        const nlohmann::json& expected);

}  // namespace halo::bench
