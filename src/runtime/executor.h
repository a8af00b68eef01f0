#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "plan/logical_plan.h"
#include "runtime/prompt_builder.h"
#include "runtime/result_sink.h"
#include "runtime/tool_calls.h"
#include "workflow/rows.h"

namespace halo {

/// What a model's tokens cost, in billionths of a currency unit each.
struct TokenPrice {
  int64_t prompt = 0, output = 0;
};

/// One model as the runtime sees it.
struct ModelBinding {
  Engine* engine = nullptr;  ///< outlives the run
  PromptModel prompts;
  Signature content;  ///< of its file, for the keys of the journal and the cache
  /// Of whatever else rounding depends on (build, machine, exactness), for the cache's keys.
  Signature computed_by;
  TokenPrice price;
};

/// Where rows come from while a run goes on.
class RowFeed {
 public:
  virtual ~RowFeed() = default;
  enum class Pull : uint8_t { kRow, kNothingYet, kClosed };
  /// kRow fills `row`. kNothingYet: the source is open, ask again later.
  virtual Pull Next(Row& row) = 0;
  /// Called after kNothingYet when there is nothing else to do: returns when a row may be there,
  /// after `most_us` at the latest. The default looks again after a millisecond.
  virtual void Wait(int64_t most_us);
  /// RowSource::TakeCancelled; asked once a turn.
  virtual std::vector<int64_t> TakeCancelled() { return {}; }
  /// Readable when there may be rows, or cancelled ones, since the last TakeCancelled; -1: nobody
  /// tells, and rows wait until the scheduler looks.
  virtual int ready_descriptor() const { return -1; }
};

/// One (workflow, row source) pair of a run. `halo run` is the case of one source that closes.
struct RunSource {
  const LogicalPlan* plan = nullptr;
  RowFeed* rows = nullptr;
  ResultSink* sink = nullptr;
  std::vector<ModelBinding> models;   ///< [plan models]
  std::vector<std::string> adapters;  ///< [plan adapters] as their engines know them
  std::vector<Signature>
      adapter_contents;  ///< [plan adapters] for keys; may be empty without journal and cache
  /// [plan nodes] of tools: what their results depend on besides what is asked (which database,
  /// which program), for the cache's keys. May be empty without one.
  std::vector<Signature> tool_contents;
  std::string prompt_column;
  const class WorkerPlacement* placement = nullptr;  ///< outlives the run; null: on any worker
  int32_t priority = 0;        ///< added to that of each of its rows; higher goes first
  int64_t row_timeout_us = 0;  ///< from the opening of a row that says no other; 0: none
};

/// How an operator instance (one operator, one row) ended (contract 2). kNulled: failed under
/// `on_error: null`. kSkipped: by `when`, a loop that was over, a skipped input or `on_error:
/// skip`. kOmitted: not run, since only what is skipped would have read it (counted as skipped).
enum class InstanceEnd : uint8_t { kOk, kNulled, kSkipped, kOmitted, kFailed, kUnfinished };

/// Everything about one call, for --dump-prompts, traces and benchmarks. References live only
/// during the callback.
struct CallRecord {
  const Operator& op;
  const Row& row;
  const Request& request;  ///< without its prompt, which has moved into `prompt`
  const Prompt& prompt;
  const Completion& completion;
  size_t source;
  bool merged;                                     ///< answered by an equal call
  const Engine* engine;                            ///< that was asked
  const struct CacheQuestion* question = nullptr;  ///< what the cache was asked; null: it was not
};

/// Everything about one call of a tool. References live only during the callback.
struct ToolCallRecord {
  const Operator& op;
  const Row& row;
  const ToolCall& call;                  ///< its last attempt; of a merged one, an equal call
  const std::string& target;             ///< ToolCallBuilder::target
  Signature request;                     ///< equal for calls that ask the same
  bool may_share;                        ///< equal calls may share a result
  const ToolCompletion& completion;      ///< its value has moved into `result`
  const nlohmann::ordered_json* result;  ///< null: it failed
  size_t source;
  bool merged;      ///< answered by an equal call
  int64_t busy_us;  ///< of all attempts; waiting between them is not among it
  const struct CacheQuestion* question = nullptr;  ///< as CallRecord
};

/// Called by the scheduler's thread.
class RunObserver {
 public:
  virtual ~RunObserver() = default;
  virtual void OnCall(const CallRecord&) {}
  virtual void OnToolCall(const ToolCallRecord&) {}
  /// An attempt at a call has ended, before it is decided whether another is made. Each is told of
  /// once; calls that an engine had not begun when the run stopped are none.
  virtual void OnAttempt(const CallRecord&) {}
  /// The same of a tool's call; there is no `result` yet.
  virtual void OnToolAttempt(const ToolCallRecord&) {}
  virtual void OnRow(size_t /*source*/, const RowResult&) {}
  /// Beside OnRow, of a row that has failed: what was given.
  virtual void OnFailedRow(size_t /*source*/, const Row&) {}
  /// Now and then, at least once a second while something happens.
  virtual void OnProgress(const struct RunProgress&) {}
  /// After each turn of the scheduler: ten times a second at least, while something runs.
  virtual void OnTurn(const struct RunCounts&) {}
};

/// What a run may spend; negative: no limit. A call that would not fit is not made; the run stops
/// when none fits any more.
struct RunBudget {
  int64_t calls = -1;    ///< of models and tools, attempts and samples counted
  int64_t tokens = -1;   ///< of the prompts and answers of calls that are made
  int64_t cost = -1;     ///< of these tokens, in TokenPrice's unit
  int64_t time_us = -1;  ///< from the start of the run; what runs then is finished

  bool is_unlimited() const { return calls < 0 && tokens < 0 && cost < 0 && time_us < 0; }
};

struct ExecutorOptions {
  bool naive = false;  ///< one row at a time, one operator at a time, nothing shared: the reference
  uint64_t seed = 0;
  int64_t window =
      65536;  ///< most open rows, counted from the oldest unwritten one; sources have equal shares
  /// Where answers older than the window go, so that equal calls still merge; "": nowhere.
  std::string spill_folder;
  int64_t rows_side_by_side =
      1;  ///< rows that are carried through the operators together, see Executor
  bool input_order = true;
  bool all_outputs = false;
  bool stop_on_error = false;
  double max_failures = -1;          ///< failed rows after which to stop; negative: no limit
  ToolRunner* tools = nullptr;       ///< outlives the run; null: no workflow has tools
  class Journal* journal = nullptr;  ///< outlives the run; null: nothing survives it
  /// Answers of earlier runs and for later ones; outlives the run. Null: there are none.
  class ResultCache* cache = nullptr;
  /// While all engines are idle because tools are not, let them compute what is known of the
  /// prompts that wait for these. Only without a budget.
  bool prefill_ahead = false;
  /// Make no call: what neither journal nor cache knows fails with the code "not_known".
  bool only_known = false;
  /// Of all parts of the run, and no other: idempotent writes carry a key made of it. "": none do.
  std::string run_id;
  /// True for rows (source, index) whose failed calls are made again, whatever the journal says of
  /// them. Null: for none.
  std::function<bool(size_t, int64_t)> tries_again;
  ToolSetup tool_setup;
  double max_failures_share =
      -1;  ///< of finished rows, looked at from 20 rows on; negative: no limit
  /// Told what operators have done so far once one has had 32 calls answered, and whenever it has
  /// twice as many. May change LogicalNode::order of the sources' plans, and their placements:
  /// calls that are made from then on follow. The scheduler's thread. May be empty.
  std::function<void(const std::vector<struct OperatorCounts>& so_far)> on_checkpoint;
  /// Stop when the first 20 rows, or a hundred in a row, have failed alike.
  bool stop_when_all_fail = true;
  RunBudget budget;
};

/// Counts of one operator over a run (contract 2). logical = merged + distinct, distinct = executed
/// + skipped + unfinished. `skipped` counts instances without a call; `nulled` and `failed` are
/// ends of executed ones.
struct OperatorCounts {
  std::string id;
  OperatorKind kind = OperatorKind::kInference;
  std::string model;  ///< of inference
  size_t source = 0;
  int64_t logical = 0, merged = 0, distinct = 0, executed = 0, cached = 0, nulled = 0, skipped = 0,
          failed = 0, unfinished = 0, calls = 0;
  int64_t prompt_tokens = 0, reused_tokens = 0, prefilled_tokens = 0, recomputed_tokens = 0,
          output_tokens = 0;
  int64_t ahead_tokens = 0;            ///< computed before its calls were made, which reuse them
  double output_tokens_squared = 0.0;  ///< summed over calls
  int64_t from_cache = 0;              ///< calls that the cache answered
  int64_t cost = 0;                    ///< of its calls' tokens, in TokenPrice's unit
  int64_t ended = 0;                   ///< instances that have, however
  int64_t answered = 0;                ///< calls that have ended
  int64_t running = 0;                 ///< calls in flight
  int64_t busy_us = 0;                 ///< from start to end of its calls, added up
  int64_t engine_us = 0;               ///< of inference: its share of the engine's passes
};

struct RunCounts {
  int64_t rows_ok = 0, rows_failed = 0, rows_opened = 0;
  int64_t calls_done = 0, calls_running = 0;
  int64_t output_tokens = 0;
  int64_t from_cache = 0;  ///< calls that the cache answered
};

enum class RunEnd : uint8_t {
  kFinished,    ///< every row has its result
  kStopped,     ///< by a limit, see StopCause
  kInterrupted  ///< the stop flag was raised
};

/// Which limit stopped a run.
enum class StopCause : uint8_t {
  kNone,
  kFirstFailure,  ///< `stop_on_error`
  kMaxFailures,
  kAllFail,  ///< `stop_when_all_fail`
  kBudget
};

/// "none", "first_failure", "max_failures", "all_fail" or "budget".
const char* StopCauseName(StopCause cause);

/// What keeps calls from being made right now.
struct RunWaits {
  int64_t retries = 0;              ///< failed calls that wait to be made again
  int64_t next_retry_us = 0;        ///< when the first of them is due
  int64_t asked_to_wait = 0;        ///< of these, calls that the other side wants later
  int64_t held_back = 0;            ///< ToolRunner::held_back
  bool for_rows = false;            ///< a source is open and has none now
  bool for_budget = false;          ///< calls in flight may still spend what the next one needs
  std::vector<std::string> models;  ///< that have calls and are not loaded, by name
};

/// Where a run stands. References live only during the callback.
struct RunProgress {
  const RunCounts& counts;
  const std::vector<OperatorCounts>& operators;  ///< sources in order, operators in order
  RunWaits waits;
  /// Written or not: in input order a row waits for those before it.
  int64_t rows_ended = 0, rows_ended_failed = 0;
};

struct RunReport {
  RunEnd end = RunEnd::kFinished;
  StopCause stop_cause = StopCause::kNone;
  std::string stop_reason;  ///< in words; "" if no limit stopped it
  RunCounts counts;
  int64_t rows_unfinished = 0;
  int64_t cost = 0;                       ///< of all parts of the run, in TokenPrice's unit
  int64_t cached_tokens = 0;              ///< of prompts and answers that the cache answered with
  std::vector<OperatorCounts> operators;  ///< sources in order, operators in order
  int64_t peak_open_rows = 0;
  std::vector<std::string> notices;  ///< what went wrong without changing a result
};

/// What a person asked for by signals: 0 nothing, 1 drain (finish what runs, start nothing new), 2
/// abort.
using StopFlag = std::atomic<int>;

/// Runs (workflow, row source) pairs to the end on the calling thread, which is the scheduler's: it
/// owns all state of rows and instances, builds prompts, feeds the engines, takes their completions
/// and writes rows.
///
/// An operator instance goes forward only:
///
///     kWaiting --inputs ended--> kReady --prompt built--> kSubmitted --completion--> kDone
///         |  |                     ^ |  \                    |  ^                      ^
///         |  |   more samples to send |   --equal call under way--> kMerged ----------|
///         |  |                           (kSubmitted, if the row that made the equal call
///         |  |                            gives it up; kept while a failed attempt waits to be
///         |  |                            made again)
///         |  +-- `when` is false, a loop is over, an input was skipped --> kDone (skipped)
///         +----- a parent failed ----------------------------------------> kDone (unfinished)
///
/// There is no barrier: an instance is ready when its own inputs are. Rows go in blocks of
/// `rows_side_by_side`: lower blocks first, so that rows end early and their KV and memory are
/// given back; within a block operator by operator, so that an engine prefills prompts of like
/// lengths together and the longest chains start first.
///
/// Every completion passes OnCompletion. A call has two events: *finished*, after which what waits
/// for it goes on, and *committed*, when the journal has it on the disk. Rows are written and
/// writes of tools begin when everything that was finished before is committed; without a journal
/// that is at once. What the journal has from earlier parts of the run is not asked for again
/// ("cached").
///
/// Bounds: open rows (window), calls given to an engine (a few times what it runs at once), merged
/// calls (the window).
class Executor {
 public:
  Executor(std::vector<RunSource> sources, ExecutorOptions options, Clock& clock,
           RunObserver* observer);
  ~Executor();

  /// Runs until every source is closed and every row written. Throws Error(kIo) from sinks, sources
  /// and the journal.
  RunReport Run(const StopFlag& stop);

  /// Cancels one row that is open: its running calls are cancelled, it ends as failed
  /// ("cancelled").
  void CancelRow(size_t source, int64_t row_index);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A RowSource as a feed that closes at its end.
std::unique_ptr<RowFeed> FeedFrom(RowSource& source);

}  // namespace halo
