#include "optimizer/planners/list_planner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <utility>

#include "base/random.h"

namespace halo {

SearchBudget::SearchBudget(const PlannerOptions& options) : options_(options), begin_s_(Now()) {}

bool SearchBudget::Spend() {
  ++states_;
  if (states_ >= options_.most_states) spent_ = true;
  if (!spent_ && options_.now_s && states_ % 64 == 0) {
    spent_ = options_.now_s() - begin_s_ >= options_.budget_s;
  }
  return !spent_;
}

bool SearchBudget::UsedLessThan(double share) const {
  if (spent_ || static_cast<double>(states_) >= share * static_cast<double>(options_.most_states)) {
    return false;
  }
  return !options_.now_s || options_.now_s() - begin_s_ < share * options_.budget_s;
}

std::vector<double> UpwardRank(const ProblemTables& tables) {
  std::vector<double> typical(static_cast<size_t>(tables.task_count()), 0.0);
  std::vector<double> from_end = typical, rank = typical;
  for (TaskIndex task = tables.task_count() - 1; task >= 0; --task) {
    double sum = 0.0, able = 0.0;
    for (int32_t shards = 1; able == 0.0 && shards <= tables.most_shards(task); ++shards) {
      for (WorkerIndex worker = 0; worker < tables.worker_count(); ++worker) {
        const double duration = tables.duration_s(task, shards, worker);
        if (duration == kNever) continue;
        sum += duration;
        able += 1.0;
      }
    }
    typical[task] = able > 0.0 ? sum / able : tables.least_s(task);
    rank[task] = typical[task];
    for (const ProblemTables::Child& child : tables.children(task)) {
      from_end[task] =
          std::max(from_end[task], child.lag * typical[child.task] + from_end[child.task]);
      rank[task] = std::max(rank[task], child.lag * typical[task] + rank[child.task]);
    }
    rank[task] = std::max(rank[task], typical[task] + from_end[task]);
  }
  return rank;
}

uint64_t DropsFor(const PartialSchedule& state, TaskIndex task, WorkerIndex worker,
                  const std::function<double(ResidentIndex)>& next_use) {
  const ResidentIndex own = state.tables().problem().tasks[task].model;
  uint64_t drops = 0;
  while (!state.FitsWithout(task, worker, drops)) {
    ResidentIndex latest = kNoResident;
    double latest_use = -1.0;
    const uint64_t left = state.residents(worker) & ~drops & ~(uint64_t{1} << own);
    for (uint64_t rest = left; rest != 0; rest &= rest - 1) {
      const ResidentIndex model = std::countr_zero(rest);
      const double use = next_use(model);
      if (use > latest_use) {
        latest = model;
        latest_use = use;
      }
    }
    drops |= uint64_t{1} << latest;
  }
  return drops;
}

std::vector<int32_t> ShardCounts(int32_t most) {
  std::vector<int32_t> counts;
  for (int32_t count = 1; count < most; count += count < 8 ? 1 : (count + 2) / 3) {
    counts.push_back(count);
  }
  counts.push_back(most);
  return counts;
}

namespace {

/// One run of list scheduling.
class ListRun {
 public:
  ListRun(const ProblemTables& tables, const ListRule& rule, const std::vector<double>& rank)
      : tables_(tables), rule_(rule), rank_(rank), state_(tables), left_(tables.calls()) {
    std::stable_sort(left_.begin(), left_.end(),
                     [&](TaskIndex a, TaskIndex b) { return rank[a] > rank[b]; });
  }

  std::vector<TaskPlacement> Run(SearchBudget* budget) {
    while (!left_.empty()) {
      double best_score = kNever;
      size_t chosen = left_.size();
      int32_t looked_at = 0;
      for (size_t i = 0; i < left_.size() && looked_at < rule_.most_candidates; ++i) {
        if (!state_.can_place(left_[i])) continue;
        ++looked_at;
        budget->Spend();
        const double start = ChooseWorkers(left_[i]);
        const double score =
            rule_.rank_weight == kNever ? -1.0 : start - rule_.rank_weight * rank_[left_[i]];
        if (chosen == left_.size() || score < best_score) {
          best_score = score;
          chosen = i;
          std::swap(best_, candidate_);
        }
        if (rule_.rank_weight == kNever) break;
      }
      Place(left_[chosen]);
      left_.erase(left_.begin() + static_cast<std::ptrdiff_t>(chosen));
    }
    return std::move(placements_);
  }

  double makespan_s() const { return state_.makespan_s(); }

 private:
  /// Sets candidate_ to the workers on which the task's weighed end is least; returns its start
  /// there.
  double ChooseWorkers(TaskIndex task) {
    double best = kNever, best_start = 0.0;
    for (const int32_t shards : ShardCounts(tables_.most_shards(task))) {
      ends_.clear();
      for (WorkerIndex worker = 0; worker < tables_.worker_count(); ++worker) {
        const PartialSchedule::Times times = state_.TimesOf(task, shards, worker);
        if (times.end_s < kNever) ends_.push_back({times, worker});
      }
      if (static_cast<int32_t>(ends_.size()) < shards) continue;
      std::partial_sort(ends_.begin(), ends_.begin() + shards, ends_.end(),
                        [](const On& a, const On& b) {
                          return a.times.end_s != b.times.end_s ? a.times.end_s < b.times.end_s
                                                                : a.worker < b.worker;
                        });
      double area = 0.0, start = kNever;
      for (int32_t i = 0; i < shards; ++i) {
        const PartialSchedule::Times& times = ends_[i].times;
        area += times.end_s - times.start_s + times.load_s;
        start = std::min(start, times.start_s);
      }
      const double score =
          ends_[shards - 1].times.end_s + rule_.area_weight * area / tables_.worker_count();
      if (score < best) {
        best = score;
        best_start = start;
        candidate_.clear();
        for (int32_t i = 0; i < shards; ++i) candidate_.push_back(ends_[i].worker);
      }
    }
    return best_start;
  }

  void Place(TaskIndex task) {
    std::sort(best_.begin(), best_.end());
    TaskPlacement placement{.task = task, .workers = best_, .drops = {}};
    const auto next_use = [this, task](ResidentIndex model) {
      for (size_t i = 0; i < left_.size(); ++i) {
        if (left_[i] != task && tables_.problem().tasks[left_[i]].model == model) {
          return static_cast<double>(i);
        }
      }
      return kNever;
    };
    for (const WorkerIndex worker : placement.workers) {
      placement.drops.push_back(DropsFor(state_, task, worker, next_use));
    }
    state_.Place(placement);
    placements_.push_back(std::move(placement));
  }

  struct On {
    PartialSchedule::Times times;
    WorkerIndex worker;
  };

  const ProblemTables& tables_;
  const ListRule& rule_;
  const std::vector<double>& rank_;
  PartialSchedule state_;
  std::vector<TaskIndex> left_;  // by rank
  std::vector<On> ends_;
  std::vector<WorkerIndex> candidate_, best_;
  std::vector<TaskPlacement> placements_;
};

}  // namespace

std::vector<TaskPlacement> ListPlacements(const ProblemTables& tables, const ListRule& rule,
                                          const std::vector<double>& rank, SearchBudget* budget,
                                          double* makespan_s) {
  ListRun run(tables, rule, rank);
  std::vector<TaskPlacement> placements = run.Run(budget);
  *makespan_s = run.makespan_s();
  return placements;
}

namespace {

struct ListResult {
  std::vector<TaskPlacement> placements;
  double makespan_s = kNever;
  ListRule rule;
};

ListResult BestOfRules(const ProblemTables& tables, const std::vector<double>& rank,
                       SearchBudget* budget) {
  // Looking at many candidates is for problems where that is quick.
  const double work = static_cast<double>(tables.task_count()) * tables.worker_count();
  const int32_t candidates = std::clamp(static_cast<int32_t>(100'000.0 / (work + 1.0)), 1, 16);
  ListResult best;
  for (const double area_weight : {1.0, 0.0, 0.3, 3.0}) {
    for (const double rank_weight : {kNever, 1.0, 0.3, 0.1}) {
      if (best.makespan_s < kNever && budget->spent()) return best;
      double makespan_s = 0.0;
      const ListRule rule{
          .area_weight = area_weight, .rank_weight = rank_weight, .most_candidates = candidates};
      std::vector<TaskPlacement> placements =
          ListPlacements(tables, rule, rank, budget, &makespan_s);
      if (makespan_s < best.makespan_s) best = {std::move(placements), makespan_s, rule};
    }
  }
  return best;
}

}  // namespace

std::vector<TaskPlacement> BestListPlacements(const ProblemTables& tables, SearchBudget* budget) {
  return BestOfRules(tables, UpwardRank(tables), budget).placements;
}

std::vector<TaskPlacement> SearchedListPlacements(const ProblemTables& tables, double share,
                                                  SearchBudget* budget) {
  std::vector<double> rank = UpwardRank(tables), tried;
  ListResult best = BestOfRules(tables, rank, budget);
  RandomStream random(/*key=*/0x6c697374);
  const auto factor = [&random](double most) {  // as often times x as divided by x
    return std::pow(most, 2.0 * random.Uniform() - 1.0);
  };
  while (budget->UsedLessThan(share)) {
    budget->Spend();
    ListRule rule = best.rule;
    if (random.Below(3) == 0) rule.area_weight = (rule.area_weight + 0.05) * factor(2.0);
    if (random.Below(3) == 0) {
      rule.rank_weight = (rule.rank_weight == kNever ? 1.0 : rule.rank_weight) * factor(3.0);
    }
    tried = rank;
    if (random.Below(3) != 0) {
      const double changed = 0.3 * random.Uniform();
      for (double& value : tried) {
        if (random.Uniform() < changed) value *= factor(1.2);
      }
    }
    double makespan_s = 0.0;
    std::vector<TaskPlacement> placements =
        ListPlacements(tables, rule, tried, budget, &makespan_s);
    if (makespan_s > best.makespan_s) continue;
    best = {std::move(placements), makespan_s, rule};
    std::swap(rank, tried);
  }
  return std::move(best.placements);
}

}  // namespace halo
