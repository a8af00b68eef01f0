#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "plan/physical_plan.h"

namespace halo {

/// Where a plan has the calls of one source run: which worker has which share of an operator's
/// rows. Shares are taken row by row in turn (row `i` belongs to share i modulo their number), so
/// that all workers of an operator have rows from the beginning, whatever the window; shares of two
/// operators that are equally many are of the same rows, so that KV is found where it was made.
class WorkerPlacement {
 public:
  static constexpr int32_t kNowhere = -1;

  WorkerPlacement(const PhysicalPlan& plan, size_t source);

  /// The worker of an operator, by its id, for a row; kNowhere where the plan does not say.
  int32_t WorkerOf(const std::string& operator_id, int64_t row_index) const;
  /// [plan models] on how many workers it runs.
  const std::vector<int32_t>& workers_of_model() const { return workers_of_model_; }

 private:
  std::unordered_map<std::string, std::vector<int32_t>> workers_;  // [shares] by operator
  std::vector<int32_t> workers_of_model_;
};

}  // namespace halo
