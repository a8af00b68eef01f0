#pragma once

// What the parts of the executor share: executor.cc (the loop, rows and results), executor_ahead.cc
// (prompts that are computed before they are asked),
// executor_limits.cc (what ends a run early), executor_calls.cc (calls and their completions),
// executor_retries.cc (calls that are made again), executor_tools.cc (calls of tools),
// executor_ends.cc (how instances end, and what follows), executor_journal.cc (what survives the
// run), executor_cache.cc (what earlier runs have left).

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "runtime/answer_store.h"
#include "runtime/executor.h"
#include "runtime/journal.h"
#include "runtime/result_cache.h"
#include "runtime/tool_results.h"

namespace halo {

enum class InstanceState : uint8_t { kWaiting, kReady, kSubmitted, kMerged, kDone };

/// The answers of an instance with several samples while they come in.
struct SampleSet {
  std::vector<std::optional<Completion>> answers;  // [samples]
  std::vector<RequestId> requests;                 // [samples] 0: not sent yet
  int32_t sent = 0;                                // or known from the journal
  int32_t done = 0;
};

/// An answer that does not fit its schema is asked for again.
struct Repair {
  int32_t round = 0;          // how often it was
  Conversation conversation;  // up to the question that is asked now
};

/// As what an instance counts (contract 2).
enum class CountedAs : uint8_t { kNot, kMerged, kCached, kExecuted };

/// Why an instance was skipped.
enum class SkipReason : uint8_t {
  kNone,
  kCondition,  // its own
  kInput       // what it cannot do without was skipped
};

/// One operator for one row.
struct Instance {
  InstanceState state = InstanceState::kWaiting;
  InstanceEnd end = InstanceEnd::kUnfinished;
  SkipReason skip = SkipReason::kNone;
  bool lacks_input = false;  // one has failed; its conditions may still say that none is needed
  CountedAs counted = CountedAs::kNot;
  bool built = false;  // a tool's call was made, or an equal one taken for it
  uint16_t inputs_left = 0;
  uint16_t readers_left = 0;       // operators that may name it and have not built their prompt yet
  uint16_t ahead_of = UINT16_MAX;  // inputs that were left when what was known was computed ahead
  RequestId request = 0;           // 0: none of its own (merged, or not there yet)
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::unique_ptr<Conversation> conversation;
  std::unique_ptr<SampleSet> samples;                  // null: one
  std::unique_ptr<std::map<int32_t, Repair>> repairs;  // by sample; null: none needed one
  ToolResult result;                                   // of a tool
};

struct RowState {
  Row row;
  std::string id_text;  // the id as JSON
  size_t source = 0;
  std::vector<Instance> instances;  // [operators]
  int32_t open_instances = 0;
  int32_t priority = 0;  // the source's and its own
  int64_t opened_us = 0, ended_us = 0;
  int64_t deadline_us = 0;
  int64_t journaled = 0;  // number of the last record it may depend on, once it has ended
  std::vector<std::pair<OperatorIndex, Failure>> failures;  // of operators, needed or not
  // When the last instance has ended:
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::vector<OperatorIndex> skipped;
  std::optional<Failure> failure;  // of the first operator in order that failed and was needed
  bool cancelled = false;
};

/// Rows that wait for one operator's call: on top the one of the highest priority, of these the
/// lowest, whenever it became ready.
struct HigherRow {
  bool operator()(const RowState* a, const RowState* b) const {
    if (a->priority != b->priority) return a->priority < b->priority;
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
  Signature key;  // in the journal, and of that in the cache
  bool mergeable = false;
  int32_t sample = 0;
  int32_t attempt = 0;
  int64_t most_tokens = 0;  // that it may take
  int64_t most_cost = 0;    // that these may cost
  std::vector<std::pair<RowState*, OperatorIndex>> followers;
};

/// What an engine computes of a prompt before that is asked.
struct Ahead {
  size_t counts = 0;   // of the operator: index into report.operators
  int64_t tokens = 0;  // of the request
};

/// A failed call that is made again when its time has come.
struct Again {
  Call call;
  Completion failed;
};

/// A tool's call under way and everyone who waits for it.
struct ToolWork {
  RowState* row = nullptr;
  OperatorIndex op = 0;
  ToolCall call;  // as it was given out
  Signature request;
  bool may_share = false;
  std::optional<Signature> signature;  // by which it shares in this run
  int64_t begun = 0;  // of a write: the record that says so, which is committed before it begins
  int32_t attempt = 0;
  int64_t busy_us = 0;  // of all attempts
  std::vector<std::pair<RowState*, OperatorIndex>> followers;
};

/// A failed one that is made again when its time has come.
struct ToolAgain {
  ToolWork work;
  ToolCompletion failed;
};

/// How often tables of a connection may have changed in this run: reads share results only while
/// that stands still.
struct TableVersions {
  int64_t all = 0;
  std::map<std::string, int64_t> tables;
};

/// True for failures of a model's call that say something about the row that made it, not about the
/// call.
bool IsOfOneRow(const Failure& failure);

/// Of a row that was given up.
Failure CancelledRow();

/// How long to wait before a call is made again that has failed `attempt` times before: it doubles
/// with each, up to an hour.
double BackOffSeconds(const RetryPolicy& retry, int32_t attempt);

/// An operator that waits for another to end.
struct Waiter {
  OperatorIndex op = 0;
  bool reads = false;           // it cannot do without what the other says
  bool is_conditional = false;  // unless its conditions say that it does nothing
  bool asks = false;            // for which it needs the other
};

struct Executor::Impl {
  std::vector<RunSource> sources;
  ExecutorOptions options;
  Clock& clock;
  RunObserver* observer;

  struct SourceState {
    std::vector<std::unique_ptr<PromptBuilder>> builders;  // [operators]; null: a tool
    std::vector<std::unique_ptr<ToolCallBuilder>> tools;   // [operators]; null: inference
    std::vector<bool> feeds_tools;  // [operators] a tool waits for it, if through others
    std::vector<bool> is_first;     // [operators] inference that waits for no other inference
    std::vector<std::vector<OperatorIndex>> reads;  // [operators] whose outputs it may name
    std::vector<int32_t> readers;                   // [operators] how many may name it
    std::vector<std::vector<Waiter>> waiters;       // [operators] who waits for it
    std::vector<std::vector<OperatorIndex>>
        condition_inputs;  // [operators] whose outputs its conditions look at
    std::vector<std::vector<OperatorIndex>>
        kv_consumers;               // [operators] whose KV begins with this one's
    std::vector<ReadyQueue> ready;  // [operators] rows whose inputs are there
    std::vector<size_t> counts;     // [operators] index into report.operators
    std::vector<bool> is_alone;     // [operators] what it reads is written to by the workflows
    bool closed = false;
    bool idle = false;    // open, but has no row now
    int64_t opened = 0;   // rows
    int64_t written = 0;  // rows
  };
  std::vector<SourceState> states;
  bool is_checkpoint = false;                                                 // reached
  std::vector<Engine*> engines;                                               // distinct
  std::map<std::pair<size_t, int64_t>, std::unique_ptr<RowState>> open_rows;  // (source, index)
  std::vector<std::pair<size_t, int64_t>>
      ended_rows;  // to be written, where that is not in input order
  std::unordered_map<RequestId, Call> calls;
  std::unordered_map<RequestId, Ahead> ahead;
  int64_t ahead_tokens = 0;               // of these
  std::multimap<int64_t, Again> retries;  // by the time when they are due
  std::list<Again> due_retries;           // until their engine has room
  std::unordered_map<Signature, RequestId, SignatureHasher> calls_by_signature;
  AnswerStore answers;
  ToolResults results;
  std::unordered_map<ToolCallId, ToolWork> tool_work;
  std::multimap<int64_t, ToolAgain> tool_retries;  // by the time when they are due
  std::unordered_map<Signature, ToolCallId, SignatureHasher> tool_work_by_signature;
  std::list<ToolWork> uncommitted_writes;          // not given to their tool yet, in order
  std::vector<WrittenRows> unrecorded;             // written, not flushed
  std::map<std::string, int64_t> given_out;        // tool calls by target
  std::map<std::string, TableVersions> versions;   // by connection
  std::unordered_map<Engine*, int64_t> submitted;  // calls in each engine
  RequestId next_request = 1;
  size_t next_source = 0;
  size_t next_engine = 0;
  std::deque<Call> held;  // built, until the budget has room
  int64_t calls_made = 0, tokens_spent = 0, tokens_reserved = 0;
  int64_t cost_spent = 0, cost_reserved = 0;  // in TokenPrice's unit
  int64_t started_us = 0, earlier_us = 0;     // `earlier_us`: how long earlier parts took
  bool stopping = false;
  int64_t last_progress_us = 0;
  int64_t last_flush_us = 0;
  bool unflushed = false;                         // rows written since
  int64_t rows_ended = 0, rows_ended_failed = 0;  // written or not
  int64_t failed_alike = 0;                       // rows that ended last, one after another
  Failure alike;                                  // how the latest of them failed
  RunReport report;

  Impl(std::vector<RunSource> s, ExecutorOptions o, Clock& c, RunObserver* obs)
      : sources(std::move(s)),
        options(std::move(o)),
        clock(c),
        observer(obs),
        // Bounded by the window, like everything that is held for rows.
        answers({options.spill_folder, static_cast<size_t>(std::max<int64_t>(1, options.window)),
                 AnswerStore::Options{}.index_bytes}),
        results(options.spill_folder) {}

  // executor.cc: rows
  void Prepare();
  void PrepareOperator(SourceState& state, const RunSource& source, const LogicalNode& node);
  void OpenRows();
  bool AllClosed() const;
  bool NothingIsLeft();
  /// Each source has its share of the window, so that a row that takes long holds up its own source
  /// only.
  int64_t WindowOfASource() const {
    return std::max<int64_t>(1, options.window / static_cast<int64_t>(sources.size()));
  }
  bool OpenOneRow(size_t source);
  bool WantsMoreRows(size_t source) const;
  void StartRow(std::unique_ptr<RowState> row);
  void CancelRow(size_t source, int64_t row_index);
  void TakeCancelledRows();
  void WriteRows();
  void WriteRow(RowState& row);
  void FlushRows(bool idle);
  void TellOfTurn();
  void TellProgress();
  void CountAnswer(OperatorCounts& counts);
  void ReachCheckpoint();
  void Abort();
  void Wait();
  RunReport Finish(RunEnd end);

  // executor_ahead.cc: prompts that are computed before they are asked
  bool IsKnown(const RowState& row, const NameBinding& name) const;
  bool MayGoAhead(const RowState& row, const LogicalNode& node) const;
  Prompt KnownPrompt(const RowState& row, OperatorIndex op) const;
  void ComputeAhead();
  void SendAhead(const RowState& row, OperatorIndex op, Prompt prompt);
  bool TakeAhead(const Completion& completion);

  // executor_limits.cc: what ends a run early
  /// Of this part of the run.
  int64_t ElapsedUs() const { return clock.NowUs() - started_us; }
  void CheckLimits();
  void NoteRowEnd(const RowState& row);
  void Stop();
  void StopAt(StopCause cause, std::string reason);
  void StopAtSpent(std::string reason);
  void StopAtCalls();
  bool CallsAreSpent() const {
    return options.budget.calls >= 0 && calls_made >= options.budget.calls;
  }
  /// What waits for another try is unfinished, not failed: a larger budget would let it go on.
  bool is_left_for_later() const { return stopping && report.stop_cause == StopCause::kBudget; }
  bool FitsBudget(const Call& call) const;
  std::string WhySpent(const Call& next) const;
  int64_t CostOf(const RowState& row, OperatorIndex op, int64_t prompt_tokens,
                 int64_t output_tokens) const;
  void Offer(Call call);
  bool SendHeld();
  RunWaits Waits() const;

  // executor_calls.cc: calls
  void SubmitReady();
  bool NextReady(size_t& source, OperatorIndex& op);
  bool MaySubmit(size_t source, OperatorIndex op) const;
  void SubmitInstance(RowState& row, OperatorIndex op);
  void SubmitSample(RowState& row, OperatorIndex op);
  uint64_t DrawKeyOf(const RowState& row, OperatorIndex op, int32_t sample) const;
  PromptInputs InputsOf(const RowState& row, OperatorIndex op, const Conversation* unknown) const;
  void BuildRequest(RowState& row, OperatorIndex op, Call& call);
  SamplingParameters SamplingOf(RowState& row, OperatorIndex op, size_t prompt_tokens) const;
  void Ask(RowState& row, OperatorIndex op, int32_t sample, Call& call);
  void AddressRequest(RowState& row, OperatorIndex op, int32_t sample, Request& request);
  KeepHint KeepFor(RowState& row, OperatorIndex op);
  void CountStart(RowState& row, OperatorIndex op);
  void CountMerged(RowState& row, OperatorIndex op);
  void StartCall(const Call& call);
  void Send(Call call);
  void PromoteFollower(const Call& call);
  bool MergeInto(RowState& row, OperatorIndex op, const Call& call);
  void StopMergingInto(const Call& call);
  void PollEngines();
  bool EnginesWorkElsewhere() const;
  void WaitForOthers(int64_t until_us);
  void OnCompletion(Completion completion);
  void CountCompletion(const Call& call, const Completion& completion);
  void NameTimeout(const Call& call, Completion& completion) const;
  bool MayRetry(const Call& call, const Completion& completion) const;
  void RetryLater(Call call, Completion completion);
  void MakeDueCalls();
  void MakeAgain(Call call);
  void Conclude(Call call, const Completion& completion);
  void TakeBack(const Call& call);

  // executor_tools.cc: calls of tools
  bool IsTool(size_t source, OperatorIndex op) const {
    return states[source].tools[static_cast<size_t>(op)] != nullptr;
  }
  const ToolCallBuilder& ToolOf(const RowState& row, OperatorIndex op) const {
    return *states[row.source].tools[static_cast<size_t>(op)];
  }
  bool working() const {
    return !calls.empty() || !retries.empty() || !due_retries.empty() || !tool_work.empty() ||
           !tool_retries.empty() || !uncommitted_writes.empty();
  }
  bool MaySubmitTool(size_t source, OperatorIndex op) const;
  bool ToolsAreHungry() const;
  void SubmitTool(RowState& row, OperatorIndex op);
  BuiltToolCall BuildToolCall(RowState& row, OperatorIndex op) const;
  void AddVersions(const ToolWork& work, Signature& signature) const;
  void CountWrite(const ToolWork& work);
  bool MergeTool(RowState& row, OperatorIndex op, const ToolWork& work);
  void SendTool(ToolWork work);
  void PollTools(int64_t deadline_us);
  void OnToolCompletion(ToolCompletion completion);
  void CountToolCompletion(ToolWork& work, const ToolCompletion& completion);
  bool RetryToolLater(ToolWork& work, ToolCompletion& completion);
  bool PassOn(ToolWork& work);
  void MakeDueToolCalls();
  void ConcludeTool(ToolWork work, ToolCompletion completion);
  void EndTool(RowState& row, OperatorIndex op, const ToolWork& work,
               const ToolCompletion& completion, const ToolResult& result, bool merged);
  void CancelToolsOf(const RowState& row);

  // executor_journal.cc: what survives the run
  void FindWrittenTargets();
  Signature KeyOf(const RowState& row, OperatorIndex op, int32_t sample,
                  const Request& request) const;
  Signature KeyOf(const RowState& row, OperatorIndex op, const ToolWork& work) const;
  std::optional<JournalRecord> FindRecord(const RowState& row, OperatorIndex op,
                                          const Signature& key) const;
  std::optional<Completion> Recall(const RowState& row, OperatorIndex op,
                                   const Signature& key) const;
  std::optional<Completion> CompletionOf(const RowState& row, OperatorIndex op,
                                         JournalRecord record) const;
  std::optional<Completion> Known(RowState& row, OperatorIndex op, const Call& call);
  bool TakeKnown(RowState& row, OperatorIndex op, const Call& call);
  bool TakeSamples(RowState& row, OperatorIndex op);
  bool TakeKnownTool(RowState& row, OperatorIndex op, const ToolWork& work);
  void CountCached(RowState& row, OperatorIndex op);
  bool IsFinal(const Failure& failure) const;
  void RecordFailure(const RowState& row, OperatorIndex op, const Signature& key,
                     const Failure& failure, int64_t prompt_tokens, int64_t output_tokens);
  void RecordSpent(const Signature& key, const Completion& completion, int64_t cost);
  JournalRecord AnswerRecord(const Call& call, const Completion& completion) const;
  void Record(const Call& call, const Completion& completion);
  static JournalRecord ValueRecord(const ToolResult& result);
  void RecordTool(const RowState& row, OperatorIndex op, const ToolWork& work,
                  const ToolCompletion& completion, const ToolResult& result, bool unpaid);
  void BeginWrite(ToolWork work);
  void AddIdempotencyKey(ToolWork& work) const;
  void SendCommittedWrites();
  void Withdraw(const ToolWork& work);
  bool IsCommitted(const RowState& row) const {
    return options.journal == nullptr || row.journaled <= options.journal->committed();
  }
  bool AwaitsCommit() const;
  void CheckJournal() const;
  void NoteWritten(const RowState& row);
  void RecordWrittenRows();
  void CommitAll();

  // executor_cache.cc: what earlier runs have left
  bool MayCache(const RowState& row, OperatorIndex op) const;
  bool MayCacheTool(const RowState& row, OperatorIndex op, const ToolWork& work) const;
  int64_t LimitOf(const RowState& row, OperatorIndex op, int32_t sample,
                  const Request& request) const;
  Signature CacheKeyOf(const RowState& row, OperatorIndex op, const Call& call) const;
  Signature CacheKeyOf(const RowState& row, OperatorIndex op, const ToolWork& work) const;
  CacheQuestion QuestionOf(const RowState& row, OperatorIndex op, const Call& call) const;
  CacheQuestion QuestionOf(const RowState& row, OperatorIndex op, const ToolWork& work) const;
  std::optional<JournalRecord> FindCached(RowState& row, OperatorIndex op, const Call& call);
  std::optional<JournalRecord> FindCached(RowState& row, OperatorIndex op, const ToolWork& work);
  void KeepForLaterRuns(const Call& call, JournalRecord record);
  void KeepForLaterRuns(const ToolWork& work, const ToolResult& result);
  void Refuse(const Call& call);
  void RefuseTool(const ToolWork& work);

  // executor_ends.cc: ends of instances
  bool StartOrSkip(RowState& row, OperatorIndex op);
  SkipReason WhySkipped(const RowState& row, OperatorIndex op) const;
  bool IsGone(const RowState& row, const NameBinding& name) const;
  bool ConditionsHold(const RowState& row, const Operator& op) const;
  bool GoesAhead(const RowState& row, OperatorIndex op) const;
  std::vector<bool> NeededInstances(const RowState& row) const;
  void Settle(RowState& row);
  bool Holds(const RowState& row, const Condition& condition) const;
  void MakeReady(RowState& row, OperatorIndex op);
  nlohmann::ordered_json ValueOf(const RowState& row, const NameBinding& name,
                                 const Conversation** answer,
                                 const Operator** tool = nullptr) const;
  void EndInstance(RowState& row, OperatorIndex op, const Completion& completion, const Call& call,
                   bool merged);
  void EndSample(RowState& row, OperatorIndex op, const Completion& completion, const Call& call);
  bool RepairAnswer(RowState& row, OperatorIndex op, int32_t sample, const Completion& answer,
                    const Failure& fault);
  void TakeAnswer(RowState& row, OperatorIndex op, const Completion& completion,
                  std::optional<nlohmann::ordered_json> value);
  void FailInstance(RowState& row, OperatorIndex op, Failure failure);
  void EndWithoutCall(RowState& row, OperatorIndex op, InstanceEnd end);
  void Close(RowState& row, OperatorIndex op, InstanceEnd end);
  void Propagate(RowState& row, OperatorIndex op);
  bool Abandon(RowState& row, OperatorIndex op);
  void Omit(RowState& row, OperatorIndex op);
  void ReleaseKvOf(RowState& row, OperatorIndex op);
  void DropReads(RowState& row, OperatorIndex op);

  /// Lower goes first: blocks of rows, in a block the operators in the plan's order, then the rows.
  int64_t OrderOf(const RowState& row, OperatorIndex op) const {
    const int64_t operators = static_cast<int64_t>(row.instances.size());
    return row.row.index / options.rows_side_by_side * operators + PlanOf(row).at(op).order;
  }
  OperatorCounts& CountsOf(const RowState& row, OperatorIndex op) {
    return report.operators[states[row.source].counts[static_cast<size_t>(op)]];
  }
  const OperatorCounts& CountsOf(size_t source, OperatorIndex op) const {
    return report.operators[states[source].counts[static_cast<size_t>(op)]];
  }
  /// What a call asks: the instance's prompt, or the question that repairs its sample.
  const Conversation& AskedBy(const RowState& row, OperatorIndex op, int32_t sample) const {
    const Instance& instance = At(row, op);
    if (instance.repairs == nullptr || !instance.repairs->contains(sample))
      return *instance.conversation;
    return instance.repairs->at(sample).conversation;
  }
  /// How often a sample's answer was asked for again.
  int32_t RoundOf(const RowState& row, OperatorIndex op, int32_t sample) const {
    const Instance& instance = At(row, op);
    if (instance.repairs == nullptr || !instance.repairs->contains(sample)) return 0;
    return instance.repairs->at(sample).round;
  }
  Engine* EngineOf(size_t source, OperatorIndex op) const {
    const RunSource& of = sources[source];
    return of.models[static_cast<size_t>(of.plan->at(op).model)].engine;
  }
  const LogicalPlan& PlanOf(const RowState& row) const { return *sources[row.source].plan; }
  std::string AdapterOf(const RowState& row, OperatorIndex op) const {
    const AdapterIndex adapter = PlanOf(row).at(op).adapter;
    return adapter == kNoAdapter ? "" : sources[row.source].adapters[static_cast<size_t>(adapter)];
  }
  Instance& At(RowState& row, OperatorIndex op) { return row.instances[static_cast<size_t>(op)]; }
  const Instance& At(const RowState& row, OperatorIndex op) const {
    return row.instances[static_cast<size_t>(op)];
  }
};

}  // namespace halo
