#include "optimizer/planners/local_search.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"

namespace halo {

SequenceTimer::SequenceTimer(const ProblemTables& tables)
    : tables_(tables), empty_(tables), state_(tables) {}

void SequenceTimer::CountShards(const std::vector<SequencedShard>& sequence) {
  shards_.assign(static_cast<size_t>(tables_.task_count()), 0);
  for (const SequencedShard& shard : sequence) ++shards_[shard.task];
}

uint64_t SequenceTimer::Drops(const PartialSchedule& state,
                              const std::vector<SequencedShard>& sequence, size_t place) const {
  const SequencedShard& shard = sequence[place];
  if (state.FitsWithout(shard.task, shard.worker, 0)) return 0;
  return DropsFor(state, shard.task, shard.worker, [&](ResidentIndex model) {
    for (size_t later = place + 1; later < sequence.size(); ++later) {
      if (sequence[later].worker == shard.worker &&
          tables_.problem().tasks[sequence[later].task].model == model) {
        return static_cast<double>(later);
      }
    }
    return kNever;
  });
}

double SequenceTimer::Makespan(const std::vector<SequencedShard>& sequence, double give_up_s) {
  CountShards(sequence);
  state_ = empty_;
  for (size_t place = 0; place < sequence.size(); ++place) {
    const auto [task, worker] = sequence[place];
    if (!state_.parents_placed(task)) return kNever;
    if (tables_.duration_s(task, shards_[task], worker) == kNever) return kNever;
    const PartialSchedule::Times times =
        state_.Place(task, shards_[task], worker, Drops(state_, sequence, place));
    if (times.end_s + tables_.tail_s(task) > give_up_s) return kNever;
  }
  return state_.makespan_s();
}

Schedule SequenceTimer::Build(const std::vector<SequencedShard>& sequence,
                              const std::string& planner) {
  CountShards(sequence);
  ScheduleBuilder builder(tables_);
  for (size_t place = 0; place < sequence.size(); ++place) {
    const auto [task, worker] = sequence[place];
    builder.Place(task, shards_[task], worker, Drops(builder.state(), sequence, place));
  }
  return builder.Finish(planner);
}

std::vector<SequencedShard> SequenceOf(const ProblemTables& tables, const Schedule& schedule) {
  std::vector<const PlacedShard*> shards;
  for (const PlacedShard& shard : schedule.shards) shards.push_back(&shard);
  // Of equal starts the earlier task first (parents have lower numbers), then as on the worker.
  std::stable_sort(shards.begin(), shards.end(), [](const PlacedShard* a, const PlacedShard* b) {
    return a->start_s != b->start_s ? a->start_s < b->start_s : a->task < b->task;
  });
  HALO_CHECK(tables.problem().tasks.size() == schedule.tool_start_s.size(), "of this problem");
  std::vector<SequencedShard> sequence;
  for (const PlacedShard* shard : shards) sequence.push_back({shard->task, shard->worker});
  return sequence;
}

namespace {

/// Random changes of a sequence. A change may make it one that cannot be built; Makespan says so.
class SequenceMoves {
 public:
  SequenceMoves(const ProblemTables& tables, uint64_t seed) : tables_(tables), random_(seed) {
    above_.resize(static_cast<size_t>(tables.task_count()));
    below_.resize(static_cast<size_t>(tables.task_count()));
    // Calls reached through tools alone.
    for (TaskIndex task = 0; task < tables.task_count(); ++task) {
      for (const TaskDependency& need : tables.problem().tasks[task].parents) {
        if (tables.is_tool(need.parent)) {
          above_[task].insert(above_[task].end(), above_[need.parent].begin(),
                              above_[need.parent].end());
        } else {
          above_[task].push_back(need.parent);
        }
      }
      std::sort(above_[task].begin(), above_[task].end());
      above_[task].erase(std::unique(above_[task].begin(), above_[task].end()), above_[task].end());
      if (tables.is_tool(task)) continue;
      for (const TaskIndex parent : above_[task]) below_[parent].push_back(task);
    }
  }

  double Uniform() { return random_.Uniform(); }

  /// Sets `after` to `before` with one change.
  void Change(const std::vector<SequencedShard>& before, std::vector<SequencedShard>* after) {
    const double kind = random_.Uniform();
    const size_t chosen = random_.Below(before.size());
    if (kind < 0.15 && before.size() > 1) {
      MoveShard(before, chosen, after);
    } else if (kind < 0.35) {
      ExchangeWorkers(before, chosen, after);
    } else {
      ChooseWorkers(before, before[chosen].task, /*change=*/kind < 0.8);
      Reinsert(before, before[chosen].task, /*move=*/kind >= 0.5, after);
    }
  }

 private:
  /// Where in `sequence` a shard of the task may stand: [first, last].
  std::pair<size_t, size_t> Room(const std::vector<SequencedShard>& sequence,
                                 TaskIndex task) const {
    size_t first = 0, last = sequence.size();
    const auto among = [](const std::vector<TaskIndex>& tasks, TaskIndex asked) {
      return std::find(tasks.begin(), tasks.end(), asked) != tasks.end();
    };
    for (size_t i = 0; i < sequence.size(); ++i) {
      if (among(above_[task], sequence[i].task)) first = i + 1;
    }
    for (size_t i = sequence.size(); i > first; --i) {
      if (among(below_[task], sequence[i - 1].task)) last = i - 1;
    }
    return {first, std::max(first, last)};
  }

  void MoveShard(const std::vector<SequencedShard>& before, size_t chosen,
                 std::vector<SequencedShard>* after) {
    *after = before;
    const SequencedShard shard = before[chosen];
    after->erase(after->begin() + static_cast<std::ptrdiff_t>(chosen));
    const auto [first, last] = Room(*after, shard.task);
    const size_t place = first + random_.Below(last - first + 1);
    after->insert(after->begin() + static_cast<std::ptrdiff_t>(place), shard);
  }

  /// Two shards on different workers change places.
  void ExchangeWorkers(const std::vector<SequencedShard>& before, size_t chosen,
                       std::vector<SequencedShard>* after) {
    *after = before;
    const size_t other = random_.Below(before.size());
    const auto is_on = [&](TaskIndex task, WorkerIndex worker) {
      return std::any_of(before.begin(), before.end(), [&](const SequencedShard& shard) {
        return shard.task == task && shard.worker == worker;
      });
    };
    if (is_on(before[chosen].task, before[other].worker) ||
        is_on(before[other].task, before[chosen].worker)) {
      return;
    }
    std::swap((*after)[chosen].worker, (*after)[other].worker);
  }

  /// Sets workers_: those of now, or others.
  void ChooseWorkers(const std::vector<SequencedShard>& before, TaskIndex task, bool change) {
    workers_.clear();
    if (!change) {
      for (const SequencedShard& shard : before) {
        if (shard.task == task) workers_.push_back(shard.worker);
      }
      return;
    }
    const int32_t shards =
        1 + static_cast<int32_t>(random_.Below(static_cast<uint64_t>(tables_.most_shards(task))));
    for (WorkerIndex worker = 0; worker < tables_.worker_count(); ++worker) {
      if (tables_.duration_s(task, shards, worker) < kNever) workers_.push_back(worker);
    }
    const size_t wanted = std::min(workers_.size(), static_cast<size_t>(shards));
    for (size_t i = 0; i < wanted; ++i) {
      std::swap(workers_[i], workers_[i + random_.Below(workers_.size() - i)]);
    }
    workers_.resize(wanted);
  }

  void Reinsert(const std::vector<SequencedShard>& before, TaskIndex task, bool move,
                std::vector<SequencedShard>* after) {
    after->clear();
    size_t place = before.size();
    for (const SequencedShard& shard : before) {
      if (shard.task != task) {
        after->push_back(shard);
      } else if (place == before.size()) {
        place = after->size();
      }
    }
    if (move) {
      const auto [first, last] = Room(*after, task);
      place = first + random_.Below(last - first + 1);
    }
    std::sort(workers_.begin(), workers_.end());
    for (size_t i = 0; i < workers_.size(); ++i) {
      after->insert(after->begin() + static_cast<std::ptrdiff_t>(place + i), {task, workers_[i]});
    }
  }

  const ProblemTables& tables_;
  RandomStream random_;
  std::vector<std::vector<TaskIndex>> above_, below_;
  std::vector<WorkerIndex> workers_;
};

}  // namespace

double ImproveSequence(const ProblemTables& tables, double floor_s, double share,
                       SearchBudget* budget, std::vector<SequencedShard>* sequence) {
  constexpr double kHot = 0.03, kCold = 0.0005;  // shares of the makespan
  SequenceTimer timer(tables);
  SequenceMoves moves(tables, /*seed=*/0x48616c6f);
  double best_s = timer.Makespan(*sequence);
  HALO_CHECK(best_s < kNever, "improvement begins at a schedule");
  std::vector<SequencedShard> now = *sequence, next;
  double now_s = best_s;
  // Rounds of growing length, each cooled down anew: short ones suffice for most.
  for (int64_t length = 500 + 50 * static_cast<int64_t>(now.size()); !now.empty();
       length += length / 2) {
    for (int64_t step = 0; step < length; ++step) {
      if (best_s <= floor_s * (1.0 + 1e-9) || !budget->Spend()) return best_s;
      if (step % 64 == 0 && !budget->UsedLessThan(share)) return best_s;
      const double heat =
          best_s * kHot *
          std::pow(kCold / kHot, static_cast<double>(step) / static_cast<double>(length));
      moves.Change(now, &next);
      // Metropolis: accept what is longer by x with probability exp(-x / heat), drawn beforehand.
      const double limit_s = now_s - heat * std::log(1.0 - moves.Uniform());
      const double next_s = timer.Makespan(next, limit_s);
      if (next_s > limit_s) continue;
      std::swap(now, next);
      now_s = next_s;
      if (now_s < best_s) {
        best_s = now_s;
        *sequence = now;
      }
    }
    now = *sequence;
    now_s = best_s;
  }
  return best_s;
}

}  // namespace halo
