#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "halo/host_function.h"
#include "halo/row_stream.h"

namespace halo {

/// Whether every call's logits are bitwise those of the reference (contract 4).
enum class Determinism {
  kAuto,      ///< where it is known to hold and costs nothing; the summary says whether it did
  kRequired,  ///< or an error saying why it is not known to hold
  kOff        ///< llama.cpp's own kernels
};

/// What a model's tokens cost, in any currency: for a million of them.
struct ModelPrice {
  double prompt = 0, output = 0;
};

/// What came of a row, for a program that takes rows itself.
struct FinishedRow {
  size_t input = 0;     ///< of RunOptions::inputs
  int64_t index = 0;    ///< of the row in its input
  bool is_ok = false;   ///< false: it has failed
  std::string json;     ///< the row's object, as a line of a .jsonl file has it (contract 2)
  double opened_s = 0;  ///< when its first operator could begin, in seconds from the run's start
  double ended_s = 0;   ///< when its last operator had ended
};

/// Everything a run can be told. What is left empty takes its default.
struct RunOptions {
  struct Input {
    std::string workflow;  ///< path of a workflow file
    std::string rows;  ///< .jsonl, .json, .csv or .parquet path, "sql:SELECT ..." (DuckDB), "-" for
                       ///< JSONL on standard input, "" for the workflow's dataset
    /// Rows in memory, in place of `rows`; shared with whoever adds to them. Null: none.
    std::shared_ptr<RowStream> stream;
  };
  std::vector<Input> inputs;  ///< one, or several as one batch
  std::string output =
      "-";  ///< .jsonl, .csv or .parquet path, "-" for standard output; a folder for several inputs

  bool discard_results = false;  ///< rows are run and written nowhere
  /// Takes every finished row, in place of `output`, in input order or as they end. Called by the
  /// thread that runs, which it holds up while it works. Null: rows are written.
  std::function<void(FinishedRow)> on_row;

  /// By name; names of Halo's own functions are taken.
  std::map<std::string, HostFunction> functions;

  std::map<std::string, std::string> models;  ///< name -> GGUF file
  std::string models_file;                    ///< YAML mapping of names to files
  std::string models_folder;                  ///< where names are looked up as files
  std::string hugging_face_cache;
  std::string shipped_models;  ///< folder of models that came with Halo, asked last

  std::map<std::string, std::string> connections;  ///< name -> duckdb:PATH, duckdb::memory: or
                                                   ///< postgres://...; instead of the workflow's
  /// The same from the project's settings: used where `connections` says nothing, and other names
  /// than the workflows' are no fault.
  std::map<std::string, std::string> project_connections;
  std::set<std::string> allow;   ///< "exec", "net", "files", "env": what workflows may reach
  double latency_scale = 1.0;    ///< of the latencies that HTTP calls declare
  bool share_tool_calls = true;  ///< equal reads are made once
  bool replan = true;            ///< plan the rest anew where estimates turn out wrong
  /// Looks up ${env:NAME}; nothing if there is no such variable. Null: there are none.
  std::function<std::optional<std::string>(const std::string&)> environment;

  std::string column;   ///< column of the row prompt
  int64_t limit = -1;   ///< rows taken from the front of each input
  int32_t threads = 0;  ///< 0: one a core
  /// Of each worker, or of all where `workers` is 0, for weights and KV: models that do not fit
  /// side by side take turns. 0: all models, and a quarter of the machine's memory for KV over all
  /// workers.
  int64_t worker_memory_bytes = 0;
  int64_t kept_memory_bytes = 0;  ///< for KV kept in host memory; 0: an eighth of it
  /// Of the disk that temporary files go to, for KV that host memory has no room for. 0: none;
  /// negative: a quarter of what is free there, 16 GiB at most, and none where that is memory.
  int64_t kept_disk_bytes = -1;
  int32_t sequences = 0;           ///< calls that run at once; 0: the engine's default
  int32_t context_tokens = 0;      ///< longest prompt and answer; 0: what the model was trained for
  std::string kv_layout = "auto";  ///< auto, split or unified
  bool prompt_lookup = true;       ///< compute tokens beside others that answers are seen to copy
  bool prefill_ahead = true;       ///< compute what is known of prompts while tools are waited for
  /// The program that hosts the engines, each in a child process of its own that is started again
  /// when it ends: the file of `halo`, or of any program that calls RunEngineProcess() when it is
  /// started with the one argument kEngineProcessCommand. "": engines live in this process, and
  /// what ends one of them ends it.
  std::string engine_program;
  bool naive = false;
  Determinism deterministic = Determinism::kAuto;
  uint64_t seed = 0;
  std::string date;  ///< "YYYY-MM-DD" that templates see; "": today, in UTC
  bool all_outputs = false;
  bool input_order = true;
  int64_t window = 65536;
  bool stop_on_error = false;
  double max_failures = -1;        ///< rows; negative: no limit
  double max_failures_share = -1;  ///< share of finished rows; negative: no limit
  /// Stop when the first 20 rows, or a hundred in a row, have failed alike (operator and code).
  bool stop_when_all_fail = true;
  /// What the run may spend; negative: no limit. What would not fit is not begun: calls of models
  /// and tools, retries included; tokens of prompts and answers of calls that are made; seconds
  /// from the first row on.
  int64_t most_calls = -1, most_tokens = -1;
  double most_seconds = -1;
  double most_cost = -1;     ///< of tokens, by `prices`, in their unit; negative: no limit
  double row_timeout_s = 0;  ///< from the opening of a row; a row that takes longer fails. 0: none
  std::string dump_prompts;  ///< JSONL of every call, its ids included; "": none
  std::string trace;         ///< Chrome trace events of what was done when; "": none
  std::string report;        ///< an HTML page about the run; "": none
  int32_t report_samples = 0;  ///< rows whose prompts and answers the page shows: the first ones
  std::string summary_json;  ///< where the caller will write the summary, so that this is no other
                             ///< file of the run; "": nowhere

  /// By model's name, instead of what `models_file` says. A model without one costs nothing.
  std::map<std::string, ModelPrice> prices;

  // Answers of earlier runs (docs/cache.md)
  /// Folder of answers that later runs may take, which is made; "": none are kept or taken.
  std::string cache_folder;
  int64_t cache_bytes = int64_t{1} << 30;  ///< what they may take; the least recently used go

  // Planning
  std::set<std::string> rules_off;  ///< rules of the optimizer that are not applied, by name
  std::string planner = "auto";     ///< auto, dp, beam, list or milp
  /// A planner of the program's own in place of `planner`: to compare with. Null: none.
  std::function<struct Schedule(const struct SchedulingProblem&)> place;
  /// Devices, or equal parts of this machine's threads and memory. 0: as many as are fastest for
  /// the run's models (AutomaticWorkers; one an accelerator) and as worker_memory_bytes has room
  /// for, those of plan_file, one where engines live in this process.
  int32_t workers = 1;
  std::string plan_file;  ///< a plan that `Explain("json")` gave, carried out in place of what
                          ///< the rules would decide; "": none
  /// Costs of this machine, as `halo calibrate` stores them; a folder, ending in "/", has one for
  /// each number of threads that a worker may have. "": none.
  std::string profile_file;
  std::string history_file;  ///< what operators turned out to be in earlier runs; "": none
  bool use_history = true;   ///< plans look at it; runs add to it in any case
  /// Explain asks databases what queries cost (EXPLAIN, which executes nothing); Run always does,
  /// since it opens them anyway.
  bool ask_databases = false;
  std::string spool_folder;  ///< where standard input and rows of SQL are kept; "": a fresh folder
                             ///< for temporary files

  // Durability (docs/durability.md)
  /// What the run has paid for is kept in this folder, which is made, so that another session can
  /// go on. "": in one of its own below `runs_folder`.
  std::string run_folder;
  std::string runs_folder;    ///< "" as well: nothing is kept
  bool begin_anew = false;    ///< although an unfinished run in `runs_folder` would do the same
  bool resume = false;        ///< `run_folder` has the beginning of this run
  bool retry_failed = false;  ///< of it, what failed rows failed by is tried again
};

/// How many workers on `threads` threads of a CPU (0: one a core) are fastest, where the largest
/// model's file has so many bytes, and `calls` of it run at once.
int32_t AutomaticWorkers(int32_t threads, int64_t largest_model_bytes, int64_t calls);

/// Threads that each worker has. For more workers than threads (which can be planned for, not run):
/// as if each were a machine like this one.
int32_t ThreadsOfWorker(const RunOptions& options);

/// Where one operator stands. An instance is the operator for one row.
struct OperatorProgress {
  std::string id;             ///< "WORKFLOW: ID" where several workflows run
  int64_t instances = -1;     ///< over all rows; -1: not known
  int64_t done = 0;           ///< instances that have ended, however
  int64_t failed = 0;         ///< of these
  int64_t calls_running = 0;  ///< in flight
};

/// Where a run stands; handed to the progress callback.
struct Progress {
  int64_t rows_total = -1;               ///< -1: not known
  int64_t rows_ok = 0, rows_failed = 0;  ///< rows that have ended, written or not
  int64_t instances_total = -1;          ///< one for each operator and row; -1: not known
  int64_t instances_done = 0;
  int64_t calls_done = 0, calls_running = 0;
  int64_t prompt_tokens = 0, reused_tokens = 0, output_tokens = 0;  ///< of calls that have ended
  double elapsed_s = 0.0;
  double left_s = -1;                       ///< by the work that is left; negative: not known yet
  std::vector<OperatorProgress> operators;  ///< in the order of the workflows
  std::vector<std::string> waits;           ///< what the run waits for now, for a person
  std::vector<std::string>
      news;  ///< for a person, since the last call: engines that were restarted
};

/// The argument with which RunOptions::engine_program is started.
inline constexpr const char* kEngineProcessCommand = "engine-process";

/// What that program then does, and nothing else: hosts an engine for the process that has started
/// it, until that has no more use for it. Returns what went wrong, "" if nothing.
std::string RunEngineProcess();

/// How a run ended; the exit codes of the command line (contract 1).
enum class RunStatus {
  kAllOk = 0,
  kFailed = 1,
  kUsage = 2,
  kRowsFailed = 3,
  kStopped = 4,
  kInterrupted = 130
};

/// Failed rows with the same operator and code.
struct FailureGroup {
  std::string operator_id;  ///< "": the row could not be read
  std::string code;
  int64_t rows = 0;
  std::string example_row;  ///< its id as JSON
  std::string example;      ///< what was said of it
};

struct RunOutcome {
  RunStatus status = RunStatus::kFailed;
  std::string stop_reason;             ///< of kStopped: which limit, in words
  std::string summary_json;            ///< contract 2, `--summary-json`
  std::vector<std::string> outputs;    ///< files written; unfinished ones end in .part
  std::vector<std::string> notices;    ///< what went wrong without changing a result
  std::vector<FailureGroup> failures;  ///< the largest first; those beyond 20 are left out
  int64_t rows_failed = 0;
};

/// Why answers equal to those of --naive bit for bit cannot be had from this build on this machine;
/// empty if they can (which models: docs/benchmarks/deterministic.md).
std::string WhyNoExactAnswers();

/// The façade over Halo's stages. Each getter computes what it needs, once; nothing is loaded
/// before it is asked for. Throws halo::Error (see the message; every fault found is in it) before
/// execution; rows never throw.
class Session {
 public:
  explicit Session(RunOptions options);
  ~Session();

  /// What a person should know about the workflows and is no error; reads workflow files only.
  std::vector<std::string> Notices();
  /// The plan, in the form that `format` names: text, json, mermaid or html. Reads workflow files,
  /// rows and models as far as they are there; runs nothing. After Run it has the run's figures
  /// beside the estimates.
  std::string Explain(const std::string& format = "text");
  /// What a run would refuse here as things are, one fault each: permissions, secrets, files that
  /// tools need. Reads workflow files, and asks nobody.
  std::vector<std::string> MissingForTools();
  /// Checks the workflows' statements against their databases, executing none.
  void CheckConnections();
  /// What a run would take from the cache as it is now, and why not the rest: which part of what
  /// is asked differs from the nearest answer that is there. Loads models, and makes no call.
  std::string ExplainCache();
  /// Runs to the end. `stop`: 1 finishes what runs and starts nothing new, 2 ends at once.
  RunOutcome Run(const std::atomic<int>& stop,
                 const std::function<void(const Progress&)>& on_progress);
  /// The folder in which the run is kept, once it has begun; "": it is not. Also after Run has
  /// thrown.
  std::string RunFolder() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
