#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

inline constexpr double kNever = std::numeric_limits<double>::infinity();

/// What every search asks of a problem again and again, worked out once. Refers to the problem,
/// which must outlive it.
class ProblemTables {
 public:
  struct Child {
    TaskIndex task;
    double lag;
  };

  explicit ProblemTables(const SchedulingProblem& problem);

  const SchedulingProblem& problem() const { return problem_; }
  int32_t task_count() const { return static_cast<int32_t>(problem_.tasks.size()); }
  int32_t worker_count() const { return static_cast<int32_t>(problem_.workers.size()); }
  bool is_tool(TaskIndex task) const { return problem_.tasks[task].model == kNoResident; }
  const std::vector<TaskIndex>& calls() const { return calls_; }  ///< tasks that are not tools
  const std::vector<Child>& children(TaskIndex task) const { return children_[task]; }
  /// The most shards for which there are enough workers; 1 for a tool.
  int32_t most_shards(TaskIndex task) const { return most_shards_[task]; }
  /// Of one of `shards` shares, without savings by KV; kNever where the worker cannot run it or has
  /// too little memory for the model and its KV alone. A tool's are its own on every worker.
  double duration_s(TaskIndex task, int32_t shards, WorkerIndex worker) const {
    return durations_[first_duration_[task] +
                      (static_cast<size_t>(shards) - 1) * problem_.workers.size() + worker];
  }
  double saved_s(TaskIndex task, int32_t shards, WorkerIndex worker) const {
    const SchedulingTask& asked = problem_.tasks[task];
    return asked.kv_source < 0 ? 0.0 : asked.kv_saved_s[worker] / shards;
  }
  /// Workers of the same class are equal in all but what a schedule has put on them.
  int32_t worker_class(WorkerIndex worker) const { return worker_class_[worker]; }
  /// Some task's kv_source.
  bool is_kv_source(TaskIndex task) const { return is_kv_source_[task]; }

  /// The shortest that a shard of the task can be.
  double least_s(TaskIndex task) const { return least_s_[task]; }
  /// The least worker-seconds that all shards of a call together take, those of worker w times
  /// weights()[kind][w].
  double least_work(size_t kind, TaskIndex task) const { return least_work_[kind][task]; }
  /// The least that a load of the model takes on a worker, weighted likewise.
  double least_load(size_t kind, ResidentIndex model) const { return least_load_[kind][model]; }
  const std::vector<TaskIndex>& calls_by_tail() const { return calls_by_tail_; }  ///< longest first
  /// From the end of any shard of the task to the end of the schedule, at least.
  double tail_s(TaskIndex task) const { return tail_s_[task]; }
  /// From the start of any shard of the task to the end of the schedule, at least.
  double rank_s(TaskIndex task) const { return rank_s_[task]; }
  /// Weights of workers under which the bound by work is good (it holds under any): all 1, and,
  /// where workers are unequal, how fast each is beside the best.
  const std::vector<std::vector<double>>& weights() const { return weights_; }

  bool fits(uint64_t residents, WorkerIndex worker, int64_t kv_bytes) const;
  uint64_t first_residents(WorkerIndex worker) const { return first_residents_[worker]; }

 private:
  void FillDurations();
  void FillClasses();
  void FillTails();
  void FillWeights();
  void FillWork();
  double LeastWork(TaskIndex task, const std::vector<double>& weight) const;

  const SchedulingProblem& problem_;
  std::vector<TaskIndex> calls_, calls_by_tail_;
  std::vector<std::vector<Child>> children_;
  std::vector<int32_t> most_shards_, worker_class_;
  std::vector<size_t> first_duration_;
  std::vector<double> durations_, least_s_, tail_s_, rank_s_;
  std::vector<bool> is_kv_source_;
  std::vector<std::vector<double>> weights_;
  std::vector<std::vector<double>> least_work_, least_load_;  // [kind][tasks], [kind][models]
  std::vector<uint64_t> first_residents_;
};

}  // namespace halo
