// The loop of a run: rows in, rows out. Calls are in executor_calls.cc, ends in executor_ends.cc.
#include "runtime/executor.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "base/check.h"
#include "plan/operator_reads.h"
#include "runtime/executor_impl.h"
#include "runtime/run_identities.h"

namespace halo {
namespace {

using State = InstanceState;

constexpr int64_t kWaitSliceUs = 100'000;
constexpr int64_t kFlushEveryUs = 100'000;
constexpr int64_t kProgressEveryUs = 250'000;

/// [operators] true where a tool waits for what the operator says, directly or through others.
std::vector<bool> FeedsTools(const LogicalPlan& plan) {
  std::vector<bool> feeds(plan.nodes.size(), false);
  for (size_t i = plan.nodes.size(); i > 0; --i) {
    const LogicalNode& node = plan.nodes[i - 1];
    if (plan.operator_of(node.op).is_inference() && !feeds[i - 1]) continue;
    for (const OperatorIndex input : node.waits_for) feeds[static_cast<size_t>(input)] = true;
  }
  return feeds;
}

/// [operators] true where nothing but tools has to end before the model is asked.
std::vector<bool> FirstInferences(const LogicalPlan& plan) {
  std::vector<bool> is_first(plan.nodes.size(), false);
  std::vector<bool> is_behind(plan.nodes.size(), false);  // inference is ahead of it
  for (const LogicalNode& node : plan.nodes) {
    const auto op = static_cast<size_t>(node.op);
    for (const OperatorIndex input : node.waits_for) {
      const auto before = static_cast<size_t>(input);
      if (is_behind[before] || plan.operator_of(input).is_inference()) is_behind[op] = true;
    }
    is_first[op] = plan.operator_of(node.op).is_inference() && !is_behind[op];
  }
  return is_first;
}

}  // namespace

Executor::Executor(std::vector<RunSource> sources, ExecutorOptions options, Clock& clock,
                   RunObserver* observer)
    : impl_(std::make_unique<Impl>(std::move(sources), options, clock, observer)) {
  impl_->Prepare();
}

Executor::~Executor() = default;

void Executor::Impl::Prepare() {
  HALO_CHECK(!sources.empty() && options.window > 0 && options.rows_side_by_side > 0,
             "a run has sources, a window and rows side by side");
  if (options.journal != nullptr) {
    // The budget is that of the run, over all its parts.
    calls_made = options.journal->earlier_calls();
    tokens_spent = options.journal->earlier_tokens();
    cost_spent = options.journal->earlier_cost();
    earlier_us = options.journal->earlier_us();
  }
  for (size_t s = 0; s < sources.size(); ++s) {
    const RunSource& source = sources[s];
    const LogicalPlan& plan = *source.plan;
    HALO_CHECK(source.models.size() == plan.models.size(), "every model is bound");
    HALO_CHECK(source.adapters.size() == plan.adapters.size(), "every adapter is bound");
    SourceState state;
    state.kv_consumers.resize(plan.nodes.size());
    state.readers.resize(plan.nodes.size(), 0);
    state.ready.resize(plan.nodes.size());
    state.feeds_tools = FeedsTools(plan);
    state.is_first = FirstInferences(plan);
    for (const LogicalNode& node : plan.nodes) {
      PrepareOperator(state, source, node);
      OperatorCounts counts;
      counts.id = plan.operator_of(node.op).id;
      counts.kind = plan.operator_of(node.op).kind;
      counts.model = plan.operator_of(node.op).model.name;
      counts.source = s;
      report.operators.push_back(std::move(counts));
    }
    states.push_back(std::move(state));
  }
  FindWrittenTargets();
}

void Executor::Impl::PrepareOperator(SourceState& state, const RunSource& source,
                                     const LogicalNode& node) {
  const LogicalPlan& plan = *source.plan;
  const Operator& op = plan.operator_of(node.op);
  if (node.kv_source >= 0)
    state.kv_consumers[static_cast<size_t>(node.kv_source)].push_back(node.op);
  state.builders.emplace_back();
  state.tools.emplace_back();
  if (op.is_inference()) {
    const ModelBinding& model = source.models[static_cast<size_t>(node.model)];
    state.builders.back() =
        std::make_unique<PromptBuilder>(plan, node.op, model.prompts, source.prompt_column);
    if (std::find(engines.begin(), engines.end(), model.engine) == engines.end())
      engines.push_back(model.engine);
  } else {
    HALO_CHECK(options.tools != nullptr, "a workflow with tools has someone to run them");
    state.tools.back() = std::make_unique<ToolCallBuilder>(op, options.tool_setup);
  }
  state.waiters.resize(plan.nodes.size());
  std::vector<OperatorIndex> asked = ConditionInputs(op);
  for (const OperatorIndex input : node.waits_for) {
    const bool reads =
        std::find(node.inputs.begin(), node.inputs.end(), input) != node.inputs.end();
    const bool asks = std::binary_search(asked.begin(), asked.end(), input);
    state.waiters[static_cast<size_t>(input)].push_back(
        {node.op, reads, op.is_conditional(), asks});
  }
  state.condition_inputs.push_back(std::move(asked));
  std::vector<OperatorIndex> reads = op.inputs;
  const std::vector<OperatorIndex>& own = state.condition_inputs.back();
  reads.insert(reads.end(), own.begin(), own.end());
  for (const NameBinding& name : op.names)
    reads.insert(reads.end(), name.producers.begin(), name.producers.end());
  std::sort(reads.begin(), reads.end());
  reads.erase(std::unique(reads.begin(), reads.end()), reads.end());
  for (const OperatorIndex read : reads) ++state.readers[static_cast<size_t>(read)];
  state.reads.push_back(std::move(reads));
  state.counts.push_back(report.operators.size());
}

RunReport Executor::Run(const StopFlag& stop) {
  Impl& impl = *impl_;
  impl.started_us = impl.clock.NowUs();
  while (true) {
    const int asked = stop.load();
    if (asked >= 1) impl.Stop();
    if (asked >= 2) {
      impl.Abort();
      return impl.Finish(RunEnd::kInterrupted);
    }
    impl.TakeCancelledRows();
    if (!impl.stopping) impl.OpenRows();
    impl.SubmitReady();
    impl.ComputeAhead();
    if (impl.options.cache != nullptr) impl.options.cache->EndTurn();
    impl.PollEngines();
    impl.PollTools(0);
    impl.CheckJournal();
    impl.WriteRows();
    impl.CheckLimits();
    const bool working = impl.working() || !impl.ahead.empty();
    impl.FlushRows(!working);
    impl.TellOfTurn();
    impl.ReachCheckpoint();
    if (!working && impl.AllClosed() && impl.open_rows.empty())
      return impl.Finish(RunEnd::kFinished);
    if (!working && impl.stopping) {
      if (asked >= 1) return impl.Finish(RunEnd::kInterrupted);
      return impl.Finish(impl.NothingIsLeft() ? RunEnd::kFinished : RunEnd::kStopped);
    }
    if (impl.calls.empty() && impl.ahead.empty()) impl.Wait();
  }
}

/// No call of an engine is under way: waits for a tool, for the next retry, or for rows if every
/// open source has said that it has none now. Returns at once if there is something to do.
void Executor::Impl::Wait() {
  if (!due_retries.empty()) return;
  int64_t idle = 0;
  for (const SourceState& state : states) {
    const bool ready = std::any_of(state.ready.begin(), state.ready.end(),
                                   [](const ReadyQueue& queue) { return !queue.empty(); });
    const bool under_way = working();
    const size_t source = static_cast<size_t>(&state - states.data());
    const bool has_room = state.opened - state.written < WindowOfASource();
    // The next turn opens more rows.
    if (!stopping && !state.closed && !state.idle && has_room && WantsMoreRows(source)) return;
    if (ready && !under_way) return;
    if (!state.closed && !state.idle && !under_way) {
      // Its window may be full of rows that are not on the disk yet.
      if (AwaitsCommit()) options.journal->Wait(kWaitSliceUs);
      return;
    }
    idle += state.idle ? 1 : 0;
  }
  int64_t until_us = clock.NowUs() + kWaitSliceUs;
  if (!retries.empty()) until_us = std::min(until_us, retries.begin()->first);
  if (!tool_retries.empty()) until_us = std::min(until_us, tool_retries.begin()->first);
  if (AwaitsCommit()) {
    constexpr int64_t kLookAgainUs = 5000;
    if (tool_work.empty()) return options.journal->Wait(kWaitSliceUs);
    until_us = std::min(until_us, clock.NowUs() + kLookAgainUs);
  }
  if (!tool_work.empty()) {
    // Beside rows, too, where tools can be waited for beside others.
    if (options.tools->ready_descriptor() >= 0) return WaitForOthers(until_us);
    return PollTools(until_us);
  }
  if (working()) return clock.SleepUntil(until_us);
  for (size_t s = 0; s < sources.size(); ++s) {
    if (states[s].idle) sources[s].rows->Wait(kWaitSliceUs / idle);
  }
}

bool Executor::Impl::AllClosed() const {
  return std::all_of(states.begin(), states.end(),
                     [](const SourceState& state) { return state.closed; });
}

/// A limit has stopped the run, and every row has ended. A source whose last row was opened need
/// not have said so: it is asked, and a row that it still has is one that is left.
bool Executor::Impl::NothingIsLeft() {
  if (!open_rows.empty()) return false;
  for (size_t s = 0; s < sources.size(); ++s) {
    Row row;
    if (states[s].closed) continue;
    states[s].closed = sources[s].rows->Next(row) == RowFeed::Pull::kClosed;
    if (!states[s].closed) return false;
  }
  return true;
}

void Executor::Impl::OpenRows() {
  for (SourceState& state : states) state.idle = false;
  bool opened = true;
  while (opened) {
    // Sources take turns, so that none waits for another to end.
    opened = false;
    for (size_t turn = 0; turn < sources.size() && !opened; ++turn) {
      const size_t source = next_source;
      next_source = (next_source + 1) % sources.size();
      opened = WantsMoreRows(source) && OpenOneRow(source);
    }
  }
}

bool Executor::Impl::OpenOneRow(size_t source) {
  SourceState& state = states[source];
  // In input order a row is written after all before it, so this counts from the oldest one.
  if (state.closed || state.idle || state.opened - state.written >= WindowOfASource()) return false;
  auto row = std::make_unique<RowState>();
  switch (sources[source].rows->Next(row->row)) {
    case RowFeed::Pull::kClosed:
      state.closed = true;
      return false;
    case RowFeed::Pull::kNothingYet:
      state.idle = true;
      return false;
    case RowFeed::Pull::kRow:
      break;
  }
  row->source = source;
  StartRow(std::move(row));
  return true;
}

void Executor::Impl::StartRow(std::unique_ptr<RowState> owned) {
  RowState& row = *owned;
  const RunSource& source = sources[row.source];
  const LogicalPlan& plan = *source.plan;
  row.id_text = row.row.id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  ++report.counts.rows_opened;
  ++states[row.source].opened;
  row.priority = source.priority + row.row.priority;
  row.opened_us = clock.NowUs();
  const int64_t timeout_us = row.row.timeout_us > 0 ? row.row.timeout_us : source.row_timeout_us;
  if (timeout_us > 0) row.deadline_us = row.opened_us + timeout_us;
  row.instances.resize(plan.nodes.size());
  row.open_instances = static_cast<int32_t>(plan.nodes.size());
  for (const LogicalNode& node : plan.nodes) {
    Instance& instance = At(row, node.op);
    instance.inputs_left = static_cast<uint16_t>(node.waits_for.size());
    instance.readers_left =
        static_cast<uint16_t>(states[row.source].readers[static_cast<size_t>(node.op)]);
    if (!node.removed) ++CountsOf(row, node.op).logical;
  }
  const auto [place, added] =
      open_rows.emplace(std::pair(row.source, row.row.index), std::move(owned));
  HALO_CHECK(added, "row indices of a source are distinct");
  report.peak_open_rows = std::max(report.peak_open_rows, static_cast<int64_t>(open_rows.size()));
  if (row.row.failure) {
    row.failure = row.row.failure;
    row.cancelled = row.failure->code == "cancelled";
    for (const LogicalNode& node : plan.nodes) {
      if (node.removed) {
        Omit(row, node.op);
      } else {
        Abandon(row, node.op);
      }
    }
    return;
  }
  // First, so that nothing that ends at once takes them for waiting.
  for (const LogicalNode& node : plan.nodes) {
    if (node.removed) Omit(row, node.op);
  }
  for (const LogicalNode& node : plan.nodes) {
    if (node.removed || !node.waits_for.empty()) continue;
    if (!StartOrSkip(row, node.op)) Propagate(row, node.op);
  }
}

void Executor::Impl::TakeCancelledRows() {
  for (size_t source = 0; source < sources.size(); ++source) {
    for (const int64_t index : sources[source].rows->TakeCancelled()) CancelRow(source, index);
  }
}

void Executor::Impl::WriteRows() {
  if (!options.input_order) {
    auto key = ended_rows.begin();
    for (; key != ended_rows.end(); ++key) {
      const auto ended = open_rows.find(*key);
      if (!IsCommitted(*ended->second)) break;
      WriteRow(*ended->second);
      open_rows.erase(ended);
    }
    ended_rows.erase(ended_rows.begin(), key);
    return;
  }
  for (size_t source = 0; source < sources.size(); ++source) {
    auto it = open_rows.lower_bound({source, 0});
    while (it != open_rows.end() && it->first.first == source && it->second->open_instances == 0 &&
           IsCommitted(*it->second)) {
      WriteRow(*it->second);
      it = open_rows.erase(it);
    }
  }
}

void Executor::Impl::WriteRow(RowState& row) {
  const LogicalPlan& plan = PlanOf(row);
  RowResult result;
  result.index = row.row.index;
  result.id = row.row.id;
  result.failure = row.failure;
  result.opened_us = row.opened_us - started_us;
  result.ended_us = row.ended_us - started_us;
  result.prompt_tokens = row.prompt_tokens;
  result.output_tokens = row.output_tokens;
  const Workflow& workflow = *plan.workflow;
  for (const NameBinding& output : options.all_outputs ? workflow.all_outputs : workflow.outputs)
    result.outputs.emplace_back(output.name, ValueOf(row, output, nullptr));
  for (const OperatorIndex op : row.skipped) result.skipped.push_back(plan.operator_of(op).id);
  ++(row.failure ? report.counts.rows_failed : report.counts.rows_ok);
  ++states[row.source].written;
  unflushed = true;
  sources[row.source].sink->Write(result);
  NoteWritten(row);
  if (observer == nullptr) return;
  observer->OnRow(row.source, result);
  if (row.failure) observer->OnFailedRow(row.source, row.row);
}

/// What is done is there for whoever reads the output, and survives a crash, within a tenth of a
/// second; at once if nothing runs, since a client may wait for an answer before it gives the next
/// row.
void Executor::Impl::FlushRows(bool idle) {
  if (!unflushed) return;
  const int64_t now = clock.NowUs();
  if (!idle && now - last_flush_us < kFlushEveryUs) return;
  for (RunSource& source : sources) source.sink->Flush();
  RecordWrittenRows();
  unflushed = false;
  last_flush_us = now;
}

void Executor::Impl::TellOfTurn() {
  if (observer == nullptr) return;
  report.counts.calls_running = static_cast<int64_t>(calls.size() + tool_work.size());
  observer->OnTurn(report.counts);
  if (clock.NowUs() - last_progress_us >= kProgressEveryUs) TellProgress();
}

void Executor::Impl::TellProgress() {
  if (observer == nullptr) return;
  last_progress_us = clock.NowUs();
  observer->OnProgress({report.counts, report.operators, Waits(), rows_ended, rows_ended_failed});
}

void Executor::Impl::CountAnswer(OperatorCounts& counts) {
  constexpr int64_t kFirstCheckpoint = 32;
  ++counts.answered;
  const bool is_power = (counts.answered & (counts.answered - 1)) == 0;
  is_checkpoint = is_checkpoint || (is_power && counts.answered >= kFirstCheckpoint);
}

void Executor::Impl::ReachCheckpoint() {
  if (std::exchange(is_checkpoint, false) && options.on_checkpoint)
    options.on_checkpoint(report.operators);
}

void Executor::Impl::Abort() {
  for (const auto& [id, call] : calls) call.engine->Cancel(id);
  for (const auto& [id, work] : tool_work) options.tools->Cancel(id);
  for (const ToolWork& work : uncommitted_writes) Withdraw(work);
}

RunReport Executor::Impl::Finish(RunEnd end) {
  CommitAll();
  report.end = end;
  if (end == RunEnd::kFinished) {
    // The limit was reached when nothing was left to do.
    report.stop_cause = StopCause::kNone;
    report.stop_reason.clear();
  }
  for (const auto& [key, row] : open_rows) {
    // Done, but behind one that is not: what was paid for is written.
    if (row->open_instances == 0) {
      WriteRow(*row);
      continue;
    }
    ++report.rows_unfinished;
    for (size_t op = 0; op < row->instances.size(); ++op) {
      const Instance& instance = row->instances[op];
      if (instance.state == State::kDone || instance.counted == CountedAs::kMerged) continue;
      OperatorCounts& counts = CountsOf(*row, static_cast<OperatorIndex>(op));
      ++counts.unfinished;
      if (instance.counted == CountedAs::kExecuted) {
        --counts.executed;
      } else if (instance.counted == CountedAs::kCached) {
        --counts.cached;  // what was known did not fit its schema, and was not repaired
      } else {
        ++counts.distinct;
      }
    }
  }
  for (RunSource& source : sources) {
    if (end == RunEnd::kFinished) source.sink->Finish();
    source.sink->Flush();
  }
  RecordWrittenRows();
  CommitAll();
  report.counts.calls_running = 0;
  report.cost = cost_spent;
  if (!answers.failure().empty()) report.notices.push_back(answers.failure());
  if (!results.failure().empty()) report.notices.push_back(results.failure());
  const std::string broken = BrokenIdentity(report);
  HALO_CHECK(broken.empty(), broken.c_str());
  TellProgress();
  return report;
}

void RowFeed::Wait(int64_t most_us) {
  constexpr int64_t kLookAgainUs = 1000;
  std::this_thread::sleep_for(std::chrono::microseconds(std::min(most_us, kLookAgainUs)));
}

namespace {

class SourceFeed final : public RowFeed {
 public:
  explicit SourceFeed(RowSource& source) : source_(source) {}
  void Wait(int64_t most_us) override { source_.Ready(most_us); }
  std::vector<int64_t> TakeCancelled() override { return source_.TakeCancelled(); }
  int ready_descriptor() const override { return source_.ready_descriptor(); }
  Pull Next(Row& row) override {
    if (!source_.Ready(0)) return Pull::kNothingYet;
    std::optional<Row> next = source_.Next();
    if (!next) return Pull::kClosed;
    row = std::move(*next);
    return Pull::kRow;
  }

 private:
  RowSource& source_;
};

}  // namespace

std::unique_ptr<RowFeed> FeedFrom(RowSource& source) {
  return std::make_unique<SourceFeed>(source);
}

}  // namespace halo
