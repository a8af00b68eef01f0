// Calls: which goes next, what it asks, what its completion does.
#include <poll.h>

#include <algorithm>
#include <tuple>

#include "base/check.h"
#include "base/duration.h"
#include "base/random.h"
#include "runtime/executor_impl.h"
#include "runtime/worker_placement.h"

namespace halo {
namespace {

using State = InstanceState;

constexpr int64_t kPollSliceUs = 100'000;
/// Calls given to an engine beyond those it runs, so that it can choose what shares a prefix.
constexpr int32_t kQueuedPerSequence = 3;

/// Calls of one instance: greedy samples are all alike.
int32_t CallsOf(const Operator& op) { return op.sampling.temperature <= 0.0 ? 1 : op.samples; }

}  // namespace

Failure CancelledRow() { return {"", "cancelled", "the row was cancelled", false}; }

bool IsOfOneRow(const Failure& failure) {
  return failure.code == "cancelled" || failure.code == "deadline" || failure.code == "timeout";
}

bool Executor::Impl::WantsMoreRows(size_t source) const {
  if (options.naive) return open_rows.empty();
  // Rows are opened only as far as their first calls can be given to the engines, which keeps
  // memory small; counted for each source, so that one whose operators may not run side by side
  // holds up no other.
  // What waits for a model that is not on any device now holds up none either: the models that are
  // there take all rows as far as they can be taken without it, so that models change seldom. When
  // nothing is under way no model is needed more than another.
  const bool is_idle = calls.empty();
  const auto is_away = [is_idle](const Engine* engine) {
    return !is_idle && engine->residency() == Residency::kUnloaded;
  };
  int64_t ready = 0, ready_tools = 0;
  bool asks_models = false, feeds_any = false;
  for (size_t i = 0; i < states[source].ready.size(); ++i) {
    const auto op = static_cast<OperatorIndex>(i);
    const auto size = static_cast<int64_t>(states[source].ready[i].size());
    if (IsTool(source, op)) {
      ready_tools += size;
      continue;
    }
    asks_models = true;
    if (!is_away(EngineOf(source, op))) {
      ready += size;
      feeds_any = feeds_any || states[source].is_first[i];
    }
  }
  if (asks_models && !feeds_any) return false;
  int64_t wanted = 0;
  for (const Engine* engine : engines) {
    if (!is_away(engine)) wanted += int64_t{kQueuedPerSequence} * engine->Describe().sequences;
  }
  // Engines may starve behind tools that are slow; more rows help only while the calls that wait
  // for tools stay few.
  constexpr int64_t kToolsPerCall = 16;
  return engines.empty() ? ready_tools < kToolsPerCall * options.tool_setup.concurrency
                         : ready < wanted && ready_tools < kToolsPerCall * wanted;
}

bool Executor::Impl::MaySubmit(size_t source, OperatorIndex op) const {
  const LogicalPlan& plan = *sources[source].plan;
  const int32_t most = plan.operator_of(op).max_batch_size;
  if (most > 0 && CountsOf(source, op).running >= most) return false;
  if (options.naive) return !working();
  if (IsTool(source, op)) return MaySubmitTool(source, op);
  const Engine* engine = EngineOf(source, op);
  const auto found = submitted.find(const_cast<Engine*>(engine));
  const int64_t inside = found == submitted.end() ? 0 : found->second;
  return inside < int64_t{kQueuedPerSequence + 1} * engine->Describe().sequences;
}

bool Executor::Impl::NextReady(size_t& best_source, OperatorIndex& best_op) {
  bool found = false;
  const bool hungry = ToolsAreHungry();
  std::tuple<int64_t, bool, int64_t, int64_t> best;
  for (size_t s = 0; s < sources.size(); ++s) {
    for (size_t i = 0; i < states[s].ready.size(); ++i) {
      const ReadyQueue& queue = states[s].ready[i];
      const OperatorIndex op = static_cast<OperatorIndex>(i);
      if (queue.empty() || !MaySubmit(s, op)) continue;
      // What tools wait for goes ahead of its block while they have too little to do.
      const bool later = !(hungry && states[s].feeds_tools[i]);
      const std::tuple rank(-int64_t{queue.top()->priority}, later, OrderOf(*queue.top(), op),
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
  MakeDueCalls();
  MakeDueToolCalls();
  SendCommittedWrites();
  // What waits for room in the budget has nothing new ahead of it.
  while (!stopping && SendHeld() && NextReady(source, op)) {
    if (CallsAreSpent()) return StopAtCalls();
    ReadyQueue& queue = states[source].ready[static_cast<size_t>(op)];
    RowState& row = *queue.top();
    queue.pop();
    const Instance& instance = At(row, op);
    if (instance.state != State::kReady) continue;
    if (IsTool(source, op)) {
      SubmitTool(row, op);
    } else if (instance.samples != nullptr) {
      SubmitSample(row, op);
    } else {
      SubmitInstance(row, op);
    }
  }
}

void Executor::Impl::SubmitInstance(RowState& row, OperatorIndex op) {
  Call call;
  Instance& instance = At(row, op);
  try {
    if (row.cancelled) throw CancelledRow();
    BuildRequest(row, op, call);
  } catch (Failure& failure) {
    instance.conversation.reset();
    FailInstance(row, op, std::move(failure));
    return;
  }
  DropReads(row, op);
  const int32_t samples = CallsOf(PlanOf(row).operator_of(op));
  if (samples > 1) {
    instance.samples = std::make_unique<SampleSet>();
    instance.samples->answers.resize(static_cast<size_t>(samples));
    instance.samples->requests.resize(static_cast<size_t>(samples), 0);
    if (!TakeSamples(row, op)) SubmitSample(row, op);
    return;
  }
  if (MergeInto(row, op, call) || TakeKnown(row, op, call)) return;
  Offer(std::move(call));
}

/// Sends the next sample of an instance whose prompt is built; the instance stays ready while there
/// are more, so that `max_batch_size` and the engine's room hold for each.
void Executor::Impl::SubmitSample(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  SampleSet& samples = *instance.samples;
  const auto is_left = [&](size_t k) { return samples.requests[k] == 0 && !samples.answers[k]; };
  if (row.cancelled) {
    for (size_t k = 0; k < samples.answers.size(); ++k) {
      if (!is_left(k)) continue;
      samples.answers[k].emplace().failure = CancelledRow();
      ++samples.done;
    }
    instance.state = State::kSubmitted;
    if (samples.done == static_cast<int32_t>(samples.answers.size()))
      FailInstance(row, op, CancelledRow());
    return;
  }
  size_t next = 0;
  while (!is_left(next)) ++next;
  Call call;
  Ask(row, op, static_cast<int32_t>(next), call);
  ++samples.sent;
  AddressRequest(row, op, call.sample, call.request);
  samples.requests[static_cast<size_t>(call.sample)] = call.request.id;
  const bool more = samples.sent < static_cast<int32_t>(samples.answers.size());
  Offer(std::move(call));
  if (!more) return;
  states[row.source].ready[static_cast<size_t>(op)].push(&row);
}

/// An instance counts as executed once, however many calls are made for it; one that took an equal
/// or an earlier call's answer too, from the first call of its own on.
void Executor::Impl::CountStart(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  if (instance.counted == CountedAs::kExecuted) return;
  OperatorCounts& counts = CountsOf(row, op);
  if (instance.counted == CountedAs::kMerged) --counts.merged;
  if (instance.counted == CountedAs::kCached) {
    --counts.cached;
    --counts.distinct;
  }
  instance.counted = CountedAs::kExecuted;
  ++counts.distinct;
  ++counts.executed;
}

void Executor::Impl::CountMerged(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  if (instance.counted != CountedAs::kNot) return;
  instance.counted = CountedAs::kMerged;
  ++CountsOf(row, op).merged;
}

/// An instance's call leaves; of samples others may be left.
void Executor::Impl::StartCall(const Call& call) {
  Instance& instance = At(*call.row, call.op);
  const SampleSet* samples = instance.samples.get();
  const bool more =
      samples != nullptr && samples->sent < static_cast<int32_t>(samples->answers.size());
  instance.state = more ? State::kReady : State::kSubmitted;
  CountStart(*call.row, call.op);
}

/// Gives a call to its engine.
void Executor::Impl::Send(Call call) {
  RowState& row = *call.row;
  Instance& instance = At(row, call.op);
  StartCall(call);
  if (instance.samples == nullptr) instance.request = call.request.id;
  ++submitted[call.engine];
  ++CountsOf(row, call.op).calls;
  ++CountsOf(row, call.op).running;
  ++calls_made;
  tokens_reserved += call.most_tokens;
  cost_reserved += call.most_cost;
  const double timeout_s = PlanOf(row).operator_of(call.op).timeout_s;
  if (timeout_s > 0.0) {
    const int64_t until_us = clock.NowUs() + MicrosecondsOf(timeout_s);
    call.request.deadline_us = row.deadline_us > 0 ? std::min(row.deadline_us, until_us) : until_us;
  }
  Request request = call.request;
  const Prompt& prompt = AskedBy(row, call.op, call.sample).prompt;
  request.prompt_tokens = prompt.tokens;
  request.prompt_text = call.engine->Describe().has_token_ids ? std::string() : prompt.text;
  if (call.mergeable) calls_by_signature.emplace(call.signature, call.request.id);
  Engine* engine = call.engine;
  calls.emplace(call.request.id, std::move(call));
  engine->Submit(std::move(request));
}

/// `prompt_tokens`: of what is asked, for `max_model_len`.
SamplingParameters Executor::Impl::SamplingOf(RowState& row, OperatorIndex op,
                                              size_t prompt_tokens) const {
  const Operator& what = PlanOf(row).operator_of(op);
  const PromptBuilder& builder = *states[row.source].builders[static_cast<size_t>(op)];
  SamplingParameters sampling;
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
  if (what.max_model_len) {
    const auto prompt = static_cast<int32_t>(prompt_tokens);
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
  return sampling;
}

/// What a prompt is made of. `unknown` stands for all that is not there yet; null: everything is.
PromptInputs Executor::Impl::InputsOf(const RowState& row, OperatorIndex op,
                                      const Conversation* unknown) const {
  const LogicalPlan& plan = PlanOf(row);
  const Operator& what = plan.operator_of(op);
  PromptInputs inputs{row.row.values, {}, {}, {}};
  if (what.form == PromptForm::kRowPrompt) {
    for (const OperatorIndex parent : what.inputs) {
      const Instance& instance = At(row, parent);
      if (unknown != nullptr && instance.state != State::kDone) {
        inputs.parents.push_back(unknown);
        continue;
      }
      // Null: it ended without an answer.
      inputs.parents.push_back(instance.end == InstanceEnd::kOk ? instance.conversation.get()
                                                                : nullptr);
    }
  }
  for (const NameBinding& name : what.names) {
    if (unknown != nullptr && !IsKnown(row, name)) {
      inputs.answers.emplace(name.name, unknown);
      continue;
    }
    const Conversation* answer = nullptr;
    const Operator* tool = nullptr;
    nlohmann::ordered_json value = ValueOf(row, name, &answer, &tool);
    if (answer != nullptr) {
      inputs.answers.emplace(name.name, answer);
    } else if (tool != nullptr) {
      const auto& model = sources[row.source].models[static_cast<size_t>(plan.at(op).model)];
      inputs.values.emplace(
          name.name, ShownInPrompt(value, tool->tool->prompt, model.prompts.vocabulary.get()));
    } else {
      inputs.values.emplace(name.name, std::move(value));
    }
  }
  return inputs;
}

void Executor::Impl::BuildRequest(RowState& row, OperatorIndex op, Call& call) {
  const Operator& what = PlanOf(row).operator_of(op);
  const PromptBuilder& builder = *states[row.source].builders[static_cast<size_t>(op)];
  At(row, op).conversation =
      std::make_unique<Conversation>(builder.Build(InputsOf(row, op, nullptr)));
  Ask(row, op, 0, call);
  if (CallsOf(what) == 1) AddressRequest(row, op, 0, call.request);  // else each when it is sent
}

/// Fills in what a call for one sample asks, once its conversation is there, and what equal calls
/// are known by.
void Executor::Impl::Ask(RowState& row, OperatorIndex op, int32_t sample, Call& call) {
  const Operator& what = PlanOf(row).operator_of(op);
  const Prompt& prompt = AskedBy(row, op, sample).prompt;
  call.row = &row;
  call.op = op;
  call.sample = sample;
  call.engine = EngineOf(row.source, op);
  Request& request = call.request;
  request.sampling = SamplingOf(row, op, prompt.tokens.size());
  request.sampling.draw_key = DrawKeyOf(row, op, sample);
  request.adapter = AdapterOf(row, op);
  if (what.schema) request.grammar = what.schema->grammar();
  request.static_prefix_tokens = options.naive ? 0 : prompt.static_prefix_tokens;
  const SamplingParameters& sampling = request.sampling;
  // A text has at least a byte for each of its tokens.
  const size_t most = prompt.tokens.empty() ? prompt.text.size() : prompt.tokens.size();
  call.most_tokens = static_cast<int64_t>(most) + sampling.max_tokens;
  call.most_cost = CostOf(row, op, static_cast<int64_t>(most), sampling.max_tokens);
  call.mergeable = !options.naive && sampling.temperature <= 0.0F && CallsOf(what) == 1;
  if (options.journal != nullptr || options.cache != nullptr)
    call.key = KeyOf(row, op, sample, request);
  if (call.mergeable) {
    SignatureBuilder signature;
    signature.Add(reinterpret_cast<int64_t>(call.engine)).Add(request.adapter);
    signature.Add(prompt.tokens);
    if (prompt.tokens.empty()) signature.Add(prompt.text);
    signature.Add(int64_t{sampling.max_tokens}).Add(int64_t{sampling.min_tokens});
    signature.Add(request.grammar);
    for (const std::string& stop : sampling.stop) signature.Add(stop);
    // How often a failure is tried again is the operator's: each has the outcome of its own policy.
    signature.Add(int64_t{what.retry.max});
    call.signature = signature.Finish();
  }
}

uint64_t Executor::Impl::DrawKeyOf(const RowState& row, OperatorIndex op, int32_t sample) const {
  const Operator& what = PlanOf(row).operator_of(op);
  const int64_t seed = what.sampling.seed.value_or(static_cast<int64_t>(options.seed));
  SignatureBuilder draws;
  draws.Add(seed).Add(what.id).Add(row.id_text).Add(int64_t{sample});
  const int32_t round = RoundOf(row, op, sample);
  if (round > 0) draws.Add("repair").Add(int64_t{round});
  return draws.Finish().low;
}

/// Fills in who asks and when: what may differ between equal calls.
void Executor::Impl::AddressRequest(RowState& row, OperatorIndex op, int32_t sample,
                                    Request& request) {
  const LogicalNode& node = PlanOf(row).at(op);
  const Operator& what = PlanOf(row).operator_of(op);
  request.id = next_request++;
  request.priority = row.priority;
  request.order = OrderOf(row, op);
  // As in NextReady: the engine's own queue and steps must not hold up what tools wait for.
  constexpr int64_t kAhead = int64_t{1} << 40;
  request.urgent = states[row.source].feeds_tools[static_cast<size_t>(op)] && ToolsAreHungry();
  if (request.urgent) request.order -= kAhead;
  request.deadline_us = row.deadline_us;
  request.script_operator = what.id;
  request.script_sample = sample;
  request.script_attempt = RoundOf(row, op, sample);
  request.row_index = row.row.index;
  const WorkerPlacement* placement = sources[row.source].placement;
  if (placement != nullptr) request.worker = placement->WorkerOf(what.id, row.row.index);
  request.script_row = row.row.id.is_string() ? row.row.id.get<std::string>() : row.id_text;
  if (options.naive) return;
  // The parent counts on one consumer for each operator; other samples find the prefix by looking.
  if (node.kv_source >= 0 && sample == 0) request.consumes = At(row, node.kv_source).request;
  request.keep = KeepFor(row, op);
}

/// What later calls of the row will begin with.
KeepHint Executor::Impl::KeepFor(RowState& row, OperatorIndex op) {
  KeepHint keep;
  // Which of several samples a conversation goes on from is known only when all are there; the
  // prefix is found by looking then.
  if (options.naive || CallsOf(PlanOf(row).operator_of(op)) > 1) return keep;
  keep.lone = PlanOf(row).at(op).lone_prompts;
  for (const OperatorIndex consumer : states[row.source].kv_consumers[static_cast<size_t>(op)]) {
    const State state = At(row, consumer).state;
    const bool is_built = At(row, consumer).conversation != nullptr;
    if ((state != State::kWaiting && state != State::kReady) || is_built)
      continue;  // it came first, or never will
    ++keep.consumers;
    keep.answer = keep.answer || PlanOf(row).at(consumer).kv_source_answer;
  }
  return keep;
}

bool Executor::Impl::MergeInto(RowState& row, OperatorIndex op, const Call& call) {
  if (!call.mergeable) return false;
  const bool is_first = RoundOf(row, op, call.sample) == 0;
  if (const std::optional<Completion> answer = answers.Find(call.signature)) {
    CountMerged(row, op);
    At(row, op).state = State::kMerged;
    if (is_first) ReleaseKvOf(row, op);
    EndInstance(row, op, *answer, call, true);
    return true;
  }
  const auto under_way = calls_by_signature.find(call.signature);
  if (under_way == calls_by_signature.end()) return false;
  Call& leader = calls.at(under_way->second);
  leader.followers.emplace_back(&row, op);
  At(row, op).state = State::kMerged;
  CountMerged(row, op);
  if (is_first) ReleaseKvOf(row, op);
  return true;
}

/// True if no engine that has calls needs this thread to work on them.
bool Executor::Impl::EnginesWorkElsewhere() const {
  bool any = false;
  for (const Engine* engine : engines) {
    if (engine->pending() == 0) continue;
    if (engine->ready_descriptor() < 0) return false;
    any = true;
  }
  return any;
}

/// Waits, using no processor, until an engine, a tool or a source of rows has something to say, or
/// it is `until_us`.
void Executor::Impl::WaitForOthers(int64_t until_us) {
  constexpr int64_t kUsPerMs = 1000, kLookAgainUs = 1000;
  std::vector<pollfd> waited;
  for (const Engine* engine : engines) {
    if (engine->pending() > 0) waited.push_back({engine->ready_descriptor(), POLLIN, 0});
  }
  if (!tool_work.empty()) {
    const int tools = options.tools->ready_descriptor();
    if (tools >= 0) {
      waited.push_back({tools, POLLIN, 0});
    } else {
      until_us = std::min(until_us, clock.NowUs() + kLookAgainUs);
    }
  }
  for (size_t s = 0; s < sources.size() && !stopping; ++s) {
    const int rows = states[s].closed ? -1 : sources[s].rows->ready_descriptor();
    if (rows >= 0) waited.push_back({rows, POLLIN, 0});
  }
  const bool for_journal = AwaitsCommit();
  if (for_journal) waited.push_back({options.journal->ready_descriptor(), POLLIN, 0});
  if (!retries.empty()) until_us = std::min(until_us, retries.begin()->first);
  if (!tool_retries.empty()) until_us = std::min(until_us, tool_retries.begin()->first);
  const int64_t left_us = std::max<int64_t>(0, until_us - clock.NowUs());
  poll(waited.data(), waited.size(), static_cast<int>((left_us + kUsPerMs - 1) / kUsPerMs));
  if (for_journal && waited.back().revents != 0) options.journal->TakeReady();
}

void Executor::Impl::PollEngines() {
  const int64_t now = clock.NowUs();
  const bool elsewhere = EnginesWorkElsewhere();
  bool finished = false;
  for (size_t turn = 0; turn < engines.size() && !finished; ++turn) {
    Engine* engine = engines[next_engine];
    next_engine = (next_engine + 1) % engines.size();
    if (engine->pending() == 0) continue;
    // One engine may work on until something finishes; several in one thread take turns step by
    // step. What follows from a completion is submitted before the next one's turn.
    const bool alone = engines.size() == 1 && tool_work.empty() && !elsewhere;
    const int64_t deadline_us = alone ? now + kPollSliceUs : 0;
    for (Completion& completion : engine->Poll(deadline_us)) {
      finished = true;
      if (!TakeAhead(completion)) OnCompletion(std::move(completion));
    }
  }
  if (elsewhere && !finished) WaitForOthers(now + kPollSliceUs);
}

void Executor::Impl::OnCompletion(Completion completion) {
  const auto found = calls.find(completion.id);
  HALO_CHECK(found != calls.end(), "an engine answers each request once");
  Call call = std::move(found->second);
  calls.erase(found);
  if (call.mergeable) {
    StopMergingInto(call);
    if (!completion.failure) answers.Put(call.signature, completion);
  }
  --submitted[call.engine];
  --CountsOf(*call.row, call.op).running;
  tokens_reserved -= call.most_tokens;
  cost_reserved -= call.most_cost;
  const bool never_started = completion.failure && completion.failure->code == "cancelled" &&
                             completion.started_us == 0 && stopping && !call.row->cancelled;
  if (never_started) return TakeBack(call);
  CountCompletion(call, completion);
  NameTimeout(call, completion);
  if (MayRetry(call, completion)) return RetryLater(std::move(call), std::move(completion));
  Conclude(std::move(call), completion);
}

void Executor::Impl::CountCompletion(const Call& call, const Completion& completion) {
  ++report.counts.calls_done;
  report.counts.output_tokens += completion.output_tokens;
  OperatorCounts& counts = CountsOf(*call.row, call.op);
  CountAnswer(counts);
  if (call.attempt == 0) {
    counts.prompt_tokens += completion.prompt_tokens;
    counts.reused_tokens += completion.reused_tokens;
    counts.prefilled_tokens += completion.prefilled_tokens;
  } else {
    counts.recomputed_tokens += completion.prefilled_tokens;
  }
  counts.recomputed_tokens += completion.recomputed_tokens;
  counts.output_tokens += completion.output_tokens;
  tokens_spent += completion.prompt_tokens + completion.output_tokens;
  const int64_t cost =
      CostOf(*call.row, call.op, completion.prompt_tokens, completion.output_tokens);
  cost_spent += cost;
  counts.cost += cost;
  if (completion.failure) RecordSpent(call.key, completion, cost);
  const auto output = static_cast<double>(completion.output_tokens);
  counts.output_tokens_squared += output * output;
  counts.engine_us += completion.engine_us;
  if (completion.started_us > 0)
    counts.busy_us += std::max<int64_t>(0, completion.finished_us - completion.started_us);
  if (observer == nullptr) return;
  RowState& row = *call.row;
  observer->OnAttempt({PlanOf(row).operator_of(call.op), row.row, call.request,
                       AskedBy(row, call.op, call.sample).prompt, completion, row.source, false,
                       call.engine});
}

/// Engines know one deadline; whether the row's or the call's own was missed is told here.
void Executor::Impl::NameTimeout(const Call& call, Completion& completion) const {
  const double timeout_s = PlanOf(*call.row).operator_of(call.op).timeout_s;
  if (!completion.failure || completion.failure->code != "deadline" || timeout_s <= 0.0) return;
  const int64_t row_deadline_us = call.row->deadline_us;
  if (row_deadline_us > 0 && clock.NowUs() >= row_deadline_us) return;
  std::string seconds = std::to_string(timeout_s);
  seconds.erase(seconds.find_last_not_of('0') + 1);
  if (seconds.back() == '.') seconds.pop_back();
  completion.failure =
      Failure{"", "timeout", "the call took longer than timeout_s: " + seconds, true};
}

/// The call is over: everyone who waited for it hears of it.
void Executor::Impl::Conclude(Call call, const Completion& completion) {
  Record(call, completion);
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
  --CountsOf(*call.row, call.op).calls;
  --calls_made;
  At(*call.row, call.op).state = State::kReady;
}

/// The call's row gave it up; the first of those who wait, and have not been given up as well,
/// makes it anew for all of them.
void Executor::Impl::PromoteFollower(const Call& call) {
  auto first = call.followers.begin();
  Completion given_up;
  given_up.failure = CancelledRow();
  for (; first != call.followers.end() && first->first->cancelled; ++first)
    EndInstance(*first->first, first->second, given_up, call, true);
  if (first == call.followers.end()) return;
  const auto [row, op] = *first;
  Call next;
  next.row = row;
  next.op = op;
  next.engine = call.engine;
  next.signature = call.signature;
  next.key = call.key;
  next.mergeable = true;
  next.request = call.request;  // what is asked is the same; who asks is not
  next.most_tokens = call.most_tokens;
  next.most_cost = call.most_cost;
  next.request.static_prefix_tokens = AskedBy(*row, op, 0).prompt.static_prefix_tokens;
  next.request.sampling.draw_key = DrawKeyOf(*row, op, 0);
  AddressRequest(*row, op, 0, next.request);
  next.request.consumes = 0;  // given back when it merged
  next.followers.assign(std::next(first), call.followers.end());
  Offer(std::move(next));
}

void Executor::CancelRow(size_t source, int64_t row_index) { impl_->CancelRow(source, row_index); }

void Executor::Impl::CancelRow(size_t source, int64_t row_index) {
  const auto found = open_rows.find({source, row_index});
  if (found == open_rows.end()) return;
  RowState& row = *found->second;
  row.cancelled = true;
  CancelToolsOf(row);
  // What waits to be made again is due now: the next turn ends it.
  for (auto it = retries.begin(); it != retries.end();) {
    const auto next = std::next(it);
    if (it->second.call.row == &row) due_retries.push_back(std::move(retries.extract(it).mapped()));
    it = next;
  }
  const auto cancel = [&](RequestId request) {
    const auto call = calls.find(request);
    // Others may be waiting for the same answer; this row fails when it comes.
    if (call == calls.end() || !call->second.followers.empty()) return;
    StopMergingInto(call->second);
    call->second.engine->Cancel(request);
  };
  for (const Instance& instance : row.instances) {
    if (instance.state == State::kDone) continue;
    if (instance.state == State::kSubmitted) cancel(instance.request);
    if (instance.samples == nullptr) continue;
    for (const RequestId request : instance.samples->requests) cancel(request);
  }
}

}  // namespace halo
