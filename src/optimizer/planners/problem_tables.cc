#include "optimizer/planners/problem_tables.h"

#include <algorithm>
#include <bit>

namespace halo {

ProblemTables::ProblemTables(const SchedulingProblem& problem) : problem_(problem) {
  children_.resize(problem.tasks.size());
  is_kv_source_.resize(problem.tasks.size());
  for (TaskIndex task = 0; task < task_count(); ++task) {
    if (!is_tool(task)) calls_.push_back(task);
    for (const TaskDependency& need : problem.tasks[task].parents) {
      children_[need.parent].push_back({task, need.lag});
    }
    if (problem.tasks[task].kv_source >= 0) is_kv_source_[problem.tasks[task].kv_source] = true;
  }
  for (const PlannedWorker& worker : problem.workers) {
    uint64_t residents = 0;
    for (const ResidentIndex model : worker.resident) residents |= uint64_t{1} << model;
    first_residents_.push_back(residents);
  }
  FillDurations();
  FillClasses();
  FillTails();
  FillWeights();
  FillWork();
}

void ProblemTables::FillDurations() {
  const int32_t workers = worker_count();
  for (const SchedulingTask& task : problem_.tasks) {
    const TaskIndex index = static_cast<TaskIndex>(first_duration_.size());
    first_duration_.push_back(durations_.size());
    const int32_t lines = is_tool(index) ? 1 : static_cast<int32_t>(task.work_s.size());
    double least = kNever;
    most_shards_.push_back(1);
    for (int32_t shards = 1; shards <= std::min(lines, std::max(workers, 1)); ++shards) {
      int32_t able = 0;
      for (WorkerIndex worker = 0; worker < workers; ++worker) {
        double duration = task.tool_s;
        if (!is_tool(index)) {
          duration = task.work_s[shards - 1][worker];
          if (!fits(uint64_t{1} << task.model, worker, task.kv_bytes[worker])) duration = kNever;
        }
        durations_.push_back(duration);
        if (duration < kNever) ++able;
      }
      if (able < shards) continue;
      most_shards_[index] = shards;
      for (WorkerIndex worker = 0; worker < workers; ++worker) {
        least = std::min(least, duration_s(index, shards, worker) - saved_s(index, shards, worker));
      }
    }
    least_s_.push_back(is_tool(index) ? task.tool_s : least);
  }
}

void ProblemTables::FillClasses() {
  const auto equal = [this](WorkerIndex a, WorkerIndex b) {
    const PlannedWorker &one = problem_.workers[a], &other = problem_.workers[b];
    if (one.memory_bytes != other.memory_bytes || first_residents_[a] != first_residents_[b]) {
      return false;
    }
    for (const ResidentModel& model : problem_.models) {
      if (model.load_s[a] != model.load_s[b] || model.weights_bytes[a] != model.weights_bytes[b]) {
        return false;
      }
    }
    return std::all_of(problem_.tasks.begin(), problem_.tasks.end(), [&](const auto& task) {
      return task.model == kNoResident ||
             (task.kv_bytes[a] == task.kv_bytes[b] &&
              (task.kv_source < 0 || task.kv_saved_s[a] == task.kv_saved_s[b]) &&
              std::all_of(task.work_s.begin(), task.work_s.end(),
                          [&](const auto& line) { return line[a] == line[b]; }));
    });
  };
  for (WorkerIndex worker = 0; worker < worker_count(); ++worker) {
    worker_class_.push_back(worker);
    for (WorkerIndex before = 0; before < worker; ++before) {
      if (worker_class_[before] == before && equal(before, worker)) {
        worker_class_[worker] = before;
        break;
      }
    }
  }
}

// A child's shards end at least lag * (their duration) after each shard of the parent, and start at
// least lag * (the parent's duration) after its start; durations are at least least_s.
void ProblemTables::FillTails() {
  tail_s_.assign(problem_.tasks.size(), 0.0);
  rank_s_.assign(problem_.tasks.size(), 0.0);
  for (TaskIndex task = task_count() - 1; task >= 0; --task) {
    for (const Child& child : children_[task]) {
      tail_s_[task] =
          std::max(tail_s_[task], child.lag * least_s_[child.task] + tail_s_[child.task]);
    }
    rank_s_[task] = least_s_[task] + tail_s_[task];
    for (const Child& child : children_[task]) {
      rank_s_[task] = std::max(rank_s_[task], child.lag * least_s_[task] + rank_s_[child.task]);
    }
  }
}

double ProblemTables::LeastWork(TaskIndex task, const std::vector<double>& weight) const {
  double least = kNever;
  std::vector<double> seconds(static_cast<size_t>(worker_count()));
  for (int32_t shards = 1; shards <= most_shards_[task]; ++shards) {
    for (WorkerIndex worker = 0; worker < worker_count(); ++worker) {
      seconds[worker] =
          (duration_s(task, shards, worker) - saved_s(task, shards, worker)) * weight[worker];
    }
    std::partial_sort(seconds.begin(), seconds.begin() + shards, seconds.end());
    double sum = 0.0;
    for (int32_t i = 0; i < shards; ++i) sum += seconds[i];
    least = std::min(least, sum);
  }
  return least;
}

void ProblemTables::FillWeights() {
  const size_t workers = problem_.workers.size();
  weights_.push_back(std::vector<double>(workers, 1.0));
  if (std::all_of(worker_class_.begin(), worker_class_.end(),
                  [this](int32_t c) { return c == worker_class_[0]; })) {
    return;
  }
  std::vector<double> speed(workers, 0.0);
  for (WorkerIndex worker = 0; worker < worker_count(); ++worker) {
    double best = 0.0, here = 0.0;
    for (const TaskIndex task : calls_) {
      const double duration = duration_s(task, 1, worker);
      if (duration == kNever) continue;
      double least = duration;
      for (WorkerIndex other = 0; other < worker_count(); ++other) {
        least = std::min(least, duration_s(task, 1, other));
      }
      best += least;
      here += duration;
    }
    speed[worker] = best > 0.0 ? best / here : 1.0;
  }
  weights_.push_back(std::move(speed));
}

void ProblemTables::FillWork() {
  for (const std::vector<double>& weight : weights_) {
    std::vector<double>& work = least_work_.emplace_back(problem_.tasks.size(), 0.0);
    for (const TaskIndex task : calls_) work[task] = LeastWork(task, weight);
    std::vector<double>& load = least_load_.emplace_back(problem_.models.size(), kNever);
    for (size_t model = 0; model < problem_.models.size(); ++model) {
      for (WorkerIndex worker = 0; worker < worker_count(); ++worker) {
        load[model] = std::min(load[model], problem_.models[model].load_s[worker] * weight[worker]);
      }
    }
  }
  calls_by_tail_ = calls_;
  std::stable_sort(calls_by_tail_.begin(), calls_by_tail_.end(),
                   [this](TaskIndex a, TaskIndex b) { return tail_s_[a] > tail_s_[b]; });
}

bool ProblemTables::fits(uint64_t residents, WorkerIndex worker, int64_t kv_bytes) const {
  int64_t bytes = kv_bytes;
  for (uint64_t rest = residents; rest != 0; rest &= rest - 1) {
    bytes += problem_.models[std::countr_zero(rest)].weights_bytes[worker];
  }
  return bytes <= problem_.workers[worker].memory_bytes;
}

}  // namespace halo
