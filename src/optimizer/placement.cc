#include "optimizer/placement.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/check.h"
#include "optimizer/planners/planners.h"

namespace halo {
namespace {

constexpr int32_t kToolsAtOnce = 32;

/// Of a tool's task: what its calls ask, which bounds how many run at once, and their estimate.
struct ToolWork {
  TaskIndex task = 0;
  std::string target;
  double calls = 0.0, each_s = 0.0;
  double blocks = 1.0;  ///< of its rows
};

/// What a model is loaded as: one file, however many names it has.
std::string ResidentName(const ModelFacts& model) {
  return model.digest.empty() ? model.name : model.digest;
}

class ProblemBuilder {
 public:
  ProblemBuilder(const std::vector<OptimizerSource>& sources, const OptimizerOptions& options,
                 const PhysicalPlan& plan)
      : sources_(sources), options_(options), plan_(plan), task_of_(plan.operators.size(), -1) {}

  ProblemOfPlan Build() {
    const auto workers = static_cast<size_t>(options_.workers);
    for (size_t w = 0; w < workers; ++w) {
      PlannedWorker worker;
      worker.name = fmt::format("worker {}", w);
      worker.memory_bytes = options_.worker_memory_bytes;
      made_.problem.workers.push_back(std::move(worker));
    }
    for (size_t i = 0; i < plan_.operators.size(); ++i) {
      if (!IsLeftOut(i)) AddTask(i);
    }
    SetToolSeconds();
    return std::move(made_);
  }

 private:
  bool IsLeftOut(size_t position) const {
    const PlannedOperator& planned = plan_.operators[position];
    return planned.same_as >= 0 || NodeOf(planned).removed;
  }
  const LogicalNode& NodeOf(const PlannedOperator& planned) const {
    return sources_[planned.source].plan->at(planned.op);
  }
  const ModelFacts& ModelOf(const PlannedOperator& planned) const {
    return sources_[planned.source].models[static_cast<size_t>(NodeOf(planned).model)];
  }

  ResidentIndex ResidentOf(const ModelFacts& model) {
    const auto [found, is_new] = residents_.emplace(
        ResidentName(model), static_cast<ResidentIndex>(made_.problem.models.size()));
    if (is_new) {
      const auto workers = static_cast<size_t>(options_.workers);
      made_.problem.models.push_back({model.name,
                                      std::vector<double>(workers, model.profile.load_s),
                                      std::vector<int64_t>(workers, model.profile.weights_bytes)});
    }
    return found->second;
  }

  /// Where the first operator of the source that `position` belongs to stands.
  size_t FirstOf(size_t position) const {
    const PlannedOperator& planned = plan_.operators[position];
    return position - static_cast<size_t>(planned.op);
  }

  /// The task of another operator of the same source, or of the one whose calls serve it. -1: none.
  TaskIndex TaskOf(size_t position, OperatorIndex other) const {
    size_t at = FirstOf(position) + static_cast<size_t>(other);
    if (plan_.operators[at].same_as >= 0) at = static_cast<size_t>(plan_.operators[at].same_as);
    return task_of_[at];
  }

  void AddTask(size_t position) {
    const PlannedOperator& planned = plan_.operators[position];
    const LogicalNode& node = NodeOf(planned);
    const OperatorEstimate& estimate = planned.estimate;
    const auto index = static_cast<TaskIndex>(made_.problem.tasks.size());
    SchedulingTask task;
    task.name = sources_[planned.source].plan->operator_of(planned.op).id;
    const double rows = std::max(1.0, estimate.instances.value);
    const double blocks =
        std::max(1.0, std::ceil(rows / static_cast<double>(options_.rows_side_by_side)));
    std::map<TaskIndex, double> parents;
    for (const OperatorIndex input : node.waits_for) {
      const TaskIndex parent = TaskOf(position, input);
      // An operator that is served by one of another source may read what comes later there.
      if (parent >= 0 && parent < index) parents[parent] = 1.0 / blocks;
    }
    for (const auto& [parent, lag] : parents) task.parents.push_back({parent, lag});
    if (node.model == kNoModel) {
      const double calls = std::max(1.0, estimate.calls.value);
      tools_.push_back({index,
                        TargetOf(*sources_[planned.source].plan->operator_of(planned.op).tool),
                        calls, estimate.busy_s.value / calls, blocks});
    } else {
      AddWork(planned, task);
      const TaskIndex source = node.kv_source < 0 ? -1 : TaskOf(position, node.kv_source);
      if (parents.contains(source)) AddKvSource(planned, source, task);
    }
    task_of_[position] = index;
    made_.problem.tasks.push_back(std::move(task));
    made_.operators.push_back(position);
  }

  /// [tools_] whether one reads what the other gives, by way of however many.
  std::vector<bool> ChainedWith(TaskIndex task) const {
    const std::vector<SchedulingTask>& tasks = made_.problem.tasks;
    std::vector<bool> before(tasks.size()), after(tasks.size());
    before[static_cast<size_t>(task)] = after[static_cast<size_t>(task)] = true;
    for (size_t t = static_cast<size_t>(task) + 1; t-- > 0;) {
      if (!before[t]) continue;
      for (const TaskDependency& edge : tasks[t].parents)
        before[static_cast<size_t>(edge.parent)] = true;
    }
    for (size_t t = static_cast<size_t>(task) + 1; t < tasks.size(); ++t) {
      for (const TaskDependency& edge : tasks[t].parents)
        if (after[static_cast<size_t>(edge.parent)]) after[t] = true;
    }
    std::vector<bool> chained(tools_.size());
    for (size_t k = 0; k < tools_.size(); ++k) {
      const auto other = static_cast<size_t>(tools_[k].task);
      chained[k] = before[other] || after[other];
    }
    return chained;
  }

  /// So many calls of a target at once, whoever makes them; the last round is one whole call. Tools
  /// that do not wait for each other share their target's turns all the time; of two that do, the
  /// later one has none while the earlier one is in its first block of rows.
  void SetToolSeconds() {
    for (const ToolWork& tool : tools_) {
      double calls = tool.calls;
      const bool is_alone = std::none_of(tools_.begin(), tools_.end(), [&](const ToolWork& other) {
        return other.task != tool.task && other.target == tool.target;
      });
      if (!is_alone && tool.each_s > 0.0) {
        const std::vector<bool> chained = ChainedWith(tool.task);
        for (size_t k = 0; k < tools_.size(); ++k) {
          const ToolWork& other = tools_[k];
          if (other.task == tool.task || other.target != tool.target) continue;
          const double beside = chained[k] ? 1.0 - 1.0 / std::min(tool.blocks, other.blocks) : 1.0;
          calls += beside * other.calls * other.each_s / tool.each_s;
        }
      }
      made_.problem.tasks[static_cast<size_t>(tool.task)].tool_s =
          tool.each_s * std::ceil(calls / kToolsAtOnce);
    }
  }

  /// Half the rows take a little more than half the time: decode steps are shared by fewer.
  void AddWork(const PlannedOperator& planned, SchedulingTask& task) {
    const ModelFacts& model = ModelOf(planned);
    const OperatorEstimate& estimate = planned.estimate;
    task.model = ResidentOf(model);
    const auto workers = static_cast<size_t>(options_.workers);
    const double most = std::max(1.0, std::floor(estimate.calls.value));
    const int32_t shares = static_cast<int32_t>(std::min<double>(options_.workers, most));
    const double whole_batch = BatchOf(estimate.calls.value, model.sequences);
    const double context = estimate.prompt_tokens.value + estimate.output_tokens.value / 2.0;
    const double tokens = estimate.calls.value * std::max(0.0, estimate.output_tokens.value - 1.0);
    const double whole_s = DecodeSeconds(model.profile, tokens, whole_batch, context);
    for (int32_t k = 1; k <= shares; ++k) {
      const double batch = BatchOf(estimate.calls.value / k, model.sequences);
      const double slower = DecodeSeconds(model.profile, tokens, batch, context) - whole_s;
      const double seconds = std::max(0.0, (estimate.busy_s.value + std::max(0.0, slower)) / k);
      task.work_s.emplace_back(workers, seconds);
    }
    const double cells =
        (estimate.prompt_tokens.value + estimate.output_tokens.value) * whole_batch;
    const auto bytes =
        static_cast<int64_t>(cells * static_cast<double>(model.profile.kv_token_bytes));
    task.kv_bytes.assign(workers, Fitting(model, bytes));
  }

  static double BatchOf(double calls, int32_t sequences) {
    return std::max(1.0, std::min(calls, static_cast<double>(sequences)));
  }

  /// Where memory is tight fewer sequences run; the plan does not fail for it.
  int64_t Fitting(const ModelFacts& model, int64_t bytes) const {
    const int64_t room = options_.worker_memory_bytes - model.profile.weights_bytes;
    return std::max<int64_t>(0, std::min(bytes, room));
  }

  /// What its prompts do not compute where the KV lies ready; elsewhere it is computed again.
  void AddKvSource(const PlannedOperator& planned, TaskIndex source, SchedulingTask& task) {
    const ModelFacts& model = ModelOf(planned);
    if (made_.problem.tasks[static_cast<size_t>(source)].model != task.model) return;
    const double saved_s = PrefillSeconds(model.profile, planned.estimate.calls.value,
                                          planned.estimate.source_tokens, 0.0);
    if (saved_s <= 0.0 || planned.estimate.busy_s.value <= 0.0) return;
    task.kv_source = source;
    task.kv_saved_s.assign(static_cast<size_t>(options_.workers), saved_s);
    for (std::vector<double>& line : task.work_s) {
      const auto shares = static_cast<double>(&line - task.work_s.data() + 1);
      // The estimate has the KV; without it the work is more.
      for (double& seconds : line) seconds += saved_s / shares;
    }
  }

  const std::vector<OptimizerSource>& sources_;
  const OptimizerOptions& options_;
  const PhysicalPlan& plan_;
  std::vector<TaskIndex> task_of_;  // [operators] -1: none
  std::map<std::string, ResidentIndex> residents_;
  std::vector<ToolWork> tools_;  // in the order of their tasks
  ProblemOfPlan made_;
};

int32_t BatchLimitOf(const OptimizerSource& source, const LogicalNode& node) {
  const int32_t sequences = source.models[static_cast<size_t>(node.model)].sequences;
  const int32_t most = source.plan->operator_of(node.op).max_batch_size;
  return most > 0 ? std::min(most, sequences) : sequences;
}

}  // namespace

ProblemOfPlan MakeProblem(const std::vector<OptimizerSource>& sources,
                          const OptimizerOptions& options, const PhysicalPlan& plan) {
  return ProblemBuilder(sources, options, plan).Build();
}

std::vector<PlacedOperator> PlacementsOf(const ProblemOfPlan& made, const Schedule& schedule) {
  std::vector<PlacedOperator> placements;
  for (const PlacedShard& shard : schedule.shards) {
    placements.push_back({made.operators[static_cast<size_t>(shard.task)], shard.worker,
                          shard.shard, shard.shards, shard.start_s, shard.end_s, shard.load_s});
  }
  return placements;
}

void PlaceOperators(const std::vector<OptimizerSource>& sources, const OptimizerOptions& options,
                    PhysicalPlan& plan) {
  const ProblemOfPlan made = MakeProblem(sources, options, plan);
  PlannerOptions planner;
  // Planning is to stay far below what it saves; who asks for a planner by name gives it its time.
  if (options.planner == "auto") {
    planner.most_states = AutomaticStates(made.problem);
  } else {
    planner.now_s = options.now_s;
  }
  const Schedule schedule = options.place ? options.place(made.problem)
                                          : PlanByName(options.planner, made.problem, planner);
  if (options.place) {
    const std::string fault = FaultOf(made.problem, schedule);
    HALO_CHECK(fault.empty(), fault.c_str());
  }
  plan.planner = schedule.planner;
  for (const PlannedWorker& worker : made.problem.workers)
    plan.workers.push_back({worker.name, worker.memory_bytes});
  plan.placements = PlacementsOf(made, schedule);
  double loads_s = 0.0;
  for (const PlacedOperator& placed : plan.placements) loads_s += placed.load_s;
  for (size_t task = 0; task < made.operators.size(); ++task) {
    PlannedOperator& planned = plan.operators[made.operators[task]];
    planned.start_s.reset();
    if (made.problem.tasks[task].model == kNoResident)
      planned.start_s = schedule.tool_start_s[task];
  }
  for (const PlacedOperator& placed : plan.placements) {
    std::optional<double>& start_s = plan.operators[placed.op].start_s;
    start_s = std::min(start_s.value_or(placed.start_s), placed.start_s);
  }
  plan.engine_busy_s = {};
  for (PlannedOperator& planned : plan.operators) {
    const LogicalNode& node = sources[planned.source].plan->at(planned.op);
    if (node.model != kNoModel) planned.batch_limit = BatchLimitOf(sources[planned.source], node);
    if (node.model != kNoModel) plan.engine_busy_s += planned.estimate.busy_s;
  }
  // The machine's error is the plan's; what lies between its work is as the schedule has it.
  const double between_s =
      schedule.makespan_s - plan.engine_busy_s.value / std::max(1, options.workers);
  plan.elapsed_s = plan.engine_busy_s * (1.0 / std::max(1, options.workers)) +
                   Estimate::Exactly(std::max(0.0, between_s));
  plan.lower_bound_s = schedule.lower_bound_s;
  plan.load_s = loads_s;
}

}  // namespace halo
