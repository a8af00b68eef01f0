#include "optimizer/planners/scheduling_problem.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/check.h"
#include "optimizer/planners/partial_schedule.h"
#include "optimizer/planners/problem_tables.h"

namespace halo {
namespace {

bool IsTime(double seconds) { return std::isfinite(seconds) && seconds >= 0.0; }

void VerifyModels(const SchedulingProblem& problem) {
  HALO_CHECK(problem.models.size() <= 64, "sets of models have 64 bits");
  for (const ResidentModel& model : problem.models) {
    HALO_CHECK(model.load_s.size() == problem.workers.size(), "load_s: one a worker");
    HALO_CHECK(model.weights_bytes.size() == problem.workers.size(), "weights_bytes: one a worker");
    for (const double load : model.load_s) HALO_CHECK(IsTime(load), "a load takes a finite time");
    for (const int64_t bytes : model.weights_bytes) HALO_CHECK(bytes >= 0, "weights have a size");
  }
}

void VerifyWorkers(const SchedulingProblem& problem) {
  for (size_t index = 0; index < problem.workers.size(); ++index) {
    const PlannedWorker& worker = problem.workers[index];
    std::set<ResidentIndex> seen;
    int64_t bytes = 0;
    for (const ResidentIndex model : worker.resident) {
      HALO_CHECK(model >= 0 && static_cast<size_t>(model) < problem.models.size(),
                 "a resident is a model");
      HALO_CHECK(seen.insert(model).second, "a model is resident once");
      bytes += problem.models[model].weights_bytes[index];
    }
    HALO_CHECK(bytes <= worker.memory_bytes, "what is loaded at first fits");
  }
}

void VerifyParents(const SchedulingProblem& problem, size_t index) {
  const SchedulingTask& task = problem.tasks[index];
  std::set<TaskIndex> seen;
  bool source_is_parent = task.kv_source < 0;
  for (const TaskDependency& need : task.parents) {
    HALO_CHECK(need.parent >= 0 && static_cast<size_t>(need.parent) < index,
               "parents come earlier");
    HALO_CHECK(seen.insert(need.parent).second, "a parent is named once");
    HALO_CHECK(need.lag > 0.0 && need.lag <= 1.0, "a lag is a share of the parent");
    if (need.parent == task.kv_source) {
      source_is_parent = true;
      HALO_CHECK(problem.tasks[need.parent].model == task.model, "KV is of the same model");
    }
  }
  HALO_CHECK(source_is_parent, "kv_source is a parent");
}

void VerifyCall(const SchedulingProblem& problem, const SchedulingTask& task) {
  const size_t workers = problem.workers.size();
  HALO_CHECK(static_cast<size_t>(task.model) < problem.models.size(), "a model that there is");
  HALO_CHECK(!task.work_s.empty(), "work_s for one shard at least");
  HALO_CHECK(task.kv_bytes.size() == workers, "kv_bytes: one a worker");
  HALO_CHECK(task.kv_source < 0 || task.kv_saved_s.size() == workers, "kv_saved_s: one a worker");
  bool somewhere = false;
  for (size_t line = 0; line < task.work_s.size(); ++line) {
    HALO_CHECK(task.work_s[line].size() == workers, "work_s: one a worker");
    size_t able = 0;
    for (size_t worker = 0; worker < workers; ++worker) {
      const double work = task.work_s[line][worker];
      HALO_CHECK(!std::isnan(work) && work >= 0.0, "work takes a time, or is infinite");
      HALO_CHECK(task.kv_bytes[worker] >= 0, "KV has a size");
      if (task.kv_source >= 0 && std::isfinite(work)) {
        const double saved = task.kv_saved_s[worker] / static_cast<double>(line + 1);
        HALO_CHECK(saved >= 0.0 && saved < work, "KV saves a part of the work");
      }
      const int64_t bytes =
          problem.models[task.model].weights_bytes[worker] + task.kv_bytes[worker];
      if (std::isfinite(work) && bytes <= problem.workers[worker].memory_bytes) ++able;
    }
    if (able > line) somewhere = true;
  }
  HALO_CHECK(somewhere, "some number of workers can hold the task");
}

}  // namespace

void VerifyProblem(const SchedulingProblem& problem) {
  VerifyModels(problem);
  VerifyWorkers(problem);
  for (size_t index = 0; index < problem.tasks.size(); ++index) {
    const SchedulingTask& task = problem.tasks[index];
    VerifyParents(problem, index);
    if (task.model == kNoResident) {
      HALO_CHECK(IsTime(task.tool_s), "a tool takes a finite time");
      HALO_CHECK(task.kv_source < 0, "a tool has no KV");
    } else {
      HALO_CHECK(task.model >= 0, "a model or kNoResident");
      VerifyCall(problem, task);
    }
  }
}

double LowerBound(const SchedulingProblem& problem) {
  VerifyProblem(problem);
  const ProblemTables tables(problem);
  return PartialSchedule(tables).LowerBound();
}

}  // namespace halo
