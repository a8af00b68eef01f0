#include "runtime/executor.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <queue>
#include <thread>
#include <tuple>
#include <unordered_map>

#include "base/check.h"
#include "base/hash.h"
#include "base/random.h"

namespace halo {
namespace {

constexpr int64_t kPollSliceUs = 100'000;
constexpr int64_t kProgressEveryUs = 250'000;
constexpr int64_t kFlushEveryUs = 100'000;
/// Calls given to an engine beyond those it runs, so that it can choose what shares a prefix.
constexpr int32_t kQueuedPerSequence = 3;
constexpr int64_t kRowsBeforeShareCounts = 20;

enum class State : uint8_t { kWaiting, kReady, kSubmitted, kMerged, kDone };

struct RowState;

/// One operator for one row.
struct Instance {
  State state = State::kWaiting;
  InstanceEnd end = InstanceEnd::kUnfinished;
  uint16_t inputs_left = 0;
  uint16_t readers_left = 0;  // consumers that have not built their prompt yet
  RequestId request = 0;      // 0: none of its own (merged, or not there yet)
  std::unique_ptr<Conversation> conversation;
};

struct RowState {
  Row row;
  std::string id_text;  // the id as JSON
  size_t source = 0;
  std::vector<Instance> instances;  // [operators]
  int32_t open_instances = 0;
  int64_t deadline_us = 0;
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::optional<Failure> failure;  // of the first operator in order that failed
  OperatorIndex failed_operator = -1;
  bool cancelled = false;
};

/// Rows that wait for one operator's call, the lowest on top whenever it became ready.
struct HigherRow {
  bool operator()(const RowState* a, const RowState* b) const {
    return a->row.index > b->row.index;
  }
};
using ReadyQueue = std::priority_queue<RowState*, std::vector<RowState*>, HigherRow>;

/// A call under way and everyone who waits for it.
struct Call {
  RowState* row = nullptr;
  OperatorIndex op = 0;
  Engine* engine = nullptr;
  Request request;  // prompt moved out
  Signature signature;
  bool mergeable = false;
  std::vector<std::pair<RowState*, OperatorIndex>> followers;
};

Failure Cancelled() { return {"", "cancelled", "the row was cancelled", false}; }

/// True for failures that say something about the row that made the call, not about the call.
bool IsOfOneRow(const Failure& failure) {
  return failure.code == "cancelled" || failure.code == "deadline";
}

/// The answer of a call that may be given again.
struct Answer {
  Completion completion;
};

}  // namespace

struct Executor::Impl {
  std::vector<RunSource> sources;
  ExecutorOptions options;
  const Clock& clock;
  RunObserver* observer;

  struct SourceState {
    std::vector<PromptBuilder> builders;            // [operators]
    std::vector<std::vector<OperatorIndex>> named;  // [operators] ancestors that templates may name
    std::vector<std::vector<OperatorIndex>>
        kv_consumers;               // [operators] whose KV begins with this one's
    std::vector<ReadyQueue> ready;  // [operators] rows whose inputs are there
    std::vector<int32_t> running;   // [operators] calls in an engine
    std::vector<size_t> counts;     // [operators] index into report.operators
    bool closed = false;
    bool idle = false;    // open, but has no row now
    int64_t opened = 0;   // rows
    int64_t written = 0;  // rows
  };
  std::vector<SourceState> states;
  std::vector<Engine*> engines;                                               // distinct
  std::map<std::pair<size_t, int64_t>, std::unique_ptr<RowState>> open_rows;  // (source, index)
  std::vector<std::pair<size_t, int64_t>>
      ended_rows;  // to be written, where that is not in input order
  std::unordered_map<RequestId, Call> calls;
  std::unordered_map<Signature, RequestId, SignatureHasher> calls_by_signature;
  std::unordered_map<Signature, Answer, SignatureHasher> answers;  // of this window
  std::deque<Signature> answers_in_order;
  std::unordered_map<Engine*, int64_t> submitted;  // calls in each engine
  RequestId next_request = 1;
  size_t next_source = 0;
  size_t next_engine = 0;
  bool stopping = false;
  int64_t last_progress_us = 0;
  int64_t last_flush_us = 0;
  bool unflushed = false;                         // rows written since
  int64_t rows_ended = 0, rows_ended_failed = 0;  // written or not
  RunReport report;

  Impl(std::vector<RunSource> s, ExecutorOptions o, const Clock& c, RunObserver* obs)
      : sources(std::move(s)), options(o), clock(c), observer(obs) {}

  void Prepare();
  void OpenRows();
  bool AllClosed() const;
  /// Each source has its share of the window, so that a row that takes long holds up its own source
  /// only.
  int64_t WindowOfASource() const {
    return std::max<int64_t>(1, options.window / static_cast<int64_t>(sources.size()));
  }
  bool OpenOneRow(size_t source);
  bool WantsMoreRows(size_t source) const;
  void StartRow(std::unique_ptr<RowState> row);
  void MakeReady(RowState& row, OperatorIndex op);
  void SubmitReady();
  bool NextReady(size_t& source, OperatorIndex& op);
  bool MaySubmit(size_t source, OperatorIndex op) const;
  void SubmitInstance(RowState& row, OperatorIndex op);
  void BuildRequest(RowState& row, OperatorIndex op, Call& call, Conversation& conversation);
  void AddressRequest(RowState& row, OperatorIndex op, Request& request);
  void Send(Call call);
  void PromoteFollower(const Call& call);
  bool MergeInto(RowState& row, OperatorIndex op, const Call& call);
  void StopMergingInto(const Call& call);
  void PollEngines();
  void OnCompletion(Completion completion);
  void EndInstance(RowState& row, OperatorIndex op, const Completion& completion, const Call& call,
                   bool merged);
  void FailInstance(RowState& row, OperatorIndex op, Failure failure);
  void Propagate(RowState& row, OperatorIndex op);
  void AbandonDependents(RowState& row, OperatorIndex op);
  void ReleaseKvOf(RowState& row, OperatorIndex op);
  void DropReader(RowState& row, OperatorIndex parent);
  void WriteRows();
  void WriteRow(RowState& row);
  void FlushRows(bool idle);
  void CheckLimits();
  void Stop();
  void Abort();
  void WaitForRows();
  void TakeBack(const Call& call);
  void Remember(const Signature& signature, const Completion& completion);
  RunReport Finish(RunEnd end);

  /// Lower goes first: blocks of rows, in a block the operators (topological order), then the rows.
  int64_t OrderOf(const RowState& row, OperatorIndex op) const {
    const int64_t operators = static_cast<int64_t>(row.instances.size());
    return row.row.index / options.rows_side_by_side * operators + op;
  }
  OperatorCounts& CountsOf(const RowState& row, OperatorIndex op) {
    return report.operators[states[row.source].counts[static_cast<size_t>(op)]];
  }
  const LogicalPlan& PlanOf(const RowState& row) const { return *sources[row.source].plan; }
  void InstanceDone(RowState& row) {
    if (--row.open_instances > 0) return;
    ++rows_ended;
    rows_ended_failed += row.failure ? 1 : 0;
    if (!options.input_order) ended_rows.emplace_back(row.source, row.row.index);
  }
  Instance& At(RowState& row, OperatorIndex op) { return row.instances[static_cast<size_t>(op)]; }
};

Executor::Executor(std::vector<RunSource> sources, ExecutorOptions options, const Clock& clock,
                   RunObserver* observer)
    : impl_(std::make_unique<Impl>(std::move(sources), options, clock, observer)) {
  impl_->Prepare();
}

Executor::~Executor() = default;

void Executor::Impl::Prepare() {
  HALO_CHECK(!sources.empty() && options.window > 0 && options.rows_side_by_side > 0,
             "a run has sources, a window and rows side by side");
  for (size_t s = 0; s < sources.size(); ++s) {
    const RunSource& source = sources[s];
    const LogicalPlan& plan = *source.plan;
    HALO_CHECK(source.models.size() == plan.models.size(), "every model is bound");
    SourceState state;
    state.kv_consumers.resize(plan.nodes.size());
    for (const LogicalNode& node : plan.nodes) {
      if (node.kv_source >= 0)
        state.kv_consumers[static_cast<size_t>(node.kv_source)].push_back(node.op);
      const ModelBinding& model = source.models[static_cast<size_t>(node.model)];
      state.builders.emplace_back(plan, node.op, model.prompts, source.prompt_column);
      if (std::find(engines.begin(), engines.end(), model.engine) == engines.end())
        engines.push_back(model.engine);
      const Operator& op = plan.operator_of(node.op);
      std::vector<OperatorIndex> named;
      for (OperatorIndex other = 0; other < node.op && op.instruction != nullptr; ++other) {
        if (op.instruction->reads().contains(plan.operator_of(other).id)) named.push_back(other);
      }
      state.named.push_back(std::move(named));
      state.counts.push_back(report.operators.size());
      OperatorCounts counts;
      counts.id = op.id;
      counts.model = op.model.name;
      counts.source = s;
      report.operators.push_back(std::move(counts));
    }
    state.ready.resize(plan.nodes.size());
    state.running.resize(plan.nodes.size(), 0);
    states.push_back(std::move(state));
  }
}

RunReport Executor::Run(const StopFlag& stop) {
  Impl& impl = *impl_;
  while (true) {
    const int asked = stop.load();
    if (asked >= 1) impl.Stop();
    if (asked >= 2) {
      impl.Abort();
      return impl.Finish(RunEnd::kInterrupted);
    }
    if (!impl.stopping) impl.OpenRows();
    impl.SubmitReady();
    impl.PollEngines();
    impl.WriteRows();
    impl.CheckLimits();
    const bool working = !impl.calls.empty();
    impl.FlushRows(!working);
    if (!working && impl.AllClosed() && impl.open_rows.empty())
      return impl.Finish(RunEnd::kFinished);
    if (!working && impl.stopping) {
      return impl.Finish(asked >= 1 ? RunEnd::kInterrupted : RunEnd::kStopped);
    }
    if (!working) impl.WaitForRows();
  }
}

/// Nothing runs: every source that is open has said that it has nothing yet, or this returns at
/// once.
void Executor::Impl::WaitForRows() {
  int64_t idle = 0;
  for (const SourceState& state : states) {
    if (!state.closed && !state.idle) return;
    idle += state.idle ? 1 : 0;
  }
  for (size_t s = 0; s < sources.size(); ++s) {
    if (states[s].idle) sources[s].rows->Wait(kPollSliceUs / idle);
  }
}

bool Executor::Impl::WantsMoreRows(size_t source) const {
  if (options.naive) return open_rows.empty();
  // Rows are opened only as far as their first calls can be given to the engines, which keeps
  // memory small; counted for each source, so that one whose operators may not run side by side
  // holds up no other.
  int64_t ready = 0;
  for (const auto& queue : states[source].ready) ready += static_cast<int64_t>(queue.size());
  int64_t wanted = 0;
  for (const Engine* engine : engines)
    wanted += int64_t{kQueuedPerSequence} * engine->Describe().sequences;
  return ready < wanted;
}

bool Executor::Impl::AllClosed() const {
  return std::all_of(states.begin(), states.end(),
                     [](const SourceState& state) { return state.closed; });
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
  if (source.row_timeout_us > 0) row.deadline_us = clock.NowUs() + source.row_timeout_us;
  row.instances.resize(plan.nodes.size());
  row.open_instances = static_cast<int32_t>(plan.nodes.size());
  for (const LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    Instance& instance = At(row, node.op);
    instance.inputs_left = static_cast<uint16_t>(op.inputs.size());
    instance.readers_left = static_cast<uint16_t>(op.consumers.size());
    ++CountsOf(row, node.op).logical;
  }
  const auto [place, added] =
      open_rows.emplace(std::pair(row.source, row.row.index), std::move(owned));
  HALO_CHECK(added, "row indices of a source are distinct");
  report.peak_open_rows = std::max(report.peak_open_rows, static_cast<int64_t>(open_rows.size()));
  if (row.row.failure) {
    row.failure = row.row.failure;
    for (const LogicalNode& node : plan.nodes) {
      if (At(row, node.op).state == State::kWaiting && plan.operator_of(node.op).inputs.empty()) {
        AbandonDependents(row, node.op);
      }
    }
    return;
  }
  for (const LogicalNode& node : plan.nodes) {
    if (plan.operator_of(node.op).inputs.empty()) MakeReady(row, node.op);
  }
}

void Executor::Impl::MakeReady(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  HALO_CHECK(instance.state == State::kWaiting, "instances only go forward");
  instance.state = State::kReady;
  states[row.source].ready[static_cast<size_t>(op)].push(&row);
}

bool Executor::Impl::MaySubmit(size_t source, OperatorIndex op) const {
  const LogicalPlan& plan = *sources[source].plan;
  const int32_t most = plan.operator_of(op).max_batch_size;
  if (most > 0 && states[source].running[static_cast<size_t>(op)] >= most) return false;
  if (options.naive) return calls.empty();
  const Engine* engine = sources[source].models[static_cast<size_t>(plan.at(op).model)].engine;
  const auto found = submitted.find(const_cast<Engine*>(engine));
  const int64_t inside = found == submitted.end() ? 0 : found->second;
  return inside < int64_t{kQueuedPerSequence + 1} * engine->Describe().sequences;
}

bool Executor::Impl::NextReady(size_t& best_source, OperatorIndex& best_op) {
  bool found = false;
  std::tuple<int32_t, int64_t, int64_t> best;
  for (size_t s = 0; s < sources.size(); ++s) {
    for (size_t i = 0; i < states[s].ready.size(); ++i) {
      const ReadyQueue& queue = states[s].ready[i];
      const OperatorIndex op = static_cast<OperatorIndex>(i);
      if (queue.empty() || !MaySubmit(s, op)) continue;
      const std::tuple rank(-sources[s].priority, OrderOf(*queue.top(), op),
                            queue.top()->row.index);
      if (found && rank >= best) continue;
      found = true;
      best = rank;
      best_source = s;
      best_op = op;
    }
  }
  return found;
}

void Executor::Impl::SubmitReady() {
  size_t source = 0;
  OperatorIndex op = 0;
  while (!stopping && NextReady(source, op)) {
    ReadyQueue& queue = states[source].ready[static_cast<size_t>(op)];
    RowState& row = *queue.top();
    queue.pop();
    if (At(row, op).state == State::kReady) SubmitInstance(row, op);
  }
}

void Executor::Impl::SubmitInstance(RowState& row, OperatorIndex op) {
  const LogicalPlan& plan = PlanOf(row);
  const LogicalNode& node = plan.at(op);
  Call call;
  call.row = &row;
  call.op = op;
  call.engine = sources[row.source].models[static_cast<size_t>(node.model)].engine;
  auto conversation = std::make_unique<Conversation>();
  try {
    if (row.cancelled) throw Cancelled();
    BuildRequest(row, op, call, *conversation);
  } catch (Failure& failure) {
    FailInstance(row, op, std::move(failure));
    return;
  }
  Instance& instance = At(row, op);
  instance.conversation = std::move(conversation);
  for (const OperatorIndex parent : plan.operator_of(op).inputs) DropReader(row, parent);
  if (!MergeInto(row, op, call)) Send(std::move(call));
}

/// Gives a call to its engine.
void Executor::Impl::Send(Call call) {
  RowState& row = *call.row;
  Instance& instance = At(row, call.op);
  instance.state = State::kSubmitted;
  instance.request = call.request.id;
  ++states[row.source].running[static_cast<size_t>(call.op)];
  ++submitted[call.engine];
  OperatorCounts& counts = CountsOf(row, call.op);
  ++counts.distinct;
  ++counts.executed;
  ++counts.calls;
  Request request = call.request;
  request.prompt_tokens = instance.conversation->prompt.tokens;
  request.prompt_text =
      call.engine->Describe().has_token_ids ? std::string() : instance.conversation->prompt.text;
  if (call.mergeable) calls_by_signature.emplace(call.signature, call.request.id);
  Engine* engine = call.engine;
  calls.emplace(call.request.id, std::move(call));
  engine->Submit(std::move(request));
}

void Executor::Impl::BuildRequest(RowState& row, OperatorIndex op, Call& call,
                                  Conversation& conversation) {
  const LogicalPlan& plan = PlanOf(row);
  const Operator& what = plan.operator_of(op);
  const PromptBuilder& builder = states[row.source].builders[static_cast<size_t>(op)];
  std::vector<const Conversation*> parents;
  for (const OperatorIndex parent : what.inputs)
    parents.push_back(At(row, parent).conversation.get());
  std::map<std::string, std::string> ancestors;
  for (const OperatorIndex ancestor : states[row.source].named[static_cast<size_t>(op)]) {
    const Instance& instance = At(row, ancestor);
    if (instance.conversation)
      ancestors.emplace(plan.operator_of(ancestor).id, instance.conversation->answer_text);
  }
  conversation = builder.Build(row.row.values, parents, ancestors);

  Request& request = call.request;
  SamplingParameters& sampling = request.sampling;
  sampling.temperature = static_cast<float>(what.sampling.temperature);
  sampling.top_p = static_cast<float>(what.sampling.top_p);
  sampling.top_k = what.sampling.top_k;
  sampling.min_p = static_cast<float>(what.sampling.min_p);
  sampling.max_tokens = builder.RowLimit(what.sampling.max_tokens, row.row.values, "max_tokens");
  if (sampling.max_tokens < 1)
    throw Failure{what.id, "bad_value", "max_tokens: the row gives 0, expected at least 1", false};
  // A row's limit below a constant minimum is the limit.
  sampling.min_tokens =
      std::min(sampling.max_tokens,
               builder.RowLimit(what.sampling.min_tokens, row.row.values, "min_tokens"));
  sampling.stop = what.sampling.stop;
  constexpr int64_t kSample = 0;  // one sample a call until `samples` is built
  const int64_t seed = what.sampling.seed.value_or(static_cast<int64_t>(options.seed));
  sampling.draw_key =
      SignatureBuilder().Add(seed).Add(what.id).Add(row.id_text).Add(kSample).Finish().low;
  if (what.max_model_len) {
    const int32_t prompt = static_cast<int32_t>(conversation.prompt.tokens.size());
    if (prompt >= *what.max_model_len) {
      throw Failure{what.id, "prompt_too_long",
                    "the prompt has " + std::to_string(prompt) + " tokens, max_model_len is " +
                        std::to_string(*what.max_model_len) +
                        " with at least one for the answer: " +
                        std::to_string(prompt - *what.max_model_len + 1) + " too many",
                    false};
    }
    sampling.max_tokens = std::min(sampling.max_tokens, *what.max_model_len - prompt);
  }
  request.static_prefix_tokens = options.naive ? 0 : conversation.prompt.static_prefix_tokens;
  AddressRequest(row, op, request);
  call.mergeable = !options.naive && sampling.temperature <= 0.0F;
  if (call.mergeable) {
    SignatureBuilder signature;
    signature.Add(reinterpret_cast<int64_t>(call.engine)).Add(conversation.prompt.tokens);
    if (conversation.prompt.tokens.empty()) signature.Add(conversation.prompt.text);
    signature.Add(int64_t{sampling.max_tokens}).Add(int64_t{sampling.min_tokens});
    for (const std::string& stop : sampling.stop) signature.Add(stop);
    call.signature = signature.Finish();
  }
}

/// Fills in who asks and when: what may differ between equal calls.
void Executor::Impl::AddressRequest(RowState& row, OperatorIndex op, Request& request) {
  const LogicalNode& node = PlanOf(row).at(op);
  request.id = next_request++;
  request.priority = sources[row.source].priority;
  request.order = OrderOf(row, op);
  request.deadline_us = row.deadline_us;
  request.script_operator = PlanOf(row).operator_of(op).id;
  request.script_row = row.row.id.is_string() ? row.row.id.get<std::string>() : row.id_text;
  if (options.naive) return;
  for (const OperatorIndex consumer : states[row.source].kv_consumers[static_cast<size_t>(op)]) {
    const State state = At(row, consumer).state;
    if (state != State::kWaiting && state != State::kReady)
      continue;  // it came first, or never will
    ++request.keep.consumers;
    request.keep.answer = request.keep.answer || PlanOf(row).at(consumer).kv_source_answer;
  }
  if (node.kv_source >= 0) request.consumes = At(row, node.kv_source).request;
}

bool Executor::Impl::MergeInto(RowState& row, OperatorIndex op, const Call& call) {
  if (!call.mergeable) return false;
  if (const auto answer = answers.find(call.signature); answer != answers.end()) {
    ++CountsOf(row, op).merged;
    const Completion completion = answer->second.completion;
    At(row, op).state = State::kMerged;
    ReleaseKvOf(row, op);
    EndInstance(row, op, completion, call, true);
    return true;
  }
  const auto under_way = calls_by_signature.find(call.signature);
  if (under_way == calls_by_signature.end()) return false;
  Call& leader = calls.at(under_way->second);
  leader.followers.emplace_back(&row, op);
  At(row, op).state = State::kMerged;
  ++CountsOf(row, op).merged;
  ReleaseKvOf(row, op);
  return true;
}

void Executor::Impl::PollEngines() {
  const int64_t now = clock.NowUs();
  bool finished = false;
  for (size_t turn = 0; turn < engines.size() && !finished; ++turn) {
    Engine* engine = engines[next_engine];
    next_engine = (next_engine + 1) % engines.size();
    if (engine->pending() == 0) continue;
    // One engine may work on until something finishes; several in one thread take turns step by
    // step. What follows from a completion is submitted before the next one's turn.
    const int64_t deadline_us = engines.size() == 1 ? now + kPollSliceUs : 0;
    for (Completion& completion : engine->Poll(deadline_us)) {
      finished = true;
      OnCompletion(std::move(completion));
    }
  }
  if (observer != nullptr && now - last_progress_us >= kProgressEveryUs) {
    last_progress_us = now;
    report.counts.calls_running = static_cast<int64_t>(calls.size());
    observer->OnProgress(report.counts);
  }
}

void Executor::Impl::OnCompletion(Completion completion) {
  const auto found = calls.find(completion.id);
  HALO_CHECK(found != calls.end(), "an engine answers each request once");
  Call call = std::move(found->second);
  calls.erase(found);
  if (call.mergeable) {
    StopMergingInto(call);
    if (!completion.failure) Remember(call.signature, completion);
  }
  --submitted[call.engine];
  --states[call.row->source].running[static_cast<size_t>(call.op)];
  const bool never_started = completion.failure && completion.failure->code == "cancelled" &&
                             completion.started_us == 0 && stopping && !call.row->cancelled;
  if (never_started) return TakeBack(call);
  ++report.counts.calls_done;
  report.counts.output_tokens += completion.output_tokens;
  OperatorCounts& counts = CountsOf(*call.row, call.op);
  counts.prompt_tokens += completion.prompt_tokens;
  counts.reused_tokens += completion.reused_tokens;
  counts.prefilled_tokens += completion.prefilled_tokens;
  counts.recomputed_tokens += completion.recomputed_tokens;
  counts.output_tokens += completion.output_tokens;
  if (completion.started_us > 0)
    counts.busy_us += std::max<int64_t>(0, completion.finished_us - completion.started_us);
  EndInstance(*call.row, call.op, completion, call, false);
  if (call.followers.empty()) return;
  if (completion.failure && IsOfOneRow(*completion.failure)) {
    if (!stopping) PromoteFollower(call);
    return;
  }
  for (const auto& [row, op] : call.followers) EndInstance(*row, op, completion, call, true);
}

void Executor::Impl::StopMergingInto(const Call& call) {
  const auto found = calls_by_signature.find(call.signature);
  if (found != calls_by_signature.end() && found->second == call.request.id)
    calls_by_signature.erase(found);
}

/// The run stops and the engine had not begun: the instance is unfinished, not failed.
void Executor::Impl::TakeBack(const Call& call) {
  OperatorCounts& counts = CountsOf(*call.row, call.op);
  --counts.distinct;
  --counts.executed;
  --counts.calls;
  At(*call.row, call.op).state = State::kReady;
}

/// The call's row gave it up; the first of those who wait makes it anew for all of them.
void Executor::Impl::PromoteFollower(const Call& call) {
  const auto [row, op] = call.followers.front();
  Call next;
  next.row = row;
  next.op = op;
  next.engine = call.engine;
  next.signature = call.signature;
  next.mergeable = true;
  next.request.sampling = call.request.sampling;
  next.request.static_prefix_tokens = At(*row, op).conversation->prompt.static_prefix_tokens;
  AddressRequest(*row, op, next.request);
  next.request.consumes = 0;  // given back when it merged
  next.followers.assign(call.followers.begin() + 1, call.followers.end());
  --CountsOf(*row, op).merged;
  Send(std::move(next));
}

void Executor::Impl::Remember(const Signature& signature, const Completion& completion) {
  // Bounded by the window, like everything that is held for rows.
  if (!answers.emplace(signature, Answer{completion}).second) return;
  answers_in_order.push_back(signature);
  if (static_cast<int64_t>(answers_in_order.size()) > options.window) {
    answers.erase(answers_in_order.front());
    answers_in_order.pop_front();
  }
}

void Executor::Impl::EndInstance(RowState& row, OperatorIndex op, const Completion& completion,
                                 const Call& call, bool merged) {
  Instance& instance = At(row, op);
  row.prompt_tokens += completion.prompt_tokens;
  row.output_tokens += completion.output_tokens;
  if (observer != nullptr) {
    observer->OnCall({PlanOf(row).operator_of(op), row.row, call.request,
                      instance.conversation->prompt, completion, row.source, merged});
  }
  if (completion.failure) return FailInstance(row, op, *completion.failure);
  if (row.cancelled) return FailInstance(row, op, Cancelled());
  // The engine watches the deadline of the row that made the call only.
  const bool late = merged && row.deadline_us > 0 && clock.NowUs() > row.deadline_us;
  if (late)
    return FailInstance(row, op,
                        {"", "deadline", "the row took longer than its deadline allows", false});
  Conversation& conversation = *instance.conversation;
  conversation.answer_text = completion.text;
  conversation.answer_tokens = completion.tokens;
  conversation.answer_cut = completion.cut;
  conversation.answer_ended = completion.finish == FinishReason::kEndToken;
  instance.state = State::kDone;
  instance.end = InstanceEnd::kOk;
  InstanceDone(row);
  if (instance.readers_left == 0) {
    conversation.messages.clear();
    conversation.prompt = {};
  }
  Propagate(row, op);
}

void Executor::Impl::Propagate(RowState& row, OperatorIndex op) {
  for (const OperatorIndex consumer : PlanOf(row).operator_of(op).consumers) {
    Instance& instance = At(row, consumer);
    if (--instance.inputs_left == 0 && instance.state == State::kWaiting) MakeReady(row, consumer);
  }
}

void Executor::Impl::FailInstance(RowState& row, OperatorIndex op, Failure failure) {
  Instance& instance = At(row, op);
  HALO_CHECK(instance.state != State::kDone, "an instance ends once");
  const bool was_called = instance.state == State::kSubmitted || instance.state == State::kMerged;
  OperatorCounts& counts = CountsOf(row, op);
  ++counts.failed;
  if (!was_called) {
    // It failed before a call could be made: it counts as one that was tried.
    ++counts.distinct;
    ++counts.executed;
    ReleaseKvOf(row, op);
    for (const OperatorIndex parent : PlanOf(row).operator_of(op).inputs) DropReader(row, parent);
  }
  if (failure.operator_id.empty()) failure.operator_id = PlanOf(row).operator_of(op).id;
  // The first operator in order is to blame, whichever failed first.
  if (row.failed_operator < 0 || op < row.failed_operator) {
    row.failed_operator = op;
    row.failure = std::move(failure);
  }
  instance.state = State::kDone;
  instance.end = InstanceEnd::kFailed;
  InstanceDone(row);
  for (const OperatorIndex consumer : PlanOf(row).operator_of(op).consumers)
    AbandonDependents(row, consumer);
}

void Executor::Impl::AbandonDependents(RowState& row, OperatorIndex op) {
  std::vector<OperatorIndex> pending = {op};
  while (!pending.empty()) {
    const OperatorIndex current = pending.back();
    pending.pop_back();
    Instance& instance = At(row, current);
    if (instance.state != State::kWaiting) continue;
    instance.state = State::kDone;
    instance.end = InstanceEnd::kUnfinished;
    InstanceDone(row);
    OperatorCounts& counts = CountsOf(row, current);
    ++counts.distinct;
    ++counts.unfinished;
    ReleaseKvOf(row, current);
    for (const OperatorIndex parent : PlanOf(row).operator_of(current).inputs)
      DropReader(row, parent);
    for (const OperatorIndex consumer : PlanOf(row).operator_of(current).consumers)
      pending.push_back(consumer);
  }
}

void Executor::Impl::ReleaseKvOf(RowState& row, OperatorIndex op) {
  const OperatorIndex source = PlanOf(row).at(op).kv_source;
  if (source < 0 || options.naive) return;
  const RequestId request = At(row, source).request;
  const LogicalNode& node = PlanOf(row).at(op);
  if (request != 0)
    sources[row.source].models[static_cast<size_t>(node.model)].engine->Release(request, 1);
}

void Executor::Impl::DropReader(RowState& row, OperatorIndex parent) {
  Instance& instance = At(row, parent);
  HALO_CHECK(instance.readers_left > 0, "readers are counted");
  if (--instance.readers_left > 0 || instance.state != State::kDone || !instance.conversation)
    return;
  // The answer stays for the row's outputs; what only children need goes.
  instance.conversation->messages = {};
  instance.conversation->prompt = {};
  instance.conversation->answer_tokens = {};
}

void Executor::Impl::WriteRows() {
  if (!options.input_order) {
    for (const auto& key : ended_rows) {
      const auto ended = open_rows.find(key);
      WriteRow(*ended->second);
      open_rows.erase(ended);
    }
    ended_rows.clear();
    return;
  }
  for (size_t source = 0; source < sources.size(); ++source) {
    auto it = open_rows.lower_bound({source, 0});
    while (it != open_rows.end() && it->first.first == source && it->second->open_instances == 0) {
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
  result.prompt_tokens = row.prompt_tokens;
  result.output_tokens = row.output_tokens;
  const auto add = [&](OperatorIndex op) {
    const Instance& instance = At(row, op);
    nlohmann::ordered_json value;
    if (instance.end == InstanceEnd::kOk) value = instance.conversation->answer_text;
    result.outputs.emplace_back(plan.operator_of(op).id, std::move(value));
  };
  if (options.all_outputs) {
    for (const LogicalNode& node : plan.nodes) add(node.op);
  } else {
    for (const OperatorIndex op : plan.workflow->end_operators) add(op);
  }
  ++(row.failure ? report.counts.rows_failed : report.counts.rows_ok);
  ++states[row.source].written;
  unflushed = true;
  sources[row.source].sink->Write(result);
  if (observer != nullptr) observer->OnRow(row.source, result);
}

/// What is done is there for whoever reads the output, and survives a crash, within a tenth of a
/// second; at once if nothing runs, since a client may wait for an answer before it gives the next
/// row.
void Executor::Impl::FlushRows(bool idle) {
  if (!unflushed) return;
  const int64_t now = clock.NowUs();
  if (!idle && now - last_flush_us < kFlushEveryUs) return;
  for (RunSource& source : sources) source.sink->Flush();
  unflushed = false;
  last_flush_us = now;
}

void Executor::Impl::CheckLimits() {
  // Rows that have ended, though they may wait for an earlier one to be written.
  const auto failed = static_cast<double>(rows_ended_failed);
  const bool too_many = options.max_failures >= 0 && failed > options.max_failures;
  const bool too_large_a_share =
      options.max_failures_share >= 0 && rows_ended >= kRowsBeforeShareCounts &&
      failed > options.max_failures_share * static_cast<double>(rows_ended);
  if (too_many || too_large_a_share || (options.stop_on_error && rows_ended_failed > 0)) Stop();
}

/// What runs is finished, nothing new is started.
void Executor::Impl::Stop() {
  if (stopping) return;
  stopping = true;
  for (Engine* engine : engines) engine->CancelWaiting();
}

void Executor::Impl::Abort() {
  for (const auto& [id, call] : calls) call.engine->Cancel(id);
}

RunReport Executor::Impl::Finish(RunEnd end) {
  report.end = end;
  for (const auto& [key, row] : open_rows) {
    // Done, but behind one that is not: what was paid for is written.
    if (row->open_instances == 0) {
      WriteRow(*row);
      continue;
    }
    ++report.rows_unfinished;
    for (size_t op = 0; op < row->instances.size(); ++op) {
      const Instance& instance = row->instances[op];
      if (instance.state == State::kDone || instance.state == State::kMerged) continue;
      OperatorCounts& counts = CountsOf(*row, static_cast<OperatorIndex>(op));
      ++counts.unfinished;
      if (instance.state == State::kSubmitted) {
        --counts.executed;
      } else {
        ++counts.distinct;
      }
    }
  }
  for (RunSource& source : sources) {
    if (end == RunEnd::kFinished) source.sink->Finish();
    source.sink->Flush();
  }
  report.counts.calls_running = 0;
  if (observer != nullptr) observer->OnProgress(report.counts);
  return report;
}

void Executor::CancelRow(size_t source, int64_t row_index) {
  const auto found = impl_->open_rows.find({source, row_index});
  if (found == impl_->open_rows.end()) return;
  RowState& row = *found->second;
  row.cancelled = true;
  for (size_t op = 0; op < row.instances.size(); ++op) {
    const Instance& instance = row.instances[op];
    if (instance.state != State::kSubmitted) continue;
    const Call& call = impl_->calls.at(instance.request);
    // Others may be waiting for the same answer; this row fails when it comes.
    if (!call.followers.empty()) continue;
    impl_->StopMergingInto(call);
    call.engine->Cancel(instance.request);
  }
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
