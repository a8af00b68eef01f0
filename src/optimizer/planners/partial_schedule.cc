#include "optimizer/planners/partial_schedule.h"

#include <algorithm>
#include <bit>
#include <numeric>
#include <utility>

#include "base/check.h"

namespace halo {
namespace {

uint64_t Mix(uint64_t value) {  // the finalizer of splitmix64
  value += 0x9e3779b97f4a7c15u;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
  return value ^ (value >> 31);
}

/// In order: Add(a), Add(b) is not Add(b), Add(a).
void Add(StateKey* key, uint64_t value) {
  key->low = Mix(key->low ^ value);
  key->high = Mix(key->high + (value ^ 0x5851f42d4c957f2du) * 0xd6e8feb86659fd93u);
}

}  // namespace

PartialSchedule::PartialSchedule(const ProblemTables& tables)
    : tables_(&tables), words_((static_cast<size_t>(tables.worker_count()) + 63) / 64) {
  const SchedulingProblem& problem = tables.problem();
  const size_t tasks = problem.tasks.size();
  free_s_.assign(problem.workers.size(), 0.0);
  for (WorkerIndex w = 0; w < tables.worker_count(); ++w) {
    residents_.push_back(tables.first_residents(w));
  }
  release_s_.assign(tasks, 0.0);
  end_s_.assign(tasks, 0.0);
  tool_start_s_.assign(tasks, 0.0);
  shards_.assign(tasks, 0);
  shards_left_.assign(tasks, -1);
  placed_on_.assign(tasks * words_, 0);
  calls_left_.assign(problem.models.size(), 0);
  tasks_left_ = tables.task_count();
  for (TaskIndex task = 0; task < tables.task_count(); ++task) {
    waits_for_.push_back(static_cast<int32_t>(problem.tasks[task].parents.size()));
    children_left_.push_back(static_cast<int32_t>(tables.children(task).size()));
    if (!tables.is_tool(task)) ++calls_left_[problem.tasks[task].model];
  }
  for (TaskIndex task = 0; task < tables.task_count(); ++task) {
    if (tables.is_tool(task) && problem.tasks[task].parents.empty()) Complete(task);
  }
}

double PartialSchedule::DurationOf(TaskIndex task, int32_t shards, WorkerIndex worker,
                                   bool* takes_kv) const {
  const TaskIndex source = tables_->problem().tasks[task].kv_source;
  *takes_kv = source >= 0 && shards_[source] == shards && IsOn(source, worker);
  return tables_->duration_s(task, shards, worker) -
         (*takes_kv ? tables_->saved_s(task, shards, worker) : 0.0);
}

PartialSchedule::Times PartialSchedule::TimesOf(TaskIndex task, int32_t shards,
                                                WorkerIndex worker) const {
  const SchedulingTask& asked = tables_->problem().tasks[task];
  Times times;
  const double duration = DurationOf(task, shards, worker, &times.takes_kv);
  if ((residents_[worker] >> asked.model & 1) == 0) {
    times.load_s = tables_->problem().models[asked.model].load_s[worker];
  }
  times.start_s = std::max(free_s_[worker] + times.load_s, release_s_[task]);
  for (const TaskDependency& need : asked.parents) {
    times.start_s = std::max(times.start_s, end_s_[need.parent] - (1.0 - need.lag) * duration);
  }
  times.end_s = times.start_s + duration;
  return times;
}

bool PartialSchedule::FitsWithout(TaskIndex task, WorkerIndex worker, uint64_t drops) const {
  const SchedulingTask& asked = tables_->problem().tasks[task];
  return tables_->fits((residents_[worker] & ~drops) | uint64_t{1} << asked.model, worker,
                       asked.kv_bytes[worker]);
}

PartialSchedule::Times PartialSchedule::Place(TaskIndex task, int32_t shards, WorkerIndex worker,
                                              uint64_t drops) {
  const Times times = TimesOf(task, shards, worker);
  const ResidentIndex model = tables_->problem().tasks[task].model;
  residents_[worker] = (residents_[worker] & ~drops) | uint64_t{1} << model;
  free_s_[worker] = times.end_s;
  if (shards_left_[task] < 0) {
    shards_[task] = shards_left_[task] = shards;
    --calls_left_[model];
  }
  placed_on_[task * words_ + worker / 64] |= uint64_t{1} << (worker % 64);
  end_s_[task] = std::max(end_s_[task], times.end_s);
  makespan_s_ = std::max(makespan_s_, times.end_s);
  const double duration = times.end_s - times.start_s;
  for (const ProblemTables::Child& child : tables_->children(task)) {
    release_s_[child.task] = std::max(release_s_[child.task], times.start_s + child.lag * duration);
  }
  if (--shards_left_[task] == 0) Complete(task);
  return times;
}

void PartialSchedule::Place(const TaskPlacement& placement) {
  const int32_t shards = static_cast<int32_t>(placement.workers.size());
  for (size_t i = 0; i < placement.workers.size(); ++i) {
    Place(placement.task, shards, placement.workers[i], placement.drops[i]);
  }
}

// The recursion is as deep as a chain of tools is long.
void PartialSchedule::Complete(TaskIndex task) {
  const SchedulingProblem& problem = tables_->problem();
  if (tables_->is_tool(task)) {
    const double duration = problem.tasks[task].tool_s;
    double start = release_s_[task];
    for (const TaskDependency& need : problem.tasks[task].parents) {
      start = std::max(start, end_s_[need.parent] - (1.0 - need.lag) * duration);
    }
    tool_start_s_[task] = start;
    end_s_[task] = start + duration;
    makespan_s_ = std::max(makespan_s_, end_s_[task]);
    shards_[task] = 1;
    shards_left_[task] = 0;
    for (const ProblemTables::Child& child : tables_->children(task)) {
      release_s_[child.task] = std::max(release_s_[child.task], start + child.lag * duration);
    }
  }
  --tasks_left_;
  for (const TaskDependency& need : problem.tasks[task].parents) --children_left_[need.parent];
  for (const ProblemTables::Child& child : tables_->children(task)) {
    if (--waits_for_[child.task] == 0 && tables_->is_tool(child.task)) Complete(child.task);
  }
}

// Proof that LowerBound() holds for every completion, by what a completion must do:
//
// Chains. By induction in topological order, start[t] is at most the start of any shard of t and
// end[t] at most the end of the latest one. What is placed has its own times. For the rest, a shard
// on worker w of a task in k shards begins after free(w), after the load of its model if that is
// not resident there now (nothing makes it resident but a load, after free(w)), and after what its
// parents' starts and ends demand, taken from their bounds and their least durations; its duration
// is at least work - saving. Ends for one w grow with each of these. The k shards are on k workers,
// so the latest of them ends no earlier than the k-th smallest over the workers. From there to the
// end of the schedule the static tails hold (ProblemTables::FillTails).
//
// Work. Let J be tasks not begun, a(w) = max(free(w), least start in J), q the least tail in J.
// Every shard of J runs on some worker w within [a(w), makespan - q]: workers do one thing at a
// time, so for any weights v(w) >= 0 the sum of v(w) * max(0, makespan - q - a(w)) is at least the
// sum over J of the least weighted work, and the smallest makespan for which that is so is a bound.
// With a(w) = free(w), the loads of models that J needs and that no worker holds fall into the
// window too, one of each at least.
double PartialSchedule::LowerBound() const {
  // Storage that outlives the call; a search asks millions of times.
  thread_local std::vector<double> start, end;
  return std::max({makespan_s_, BoundByChains(&start, &end), BoundByWork(start)});
}

double PartialSchedule::BoundByChains(std::vector<double>* start, std::vector<double>* end) const {
  const SchedulingProblem& problem = tables_->problem();
  thread_local std::vector<double> ends;
  start->assign(problem.tasks.size(), 0.0);
  end->assign(problem.tasks.size(), 0.0);
  double bound = 0.0;
  for (TaskIndex task = 0; task < tables_->task_count(); ++task) {
    if (shards_left_[task] >= 0) {
      (*end)[task] = end_s_[task];
      bound = std::max(bound, end_s_[task] + tables_->tail_s(task));
      continue;
    }
    const SchedulingTask& asked = problem.tasks[task];
    double release = release_s_[task];
    for (const TaskDependency& need : asked.parents) {
      if (shards_left_[need.parent] < 0) {
        release =
            std::max(release, (*start)[need.parent] + need.lag * tables_->least_s(need.parent));
      }
    }
    double first_start = kNever, last_end = kNever;
    const int32_t workers = tables_->is_tool(task) ? 1 : tables_->worker_count();
    for (int32_t shards = 1; shards <= tables_->most_shards(task); ++shards) {
      ends.clear();
      for (WorkerIndex worker = 0; worker < workers; ++worker) {
        double begin = release;
        double duration = asked.tool_s;
        if (!tables_->is_tool(task)) {
          duration = tables_->duration_s(task, shards, worker);
          if (duration == kNever) continue;
          duration -= tables_->saved_s(task, shards, worker);
          const bool resident = (residents_[worker] >> asked.model & 1) != 0;
          begin =
              std::max(begin, free_s_[worker] +
                                  (resident ? 0.0 : problem.models[asked.model].load_s[worker]));
        }
        for (const TaskDependency& need : asked.parents) {
          begin = std::max(begin, (*end)[need.parent] - (1.0 - need.lag) * duration);
        }
        first_start = std::min(first_start, begin);
        ends.push_back(begin + duration);
      }
      if (static_cast<int32_t>(ends.size()) < shards) continue;
      std::nth_element(ends.begin(), ends.begin() + shards - 1, ends.end());
      last_end = std::min(last_end, ends[shards - 1]);
    }
    (*start)[task] = first_start;
    (*end)[task] = last_end;
    bound =
        std::max({bound, first_start + tables_->rank_s(task), last_end + tables_->tail_s(task)});
  }
  return bound;
}

namespace {

/// The least T with sum of weight[w] * max(0, T - from[w]) >= work. `order`: workers by `from`.
double FillUp(const std::vector<double>& from, const std::vector<double>& weight,
              const std::vector<WorkerIndex>& order, double not_before, double work) {
  double level = not_before, width = 0.0;
  for (const WorkerIndex worker : order) {
    const double here = std::max(from[worker], not_before);
    if (width > 0.0) {
      const double room = width * (here - level);
      if (room >= work) return level + work / width;
      work -= room;
    }
    level = here;
    width += weight[worker];
  }
  return level + work / width;
}

}  // namespace

double PartialSchedule::BoundByWork(const std::vector<double>& start) const {
  thread_local std::vector<WorkerIndex> order;
  order.resize(free_s_.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<WorkerIndex>(i);
  std::sort(order.begin(), order.end(),
            [this](WorkerIndex a, WorkerIndex b) { return free_s_[a] < free_s_[b]; });
  uint64_t held = 0;
  for (const uint64_t residents : residents_) held |= residents;

  double bound = 0.0;
  for (size_t kind = 0; kind < tables_->weights().size(); ++kind) {
    const std::vector<double>& weight = tables_->weights()[kind];
    double work = 0.0, least_start = kNever, tail = 0.0;
    uint64_t loaded = held;
    double loads = 0.0;
    for (const TaskIndex task : tables_->calls_by_tail()) {  // J grows: q falls
      if (shards_left_[task] >= 0) continue;
      work += tables_->least_work(kind, task);
      least_start = std::min(least_start, start[task]);
      tail = tables_->tail_s(task);
      const ResidentIndex model = tables_->problem().tasks[task].model;
      if ((loaded >> model & 1) == 0) {
        loaded |= uint64_t{1} << model;
        loads += tables_->least_load(kind, model);
      }
      bound = std::max(bound, FillUp(free_s_, weight, order, least_start, work) + tail);
      if (loads > 0.0) {
        bound = std::max(bound, FillUp(free_s_, weight, order, 0.0, work + loads) + tail);
      }
    }
  }
  return bound;
}

bool PartialSchedule::Alike(WorkerIndex one, WorkerIndex other) const {
  if (tables_->worker_class(one) != tables_->worker_class(other) ||
      free_s_[one] != free_s_[other] || residents_[one] != residents_[other]) {
    return false;
  }
  return std::all_of(tables_->calls().begin(), tables_->calls().end(), [&](TaskIndex task) {
    return !tables_->is_kv_source(task) || shards_left_[task] < 0 || children_left_[task] == 0 ||
           IsOn(task, one) == IsOn(task, other);
  });
}

double PartialSchedule::TotalFree() const {
  return std::accumulate(free_s_.begin(), free_s_.end(), 0.0);
}

double PartialSchedule::WorkerContent(WorkerIndex worker, StateKey* content) const {
  *content = StateKey{};
  Add(content, static_cast<uint64_t>(tables_->worker_class(worker)));
  // Only a model that is still needed matters, and as something to be dropped it costs nothing.
  uint64_t needed = 0;
  for (uint64_t rest = residents_[worker]; rest != 0; rest &= rest - 1) {
    if (calls_left_[std::countr_zero(rest)] > 0) needed |= rest & (~rest + 1);
  }
  Add(content, needed);
  for (const TaskIndex task : tables_->calls()) {
    if (!tables_->is_kv_source(task) || shards_left_[task] < 0 || children_left_[task] == 0)
      continue;
    if (IsOn(task, worker)) {
      Add(content, static_cast<uint64_t>(task) << 32 | static_cast<uint64_t>(shards_[task]));
    }
  }
  return free_s_[worker];
}

StateKey PartialSchedule::KeyAndTimes(std::vector<double>* times) const {
  thread_local std::vector<std::pair<StateKey, double>> contents;
  times->clear();
  contents.clear();
  for (WorkerIndex worker = 0; worker < tables_->worker_count(); ++worker) {
    StateKey content;
    const double free = WorkerContent(worker, &content);
    contents.emplace_back(content, free);
  }
  std::sort(contents.begin(), contents.end(), [](const auto& a, const auto& b) {
    if (a.first.low != b.first.low) return a.first.low < b.first.low;
    if (a.first.high != b.first.high) return a.first.high < b.first.high;
    return a.second < b.second;
  });
  StateKey key;
  for (const auto& [content, free] : contents) {
    Add(&key, content.low);
    Add(&key, content.high);
    times->push_back(free);
  }
  for (TaskIndex task = 0; task < tables_->task_count(); ++task) {
    if (shards_left_[task] < 0) {
      times->push_back(release_s_[task]);
    } else {
      Add(&key, static_cast<uint64_t>(task));
      HALO_CHECK(shards_left_[task] == 0, "states are compared between tasks, not between shards");
      if (children_left_[task] > 0) times->push_back(end_s_[task]);
    }
  }
  times->push_back(makespan_s_);
  return key;
}

ScheduleBuilder::ScheduleBuilder(const ProblemTables& tables)
    : state_(tables), placed_(static_cast<size_t>(tables.worker_count())) {}

void ScheduleBuilder::Place(TaskIndex task, int32_t shards, WorkerIndex worker, uint64_t drops) {
  PlacedShard placed{.task = task, .shards = shards, .worker = worker};
  for (uint64_t rest = drops & state_.residents(worker); rest != 0; rest &= rest - 1) {
    placed.dropped.push_back(std::countr_zero(rest));
  }
  HALO_CHECK(state_.FitsWithout(task, worker, drops), "what is placed fits");
  const PartialSchedule::Times times = state_.Place(task, shards, worker, drops);
  placed.start_s = times.start_s;
  placed.end_s = times.end_s;
  placed.load_s = times.load_s;
  placed.takes_kv = times.takes_kv;
  placed_[worker].push_back(std::move(placed));
}

void ScheduleBuilder::Place(const TaskPlacement& placement) {
  const int32_t shards = static_cast<int32_t>(placement.workers.size());
  for (size_t i = 0; i < placement.workers.size(); ++i) {
    Place(placement.task, shards, placement.workers[i], placement.drops[i]);
  }
}

Schedule ScheduleBuilder::Finish(std::string planner) const {
  HALO_CHECK(state_.complete(), "every task is placed");
  Schedule schedule;
  schedule.planner = std::move(planner);
  for (const std::vector<PlacedShard>& on_worker : placed_) {
    schedule.shards.insert(schedule.shards.end(), on_worker.begin(), on_worker.end());
  }
  NumberShards(&schedule);
  const ProblemTables& tables = state_.tables();
  for (TaskIndex task = 0; task < tables.task_count(); ++task) {
    schedule.tool_start_s.push_back(tables.is_tool(task) ? state_.tool_start_s(task) : 0.0);
  }
  schedule.makespan_s = state_.makespan_s();
  return schedule;
}

void ScheduleBuilder::NumberShards(Schedule* schedule) const {
  const SchedulingProblem& problem = state_.tables().problem();
  std::vector<std::vector<PlacedShard*>> of_task(problem.tasks.size());
  for (PlacedShard& shard : schedule->shards) of_task[shard.task].push_back(&shard);
  for (size_t task = 0; task < of_task.size(); ++task) {  // sources come before
    std::vector<bool> taken(of_task[task].size(), false);
    for (PlacedShard* shard : of_task[task]) {
      shard->shard = -1;
      if (!shard->takes_kv) continue;
      for (const PlacedShard* source : of_task[problem.tasks[task].kv_source]) {
        if (source->worker == shard->worker) shard->shard = source->shard;
      }
      taken[shard->shard] = true;
    }
    int32_t next = 0;
    for (PlacedShard* shard : of_task[task]) {
      if (shard->shard >= 0) continue;
      while (taken[next]) ++next;
      shard->shard = next++;
    }
  }
}

}  // namespace halo
