#pragma once

#include <cstdint>
#include <vector>

#include "optimizer/planners/problem_tables.h"

namespace halo {

/// One decision: the whole of a task, one shard on each of `workers`, after dropping `drops` there.
struct TaskPlacement {
  TaskIndex task = 0;
  std::vector<WorkerIndex> workers;
  std::vector<uint64_t> drops;  ///< [workers.size()] sets of models
};

/// Two states with equal keys differ in times alone. 128 bits, so that two that differ in more are
/// not taken for equal in any search that ends.
struct StateKey {
  uint64_t low = 0, high = 0;
  friend bool operator==(const StateKey&, const StateKey&) = default;
};

/// A schedule of some of the tasks, closed under parents: what list, beam, dp and the local search
/// grow shard by shard. Every shard begins as soon as its worker, its model's load and its parents
/// allow, and so does every tool once its parents are placed; since all constraints have the form
/// "not before another time plus a constant", and the makespan only grows with any end, no later
/// start can help. Copies are cheap into a state that has been used before (its storage is kept).
class PartialSchedule {
 public:
  struct Times {
    double start_s = 0.0, end_s = 0.0, load_s = 0.0;
    bool takes_kv = false;
  };

  explicit PartialSchedule(const ProblemTables& tables);

  bool can_place(TaskIndex task) const { return waits_for_[task] == 0 && shards_left_[task] < 0; }
  bool is_placed(TaskIndex task) const { return shards_left_[task] == 0; }
  bool parents_placed(TaskIndex task) const { return waits_for_[task] == 0; }
  bool complete() const { return tasks_left_ == 0; }
  double makespan_s() const { return makespan_s_; }
  double free_s(WorkerIndex worker) const { return free_s_[worker]; }
  uint64_t residents(WorkerIndex worker) const { return residents_[worker]; }
  double tool_start_s(TaskIndex task) const { return tool_start_s_[task]; }
  /// Tasks of the model of which no shard is placed yet.
  int32_t calls_left(ResidentIndex model) const { return calls_left_[model]; }
  /// Whether one worker may stand for the other in whatever comes.
  bool Alike(WorkerIndex one, WorkerIndex other) const;
  /// The sum of the times from which workers are free: less leaves more room.
  double TotalFree() const;

  /// When one of `shards` shares of a task whose parents are placed would run on `worker`, after
  /// what is there. kNever where it cannot.
  Times TimesOf(TaskIndex task, int32_t shards, WorkerIndex worker) const;
  /// Puts it there. Of a task's shards the first says how many there are.
  Times Place(TaskIndex task, int32_t shards, WorkerIndex worker, uint64_t drops);
  void Place(const TaskPlacement& placement);

  /// Whether `task` fits beside what is resident on the worker without these.
  bool FitsWithout(TaskIndex task, WorkerIndex worker, uint64_t drops) const;

  /// No completion of this is shorter. See the proof in the source.
  double LowerBound() const;

  /// What two states must share for their times to be comparable, and those times: of two states of
  /// equal key, the one with no time later can be completed as early as the other, by the same
  /// decisions. Workers of one class are put in an order of their contents, so that states which
  /// differ in the names of equal workers have one key.
  StateKey KeyAndTimes(std::vector<double>* times) const;

  const ProblemTables& tables() const { return *tables_; }

 private:
  double DurationOf(TaskIndex task, int32_t shards, WorkerIndex worker, bool* takes_kv) const;
  void Complete(TaskIndex task);
  bool IsOn(TaskIndex task, WorkerIndex worker) const {
    return (placed_on_[task * words_ + worker / 64] >> (worker % 64) & 1) != 0;
  }
  double BoundByChains(std::vector<double>* start, std::vector<double>* end) const;
  double BoundByWork(const std::vector<double>& start) const;
  double WorkerContent(WorkerIndex worker, StateKey* content) const;

  const ProblemTables* tables_;
  size_t words_;
  std::vector<double> free_s_;       // [workers]
  std::vector<uint64_t> residents_;  // [workers]
  // [tasks]
  std::vector<double> release_s_;     // by the starts of parents' shards
  std::vector<double> end_s_;         // of the latest shard placed
  std::vector<double> tool_start_s_;  // of tools placed
  std::vector<int32_t> waits_for_;    // parents not yet wholly placed
  std::vector<int32_t> shards_;       // 0: none placed yet
  std::vector<int32_t> shards_left_;  // -1: none placed yet
  std::vector<int32_t> children_left_;
  std::vector<uint64_t> placed_on_;  // [tasks][words_]
  std::vector<int32_t> calls_left_;  // [models]
  int32_t tasks_left_ = 0;
  double makespan_s_ = 0.0;
};

/// Grows a PartialSchedule and keeps what has been placed, to make a Schedule of it.
class ScheduleBuilder {
 public:
  explicit ScheduleBuilder(const ProblemTables& tables);
  const PartialSchedule& state() const { return state_; }
  /// The shard of its task on a worker has the number of its kv_source's shard there, where it has
  /// one.
  void Place(TaskIndex task, int32_t shards, WorkerIndex worker, uint64_t drops);
  void Place(const TaskPlacement& placement);
  /// Of a complete one.
  Schedule Finish(std::string planner) const;

 private:
  void NumberShards(Schedule* schedule) const;

  PartialSchedule state_;
  std::vector<std::vector<PlacedShard>> placed_;  // [workers], in order
};

}  // namespace halo
