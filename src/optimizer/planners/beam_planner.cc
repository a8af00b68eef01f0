#include <algorithm>
#include <bit>
#include <utility>

#include "optimizer/planners/dp_planner.h"

namespace halo {
namespace {

constexpr int32_t kMostWorkersInSubsets = 6;
constexpr int32_t kMostModelsInSubsets = 8;

/// The least sets of models to drop so that the task fits; first what nobody needs any more.
std::vector<uint64_t> DropChoices(const PartialSchedule& state, TaskIndex task, WorkerIndex worker,
                                  bool* all) {
  if (state.FitsWithout(task, worker, 0)) return {0};
  const ResidentIndex own = state.tables().problem().tasks[task].model;
  uint64_t idle = 0;
  std::vector<uint64_t> others;
  const uint64_t beside = state.residents(worker) & ~(uint64_t{1} << own);
  for (uint64_t rest = beside; rest != 0; rest &= rest - 1) {
    const uint64_t model = rest & (~rest + 1);
    if (state.calls_left(std::countr_zero(model)) == 0) {
      idle |= model;
    } else {
      others.push_back(model);
    }
  }
  if (state.FitsWithout(task, worker, idle)) return {idle};
  if (others.size() > kMostModelsInSubsets) {
    *all = false;
    return {DropsFor(state, task, worker, [](ResidentIndex) { return 0.0; })};
  }
  std::vector<uint64_t> choices;
  for (uint32_t bits = 1; bits < uint32_t{1} << others.size(); ++bits) {
    uint64_t drops = idle;
    for (uint32_t rest = bits; rest != 0; rest &= rest - 1) drops |= others[std::countr_zero(rest)];
    if (!state.FitsWithout(task, worker, drops)) continue;
    bool least = true;
    for (uint32_t rest = bits; rest != 0; rest &= rest - 1) {
      least = least && !state.FitsWithout(task, worker, drops & ~others[std::countr_zero(rest)]);
    }
    if (least) choices.push_back(drops);
  }
  return choices;
}

/// Every combination of what is dropped on each worker.
bool AddPlacements(const PartialSchedule& state, TaskIndex task,
                   const std::vector<WorkerIndex>& workers,
                   std::vector<TaskPlacement>* placements) {
  bool all = true;
  std::vector<std::vector<uint64_t>> choices;
  for (const WorkerIndex worker : workers) {
    choices.push_back(DropChoices(state, task, worker, &all));
  }
  std::vector<size_t> chosen(workers.size(), 0);
  while (true) {
    TaskPlacement& placement = placements->emplace_back();
    placement.task = task;
    placement.workers = workers;
    for (size_t i = 0; i < workers.size(); ++i) placement.drops.push_back(choices[i][chosen[i]]);
    size_t next = 0;
    while (next < workers.size() && ++chosen[next] == choices[next].size()) chosen[next++] = 0;
    if (next == workers.size()) return all;
  }
}

bool AddSubsets(const PartialSchedule& state, TaskIndex task, int32_t shards,
                std::vector<TaskPlacement>* placements) {
  const int32_t count = state.tables().worker_count();
  std::vector<uint32_t> before(static_cast<size_t>(count), 0);  // alike, of a lower number
  uint32_t able = 0;
  for (WorkerIndex worker = 0; worker < count; ++worker) {
    if (state.tables().duration_s(task, shards, worker) < kNever) able |= uint32_t{1} << worker;
    for (WorkerIndex other = 0; other < worker; ++other) {
      if (state.Alike(other, worker)) before[worker] |= uint32_t{1} << other;
    }
  }
  bool all = true;
  for (uint32_t set = 1; set < uint32_t{1} << count; ++set) {
    if ((set & ~able) != 0 || std::popcount(set) != shards) continue;
    std::vector<WorkerIndex> workers;
    bool first_alike = true;
    for (uint32_t rest = set; rest != 0; rest &= rest - 1) {
      const WorkerIndex worker = std::countr_zero(rest);
      workers.push_back(worker);
      first_alike = first_alike && (before[worker] & ~set) == 0;
    }
    if (first_alike) all = AddPlacements(state, task, workers, placements) && all;
  }
  return all;
}

bool AddEarliest(const PartialSchedule& state, TaskIndex task, int32_t shards,
                 std::vector<TaskPlacement>* placements) {
  std::vector<std::pair<double, WorkerIndex>> ends;
  for (WorkerIndex worker = 0; worker < state.tables().worker_count(); ++worker) {
    const double end = state.TimesOf(task, shards, worker).end_s;
    if (end < kNever) ends.emplace_back(end, worker);
  }
  if (static_cast<int32_t>(ends.size()) < shards) return true;
  std::partial_sort(ends.begin(), ends.begin() + shards, ends.end());
  std::vector<WorkerIndex> workers;
  for (int32_t i = 0; i < shards; ++i) workers.push_back(ends[i].second);
  std::sort(workers.begin(), workers.end());
  AddPlacements(state, task, workers, placements);
  return false;
}

}  // namespace

bool PlacementsOf(const PartialSchedule& state, TaskIndex task,
                  std::vector<TaskPlacement>* placements) {
  const ProblemTables& tables = state.tables();
  bool all = true;
  if (tables.worker_count() <= kMostWorkersInSubsets) {
    for (int32_t shards = 1; shards <= tables.most_shards(task); ++shards) {
      all = AddSubsets(state, task, shards, placements) && all;
    }
    return all;
  }
  for (const int32_t shards : ShardCounts(tables.most_shards(task))) {
    all = AddEarliest(state, task, shards, placements) && all;
  }
  return all;
}

namespace {

struct BeamNode {
  PartialSchedule state;
  int32_t history;  // in a list of (placement, what was before), -1: the beginning
};

struct BeamChild {
  double bound_s, total_free_s;
  size_t parent;
  TaskPlacement placement;
};

}  // namespace

std::vector<TaskPlacement> BeamPlacements(const ProblemTables& tables, int32_t width, double share,
                                          SearchBudget* budget, double* makespan_s) {
  std::vector<std::pair<TaskPlacement, int32_t>> history;
  std::vector<BeamNode> beam{{PartialSchedule(tables), -1}};
  PartialSchedule scratch(tables);
  std::vector<TaskPlacement> placements;
  for (size_t level = 0; level < tables.calls().size(); ++level) {
    if (!budget->UsedLessThan(share)) beam.resize(1, beam.front());  // finish with the best
    std::vector<BeamChild> children;
    for (size_t parent = 0; parent < beam.size(); ++parent) {
      placements.clear();
      for (const TaskIndex task : tables.calls()) {
        if (beam[parent].state.can_place(task)) {
          PlacementsOf(beam[parent].state, task, &placements);
        }
      }
      for (TaskPlacement& placement : placements) {
        budget->Spend();
        scratch = beam[parent].state;
        scratch.Place(placement);
        children.push_back(
            {scratch.LowerBound(), scratch.TotalFree(), parent, std::move(placement)});
      }
    }
    std::stable_sort(children.begin(), children.end(), [](const auto& a, const auto& b) {
      return a.bound_s != b.bound_s ? a.bound_s < b.bound_s : a.total_free_s < b.total_free_s;
    });
    std::vector<BeamNode> next;
    std::vector<std::pair<StateKey, std::vector<double>>> seen;
    for (BeamChild& child : children) {
      if (next.size() >= static_cast<size_t>(width)) break;
      scratch = beam[child.parent].state;
      scratch.Place(child.placement);
      std::pair<StateKey, std::vector<double>> state;
      state.first = scratch.KeyAndTimes(&state.second);
      if (std::find(seen.begin(), seen.end(), state) != seen.end()) continue;
      seen.push_back(std::move(state));
      history.emplace_back(std::move(child.placement), beam[child.parent].history);
      next.push_back({scratch, static_cast<int32_t>(history.size()) - 1});
    }
    beam = std::move(next);
  }
  *makespan_s = beam.front().state.makespan_s();
  std::vector<TaskPlacement> best;
  for (int32_t at = beam.front().history; at >= 0; at = history[at].second) {
    best.push_back(history[at].first);
  }
  std::reverse(best.begin(), best.end());
  return best;
}

}  // namespace halo
