#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "optimizer/optimizer.h"
#include "optimizer/revision.h"
#include "plan/physical_plan.h"
#include "runtime/executor.h"
#include "runtime/worker_placement.h"

namespace halo {

/// One time that the rest of a run was planned anew.
struct Replanning {
  int64_t at_us = 0;       ///< on the run's clock
  double at_s = 0.0;       ///< of elapsed
  double current_s = 0.0;  ///< predicted for the rest as it was planned
  double revised_s = 0.0;  ///< the same as it is planned now
  std::string why;
};

/// As people read it.
std::string TextOf(const Replanning& replanning);

/// Plans the rest of a run anew while it goes on. The first rows are the pilot: plans are made by
/// what earlier runs turned out to be, or by stated assumptions, and looked at again once an
/// operator has had 32, 64, 128 ... calls answered, as long as looking takes no more than a
/// hundredth of the time in between. On a virtual clock a look takes kOperatorUs an operator. An
/// operator's own calls count once there are kPilotCalls of them, and as many as run at once: short
/// answers end first. A revision is carried out where the rest is predicted to take more than a
/// tenth longer as it was planned (kWorthReplanning), by calls that are made from then on; what is
/// under way stays. Prompts never change: a layout is part of what is asked.
class Replanner {
 public:
  static constexpr int64_t kPilotCalls = 16;
  static constexpr int64_t kMostShareOfTime = 100;  ///< one in so many
  static constexpr int64_t kOperatorUs = 200;       ///< of a look, at least

  /// `sources` (their logical plans are changed), `history` and `clock` outlive it. `plan`: as it
  /// is carried out at first. `history`: of earlier runs; may be null.
  Replanner(const std::vector<OptimizerSource>& sources, const PhysicalPlan& plan,
            const OperatorHistory* history, OptimizerOptions options, const Clock& clock);

  /// Where the calls of a source run; changed by OnCheckpoint.
  const WorkerPlacement& placement(size_t source) const { return *placements_[source]; }
  /// ExecutorOptions::on_checkpoint. Looks at no plan whose rows are not known.
  void OnCheckpoint(const std::vector<OperatorCounts>& so_far);
  const std::vector<Replanning>& done() const { return done_; }
  /// Told of each. May be empty.
  std::function<void(const Replanning&)> on_replanning;

 private:
  OperatorHistory Observed(const std::vector<OperatorCounts>& so_far) const;
  bool Tells(size_t position, const OperatorCounts& counts) const;
  std::vector<double> Left(const std::vector<OperatorCounts>& so_far) const;
  void CarryOut(const PlanRevision& revision);

  const std::vector<OptimizerSource>& sources_;
  const OperatorHistory* history_;
  OptimizerOptions options_;
  const Clock& clock_;
  int64_t start_us_;
  int64_t looked_at_us_ = 0, looking_us_ = 0;  ///< the last time, and how long it took
  PhysicalPlan plan_;                          ///< as it is carried out now
  std::vector<std::unique_ptr<WorkerPlacement>> placements_;  // [sources]
  std::vector<Replanning> done_;
};

}  // namespace halo
