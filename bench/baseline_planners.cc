#include "bench/baseline_planners.h"

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "base/check.h"
#include "base/random.h"
#include "optimizer/planners/local_search.h"
#include "optimizer/planners/problem_tables.h"

namespace halo {
namespace {

using Sequence = std::vector<SequencedShard>;

/// A worker as the rules see it: what was put there, not when it runs.
struct Loaded {
  double work_s = 0.0;
  int32_t calls = 0;
  ResidentIndex last = kNoResident;
};

class Baselines {
 public:
  Baselines(const ProblemTables& tables, uint64_t seed)
      : tables_(tables),
        problem_(tables.problem()),
        random_(seed),
        loaded_(static_cast<size_t>(tables.worker_count())),
        place_(problem_.tasks.size(), -1) {
    for (size_t w = 0; w < loaded_.size(); ++w) {
      for (const ResidentIndex model : problem_.workers[w].resident) loaded_[w].last = model;
    }
  }

  Sequence Greedy() {
    return InOrder(tables_.calls(), [this](TaskIndex call) {
      return Least(call, [&](WorkerIndex w) {
        return Work(call, w) + Load(call, w) + 2.0 * loaded_[w].calls;
      });
    });
  }

  Sequence MinSwitch() {
    return InOrder(tables_.calls(), [this](TaskIndex call) {
      const ResidentIndex model = problem_.tasks[call].model;
      WorkerIndex w = LeastLoaded(call, [&](WorkerIndex o) { return loaded_[o].last == model; });
      if (w < 0) w = LeastLoaded(call, [&](WorkerIndex o) { return loaded_[o].last < 0; });
      return w < 0 ? NextInTurn(call) : w;
    });
  }

  Sequence RoundRobin() {
    return InOrder(tables_.calls(), [this](TaskIndex call) { return NextInTurn(call); });
  }

  /// `order`: by level, longest first.
  Sequence Levels(const std::vector<TaskIndex>& order) {
    return InOrder(order, [this](TaskIndex call) { return LeastLoaded(call); });
  }

  Sequence ColocateParents() {
    return InOrder(tables_.calls(), [this](TaskIndex call) {
      for (const TaskDependency& need : problem_.tasks[call].parents) {
        TaskIndex parent = need.parent;
        while (tables_.is_tool(parent) && !problem_.tasks[parent].parents.empty()) {
          parent = problem_.tasks[parent].parents[0].parent;
        }
        if (place_[parent] >= 0 && Able(call, place_[parent])) return place_[parent];
      }
      return LeastLoaded(call);
    });
  }

  Sequence DataParallel() {
    Sequence sequence;
    for (const TaskIndex call : tables_.calls()) {
      const int32_t shards = tables_.most_shards(call);
      int32_t left = shards;
      for (WorkerIndex w = 0; w < tables_.worker_count() && left > 0; ++w) {
        if (tables_.duration_s(call, shards, w) == kNever) continue;
        sequence.push_back({call, w});
        --left;
      }
    }
    return sequence;
  }

  Sequence Random() {
    std::vector<TaskIndex> order;
    std::vector<int32_t> waits(problem_.tasks.size());
    std::vector<TaskIndex> ready;
    for (TaskIndex task = 0; task < tables_.task_count(); ++task) {
      waits[task] = static_cast<int32_t>(problem_.tasks[task].parents.size());
      if (waits[task] == 0) ready.push_back(task);
    }
    while (!ready.empty()) {
      const size_t chosen = random_.Below(ready.size());
      const TaskIndex task = ready[chosen];
      ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(chosen));
      if (!tables_.is_tool(task)) order.push_back(task);
      for (const ProblemTables::Child& child : tables_.children(task)) {
        if (--waits[child.task] == 0) ready.push_back(child.task);
      }
    }
    return InOrder(order, [this](TaskIndex call) {
      std::vector<WorkerIndex> able;
      for (WorkerIndex w = 0; w < tables_.worker_count(); ++w) {
        if (Able(call, w)) able.push_back(w);
      }
      return able[random_.Below(able.size())];
    });
  }

 private:
  double Work(TaskIndex call, WorkerIndex w) const { return tables_.duration_s(call, 1, w); }
  bool Able(TaskIndex call, WorkerIndex w) const { return Work(call, w) < kNever; }
  double Load(TaskIndex call, WorkerIndex w) const {
    const ResidentIndex model = problem_.tasks[call].model;
    return loaded_[w].last == model ? 0.0 : problem_.models[model].load_s[w];
  }

  WorkerIndex Least(TaskIndex call, const std::function<double(WorkerIndex)>& cost,
                    const std::function<bool(WorkerIndex)>& allowed = nullptr) const {
    WorkerIndex best = -1;
    for (WorkerIndex w = 0; w < tables_.worker_count(); ++w) {
      if (!Able(call, w) || (allowed && !allowed(w))) continue;
      if (best < 0 || cost(w) < cost(best)) best = w;
    }
    return best;
  }

  WorkerIndex LeastLoaded(TaskIndex call,
                          const std::function<bool(WorkerIndex)>& allowed = nullptr) const {
    return Least(
        call, [this](WorkerIndex w) { return loaded_[w].work_s; }, allowed);
  }

  WorkerIndex NextInTurn(TaskIndex call) {
    while (true) {
      const WorkerIndex w = turn_++ % tables_.worker_count();
      if (Able(call, w)) return w;
    }
  }

  Sequence InOrder(const std::vector<TaskIndex>& order,
                   const std::function<WorkerIndex(TaskIndex)>& choose) {
    Sequence sequence;
    for (const TaskIndex call : order) {
      const WorkerIndex w = choose(call);
      loaded_[w].work_s += Work(call, w) + Load(call, w);
      loaded_[w].last = problem_.tasks[call].model;
      ++loaded_[w].calls;
      place_[call] = w;
      sequence.push_back({call, w});
    }
    return sequence;
  }

  const ProblemTables& tables_;
  const SchedulingProblem& problem_;
  RandomStream random_;
  std::vector<Loaded> loaded_;
  std::vector<WorkerIndex> place_;
  int32_t turn_ = 0;
};

std::vector<int32_t> LevelsOf(const ProblemTables& tables) {
  std::vector<int32_t> level(static_cast<size_t>(tables.task_count()), 0);
  for (TaskIndex task = 0; task < tables.task_count(); ++task) {
    for (const ProblemTables::Child& child : tables.children(task)) {
      level[child.task] = std::max(level[child.task], level[task] + (tables.is_tool(task) ? 0 : 1));
    }
  }
  return level;
}

/// `after` waits for all of `before`. Makes the times of a schedule later, and no schedule wrong.
void AddBarrier(TaskIndex before, TaskIndex after, SchedulingProblem* problem) {
  for (TaskDependency& need : problem->tasks[after].parents) {
    if (need.parent == before) {
      need.lag = 1.0;
      return;
    }
  }
  problem->tasks[after].parents.push_back({before, 1.0});
}

}  // namespace

std::vector<std::string> BaselineNames() {
  return {"greedy",           "minswitch",     "round-robin", "levels",
          "colocate-parents", "data-parallel", "opwise",      "random"};
}

Schedule PlanByBaseline(const std::string& name, const SchedulingProblem& problem, uint64_t seed) {
  const ProblemTables tables(problem);
  Baselines rules(tables, seed);
  SchedulingProblem held_back = problem;  // with the rule's barriers as dependencies
  Sequence sequence;
  if (name == "greedy") sequence = rules.Greedy();
  if (name == "minswitch") sequence = rules.MinSwitch();
  if (name == "round-robin") sequence = rules.RoundRobin();
  if (name == "colocate-parents") sequence = rules.ColocateParents();
  if (name == "data-parallel" || name == "opwise") sequence = rules.DataParallel();
  if (name == "random") sequence = rules.Random();
  if (name == "opwise") {
    for (size_t i = 1; i < tables.calls().size(); ++i) {
      AddBarrier(tables.calls()[i - 1], tables.calls()[i], &held_back);
    }
  }
  if (name == "levels") {
    const std::vector<int32_t> level = LevelsOf(tables);
    std::vector<TaskIndex> order = tables.calls();
    std::stable_sort(order.begin(), order.end(), [&](TaskIndex a, TaskIndex b) {
      return level[a] != level[b] ? level[a] < level[b] : tables.least_s(a) > tables.least_s(b);
    });
    sequence = rules.Levels(order);
    for (const TaskIndex before : order) {
      for (const TaskIndex after : order) {
        if (level[before] + 1 == level[after]) AddBarrier(before, after, &held_back);
      }
    }
  }
  HALO_CHECK(!sequence.empty() || tables.calls().empty(), "a baseline that there is");
  const ProblemTables held_back_tables(held_back);
  return SequenceTimer(held_back_tables).Build(sequence, name);
}

}  // namespace halo
