// What survives a run: which calls the journal knows, what is written into it, and what has to wait
// until it is on the disk.
#include <strings.h>

#include <set>
#include <variant>

#include "base/check.h"
#include "base/text.h"
#include "runtime/executor_impl.h"

namespace halo {
namespace {

using Ending = JournalRecord::Ending;
using State = InstanceState;

constexpr int64_t kCommitSliceUs = 100'000;

/// What the ids of a whole answer say; nothing if there is an id that the vocabulary has not.
std::optional<std::string> TextOf(const std::vector<TokenId>& tokens,
                                  const Vocabulary& vocabulary) {
  for (const TokenId token : tokens) {
    if (token < 0 || token >= vocabulary.size()) return std::nullopt;
  }
  return ReplaceInvalidUtf8(vocabulary.Detokenize(tokens));
}

/// Failures are of one instance, whoever else asks the same.
Signature FailureKey(const RowState& row, const Operator& op, const Signature& key) {
  return SignatureBuilder()
      .Add("failed")
      .Add(key)
      .Add(static_cast<int64_t>(row.source))
      .Add(op.id)
      .Add(row.id_text)
      .Finish();
}

}  // namespace

/// Reads of what the workflows write to may differ from one instance to the next.
void Executor::Impl::FindWrittenTargets() {
  std::set<std::string> written;
  for (size_t s = 0; s < sources.size(); ++s) {
    for (const LogicalNode& node : sources[s].plan->nodes) {
      const Operator& op = sources[s].plan->operator_of(node.op);
      if (!op.is_inference() && op.tool->effect == ToolEffect::kWrite)
        written.insert(states[s].tools[static_cast<size_t>(node.op)]->target());
    }
  }
  for (SourceState& state : states) {
    for (const auto& tool : state.tools)
      state.is_alone.push_back(tool != nullptr && written.contains(tool->target()));
  }
}

/// Everything that the answer depends on. `request` has its sampling, adapter and grammar; the
/// prompt is that of the sample.
Signature Executor::Impl::KeyOf(const RowState& row, OperatorIndex op, int32_t sample,
                                const Request& request) const {
  const LogicalNode& node = PlanOf(row).at(op);
  const RunSource& source = sources[row.source];
  const Prompt& prompt = AskedBy(row, op, sample).prompt;
  const SamplingParameters& sampling = request.sampling;
  SignatureBuilder key;
  key.Add("llm").Add(source.models[static_cast<size_t>(node.model)].content);
  key.Add(int64_t{node.adapter != kNoAdapter});
  if (node.adapter != kNoAdapter) {
    HALO_CHECK(source.adapter_contents.size() == source.adapters.size(),
               "a journal knows adapters by what is in them");
    key.Add(source.adapter_contents[static_cast<size_t>(node.adapter)]);
  }
  key.Add(prompt.tokens);
  if (prompt.tokens.empty()) key.Add(prompt.text);
  key.Add(int64_t{sampling.max_tokens}).Add(int64_t{sampling.min_tokens}).Add(request.grammar);
  key.Add(static_cast<int64_t>(sampling.stop.size()));
  for (const std::string& stop : sampling.stop) key.Add(stop);
  const bool is_drawn = sampling.temperature > 0.0F;
  key.Add(int64_t{is_drawn});
  if (is_drawn) {
    key.Add(double{sampling.temperature}).Add(double{sampling.top_p}).Add(double{sampling.min_p});
    key.Add(int64_t{sampling.top_k}).Add(static_cast<int64_t>(sampling.draw_key));
  }
  return key.Finish();
}

Signature Executor::Impl::KeyOf(const RowState& row, OperatorIndex op, const ToolWork& work) const {
  SignatureBuilder key;
  key.Add("tool").Add(work.request);
  if (work.may_share && !states[row.source].is_alone[static_cast<size_t>(op)]) return key.Finish();
  key.Add(static_cast<int64_t>(row.source)).Add(PlanOf(row).operator_of(op).id).Add(row.id_text);
  return key.Finish();
}

/// The outcome of an instance's call in an earlier part of the run.
std::optional<JournalRecord> Executor::Impl::FindRecord(const RowState& row, OperatorIndex op,
                                                        const Signature& key) const {
  if (options.journal == nullptr || options.journal->earlier() == 0) return std::nullopt;
  const bool again = options.tries_again && options.tries_again(row.source, row.row.index);
  if (!again && options.journal->earlier_failed() > 0) {
    const Operator& what = PlanOf(row).operator_of(op);
    std::optional<JournalRecord> failed = options.journal->Find(FailureKey(row, what, key));
    if (failed && failed->ending == Ending::kFailed) return failed;
  }
  return options.journal->Find(key);
}

std::optional<Completion> Executor::Impl::Recall(const RowState& row, OperatorIndex op,
                                                 const Signature& key) const {
  std::optional<JournalRecord> record = FindRecord(row, op, key);
  if (!record) return std::nullopt;
  return CompletionOf(row, op, std::move(*record));
}

/// What a record says of a model's call; nothing if it is damaged: the call is made again.
std::optional<Completion> Executor::Impl::CompletionOf(const RowState& row, OperatorIndex op,
                                                       JournalRecord record) const {
  Completion completion;
  completion.prompt_tokens = record.prompt_tokens;
  completion.output_tokens = record.output_tokens;
  if (record.ending == Ending::kFailed) {
    completion.failure = std::move(record.failure);
    return completion;
  }
  if (record.ending != Ending::kAnswer) return std::nullopt;
  if (!record.text) {
    const auto model = static_cast<size_t>(PlanOf(row).at(op).model);
    const auto& vocabulary = sources[row.source].models[model].prompts.vocabulary;
    if (vocabulary != nullptr) record.text = TextOf(record.tokens, *vocabulary);
    if (!record.text) return std::nullopt;
  }
  completion.finish = record.finish;
  completion.cut = record.cut;
  completion.tokens = std::move(record.tokens);
  completion.text = std::move(*record.text);
  return completion;
}

/// The outcome of a call that was made in an earlier part of the run, or in an earlier run; then
/// the journal has it, too, since it must stay what it is.
std::optional<Completion> Executor::Impl::Known(RowState& row, OperatorIndex op, const Call& call) {
  if (std::optional<Completion> known = Recall(row, op, call.key)) return known;
  std::optional<JournalRecord> record = FindCached(row, op, call);
  if (!record) return std::nullopt;
  std::optional<Completion> known = CompletionOf(row, op, *record);
  if (!known) return std::nullopt;
  ++CountsOf(row, op).from_cache;
  ++report.counts.from_cache;
  report.cached_tokens += known->prompt_tokens + known->output_tokens;
  if (options.journal == nullptr) return known;
  record->key = call.key;
  record->unpaid = true;
  record->cost = 0;
  options.journal->Append(*record);
  return known;
}

void Executor::Impl::CountCached(RowState& row, OperatorIndex op) {
  Instance& instance = At(row, op);
  if (instance.counted != CountedAs::kNot) return;
  instance.counted = CountedAs::kCached;
  OperatorCounts& counts = CountsOf(row, op);
  ++counts.distinct;
  ++counts.cached;
}

/// True if the call was made before: it has ended.
bool Executor::Impl::TakeKnown(RowState& row, OperatorIndex op, const Call& call) {
  const std::optional<Completion> known = Known(row, op, call);
  if (!known) return false;
  if (call.mergeable && !known->failure) answers.Put(call.signature, *known);
  if (At(row, op).samples == nullptr) At(row, op).state = State::kSubmitted;
  CountCached(row, op);
  if (RoundOf(row, op, call.sample) == 0) ReleaseKvOf(row, op);
  EndInstance(row, op, *known, call, true);
  return true;
}

/// Samples that were drawn before. True if that is all of them: the instance has ended.
bool Executor::Impl::TakeSamples(RowState& row, OperatorIndex op) {
  if (options.journal == nullptr && options.cache == nullptr) return false;
  Instance& instance = At(row, op);
  std::vector<std::optional<Completion>> known(instance.samples->answers.size());
  std::vector<Call> asked(known.size());
  for (size_t k = 0; k < known.size(); ++k) {
    Ask(row, op, static_cast<int32_t>(k), asked[k]);
    known[k] = Known(row, op, asked[k]);
    instance.samples->sent += known[k] ? 1 : 0;
  }
  // The first one is who takes over its parent's KV.
  if (known.front()) ReleaseKvOf(row, op);
  const bool is_all = instance.samples->sent == static_cast<int32_t>(known.size());
  instance.state = State::kSubmitted;
  if (is_all) CountCached(row, op);
  for (size_t k = 0; k < known.size(); ++k) {
    if (known[k]) EndInstance(row, op, *known[k], asked[k], true);
  }
  return is_all;
}

/// The same of a tool's call.
bool Executor::Impl::TakeKnownTool(RowState& row, OperatorIndex op, const ToolWork& work) {
  std::optional<JournalRecord> record;
  if (options.journal != nullptr) record = FindRecord(row, op, KeyOf(row, op, work));
  const bool is_new = !record;
  if (is_new) record = FindCached(row, op, work);
  if (!record) return false;
  ToolCompletion completion;
  ToolResult result;
  if (record->ending == Ending::kFailed) {
    completion.failure = std::move(record->failure);
  } else if (record->ending == Ending::kValue && record->text) {
    auto value = nlohmann::ordered_json::parse(*record->text, nullptr, false);
    if (value.is_discarded()) return false;  // damaged: it is asked again
    result = std::make_shared<const nlohmann::ordered_json>(std::move(value));
    if (work.signature) results.Put(*work.signature, result);
  } else {
    return false;
  }
  At(row, op).state = State::kSubmitted;
  CountCached(row, op);
  if (is_new) {
    ++CountsOf(row, op).from_cache;
    ++report.counts.from_cache;
    RecordTool(row, op, work, completion, result, true);
  }
  EndTool(row, op, work, completion, result, true);
  return true;
}

/// False for what another part of the run would find otherwise.
bool Executor::Impl::IsFinal(const Failure& failure) const {
  if (failure.code == "cancelled" || failure.code == "deadline") return false;
  return !(stopping && failure.retriable);  // it had attempts left
}

void Executor::Impl::RecordFailure(const RowState& row, OperatorIndex op, const Signature& key,
                                   const Failure& failure, int64_t prompt_tokens,
                                   int64_t output_tokens) {
  if (!IsFinal(failure)) return;
  JournalRecord record;
  record.prompt_tokens = prompt_tokens;
  record.output_tokens = output_tokens;
  record.key = FailureKey(row, PlanOf(row).operator_of(op), key);
  record.ending = Ending::kFailed;
  record.failure = failure;
  record.unpaid = true;  // its attempts have records of their own
  options.journal->Append(record);
}

/// An attempt has failed, whatever follows: the budget of the run is less by it.
void Executor::Impl::RecordSpent(const Signature& key, const Completion& completion, int64_t cost) {
  if (options.journal == nullptr) return;
  JournalRecord record;
  record.key = key;
  record.ending = Ending::kSpent;
  record.prompt_tokens = completion.prompt_tokens;
  record.output_tokens = completion.output_tokens;
  record.cost = cost;
  options.journal->Append(record);
}

/// The call has finished; the instances that wait for it have not been told yet.
void Executor::Impl::Record(const Call& call, const Completion& completion) {
  if (options.journal == nullptr && options.cache == nullptr) return;
  if (!completion.failure) {
    const JournalRecord record = AnswerRecord(call, completion);
    KeepForLaterRuns(call, record);
    if (options.journal != nullptr) options.journal->Append(record);
    return;
  }
  if (options.journal == nullptr) return;
  RecordFailure(*call.row, call.op, call.key, *completion.failure, completion.prompt_tokens,
                completion.output_tokens);
  // Those who wait share the failure, unless it is of the row that asked.
  for (const auto& [row, op] : call.followers) {
    if (IsOfOneRow(*completion.failure)) break;
    RecordFailure(*row, op, call.key, *completion.failure, completion.prompt_tokens,
                  completion.output_tokens);
  }
}

JournalRecord Executor::Impl::AnswerRecord(const Call& call, const Completion& completion) const {
  JournalRecord record;
  record.key = call.key;
  record.finish = completion.finish;
  record.cut = completion.cut;
  record.tokens = completion.tokens;
  record.prompt_tokens = completion.prompt_tokens;
  record.output_tokens = completion.output_tokens;
  record.cost = CostOf(*call.row, call.op, completion.prompt_tokens, completion.output_tokens);
  const auto model = static_cast<size_t>(PlanOf(*call.row).at(call.op).model);
  const auto& vocabulary = sources[call.row->source].models[model].prompts.vocabulary;
  const bool is_derived = vocabulary != nullptr && !completion.tokens.empty() &&
                          TextOf(completion.tokens, *vocabulary) == completion.text;
  if (!is_derived) record.text = completion.text;
  return record;
}

JournalRecord Executor::Impl::ValueRecord(const ToolResult& result) {
  JournalRecord record;
  record.ending = Ending::kValue;
  record.text = result->dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  return record;
}

/// The same of a tool's call, for one of the instances. `unpaid`: the call was another one's.
void Executor::Impl::RecordTool(const RowState& row, OperatorIndex op, const ToolWork& work,
                                const ToolCompletion& completion, const ToolResult& result,
                                bool unpaid) {
  if (options.journal == nullptr) return;
  if (completion.failure)
    return RecordFailure(row, op, KeyOf(row, op, work), *completion.failure, 0, 0);
  JournalRecord record = ValueRecord(result);
  record.key = KeyOf(row, op, work);
  record.unpaid = unpaid;
  options.journal->Append(record);
}

/// A write begins when the journal says that it does: so a later part knows that it may have been
/// made. That is committed behind everything that the write was made of.
void Executor::Impl::BeginWrite(ToolWork work) {
  RowState& row = *work.row;
  JournalRecord record;
  record.key = KeyOf(row, work.op, work);
  record.ending = Ending::kBegun;
  const bool again = options.tries_again && options.tries_again(row.source, row.row.index);
  const std::optional<JournalRecord> earlier = options.journal->Find(record.key);
  At(row, work.op).state = State::kSubmitted;
  if (earlier && earlier->ending == Ending::kBegun && !work.call.idempotent && !again) {
    CountStart(row, work.op);
    ToolCompletion unknown;
    unknown.failure =
        Failure{"", "write_unknown",
                "the run ended while this write was under way: it may have been made or not, and "
                "is not declared idempotent",
                false};
    return EndTool(row, work.op, work, unknown, nullptr, false);
  }
  AddIdempotencyKey(work);
  work.begun = options.journal->Append(record);
  uncommitted_writes.push_back(std::move(work));
}

/// So that a server that knows such keys makes a repeated write once (the header of an IETF draft,
/// which most payment services take).
void Executor::Impl::AddIdempotencyKey(ToolWork& work) const {
  constexpr const char* kName = "Idempotency-Key";
  auto* http = std::get_if<HttpCall>(&work.call.what);
  if (http == nullptr || !work.call.idempotent || options.run_id.empty()) return;
  const auto is_key = [](const HttpHeader& header) {
    return strcasecmp(header.name.c_str(), kName) == 0;
  };
  // The workflow's own counts.
  if (std::any_of(http->headers.begin(), http->headers.end(), is_key)) return;
  const Signature key =
      SignatureBuilder().Add(options.run_id).Add(KeyOf(*work.row, work.op, work)).Finish();
  http->headers.push_back({kName, key.ToHex(), false});
}

/// When the run stops, too: what the journal has begun is under way.
void Executor::Impl::SendCommittedWrites() {
  while (!uncommitted_writes.empty() &&
         uncommitted_writes.front().begun <= options.journal->committed()) {
    ToolWork work = std::move(uncommitted_writes.front());
    uncommitted_writes.pop_front();
    if (work.row->cancelled) {
      ToolCompletion cancelled;
      cancelled.failure = Failure{"", "cancelled", "the row was cancelled", false};
      Withdraw(work);
      EndTool(*work.row, work.op, work, cancelled, nullptr, false);
    } else {
      SendTool(std::move(work));
    }
  }
}

void Executor::Impl::Withdraw(const ToolWork& work) {
  JournalRecord record;
  record.key = KeyOf(*work.row, work.op, work);
  record.ending = Ending::kWithdrawn;
  options.journal->Append(record);
}

/// True while the journal has something that is not on the disk.
bool Executor::Impl::AwaitsCommit() const {
  return options.journal != nullptr && options.journal->committed() < options.journal->appended();
}

/// Throws Error(kIo): without a journal nothing that is done now would count.
void Executor::Impl::CheckJournal() const {
  if (options.journal == nullptr) return;
  options.journal->SetElapsed(ElapsedUs());
  const std::string why = options.journal->failure();
  if (!why.empty()) throw Error(ErrorCode::kIo, why);
}

void Executor::Impl::CommitAll() {
  CheckJournal();
  while (AwaitsCommit()) {
    options.journal->Wait(kCommitSliceUs);
    CheckJournal();
  }
}

void Executor::Impl::NoteWritten(const RowState& row) {
  if (options.journal == nullptr) return;
  const bool failed = row.failure.has_value();
  if (!unrecorded.empty()) {
    WrittenRows& last = unrecorded.back();
    if (last.source == row.source && last.failed == failed &&
        last.first + last.count == row.row.index) {
      ++last.count;
      return;
    }
  }
  unrecorded.push_back({row.source, row.row.index, 1, failed});
}

/// They are in the hands of the operating system.
void Executor::Impl::RecordWrittenRows() {
  for (const WrittenRows& rows : unrecorded) options.journal->Append(rows);
  unrecorded.clear();
}

}  // namespace halo
