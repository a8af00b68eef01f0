#include "sim/simulation_harness.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <tuple>

#include "engine/simulated/simulated_fleet.h"
#include "optimizer/optimizer.h"
#include "runtime/simulated_tools.h"
#include "runtime/worker_placement.h"
#include "session/simulated_parts.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

constexpr int32_t kToolsAtOnce = 32;
/// Calls that the scheduler gives an engine, for each that it runs at once.
constexpr int64_t kGivenPerSequence = 4;

/// Looks at everything that happens; see Play.
class Watcher final : public SimulatedObserver, public RunObserver {
 public:
  Watcher(const Workload& workload, const LogicalPlan& plan, const VirtualClock& clock,
          Played& played)
      : workload_(workload),
        plan_(plan),
        clock_(clock),
        played_(played),
        workers_(static_cast<size_t>(workload.workers)) {}

  void set_queue_bound(int64_t calls) { queue_bound_ = calls; }

  void OnSubmit(int32_t index, size_t model, const Request& request) override {
    Worker& worker = workers_[static_cast<size_t>(index)];
    worker.waiting[RankOf(request)] = {model, clock_.NowUs(), 0};
    EXPECT_LE(++open_calls_, queue_bound_) << "queues in front of the engines are bounded";
    ExpectInputsEnded(request.script_operator, request.script_row);
  }

  void OnStart(int32_t index, const Request& request, int64_t) override {
    Worker& worker = workers_[static_cast<size_t>(index)];
    const Rank rank = RankOf(request);
    const auto begun = worker.waiting.find(rank);
    ASSERT_NE(begun, worker.waiting.end()) << "what begins was waiting";
    const size_t model = begun->second.model;
    worker.waiting.erase(begun);
    for (auto& [other, waiting] : worker.waiting) {
      if (rank < other) break;
      if (worker.running_of_model[waiting.model] >= workload_.sequences) continue;
      played_.most_overtaken = std::max(played_.most_overtaken, ++waiting.overtaken);
    }
    EXPECT_LT(worker.running_of_model[model]++, workload_.sequences);
    worker.running[request.id] = model;
    worker.is_used = true;
    ++played_.calls;
  }

  void OnLeave(int32_t index, RequestId id) override {
    Worker& worker = workers_[static_cast<size_t>(index)];
    const auto running = worker.running.find(id);
    if (running == worker.running.end()) {
      // Nothing is cancelled here: it moves to another worker, which takes it at once.
      const auto waiting =
          std::find_if(worker.waiting.begin(), worker.waiting.end(),
                       [&](const auto& each) { return std::get<2>(each.first) == id; });
      ASSERT_TRUE(workload_.moves_calls && waiting != worker.waiting.end());
      worker.waiting.erase(waiting);
      --open_calls_;
      ++played_.moved;
      return;
    }
    --worker.running_of_model[running->second];
    worker.running.erase(running);
  }

  void OnTick(const SimulatedTick& tick) override {
    ++played_.steps;
    const int64_t used = tick.weights_bytes + tick.running_kv_bytes + tick.kept_kv_bytes;
    EXPECT_LE(used, tick.memory_bytes) << "worker " << tick.worker;
    EXPECT_LE(tick.host_kv_bytes, workload_.host_bytes) << "worker " << tick.worker;
    EXPECT_LE(tick.sequences, workload_.sequences) << "worker " << tick.worker;
    EXPECT_EQ(tick.start_us, clock_.NowUs());
    EXPECT_LT(tick.start_us, tick.end_us);
    constexpr int64_t kPassTokens = 2048;
    if (tick.step == SimulatedStep::kPrefill) {
      EXPECT_LE(tick.tokens, kPassTokens);
    } else if (tick.step == SimulatedStep::kDecode) {
      EXPECT_EQ(tick.tokens, tick.in_step);
    }
    if (tick.step != SimulatedStep::kLoad) {
      EXPECT_GT(tick.in_step, 0);
      EXPECT_LE(tick.in_step, tick.running);
    }
    played_.loads += tick.step == SimulatedStep::kLoad ? 1 : 0;
    Worker& worker = workers_[static_cast<size_t>(tick.worker)];
    EXPECT_GE(tick.start_us, worker.busy_until_us) << "one thing at a time";
    for (const auto& [rank, waiting] : worker.waiting) {
      EXPECT_EQ(tick.start_us, std::max(worker.busy_until_us, waiting.since_us))
          << "worker " << tick.worker << " was idle while a request waited";
      if (waiting.since_us < tick.start_us) break;  // the others are no different
    }
    worker.busy_until_us = tick.end_us;
  }

  void OnCall(const CallRecord& call) override {
    ++ended_[{call.op.id, ScriptRow(call.row)}];
    open_calls_ -= call.merged ? 0 : 1;
  }
  void OnToolCall(const ToolCallRecord& call) override {
    ++ended_[{call.op.id, ScriptRow(call.row)}];
    played_.tool_calls += call.merged ? 0 : 1;
  }

  void ExpectAllBegun() const {
    for (size_t w = 0; w < workers_.size(); ++w) {
      EXPECT_TRUE(workers_[w].waiting.empty()) << "worker " << w;
      played_.workers_used += workers_[w].is_used ? 1 : 0;
    }
    EXPECT_EQ(open_calls_, 0);
  }

  void ExpectInputsEnded(const std::string& id, const std::string& row) {
    const auto& operators = plan_.workflow->operators;
    const auto op = std::find_if(operators.begin(), operators.end(),
                                 [&](const Operator& each) { return each.id == id; });
    ASSERT_NE(op, operators.end()) << id;
    const auto index = static_cast<OperatorIndex>(op - operators.begin());
    for (const OperatorIndex input : plan_.at(index).waits_for) {
      if (plan_.at(input).removed) continue;
      const Operator& before = plan_.operator_of(input);
      const int32_t samples =
          before.is_inference() && before.sampling.temperature > 0.0 ? before.samples : 1;
      const auto found = ended_.find({before.id, row});
      EXPECT_EQ(found == ended_.end() ? 0 : found->second, samples)
          << id << " of row " << row << " was asked before " << before.id << " had ended";
    }
  }

 private:
  using Rank = std::tuple<int32_t, int64_t, RequestId>;
  struct Waiting {
    size_t model = 0;
    int64_t since_us = 0;
    int64_t overtaken = 0;
  };
  struct Worker {
    std::map<Rank, Waiting> waiting;
    std::map<RequestId, size_t> running;  // of which model
    std::map<size_t, int64_t> running_of_model;
    int64_t busy_until_us = 0;
    bool is_used = false;
  };

  static Rank RankOf(const Request& request) {
    return {-request.priority, request.order, request.id};
  }
  static std::string ScriptRow(const Row& row) {
    return row.id.is_string() ? row.id.get<std::string>() : row.id.dump();
  }

  const Workload& workload_;
  const LogicalPlan& plan_;
  const VirtualClock& clock_;
  Played& played_;
  std::vector<Worker> workers_;
  std::map<std::pair<std::string, std::string>, int32_t> ended_;  // (operator, row): answers
  int64_t open_calls_ = 0;
  int64_t queue_bound_ = 0;
};

/// What a tool is asked, it waits for no less than a model does.
class WatchedTools final : public ToolRunner {
 public:
  WatchedTools(SimulatedTools& inner, Watcher& watcher) : inner_(inner), watcher_(watcher) {}
  void Submit(ToolCall call) override {
    watcher_.ExpectInputsEnded(call.script_operator, call.script_row);
    inner_.Submit(std::move(call));
    // Twice what each target runs at once; a workload has two.
    EXPECT_LE(inner_.pending(), 2 * 2 * kToolsAtOnce);
  }
  void Cancel(ToolCallId id) override { inner_.Cancel(id); }
  std::vector<ToolCompletion> Poll(int64_t deadline_us) override {
    return inner_.Poll(deadline_us);
  }
  int64_t pending() const override { return inner_.pending(); }

 private:
  SimulatedTools& inner_;
  Watcher& watcher_;
};

PhysicalPlan PlanOf(const Workload& workload, LogicalPlan& plan, bool naive,
                    std::vector<OptimizerSource>& sources, const RowStatistics& statistics,
                    const std::string& column) {
  OptimizerSource source;
  source.plan = &plan;
  source.prompt_column = column;
  source.rows = &statistics;
  for (const ModelRequest& request : plan.models) {
    const auto model =
        std::find_if(workload.models.begin(), workload.models.end(),
                     [&](const WorkloadModel& each) { return each.name == request.name; });
    ModelFacts facts;
    facts.name = facts.digest = request.name;
    facts.sequences = workload.sequences;
    facts.profile = DefaultProfile(request.name, model->weights_bytes, model->kv_token_bytes);
    source.models.push_back(std::move(facts));
  }
  sources.push_back(std::move(source));
  OptimizerOptions how;
  how.planner = workload.planner;
  how.workers = workload.workers;
  how.worker_memory_bytes = workload.memory_bytes;
  how.rows_side_by_side = workload.rows_side_by_side;
  if (naive) how.rules_off = RulesOffForNaive();
  return Optimize(sources, nullptr, how);
}

SimulatedFleetOptions FleetOf(const Workload& workload, const OptimizerSource& source,
                              const WorkerPlacement& placement, SimulatedAnswers& answers,
                              bool naive) {
  SimulatedFleetOptions fleet;
  for (const ModelFacts& facts : source.models) {
    SimulatedModel model;
    model.name = facts.name;
    model.costs = CostsOf(facts.profile);
    model.answer = [&answers](const Request& request, int32_t max_tokens) {
      return answers.Answer(request, max_tokens);
    };
    fleet.models.push_back(std::move(model));
  }
  fleet.memory_bytes.assign(static_cast<size_t>(workload.workers), workload.memory_bytes);
  fleet.host_bytes = workload.host_bytes;
  fleet.sequences = workload.sequences;
  fleet.reuse = !naive;
  fleet.moves_calls = workload.moves_calls && !naive;
  // Without a plan's word the fleet chooses itself.
  if (workload.seed != 0) {
    fleet.worker_of = [&placement](const Request& request) {
      return placement.WorkerOf(request.script_operator, request.row_index);
    };
    fleet.workers_of_model = placement.workers_of_model();
  }
  return fleet;
}

void SortById(std::vector<Json>& rows) {
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["id"].get<int64_t>() < b["id"].get<int64_t>();
  });
}

}  // namespace

int64_t MostOvertaken(const Workload& workload) {
  return kMostPassedPerSequence * workload.sequences;
}

Played Play(const Workload& workload, bool naive) {
  Played played;
  const Workflow workflow = ParseWorkflow(workload.yaml, "random.yaml");
  LogicalPlan plan = MakeLogicalPlan(workflow);
  const std::string column = ResolveColumn(workflow, "");
  RowStatistics statistics(ColumnSetsOf(plan, column));
  for (const Row& row : workload.rows) statistics.Add(row.values);
  std::vector<OptimizerSource> sources;
  const PhysicalPlan physical = PlanOf(workload, plan, naive, sources, statistics, column);
  const WorkerPlacement placement(physical, 0);

  VirtualClock clock;
  clock.AdvanceTo(1);
  const auto timeline = std::make_shared<SimulatedTimeline>();
  Watcher watcher(workload, plan, clock, played);
  SimulatedAnswers answers(workload.seed, {}, nullptr);
  SimulatedFleetOptions fleet_options = FleetOf(workload, sources[0], placement, answers, naive);
  fleet_options.observer = &watcher;
  fleet_options.timeline = timeline;
  SimulatedFleet fleet(std::move(fleet_options), clock);
  const SimulatedToolResults results(workload.seed, workflow, physical, 0);
  SimulatedTools tools(
      {kToolsAtOnce, [&](const ToolCall& call) { return results.Answer(call); }, timeline}, clock);
  WatchedTools watched(tools, watcher);

  ListFeed feed(workload.rows);
  ListSink sink;
  RunSource source;
  source.plan = &plan;
  source.rows = &feed;
  source.sink = &sink;
  source.prompt_column = column;
  int64_t sequences = 0;
  for (size_t m = 0; m < plan.models.size(); ++m) {
    source.models.push_back({&fleet.engine(m), {}});
    sequences += fleet.engine(m).Describe().sequences;
  }
  watcher.set_queue_bound(kGivenPerSequence * sequences);
  ExecutorOptions options;
  options.naive = naive;
  options.seed = workload.seed;
  options.window = workload.window;
  options.rows_side_by_side = workload.rows_side_by_side;
  options.input_order = workload.input_order;
  options.tools = &watched;
  options.tool_setup.concurrency = kToolsAtOnce;
  options.tool_setup.connections["shop"] = {SqlDialect::kDuckDb, {}, {}, true};
  const StopFlag never{0};
  played.report = Executor({source}, options, clock, &watcher).Run(never);

  watcher.ExpectAllBegun();
  ExpectAccounting(played.report, static_cast<int64_t>(workload.rows.size()));
  EXPECT_EQ(played.report.end, RunEnd::kFinished);
  EXPECT_LE(played.report.peak_open_rows, workload.window);
  EXPECT_LE(tools.peak_running(), kToolsAtOnce);
  EXPECT_TRUE(sink.finished);
  std::set<std::string> ids;
  for (const Json& row : sink.rows) ids.insert(row["id"].dump());
  EXPECT_EQ(ids.size(), sink.rows.size()) << "one outcome a row";
  EXPECT_EQ(sink.rows.size(), workload.rows.size()) << "one outcome a row";
  for (size_t m = 0; m < plan.models.size(); ++m) {
    EXPECT_EQ(fleet.engine(m).pending(), 0);
    played.spills += fleet.engine(m).Statistics().spills;
  }
  EXPECT_LE(played.most_overtaken, MostOvertaken(workload));
  for (const OperatorCounts& op : played.report.operators) played.reused_tokens += op.reused_tokens;
  played.elapsed_s = static_cast<double>(clock.NowUs() - 1) * 1e-6;
  if (!workload.input_order) SortById(sink.rows);
  played.rows = JoinRows(sink.rows);
  return played;
}

}  // namespace halo::test
