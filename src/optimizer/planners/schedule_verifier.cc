#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <vector>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {
namespace {

/// The checks of FaultOf, in the order in which they lean on each other. Each returns "" or the
/// fault.
class ScheduleVerifier {
 public:
  ScheduleVerifier(const SchedulingProblem& problem, const Schedule& schedule)
      : problem_(problem),
        schedule_(schedule),
        rounding_s_(1e-7 * std::max(1e-3, schedule.makespan_s)),
        of_task_(problem.tasks.size()) {}

  std::string Fault() {
    std::string fault = IndexFault();
    if (fault.empty()) fault = ShardFault();
    if (fault.empty()) fault = WorkerFault();
    if (fault.empty()) fault = DurationFault();
    if (fault.empty()) fault = OrderFault();
    if (fault.empty()) fault = TotalFault();
    return fault;
  }

 private:
  std::string Name(TaskIndex task) const {
    return "task " + std::to_string(task) + " (" + problem_.tasks[task].name + ")";
  }
  std::string Name(const PlacedShard& shard) const {
    return Name(shard.task) + " shard " + std::to_string(shard.shard) + " on worker " +
           std::to_string(shard.worker);
  }
  bool Before(double time, double other) const { return time < other - rounding_s_; }
  bool Differ(double time, double other) const { return std::abs(time - other) > rounding_s_; }

  std::string IndexFault() {
    if (schedule_.tool_start_s.size() != problem_.tasks.size()) return "tool_start_s: one a task";
    const PlacedShard* before = nullptr;
    for (const PlacedShard& shard : schedule_.shards) {
      if (shard.task < 0 || static_cast<size_t>(shard.task) >= problem_.tasks.size()) {
        return "a shard of a task that there is not: " + std::to_string(shard.task);
      }
      if (shard.worker < 0 || static_cast<size_t>(shard.worker) >= problem_.workers.size()) {
        return Name(shard.task) + ": no such worker: " + std::to_string(shard.worker);
      }
      if (!std::isfinite(shard.start_s) || !std::isfinite(shard.end_s)) {
        return Name(shard) + ": its times are not numbers";
      }
      if (before != nullptr &&
          (shard.worker < before->worker ||
           (shard.worker == before->worker && shard.start_s < before->start_s))) {
        return Name(shard) + ": shards do not stand by worker and start";
      }
      before = &shard;
      of_task_[shard.task].push_back(&shard);
    }
    return "";
  }

  std::string ShardFault() const {
    for (TaskIndex task = 0; static_cast<size_t>(task) < of_task_.size(); ++task) {
      const std::vector<const PlacedShard*>& shards = of_task_[task];
      if (problem_.tasks[task].model == kNoResident) {
        if (!shards.empty()) return Name(task) + ": a tool needs no worker";
        continue;
      }
      if (shards.empty()) return Name(task) + ": not placed";
      if (shards.size() > problem_.tasks[task].work_s.size()) {
        return Name(task) + ": in more shards than it may be";
      }
      std::set<int32_t> numbers;
      std::set<WorkerIndex> workers;
      for (const PlacedShard* shard : shards) {
        if (static_cast<size_t>(shard->shards) != shards.size()) {
          return Name(*shard) + ": says that there are " + std::to_string(shard->shards) + " of " +
                 std::to_string(shards.size());
        }
        if (shard->shard < 0 || shard->shard >= shard->shards ||
            !numbers.insert(shard->shard).second) {
          return Name(*shard) + ": not every share once";
        }
        if (!workers.insert(shard->worker).second) return Name(*shard) + ": two on one worker";
      }
    }
    return "";
  }

  /// Replays each worker: one thing at a time, residency, loads, memory.
  std::string WorkerFault() const {
    size_t next = 0;
    for (WorkerIndex worker = 0; static_cast<size_t>(worker) < problem_.workers.size(); ++worker) {
      const PlannedWorker& machine = problem_.workers[worker];
      std::set<ResidentIndex> held(machine.resident.begin(), machine.resident.end());
      double free_s = 0.0;
      for (; next < schedule_.shards.size() && schedule_.shards[next].worker == worker; ++next) {
        const PlacedShard& shard = schedule_.shards[next];
        const SchedulingTask& task = problem_.tasks[shard.task];
        for (const ResidentIndex model : shard.dropped) {
          if (held.erase(model) == 0) return Name(shard) + ": drops what is not resident";
        }
        const double load_s =
            held.contains(task.model) ? 0.0 : problem_.models[task.model].load_s[worker];
        if (Differ(shard.load_s, load_s)) {
          return Name(shard) + ": loads for " + std::to_string(shard.load_s) + " s, not " +
                 std::to_string(load_s);
        }
        held.insert(task.model);
        int64_t bytes = task.kv_bytes[worker];
        for (const ResidentIndex model : held)
          bytes += problem_.models[model].weights_bytes[worker];
        if (bytes > machine.memory_bytes) {
          return Name(shard) + ": needs " + std::to_string(bytes) + " bytes of " +
                 std::to_string(machine.memory_bytes);
        }
        if (Before(shard.start_s - load_s, free_s)) return Name(shard) + ": the worker is busy";
        free_s = shard.end_s;
      }
    }
    return "";
  }

  bool FindsKv(const PlacedShard& shard) const {
    const TaskIndex source = problem_.tasks[shard.task].kv_source;
    if (source < 0) return false;
    return std::any_of(of_task_[source].begin(), of_task_[source].end(), [&](const auto* other) {
      return other->worker == shard.worker && other->shard == shard.shard &&
             other->shards == shard.shards;
    });
  }

  std::string DurationFault() const {
    for (const PlacedShard& shard : schedule_.shards) {
      const SchedulingTask& task = problem_.tasks[shard.task];
      if (shard.takes_kv && !FindsKv(shard)) return Name(shard) + ": there is no KV to take";
      double duration = task.work_s[static_cast<size_t>(shard.shards) - 1][shard.worker];
      if (shard.takes_kv) duration -= task.kv_saved_s[shard.worker] / shard.shards;
      if (!std::isfinite(duration)) return Name(shard) + ": the worker cannot run it";
      if (Differ(shard.end_s - shard.start_s, duration)) {
        return Name(shard) + ": takes " + std::to_string(shard.end_s - shard.start_s) + " s, not " +
               std::to_string(duration);
      }
    }
    return "";
  }

  struct Span {
    double start_s, end_s;
  };
  std::vector<Span> SpansOf(TaskIndex task) const {
    if (problem_.tasks[task].model == kNoResident) {
      const double start = schedule_.tool_start_s[task];
      return {{start, start + problem_.tasks[task].tool_s}};
    }
    std::vector<Span> spans;
    for (const PlacedShard* shard : of_task_[task]) spans.push_back({shard->start_s, shard->end_s});
    return spans;
  }

  std::string OrderFault() const {
    for (TaskIndex task = 0; static_cast<size_t>(task) < of_task_.size(); ++task) {
      const bool is_tool = problem_.tasks[task].model == kNoResident;
      for (const Span& span : SpansOf(task)) {
        const double duration = span.end_s - span.start_s;
        double allowed = 0.0;
        for (const TaskDependency& need : problem_.tasks[task].parents) {
          for (const Span& parent : SpansOf(need.parent)) {
            allowed =
                std::max({allowed, parent.start_s + need.lag * (parent.end_s - parent.start_s),
                          parent.end_s + need.lag * duration - duration});
          }
        }
        if (Before(span.start_s, allowed)) {
          return Name(task) + ": begins at " + std::to_string(span.start_s) +
                 " s; its parents allow " + std::to_string(allowed);
        }
        if (is_tool && Differ(span.start_s, allowed)) {
          return Name(task) + ": a tool begins when it may, at " + std::to_string(allowed) + " s";
        }
      }
    }
    return "";
  }

  std::string TotalFault() const {
    double last = 0.0;
    for (TaskIndex task = 0; static_cast<size_t>(task) < of_task_.size(); ++task) {
      for (const Span& span : SpansOf(task)) last = std::max(last, span.end_s);
    }
    if (Differ(last, schedule_.makespan_s)) {
      return "the makespan is " + std::to_string(last) + " s, not " +
             std::to_string(schedule_.makespan_s);
    }
    if (Before(schedule_.makespan_s, schedule_.lower_bound_s)) {
      return "the schedule is shorter than its lower bound";
    }
    if (schedule_.proved_optimal && Before(schedule_.lower_bound_s, schedule_.makespan_s)) {
      return "called optimal, but the lower bound does not say so";
    }
    return "";
  }

  const SchedulingProblem& problem_;
  const Schedule& schedule_;
  const double rounding_s_;
  std::vector<std::vector<const PlacedShard*>> of_task_;
};

}  // namespace

std::string FaultOf(const SchedulingProblem& problem, const Schedule& schedule) {
  return ScheduleVerifier(problem, schedule).Fault();
}

}  // namespace halo
