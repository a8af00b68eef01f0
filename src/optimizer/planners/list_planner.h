#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "optimizer/planners/partial_schedule.h"
#include "optimizer/planners/planners.h"

namespace halo {

/// Says when a search has to end, by options. Reads the clock now and then only.
class SearchBudget {
 public:
  explicit SearchBudget(const PlannerOptions& options);
  /// Counts one state; false once the budget is spent.
  bool Spend();
  bool spent() const { return spent_; }
  int64_t states() const { return states_; }
  /// Whether less than `share` of it is used up.
  bool UsedLessThan(double share) const;

 private:
  double Now() const { return options_.now_s ? options_.now_s() : 0.0; }

  const PlannerOptions& options_;
  const double begin_s_;
  int64_t states_ = 0;
  bool spent_ = false;
};

/// What a task waits for on the way to the end, by the seconds that a typical worker takes: the
/// order in which list planners ask. Later first parents come after their parents.
std::vector<double> UpwardRank(const ProblemTables& tables);

/// How list scheduling decides; see ListPlacements.
struct ListRule {
  /// Seconds of the end that a worker-second, shared by all workers, is worth: how dear it is to
  /// share a task out, or to load a model once more.
  double area_weight = 1.0;
  /// Among the tasks that may be placed: below infinity, the one of least (start - rank_weight *
  /// rank).
  double rank_weight = kNever;
  /// How many of the highest rank are looked at.
  int32_t most_candidates = 16;
};

/// One schedule by `rule`, as decisions in order. `rank` orders the tasks that are ready. Counts
/// against `budget` but always finishes.
std::vector<TaskPlacement> ListPlacements(const ProblemTables& tables, const ListRule& rule,
                                          const std::vector<double>& rank, SearchBudget* budget,
                                          double* makespan_s);

/// The best over a table of rules.
std::vector<TaskPlacement> BestListPlacements(const ProblemTables& tables, SearchBudget* budget);

/// The best over rules and ranks that wander at random from the best ones so far, until `share` of
/// the budget is used. For problems of hundreds of calls, where a schedule costs more than a local
/// search could try of them.
std::vector<TaskPlacement> SearchedListPlacements(const ProblemTables& tables, double share,
                                                  SearchBudget* budget);

/// The models to drop for `task` to fit on the worker: those resident that are needed latest, by
/// `next_use(model)`, larger is later.
uint64_t DropsFor(const PartialSchedule& state, TaskIndex task, WorkerIndex worker,
                  const std::function<double(ResidentIndex)>& next_use);

/// Numbers of shards that are tried: all up to 8, then about a third more each.
std::vector<int32_t> ShardCounts(int32_t most);

}  // namespace halo
