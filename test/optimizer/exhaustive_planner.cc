#include "exhaustive_planner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <vector>

namespace halo {
namespace {

constexpr double kInfinite = std::numeric_limits<double>::infinity();

class Exhaustive {
 public:
  Exhaustive(const SchedulingProblem& problem, int64_t most) : problem_(problem), most_(most) {
    chosen_.resize(problem.tasks.size());
  }

  std::optional<double> Run() {
    ChooseWorkers(0);
    if (tried_ > most_) return std::nullopt;
    return best_;
  }

 private:
  size_t workers() const { return problem_.workers.size(); }
  bool is_tool(size_t task) const { return problem_.tasks[task].model == kNoResident; }

  void ChooseWorkers(size_t task) {
    if (tried_ > most_) return;
    if (task == problem_.tasks.size()) {
      orders_.assign(workers(), {});
      for (size_t t = 0; t < problem_.tasks.size(); ++t) {
        for (size_t w = 0; w < workers(); ++w) {
          if (chosen_[t] >> w & 1) orders_[w].push_back(static_cast<TaskIndex>(t));
        }
      }
      OrderWorker(0);
      return;
    }
    if (is_tool(task)) return ChooseWorkers(task + 1);
    for (uint32_t set = 1; set < uint32_t{1} << workers(); ++set) {
      const size_t shards = static_cast<size_t>(std::popcount(set));
      if (shards > problem_.tasks[task].work_s.size()) continue;
      chosen_[task] = set;
      ChooseWorkers(task + 1);
    }
  }

  void OrderWorker(size_t worker) {
    if (tried_ > most_) return;
    if (worker == workers()) {
      loads_.assign(workers(), {});
      return ChooseLoads(0);
    }
    std::vector<TaskIndex>& order = orders_[worker];
    std::sort(order.begin(), order.end());
    do {
      OrderWorker(worker + 1);
    } while (std::next_permutation(order.begin(), order.end()));
  }

  /// Every different list of load times that some choice of what to drop gives the worker.
  void ChooseLoads(size_t worker) {
    if (tried_ > most_) return;
    if (worker == workers()) return Time();
    std::set<std::vector<double>> lists;
    uint64_t first = 0;
    for (const ResidentIndex model : problem_.workers[worker].resident)
      first |= uint64_t{1} << model;
    std::vector<double> loads;
    Replay(worker, 0, first, &loads, &lists);
    for (const std::vector<double>& list : lists) {
      loads_[worker] = list;
      ChooseLoads(worker + 1);
    }
  }

  void Replay(size_t worker, size_t place, uint64_t held, std::vector<double>* loads,
              std::set<std::vector<double>>* lists) {
    if (place == orders_[worker].size()) {
      lists->insert(*loads);
      return;
    }
    const SchedulingTask& task = problem_.tasks[orders_[worker][place]];
    // All sets of what stays, from everything to nothing.
    for (uint64_t kept = held;; kept = (kept - 1) & held) {
      const uint64_t with = kept | uint64_t{1} << task.model;
      int64_t bytes = task.kv_bytes[worker];
      for (size_t model = 0; model < problem_.models.size(); ++model) {
        if (with >> model & 1) bytes += problem_.models[model].weights_bytes[worker];
      }
      if (bytes <= problem_.workers[worker].memory_bytes) {
        const bool resident = (kept >> task.model & 1) != 0;
        loads->push_back(resident ? 0.0 : problem_.models[task.model].load_s[worker]);
        Replay(worker, place + 1, with, loads, lists);
        loads->pop_back();
      }
      if (kept == 0) break;
    }
  }

  double Duration(size_t task, size_t worker) const {
    const SchedulingTask& asked = problem_.tasks[task];
    const size_t shards = static_cast<size_t>(std::popcount(chosen_[task]));
    double duration = asked.work_s[shards - 1][worker];
    if (asked.kv_source >= 0 &&
        std::popcount(chosen_[asked.kv_source]) == static_cast<int>(shards) &&
        (chosen_[asked.kv_source] >> worker & 1)) {
      duration -= asked.kv_saved_s[worker] / static_cast<double>(shards);
    }
    return duration;
  }

  /// Starts by relaxation: nothing is moved later than it must be, until nothing moves. An order
  /// that waits for itself moves for ever, and is given up.
  void Time() {
    ++tried_;
    const size_t tasks = problem_.tasks.size();
    std::vector<std::vector<double>> start(tasks, std::vector<double>(workers() + 1, 0.0));
    const auto spans = [&](size_t task) {
      std::vector<std::pair<double, double>> result;
      if (is_tool(task)) {
        result.emplace_back(start[task][workers()], problem_.tasks[task].tool_s);
      }
      for (size_t w = 0; w < workers(); ++w) {
        if (!is_tool(task) && (chosen_[task] >> w & 1)) {
          result.emplace_back(start[task][w], Duration(task, w));
        }
      }
      return result;
    };
    double makespan = 0.0;
    bool moved = true;
    for (size_t round = 0; moved; ++round) {
      if (round > 2 * tasks * workers() + 2) return;
      moved = false;
      makespan = 0.0;
      const auto raise = [&](double* time, double to) {
        if (to > *time + 1e-12) {
          *time = to;
          moved = true;
        }
      };
      for (size_t task = 0; task < tasks; ++task) {
        for (size_t w = 0; w <= workers(); ++w) {
          if (is_tool(task) ? w < workers() : w == workers() || !(chosen_[task] >> w & 1)) continue;
          const double duration = is_tool(task) ? problem_.tasks[task].tool_s : Duration(task, w);
          if (duration == kInfinite) return;
          for (const TaskDependency& need : problem_.tasks[task].parents) {
            for (const auto& [begin, length] : spans(need.parent)) {
              raise(&start[task][w], begin + need.lag * length);
              raise(&start[task][w], begin + length + need.lag * duration - duration);
            }
          }
          makespan = std::max(makespan, start[task][w] + duration);
        }
      }
      for (size_t w = 0; w < workers(); ++w) {
        double free = 0.0;
        for (size_t place = 0; place < orders_[w].size(); ++place) {
          double* time = &start[orders_[w][place]][w];
          raise(time, free + loads_[w][place]);
          free = *time + Duration(orders_[w][place], w);
        }
      }
    }
    best_ = std::min(best_, makespan);
  }

  const SchedulingProblem& problem_;
  const int64_t most_;
  int64_t tried_ = 0;
  double best_ = kInfinite;
  std::vector<uint32_t> chosen_;  // [tasks] sets of workers
  std::vector<std::vector<TaskIndex>> orders_;
  std::vector<std::vector<double>> loads_;
};

}  // namespace

std::optional<double> ShortestMakespan(const SchedulingProblem& problem, int64_t most) {
  return Exhaustive(problem, most).Run();
}

}  // namespace halo
