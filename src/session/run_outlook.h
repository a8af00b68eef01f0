#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "halo/session.h"
#include "plan/physical_plan.h"
#include "runtime/executor.h"

namespace halo {

/// What a run is expected to do, and so how far it is: fills Progress for the display.
///
/// The time that is left follows from the work that is left, in seconds of the engines: instances
/// that have not ended, times what those of their operator took so far; where none has ended, times
/// the tokens that the plan expects, at what a token took so far. Rows would say nothing until the
/// first of them comes out at the end of the workflow. Where no model is asked, every instance
/// counts alike.
class RunOutlook {
 public:
  /// `rows`: [sources] -1: not known.
  RunOutlook(const PhysicalPlan& plan, const std::vector<int64_t>& rows);

  /// `now_us`: on the run's clock. News are the caller's to add.
  Progress At(const RunProgress& run, int64_t now_us, double elapsed_s) const;

 private:
  struct Expected {
    std::string id;  ///< "": the operator is not run
    int64_t instances = -1;
    double tokens = 0.0;  ///< of an instance: computed for its prompt, and generated
  };

  double SecondsLeft(const std::vector<OperatorCounts>& operators, double elapsed_s) const;

  std::vector<Expected> expected_;  // [operators], as in RunProgress
  int64_t rows_total_ = 0;          // -1: not known
};

}  // namespace halo
