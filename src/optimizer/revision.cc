#include "optimizer/revision.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <tuple>

#include "base/check.h"
#include "optimizer/placement.h"
#include "optimizer/planners/list_planner.h"
#include "optimizer/rules/rules.h"

namespace halo {
namespace {

using WorkersOfTasks = std::vector<std::vector<WorkerIndex>>;  // [tasks][shards]
using Orders = std::vector<std::vector<int32_t>>;              // [sources][operators]

/// Workers of the shards of each of `operators`.
WorkersOfTasks WorkersOfOperators(const std::vector<PlacedOperator>& placements, size_t operators) {
  WorkersOfTasks of_operator(operators);
  for (const PlacedOperator& placed : placements) of_operator[placed.op].push_back(placed.worker);
  return of_operator;
}

/// As many of them as a task still has calls for.
WorkersOfTasks WorkersOf(const ProblemOfPlan& made, const std::vector<PlacedOperator>& placements,
                         size_t operators) {
  WorkersOfTasks of_operator = WorkersOfOperators(placements, operators), of_task;
  for (size_t task = 0; task < made.operators.size(); ++task) {
    std::vector<WorkerIndex>& workers = of_task.emplace_back(of_operator[made.operators[task]]);
    const size_t most = made.problem.tasks[task].work_s.size();
    if (workers.size() > most) workers.resize(most);
  }
  return of_task;
}

/// A run as the executor carries it out: operators stay on their workers, and each goes on with
/// what can begin first, ties by the operators' order.
class CarriedOut {
 public:
  CarriedOut(const ProblemTables& tables, const WorkersOfTasks& workers,
             const std::vector<std::tuple<size_t, int32_t>>& order)
      : tables_(tables), workers_(workers), order_(order), state_(tables) {}

  double Seconds() {
    while (!state_.complete()) Place(NextTask());
    return state_.makespan_s();
  }

 private:
  double StartOf(TaskIndex task) const {
    const std::vector<WorkerIndex>& workers = workers_[static_cast<size_t>(task)];
    double start_s = 0.0;
    for (const WorkerIndex worker : workers) {
      const auto shards = static_cast<int32_t>(workers.size());
      start_s = std::max(start_s, state_.TimesOf(task, shards, worker).start_s);
    }
    return start_s;
  }

  TaskIndex NextTask() const {
    TaskIndex next = -1;
    std::tuple<double, std::tuple<size_t, int32_t>> best;
    for (const TaskIndex task : tables_.calls()) {
      if (!state_.can_place(task)) continue;
      const std::tuple rank(StartOf(task), order_[static_cast<size_t>(task)]);
      if (next >= 0 && rank >= best) continue;
      next = task;
      best = rank;
    }
    HALO_CHECK(next >= 0, "what is left of a plan can be carried out");
    return next;
  }

  void Place(TaskIndex task) {
    TaskPlacement placement{task, workers_[static_cast<size_t>(task)], {}};
    const auto next_use = [this](ResidentIndex model) {
      return state_.calls_left(model) > 0 ? 0.0 : 1.0;
    };
    for (const WorkerIndex worker : placement.workers)
      placement.drops.push_back(DropsFor(state_, task, worker, next_use));
    state_.Place(placement);
  }

  const ProblemTables& tables_;
  const WorkersOfTasks& workers_;
  const std::vector<std::tuple<size_t, int32_t>>& order_;  // [tasks]
  PartialSchedule state_;
};

class Reviser {
 public:
  Reviser(const std::vector<OptimizerSource>& sources, const PhysicalPlan& current,
          const OptimizerOptions& options)
      : sources_(sources), current_(current), options_(options), rest_(current) {}

  PlanRevision Run(const OperatorHistory& observed, const std::vector<double>& left) {
    CardinalityEstimator(sources_, &observed).EstimateAll(rest_);
    PlanRevision revision;
    revision.why = LargestChange();
    for (size_t i = 0; i < rest_.operators.size(); ++i) {
      OperatorEstimate& estimate = rest_.operators[i].estimate;
      for (Estimate* scaled : {&estimate.instances, &estimate.calls, &estimate.busy_s})
        *scaled = *scaled * left[i];
    }
    left_ = left;
    made_ = MakeProblem(sources_, options_, rest_);
    MarkResidents();
    const ProblemTables tables(made_.problem);
    const Orders now = OrdersNow();
    const bool may_order = !options_.rules_off.contains("urgent_first");
    const Orders urgent = may_order ? OrdersByUrgency(sources_, rest_) : now;
    const WorkersOfTasks workers = WorkersOf(made_, current_.placements, rest_.operators.size());
    revision.current_s = Seconds(tables, workers, now);
    revision.revised_s = revision.current_s;
    revision.placements = current_.placements;
    revision.orders = now;
    const auto consider = [&](const std::vector<PlacedOperator>& placements) {
      const SchedulingProblem problem = WithoutKvLeftBehind(placements);
      const double seconds = Seconds(ProblemTables(problem),
                                     WorkersOf(made_, placements, rest_.operators.size()), urgent);
      if (seconds >= revision.revised_s) return;
      revision.revised_s = seconds;
      revision.placements = placements;
      revision.orders = urgent;
    };
    consider(current_.placements);
    if (options_.workers > 1) consider(PlacementsOf(made_, Plan()));
    return revision;
  }

 private:
  Schedule Plan() const {
    // The scheduler's thread waits for it; and simulations are to be equal, whatever the machine.
    constexpr int64_t kMostStates = 4'000;
    PlannerOptions planner;
    planner.most_states = kMostStates;
    return PlanAutomatically(made_.problem, planner);
  }

  /// The rest with what these placements have computed again: a call whose conversation's earlier
  /// part has ended finds its KV where that ran, and the plan of the rest does not know of it.
  SchedulingProblem WithoutKvLeftBehind(const std::vector<PlacedOperator>& placements) const {
    const size_t operators = rest_.operators.size();
    const WorkersOfTasks before = WorkersOfOperators(current_.placements, operators);
    const WorkersOfTasks after = WorkersOfOperators(placements, operators);
    SchedulingProblem problem = made_.problem;
    for (size_t i = 0; i < problem.tasks.size(); ++i) {
      SchedulingTask& task = problem.tasks[i];
      if (task.kv_source < 0) continue;
      const size_t op = made_.operators[i];
      const size_t source = made_.operators[static_cast<size_t>(task.kv_source)];
      // Elsewhere than its source it has no KV in the plan of the rest either.
      const bool counts_on_kv = after[op] == after[source] && after[op] != before[source];
      if (!counts_on_kv || left_[op] <= left_[source]) continue;
      const double share = (left_[op] - left_[source]) / left_[op];
      for (std::vector<double>& line : task.work_s) {
        const auto shards = static_cast<double>(&line - task.work_s.data() + 1);
        for (size_t w = 0; w < line.size(); ++w) line[w] += share * task.kv_saved_s[w] / shards;
      }
    }
    return problem;
  }

  /// Models are where they run now.
  void MarkResidents() {
    std::vector<std::set<ResidentIndex>> residents(made_.problem.workers.size());
    const WorkersOfTasks workers = WorkersOf(made_, current_.placements, rest_.operators.size());
    for (size_t task = 0; task < workers.size(); ++task) {
      for (const WorkerIndex worker : workers[task])
        residents[static_cast<size_t>(worker)].insert(made_.problem.tasks[task].model);
    }
    for (size_t w = 0; w < residents.size(); ++w) {
      int64_t bytes = 0;
      for (const ResidentIndex model : residents[w])
        bytes += made_.problem.models[static_cast<size_t>(model)].weights_bytes[w];
      PlannedWorker& worker = made_.problem.workers[w];
      if (bytes <= worker.memory_bytes)
        worker.resident.assign(residents[w].begin(), residents[w].end());
    }
  }

  Orders OrdersNow() const {
    Orders orders;
    for (const OptimizerSource& source : sources_) {
      std::vector<int32_t>& order = orders.emplace_back();
      for (const LogicalNode& node : source.plan->nodes) order.push_back(node.order);
    }
    return orders;
  }

  double Seconds(const ProblemTables& tables, const WorkersOfTasks& workers,
                 const Orders& orders) const {
    std::vector<std::tuple<size_t, int32_t>> order;
    for (const size_t at : made_.operators) {
      const PlannedOperator& planned = rest_.operators[at];
      order.emplace_back(planned.source, orders[planned.source][static_cast<size_t>(planned.op)]);
    }
    return CarriedOut(tables, workers, order).Seconds();
  }

  /// Estimates of the whole run, before what has ended is taken off.
  std::string LargestChange() const {
    size_t largest = 0;
    double most_s = -1.0;
    for (size_t i = 0; i < rest_.operators.size(); ++i) {
      const double change_s = std::abs(rest_.operators[i].estimate.busy_s.value -
                                       current_.operators[i].estimate.busy_s.value);
      if (change_s <= most_s) continue;
      largest = i;
      most_s = change_s;
    }
    if (most_s < 0.0) return "";
    const PlannedOperator& planned = rest_.operators[largest];
    const OperatorEstimate &now = planned.estimate, &before = current_.operators[largest].estimate;
    const LogicalPlan& plan = *sources_[planned.source].plan;
    const std::string& id = plan.operator_of(planned.op).id;
    const double calls = std::max(1.0, now.calls.value);
    if (plan.at(planned.op).model == kNoModel) {
      return fmt::format("a call of {} takes {:.3g} s, {:.3g} were expected", id,
                         now.busy_s.value / calls,
                         before.busy_s.value / std::max(1.0, before.calls.value));
    }
    return fmt::format(
        "{} answers with {:.0f} tokens in {:.3g} s of the engine, {:.0f} in {:.3g} s were expected",
        id, now.output_tokens.value, now.busy_s.value / calls, before.output_tokens.value,
        before.busy_s.value / std::max(1.0, before.calls.value));
  }

  const std::vector<OptimizerSource>& sources_;
  const PhysicalPlan& current_;
  const OptimizerOptions& options_;
  PhysicalPlan rest_;
  std::vector<double> left_;  // [operators]
  ProblemOfPlan made_;
};

}  // namespace

PlanRevision Revise(const std::vector<OptimizerSource>& sources, const PhysicalPlan& current,
                    const OperatorHistory& observed, const std::vector<double>& left,
                    const OptimizerOptions& options) {
  HALO_CHECK(left.size() == current.operators.size(), "a share of every operator is left");
  return Reviser(sources, current, options).Run(observed, left);
}

}  // namespace halo
