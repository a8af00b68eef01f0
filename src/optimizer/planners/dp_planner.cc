#include "optimizer/planners/dp_planner.h"

#include <algorithm>
#include <unordered_map>
#include <utility>

namespace halo {
namespace {

/// States seen, to skip what another state of the same key is nowhere later than.
class SeenStates {
 public:
  /// Whether a state seen before dominates this one; else remembers it, while there is room.
  bool Dominated(StateKey key, const std::vector<double>& times) {
    std::vector<size_t>& places = places_[key];
    for (const size_t place : places) {
      if (std::equal(times.begin(), times.end(),
                     times_.begin() + static_cast<std::ptrdiff_t>(place),
                     [](double now, double before) { return before <= now; })) {
        return true;
      }
    }
    if (places.size() < kMostPerKey && times_.size() + times.size() <= kMostTimes) {
      places.push_back(times_.size());
      times_.insert(times_.end(), times.begin(), times.end());
    }
    return false;
  }

 private:
  static constexpr size_t kMostPerKey = 32;
  static constexpr size_t kMostTimes = size_t{8} << 20;  // 64 MiB
  struct KeyHash {
    size_t operator()(const StateKey& key) const { return static_cast<size_t>(key.low); }
  };
  std::unordered_map<StateKey, std::vector<size_t>, KeyHash> places_;
  std::vector<double> times_;
};

class TreeSearch {
 public:
  TreeSearch(const ProblemTables& tables, double known_s, double share, SearchBudget* budget)
      : tables_(tables), share_(share), budget_(budget) {
    result_.makespan_s = known_s;
    levels_.resize(tables.calls().size() + 1, Level{PartialSchedule(tables), {}});
  }

  TreeResult Run() {
    Descend(0, levels_[0].state.LowerBound());
    result_.exhausted = !stopped_ && all_;
    result_.bound_s = all_ ? std::min(result_.makespan_s, open_bound_s_) : 0.0;
    return std::move(result_);
  }

 private:
  struct Child {
    double bound_s, total_free_s;
    TaskPlacement placement;
  };
  struct Level {
    PartialSchedule state;
    std::vector<Child> children;
  };

  double limit_s() const { return result_.makespan_s * (1.0 - 1e-9); }

  bool Stopped() {
    if (!stopped_ &&
        (!budget_->Spend() || (budget_->states() % 64 == 0 && !budget_->UsedLessThan(share_)))) {
      stopped_ = true;
    }
    return stopped_;
  }

  /// Of the state in levels_[depth]. What is left unsearched by a stop goes into open_bound_s_.
  void Descend(size_t depth, double bound_s) {
    const PartialSchedule& state = levels_[depth].state;
    if (state.complete()) {
      result_.makespan_s = state.makespan_s();
      result_.best = path_;
      return;
    }
    if (!Expand(depth)) {
      open_bound_s_ = std::min(open_bound_s_, bound_s);
      return;
    }
    for (Child& child : levels_[depth].children) {
      if (child.bound_s >= limit_s()) return;  // and so are those after it
      if (stopped_) {
        open_bound_s_ = std::min(open_bound_s_, child.bound_s);
        return;
      }
      PartialSchedule& next = levels_[depth + 1].state;
      next = state;
      next.Place(child.placement);
      if (seen_.Dominated(next.KeyAndTimes(&times_), times_)) continue;
      path_.push_back(child.placement);
      Descend(depth + 1, child.bound_s);
      path_.pop_back();
    }
  }

  /// False where the search was stopped meanwhile.
  bool Expand(size_t depth) {
    const PartialSchedule& state = levels_[depth].state;
    std::vector<Child>& children = levels_[depth].children;
    children.clear();
    std::vector<TaskPlacement> placements;
    for (const TaskIndex task : tables_.calls()) {
      if (state.can_place(task)) all_ = PlacementsOf(state, task, &placements) && all_;
    }
    PartialSchedule& next = levels_[depth + 1].state;
    for (TaskPlacement& placement : placements) {
      if (Stopped()) return false;
      next = state;
      next.Place(placement);
      const double bound_s = next.LowerBound();
      if (bound_s < limit_s()) {
        children.push_back({bound_s, next.TotalFree(), std::move(placement)});
      }
    }
    std::stable_sort(children.begin(), children.end(), [](const Child& a, const Child& b) {
      return a.bound_s != b.bound_s ? a.bound_s < b.bound_s : a.total_free_s < b.total_free_s;
    });
    return true;
  }

  const ProblemTables& tables_;
  const double share_;
  SearchBudget* const budget_;
  TreeResult result_;
  std::vector<Level> levels_;
  std::vector<TaskPlacement> path_;
  std::vector<double> times_;
  SeenStates seen_;
  double open_bound_s_ = kNever;
  bool stopped_ = false;
  bool all_ = true;  // no placement was left out
};

}  // namespace

bool OrdersMayCross(const ProblemTables& tables) {
  if (tables.worker_count() < 2) return false;
  int32_t shared = 0;
  for (const TaskIndex task : tables.calls()) {
    if (tables.most_shards(task) > 1) ++shared;
  }
  return shared > 1;
}

TreeResult SearchTree(const ProblemTables& tables, double known_s, double share,
                      SearchBudget* budget) {
  return TreeSearch(tables, known_s, share, budget).Run();
}

}  // namespace halo
