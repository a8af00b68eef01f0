#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <optional>
#include <utility>

#include "base/check.h"
#include "optimizer/planners/milp_model.h"
#include "optimizer/planners/partial_schedule.h"
#include "optimizer/planners/planners.h"

namespace halo {
namespace {

using Sum = MilpModel::Sum;

/// A proof by CBC holds up to this share of the makespan: its rows hold to 1e-6 or so at times of
/// 100.
constexpr double kMilpTolerance = 1e-6;

/// The scheduling problem as a mixed integer program. Its space is all schedules: any set of
/// workers for a task, any order on each worker (also different ones of two shared tasks on two
/// workers), any start times, any residency. Below, d is what a shard takes, x means "the task has
/// a shard on w".
///
///   n[t,k]      binary      t is in k shards; sum over k = 1
///   z[t,k,w]    binary      ... and one of them is on w; sum over w = k * n[t,k]; x[t,w] = sum
///   over k v[t,k,w]    0..1        KV is found there: <= z[t,k,w], <= z[source,k,w] d[t,w]      =
///   sum over k of work * z - saved / k * v S[t,w]      start. One variable for a task that cannot
///   be shared out. Where x = 0 it stands for
///               nothing, and may take the value of any start that is used: the rows below allow
///               that.
///   E[t]        >= S + d: the latest end; C >= E + tail: the objective
///   o[i,j,w]    binary      i before j, if both are on w. For all workers one, unless both may be
///   shared
///               out; a constant where one waits for the other.
///   L[t,w]      binary      the model is loaded before t; <= x
///   parents     S[c,.] >= S[p,.] + lag * d[p,.]
///               S[c,w] + (1 - lag) * (d[c,w] + longest d * (1 - x[c,w])) >= E[p]
///   one thing   S[j,w] - load * L[j,w] >= S[i,w] + d[i,w] - M * (3 - o[i,j,w] - x[i,w] - x[j,w])
///               with M = latest end of i - earliest start of j + load
///   residency   where all models and the largest KV fit together, a model is loaded at most once:
///               U[m,w] >= x[t,w]; sum over t of L[t,w] = U[m,w]; L[t,w] + x[u,w] <= 1 + o[t,u,w].
///               Elsewhere c[u,t,w] keeps the model from u to t (c[0,t,w]: from the beginning):
///               sum over u of c[u,t,w] + L[t,w] = x[t,w]; c <= x[u,w]; c <= o[u,t,w]. A task v of
///               another model runs meanwhile if o[u,v,w] and o[v,t,w]; then g[m,v,w] = 1, and the
///               weights of all such models, v's own and its KV fit.
///   cuts        for tasks J of which none begins before r and none is less than q from the end,
///   and
///               every w: C >= r + (sum over J of d[.,w]) + q; loads too where r = 0. Of workers
///               that are alike, the first task on each comes in the order of the workers.
///
/// C is kept below the makespan of the known schedule; if CBC then finds nothing, that one is
/// optimal. CBC works with tolerances, so its point is only read for who runs where, in what order,
/// keeping which models; times are computed anew from that.
class MilpFormulation {
 public:
  MilpFormulation(const ProblemTables& tables, double known_s, double bound_s)
      : tables_(tables), problem_(tables.problem()), scale_(100.0 / known_s), known_s_(100.0) {
    horizon_ = known_s_ * (1.0 - kMilpTolerance);
    objective_ = model_.Variable(std::min(bound_s * scale_, horizon_), horizon_, false, 1.0);
    FillWindows();
    AddPlaces();
    AddStarts();
    AddParents();
    AddOrders();
    for (WorkerIndex w = 0; w < workers(); ++w) {
      HasRoomForAll(w) ? AddLoadsOnce(w) : AddResidency(w);
    }
    AddExclusion();
    AddWorkCuts();
    AddSymmetry();
  }

  const MilpModel& model() const { return model_; }
  /// A value of the objective, in seconds.
  double Seconds(double value) const { return value / scale_; }
  double Objective(const std::vector<double>& values) const {
    return Seconds(MilpModel::Value(objective_, values));
  }

  /// The schedule that a point stands for, timed anew. nullopt where, within CBC's tolerances,
  /// tasks wait for each other in a circle (they would have to take no time).
  std::optional<Schedule> Extract(const std::vector<double>& values) const;

 private:
  int32_t workers() const { return tables_.worker_count(); }
  double Load(TaskIndex task, WorkerIndex w) const {
    return problem_.models[problem_.tasks[task].model].load_s[w] * scale_;
  }
  /// 1 where i is before j by precedence, 0 where after, else the variable.
  Sum Before(TaskIndex i, TaskIndex j, WorkerIndex w) const {
    if (ancestors_[j][i]) return 1.0;
    if (ancestors_[i][j]) return 0.0;
    if (i < j) return order_.at({i, j})[w];
    return Sum(1.0).Plus(order_.at({j, i})[w], -1.0);
  }
  const Sum& Start(TaskIndex task, WorkerIndex w) const {
    return starts_[task][starts_[task].size() == 1 ? 0 : w];
  }
  bool Can(TaskIndex task, WorkerIndex w) const { return !x_[task][w].terms.empty(); }
  bool HasRoomForAll(WorkerIndex w) const;

  void FillWindows();
  void AddPlaces();
  void AddCallPlaces(TaskIndex task);
  void AddStarts();
  void AddParents();
  void AddOrders();
  void AddExclusion();
  void AddLoadsOnce(WorkerIndex w);
  void AddResidency(WorkerIndex w);
  void AddKeeps(TaskIndex task, WorkerIndex w, const Sum& load);
  void AddMemory(TaskIndex v, WorkerIndex w);
  Sum Keep(TaskIndex from, TaskIndex to, WorkerIndex w) const;
  Sum RunsMeanwhile(TaskIndex v, TaskIndex from, TaskIndex to, WorkerIndex w) const;
  void AddWorkCuts();
  void AddSymmetry();

  const ProblemTables& tables_;
  const SchedulingProblem& problem_;
  const double scale_;  // of times, so that the known makespan is 100 and tolerances fit
  const double known_s_;
  double horizon_ = 0.0;
  MilpModel model_;
  Sum objective_;
  // Scaled, [tasks]:
  std::vector<double> head_, tail_, rank_, least_, longest_;
  std::vector<std::vector<bool>> ancestors_;          // [task][ancestor]
  std::vector<std::vector<std::vector<Sum>>> z_, v_;  // [tasks][shards - 1][workers]
  std::vector<std::vector<Sum>> x_, d_, load_;        // [tasks][workers]
  std::vector<std::vector<Sum>> starts_;              // [tasks][1 or workers]
  std::vector<Sum> end_;
  std::map<std::pair<TaskIndex, TaskIndex>, std::vector<Sum>> order_;  // [workers]
  // (from, to, worker); from = -1: the beginning.
  std::map<std::tuple<TaskIndex, TaskIndex, WorkerIndex>, Sum> keep_;
};

void MilpFormulation::FillWindows() {
  const size_t tasks = problem_.tasks.size();
  ancestors_.assign(tasks, std::vector<bool>(tasks, false));
  head_.assign(tasks, 0.0);
  std::vector<double> ends(tasks, 0.0);
  for (TaskIndex t = 0; t < tables_.task_count(); ++t) {
    least_.push_back(tables_.least_s(t) * scale_);
    tail_.push_back(tables_.tail_s(t) * scale_);
    rank_.push_back(tables_.rank_s(t) * scale_);
    double longest = tables_.is_tool(t) ? least_[t] : 0.0;
    for (int32_t k = 1; k <= tables_.most_shards(t) && !tables_.is_tool(t); ++k) {
      for (WorkerIndex w = 0; w < workers(); ++w) {
        const double d = tables_.duration_s(t, k, w) * scale_;
        if (d < kNever) longest = std::max(longest, d);
      }
    }
    longest_.push_back(longest);
    double last_parent = 0.0;
    for (const TaskDependency& need : problem_.tasks[t].parents) {
      const TaskIndex p = need.parent;
      ancestors_[t][p] = true;
      for (size_t a = 0; a < tasks; ++a) {
        if (ancestors_[p][a]) ancestors_[t][a] = true;
      }
      head_[t] = std::max(
          {head_[t], head_[p] + need.lag * least_[p], ends[p] - (1.0 - need.lag) * longest_[t]});
      last_parent = std::max(last_parent, ends[p] + need.lag * least_[t]);
    }
    ends[t] = std::max(head_[t] + least_[t], last_parent);
  }
}

void MilpFormulation::AddPlaces() {
  const size_t tasks = problem_.tasks.size(), count = static_cast<size_t>(workers());
  z_.resize(tasks);
  v_.resize(tasks);
  x_.assign(tasks, std::vector<Sum>(count));
  d_ = load_ = x_;
  for (const TaskIndex t : tables_.calls()) AddCallPlaces(t);
}

void MilpFormulation::AddCallPlaces(TaskIndex t) {
  const TaskIndex source = problem_.tasks[t].kv_source;
  Sum one;
  for (int32_t k = 1; k <= tables_.most_shards(t); ++k) {
    const Sum n = tables_.most_shards(t) == 1 ? Sum(1.0) : model_.Binary();
    one.Plus(n);
    std::vector<Sum>& z = z_[t].emplace_back(workers());
    std::vector<Sum>& v = v_[t].emplace_back(workers());
    Sum placed;
    for (WorkerIndex w = 0; w < workers(); ++w) {
      const double work = tables_.duration_s(t, k, w) * scale_;
      if (work == kNever) continue;
      z[w] = model_.Binary();
      placed.Plus(z[w]);
      x_[t][w].Plus(z[w]);
      d_[t][w].Plus(z[w], work);
      if (source < 0 || k > tables_.most_shards(source) || z_[source][k - 1][w].terms.empty()) {
        continue;
      }
      v[w] = model_.Variable(0.0, 1.0, false);
      model_.AtLeast(z[w], v[w]);
      model_.AtLeast(z_[source][k - 1][w], v[w]);
      d_[t][w].Plus(v[w], -tables_.saved_s(t, k, w) * scale_);
    }
    model_.Equal(placed, Sum().Plus(n, k));
  }
  model_.Equal(one, 1.0);
}

void MilpFormulation::AddStarts() {
  for (TaskIndex t = 0; t < tables_.task_count(); ++t) {
    const size_t slots = tables_.most_shards(t) == 1 ? 1 : static_cast<size_t>(workers());
    std::vector<Sum>& starts = starts_.emplace_back();
    for (size_t slot = 0; slot < slots; ++slot) {
      starts.push_back(model_.Variable(head_[t], std::max(head_[t], horizon_ - rank_[t]), false));
    }
    end_.push_back(model_.Variable(head_[t], horizon_, false));
    Sum whole(tables_.is_tool(t) ? least_[t] : 0.0);
    for (WorkerIndex w = 0; w < workers(); ++w) {
      if (slots > 1) model_.AtLeast(end_[t], Sum(Start(t, w)).Plus(d_[t][w]));
      whole.Plus(d_[t][w]);
    }
    if (slots == 1) model_.AtLeast(end_[t], Sum(starts[0]).Plus(whole));
    model_.AtLeast(objective_, Sum(end_[t]).Plus(Sum(tail_[t])));
  }
}

void MilpFormulation::AddParents() {
  // (start, duration, how much longer it may count since it is not used) of each slot.
  struct Slot {
    Sum start, duration, unused;
  };
  const auto slots_of = [this](TaskIndex t) {
    std::vector<Slot> slots;
    if (starts_[t].size() == 1) {
      Sum whole(tables_.is_tool(t) ? least_[t] : 0.0);
      for (WorkerIndex w = 0; w < workers(); ++w) whole.Plus(d_[t][w]);
      slots.push_back({starts_[t][0], whole, Sum(0.0)});
      return slots;
    }
    for (WorkerIndex w = 0; w < workers(); ++w) {
      slots.push_back({starts_[t][w], d_[t][w], Sum(longest_[t]).Plus(x_[t][w], -longest_[t])});
    }
    return slots;
  };
  for (TaskIndex t = 0; t < tables_.task_count(); ++t) {
    for (const TaskDependency& need : problem_.tasks[t].parents) {
      for (const Slot& child : slots_of(t)) {
        for (const Slot& parent : slots_of(need.parent)) {
          model_.AtLeast(child.start, Sum(parent.start).Plus(parent.duration, need.lag));
        }
        model_.AtLeast(Sum(child.start)
                           .Plus(child.duration, 1.0 - need.lag)
                           .Plus(child.unused, 1.0 - need.lag),
                       end_[need.parent]);
      }
    }
  }
}

void MilpFormulation::AddOrders() {
  for (const TaskIndex i : tables_.calls()) {
    for (const TaskIndex j : tables_.calls()) {
      if (i >= j || ancestors_[j][i]) continue;
      std::vector<Sum>& order = order_[{i, j}];
      const bool one = tables_.most_shards(i) == 1 || tables_.most_shards(j) == 1;
      const Sum shared = one ? model_.Binary() : Sum();
      for (WorkerIndex w = 0; w < workers(); ++w) {
        order.push_back(one ? shared : model_.Binary());
      }
    }
  }
}

void MilpFormulation::AddExclusion() {
  for (const TaskIndex i : tables_.calls()) {
    for (const TaskIndex j : tables_.calls()) {
      if (i == j || ancestors_[i][j]) continue;
      for (WorkerIndex w = 0; w < workers(); ++w) {
        if (!Can(i, w) || !Can(j, w)) continue;
        const double reach = std::max(0.0, horizon_ - tail_[i] - head_[j] + Load(j, w));
        Sum slack(3.0);
        slack.Plus(Before(i, j, w), -1.0).Plus(x_[i][w], -1.0).Plus(x_[j][w], -1.0);
        model_.AtLeast(Sum(Start(j, w)).Plus(load_[j][w], -Load(j, w)).Plus(slack, reach),
                       Sum(Start(i, w)).Plus(d_[i][w]));
      }
      // A start variable that serves all workers meets d of this worker alone: d[i,w] = 0
      // elsewhere.
    }
    for (WorkerIndex w = 0; w < workers(); ++w) {  // a load takes time even before the first task
      if (!Can(i, w)) continue;
      model_.AtLeast(Start(i, w), Sum().Plus(load_[i][w], Load(i, w)));
    }
  }
}

bool MilpFormulation::HasRoomForAll(WorkerIndex w) const {
  uint64_t models = tables_.first_residents(w);
  int64_t kv = 0;
  for (const TaskIndex t : tables_.calls()) {
    if (!Can(t, w)) continue;
    models |= uint64_t{1} << problem_.tasks[t].model;
    kv = std::max(kv, problem_.tasks[t].kv_bytes[w]);
  }
  return tables_.fits(models, w, kv);
}

void MilpFormulation::AddLoadsOnce(WorkerIndex w) {
  std::map<ResidentIndex, std::vector<TaskIndex>> users;
  for (const TaskIndex t : tables_.calls()) {
    const ResidentIndex model = problem_.tasks[t].model;
    if (Can(t, w) && (tables_.first_residents(w) >> model & 1) == 0) users[model].push_back(t);
  }
  for (const auto& [model, tasks] : users) {
    const Sum used = model_.Variable(0.0, 1.0, false);
    Sum loads;
    for (const TaskIndex t : tasks) {
      load_[t][w] = model_.Binary();
      loads.Plus(load_[t][w]);
      model_.AtLeast(used, x_[t][w]);
      model_.AtLeast(x_[t][w], load_[t][w]);
    }
    model_.Equal(loads, used);
    for (const TaskIndex t : tasks) {
      for (const TaskIndex u : tasks) {
        if (t == u) continue;
        model_.AtLeast(Sum(1.0).Plus(Before(t, u, w)), Sum(load_[t][w]).Plus(x_[u][w]));
      }
    }
  }
}

void MilpFormulation::AddResidency(WorkerIndex w) {
  for (size_t model = 0; model < problem_.models.size(); ++model) {
    Sum loads, from_beginning;
    const bool resident = (tables_.first_residents(w) >> model & 1) != 0;
    std::vector<TaskIndex> tasks;
    for (const TaskIndex t : tables_.calls()) {
      if (static_cast<size_t>(problem_.tasks[t].model) != model || !Can(t, w)) continue;
      tasks.push_back(t);
      load_[t][w] = model_.Binary();
      loads.Plus(load_[t][w]);
      if (resident) {
        keep_[{-1, t, w}] = model_.Binary();
        from_beginning.Plus(keep_[{-1, t, w}]);
      }
    }
    if (resident) model_.AtLeast(1.0, from_beginning);
    for (const TaskIndex t : tasks) {
      if (!resident) model_.AtLeast(loads, x_[t][w]);
      Sum arrivals(load_[t][w]), departures;
      if (resident) arrivals.Plus(keep_[{-1, t, w}]);
      for (const TaskIndex u : tasks) {
        if (u != t && !ancestors_[u][t]) {
          Sum& keep = keep_[{u, t, w}] = model_.Binary();
          model_.AtLeast(x_[u][w], keep);
          model_.AtLeast(Before(u, t, w), keep);
          arrivals.Plus(keep);
        }
      }
      model_.Equal(arrivals, x_[t][w]);
    }
    for (const TaskIndex u : tasks) {
      Sum departures;
      for (const TaskIndex t : tasks) {
        if (keep_.contains({u, t, w})) departures.Plus(keep_[{u, t, w}]);
      }
      model_.AtLeast(x_[u][w], departures);
    }
  }
  for (const TaskIndex v : tables_.calls()) {
    if (Can(v, w)) AddMemory(v, w);
  }
}

void MilpFormulation::AddMemory(TaskIndex v, WorkerIndex w) {
  const ResidentIndex own = problem_.tasks[v].model;
  const auto weights = [&](ResidentIndex model) {
    return static_cast<double>(problem_.models[model].weights_bytes[w]);
  };
  const double room = static_cast<double>(problem_.workers[w].memory_bytes) -
                      static_cast<double>(problem_.tasks[v].kv_bytes[w]) - weights(own);
  double largest = 1.0;
  for (ResidentIndex m = 0; m < static_cast<ResidentIndex>(problem_.models.size()); ++m) {
    largest = std::max(largest, weights(m));
  }
  Sum beside;
  for (ResidentIndex m = 0; m < static_cast<ResidentIndex>(problem_.models.size()); ++m) {
    if (m == own) continue;
    const bool never = weights(m) > room;
    const Sum there = never ? Sum(0.0) : model_.Variable(0.0, 1.0, false);
    for (const auto& [key, keep] : keep_) {
      const auto& [from, to, worker] = key;
      if (worker != w || problem_.tasks[to].model != m) continue;
      // there >= keep + before(from, v) + before(v, to) + x[v] - 3
      Sum right(keep);
      right.Plus(from < 0 ? Sum(1.0) : Before(from, v, w)).Plus(Before(v, to, w)).Plus(x_[v][w]);
      model_.AtLeast(Sum(there).Plus(Sum(3.0)), right);
    }
    beside.Plus(there, weights(m) / largest);
  }
  if (!beside.terms.empty()) model_.AtLeast(room / largest, beside);
}

void MilpFormulation::AddWorkCuts() {
  std::vector<std::pair<double, double>> edges;  // (r, q)
  for (const TaskIndex t : tables_.calls()) {
    for (const TaskIndex u : tables_.calls()) {
      if (head_[t] <= head_[u] && tail_[u] <= tail_[t]) edges.emplace_back(head_[t], tail_[u]);
    }
    edges.emplace_back(0.0, tail_[t]);
  }
  std::sort(edges.begin(), edges.end());
  edges.erase(std::unique(edges.begin(), edges.end()), edges.end());
  for (const auto& [r, q] : edges) {
    for (WorkerIndex w = 0; w < workers(); ++w) {
      Sum work(r + q);
      for (const TaskIndex t : tables_.calls()) {
        if (head_[t] < r || tail_[t] < q || !Can(t, w)) continue;
        work.Plus(d_[t][w]);
        if (r == 0.0) work.Plus(load_[t][w], Load(t, w));
      }
      if (work.terms.size() > 1) model_.AtLeast(objective_, work);
    }
  }
}

void MilpFormulation::AddSymmetry() {
  std::map<int32_t, WorkerIndex> last;  // of each class
  for (WorkerIndex w = 0; w < workers(); ++w) {
    const auto before = last.find(tables_.worker_class(w));
    if (before != last.end()) {
      Sum used;
      for (const TaskIndex t : tables_.calls()) {
        used.Plus(x_[t][before->second]);
        model_.AtLeast(used, x_[t][w]);
      }
    }
    last[tables_.worker_class(w)] = w;
  }
}

std::optional<Schedule> MilpFormulation::Extract(const std::vector<double>& values) const {
  const auto is_set = [&](const Sum& sum) { return MilpModel::Value(sum, values) > 0.5; };
  std::vector<std::vector<TaskIndex>> queues(static_cast<size_t>(workers()));
  std::vector<int32_t> shards(problem_.tasks.size(), 0);
  for (WorkerIndex w = 0; w < workers(); ++w) {
    for (const TaskIndex t : tables_.calls()) {
      if (!is_set(x_[t][w])) continue;
      ++shards[t];
      queues[w].push_back(t);
    }
    // By their middles, which are apart by more than CBC's tolerances.
    const auto middle = [&](TaskIndex t) {
      return MilpModel::Value(Sum(Start(t, w)).Plus(d_[t][w], 0.5), values);
    };
    std::stable_sort(queues[w].begin(), queues[w].end(),
                     [&](TaskIndex i, TaskIndex j) { return middle(i) < middle(j); });
  }
  ScheduleBuilder builder(tables_);
  std::vector<size_t> next(queues.size(), 0);
  for (bool moved = true; moved;) {
    moved = false;
    for (WorkerIndex w = 0; w < workers(); ++w) {
      while (next[w] < queues[w].size() && builder.state().parents_placed(queues[w][next[w]])) {
        const TaskIndex t = queues[w][next[w]++];
        // What is kept over t stays, and of the rest whatever does no harm.
        uint64_t kept = uint64_t{1} << problem_.tasks[t].model;
        for (const auto& [key, keep] : keep_) {
          const auto& [from, to, worker] = key;
          if (worker != w || !is_set(keep)) continue;
          const auto place = [&](TaskIndex task) {
            return std::find(queues[w].begin(), queues[w].end(), task) - queues[w].begin() + 1;
          };
          const auto here = static_cast<std::ptrdiff_t>(next[w]);
          if ((from < 0 || place(from) <= here) && here <= place(to)) {
            kept |= uint64_t{1} << problem_.tasks[to].model;
          }
        }
        const bool roomy = builder.state().FitsWithout(t, w, 0);
        builder.Place(t, shards[t], w, roomy ? 0 : builder.state().residents(w) & ~kept);
        moved = true;
      }
    }
  }
  if (!builder.state().complete()) return std::nullopt;
  return builder.Finish("milp");
}

}  // namespace

Schedule PlanByMilp(const SchedulingProblem& problem, const PlannerOptions& options) {
  Schedule best = options.known != nullptr ? *options.known : PlanByList(problem, options);
  const double bound_s = LowerBound(problem);
  best.planner = "milp";
  best.states = 0;
  best.lower_bound_s = std::min(best.makespan_s, bound_s);
  best.proved_optimal = bound_s >= best.makespan_s * (1.0 - 1e-9);
  if (best.proved_optimal) return best;

  const ProblemTables tables(problem);
  const MilpFormulation formulation(tables, best.makespan_s, bound_s);
  const MilpModel::Solution solution =
      formulation.model().Solve(options.now_s ? options.budget_s : 0.0);
  // Whether the schedule is as short as CBC says that it is: then CBC's proof is one for it.
  bool as_said = true;
  if (!solution.values.empty()) {
    std::optional<Schedule> found = formulation.Extract(solution.values);
    as_said = found &&
              found->makespan_s <= formulation.Objective(solution.values) * (1.0 + kMilpTolerance);
    if (found && found->makespan_s < best.makespan_s) best = std::move(*found);
  }
  best.planner = "milp";
  best.states = solution.nodes;
  best.proved_optimal = solution.closed && as_said;
  best.lower_bound_s =
      best.proved_optimal
          ? best.makespan_s
          : std::min(best.makespan_s, std::max(bound_s, formulation.Seconds(solution.bound)));
  return best;
}

}  // namespace halo
