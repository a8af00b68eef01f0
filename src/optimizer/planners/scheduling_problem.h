#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo {

/// Positions in SchedulingProblem.
using TaskIndex = int32_t;
using WorkerIndex = int32_t;
using ResidentIndex = int32_t;
inline constexpr ResidentIndex kNoResident = -1;

/// What a worker must hold to run a task: a model's weights.
struct ResidentModel {
  std::string name;
  std::vector<double> load_s;          ///< [workers] to load it; the worker does nothing else
  std::vector<int64_t> weights_bytes;  ///< [workers]
};

struct PlannedWorker {
  std::string name;
  int64_t memory_bytes = 0;
  std::vector<ResidentIndex> resident;  ///< loaded before time 0; they fit
};

/// A task waits for another. Rows flow from one operator to the next before the first has answered
/// all, in blocks: with `lag` = 1 / number of blocks the child may begin when the parent has done
/// its first block, and ends at least its own last block after the parent. 1: a barrier.
struct TaskDependency {
  TaskIndex parent = 0;
  double lag = 1.0;  ///< (0, 1]
};

/// One operator over all its rows.
struct SchedulingTask {
  std::string name;
  ResidentIndex model = kNoResident;    ///< kNoResident: a tool, which needs no worker
  std::vector<TaskDependency> parents;  ///< earlier tasks, each once
  /// Of a tool: seconds from its start to its end. It starts as soon as it may.
  double tool_s = 0.0;
  /// [shards - 1][workers] seconds that a worker needs for one of `shards` equal shares of the
  /// rows. One line: the task is not shared out. Infinite: this worker cannot run it.
  std::vector<std::vector<double>> work_s;
  std::vector<int64_t> kv_bytes;  ///< [workers] room for KV while it runs, beside the weights
  /// The task, one of `parents` and of the same model, whose KV this one's prompts begin with.
  /// -1: none.
  TaskIndex kv_source = -1;
  /// [workers] seconds that a share of the rows saves, times 1 / shards, if the same share of
  /// kv_source ran on the same worker (both with the same number of shards). Less than work_s.
  std::vector<double> kv_saved_s;
};

/// What the planners plan: place every task, whole or in equal shards, on workers, so that the last
/// one ends as early as possible (R | prec, setup, memory | C_max). Units: seconds, bytes.
///
/// - A worker does one thing at a time: a shard, or loading a model.
/// - The shards of a task run on different workers, as many as its work_s has lines at most.
/// - A shard runs only while its model is resident and weights of all residents and the shard's KV
///   fit into the worker's memory. Making room (dropping residents) costs nothing; a model dropped
///   must be loaded again. A load belongs to the shard that needs it: it comes between that shard
///   and the one before it on the worker, never earlier.
/// - Each shard of a child, duration d, keeps to each shard of a parent, duration p:
///     start >= start(parent) + lag * p   and   start + d >= end(parent) + lag * d.
///   A tool is one shard, and starts at the first time that this allows.
/// - KV counts by share: share i of a child finds the KV of share i of its kv_source, both of
/// equally
///   many, on the same worker, whatever ran there in between.
///
/// Times are finite and not negative; at most 64 models.
struct SchedulingProblem {
  std::vector<ResidentModel> models;
  std::vector<PlannedWorker> workers;
  std::vector<SchedulingTask> tasks;  ///< topological order
};

/// One share of a task on a worker. Before it the worker drops `dropped`, and, if the task's model
/// is not resident, loads it for `load_s` seconds, from start_s - load_s on at the latest.
struct PlacedShard {
  TaskIndex task = 0;
  int32_t shard = 0;  ///< which of `shards`
  int32_t shards = 1;
  WorkerIndex worker = 0;
  double start_s = 0.0, end_s = 0.0;
  double load_s = 0.0;
  std::vector<ResidentIndex> dropped;
  bool takes_kv = false;  ///< kv_saved_s applies
};

/// A solution. Shards by worker and, on each worker, in the order in which it runs them, so that
/// residency over time can be read off.
struct Schedule {
  std::vector<PlacedShard> shards;
  std::vector<double> tool_start_s;  ///< [tasks]; of tools; 0 of others
  double makespan_s = 0.0;
  /// No schedule is shorter than this, by what the planner that made it has proved.
  double lower_bound_s = 0.0;
  bool proved_optimal = false;  ///< makespan = lower bound, up to rounding
  std::string planner;
  int64_t states = 0;  ///< looked at
};

/// Throws by HALO_CHECK where the problem contradicts itself (indices, order, sizes of tables, a
/// task that no worker can hold).
void VerifyProblem(const SchedulingProblem& problem);

/// What is wrong with a schedule, in words; "" if it is one. Recomputes durations, order, loads and
/// memory from the problem alone, sharing no code with the planners. Times may be off by rounding
/// (1e-7 of the makespan).
std::string FaultOf(const SchedulingProblem& problem, const Schedule& schedule);

/// A bound that holds for every schedule: the largest of the longest chain (each task at its best
/// workers and number of shards, lags and first loads counted) and, for sets of tasks that can
/// neither begin early nor end late, the least total work over the workers. The proof is beside the
/// code.
double LowerBound(const SchedulingProblem& problem);

}  // namespace halo
