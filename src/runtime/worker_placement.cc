#include "runtime/worker_placement.h"

#include <set>

namespace halo {

WorkerPlacement::WorkerPlacement(const PhysicalPlan& plan, size_t source) {
  std::vector<std::vector<int32_t>> shares(plan.operators.size());
  for (const PlacedOperator& placed : plan.placements) {
    std::vector<int32_t>& of = shares[placed.op];
    of.resize(static_cast<size_t>(placed.shares), kNowhere);
    of[static_cast<size_t>(placed.share)] = placed.worker;
  }
  const LogicalPlan& logical = *plan.sources[source].plan;
  std::vector<std::set<int32_t>> of_model(logical.models.size());
  for (size_t i = 0; i < plan.operators.size(); ++i) {
    const PlannedOperator& planned = plan.operators[i];
    if (planned.source != source) continue;
    const LogicalNode& node = logical.at(planned.op);
    if (node.model == kNoModel) continue;
    // What is served by another one's calls goes where those go, should it make any.
    const size_t served_by = planned.same_as < 0 ? i : static_cast<size_t>(planned.same_as);
    if (shares[served_by].empty()) continue;
    std::set<int32_t>& workers = of_model[static_cast<size_t>(node.model)];
    workers.insert(shares[served_by].begin(), shares[served_by].end());
    workers_.emplace(logical.operator_of(planned.op).id, shares[served_by]);
  }
  for (const std::set<int32_t>& workers : of_model)
    workers_of_model_.push_back(static_cast<int32_t>(workers.size()));
}

int32_t WorkerPlacement::WorkerOf(const std::string& operator_id, int64_t row_index) const {
  const auto found = workers_.find(operator_id);
  if (found == workers_.end()) return kNowhere;
  const std::vector<int32_t>& shares = found->second;
  return shares[static_cast<size_t>(row_index) % shares.size()];
}

}  // namespace halo
