#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/random.h"
#include "optimizer/planners/list_planner.h"

namespace halo {

/// A shard in an order that a schedule can be built in.
struct SequencedShard {
  TaskIndex task = 0;
  WorkerIndex worker = 0;
};

/// Builds schedules from sequences alone: a task has as many shards as stand in the sequence, a
/// worker runs its own in the order in which they stand, and drops, where it must, what it needs
/// latest.
class SequenceTimer {
 public:
  explicit SequenceTimer(const ProblemTables& tables);
  /// kNever where a shard stands before one of a parent, or where its worker cannot run it. Stops
  /// early (any value above `give_up_s`) once the schedule is longer than that.
  double Makespan(const std::vector<SequencedShard>& sequence, double give_up_s = kNever);
  /// Of a sequence with a makespan below kNever.
  Schedule Build(const std::vector<SequencedShard>& sequence, const std::string& planner);

 private:
  void CountShards(const std::vector<SequencedShard>& sequence);
  uint64_t Drops(const PartialSchedule& state, const std::vector<SequencedShard>& sequence,
                 size_t place) const;

  const ProblemTables& tables_;
  const PartialSchedule empty_;
  PartialSchedule state_;
  std::vector<int32_t> shards_;  // [tasks]
};

/// The sequence of a schedule, by start.
std::vector<SequencedShard> SequenceOf(const ProblemTables& tables, const Schedule& schedule);

/// Improves a sequence: takes tasks out and puts them back, on other workers, in more or fewer
/// shards, at another place; moves single shards, so that two tasks may stand in one order on one
/// worker and in another on the next. First a descent, then annealed random moves, until `share` of
/// the budget is used or `floor_s` is reached. Deterministic but for a budget in time.
double ImproveSequence(const ProblemTables& tables, double floor_s, double share,
                       SearchBudget* budget, std::vector<SequencedShard>* sequence);

}  // namespace halo
