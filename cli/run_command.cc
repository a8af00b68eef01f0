#include "run_command.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/file_text.h"
#include "base/text.h"
#include "cache_command.h"
#include "commands.h"
#include "halo/session.h"
#include "log.h"
#include "plan/plan_diff.h"
#include "progress.h"
#include "project_file.h"
#include "run_summary.h"
#include "runs_command.h"
#include "workflow/workflow.h"

namespace halo::cli {
namespace {

constexpr double kMostLatencyScale = 1000.0;
constexpr int64_t kMostRows = 1'000'000'000'000;

constexpr int kSignalBase = 128;  // a shell's exit code for a signal is this and its number

std::atomic<int> stop_requests{0};
std::atomic<int> stop_signal{0};

std::atomic<bool> started{false};  // rows are being run

/// Once: what runs is finished. Twice: it is given up, which takes as long as the pass through the
/// model that is under way. Three times, or before anything runs: at once.
void OnSignal(int signal) {
  constexpr int kPatience = 3;
  stop_signal.store(signal);
  if (stop_requests.fetch_add(1) + 1 >= kPatience || !started.load()) _exit(kSignalBase + signal);
}

void InstallSignals() {
  struct sigaction action {};
  action.sa_handler = OnSignal;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
}

/// Flags of `run` and `explain` as they were written, before they mean anything.
struct RunFlags {
  std::string workflow, rows, output = "-", max_failures, worker_memory, kept_memory, kept_disk;
  std::vector<std::string> also, models, connections, allow, settings;
  std::string on_error = "continue", order = "input";
  bool quiet = false, analyze = false, no_breaker = false;
  std::string diff, budget, log_format = "text";
  CacheFlags cache;
  std::string rules_off, format = "text";
  std::string engine_process = "child";
  int deterministic = 0;  ///< how often it was asked for, less how often it was refused
  RunOptions options;

  RunFlags() { options.workers = 0; }
};

std::pair<std::string, std::string> SplitAt(const std::string& text, char separator,
                                            const std::string& flag, const std::string& form) {
  const size_t at = text.find(separator);
  if (at == std::string::npos || at == 0 || at + 1 == text.size()) {
    throw Error(ErrorCode::kUsage, flag + ": expected " + form + ", got '" + text + "'");
  }
  return {text.substr(0, at), text.substr(at + 1)};
}

void ParseMaxFailures(const std::string& text, RunOptions& options) {
  if (text.empty()) return;
  const bool share = text.back() == '%';
  double amount = -1.0;
  size_t used = 0;
  try {
    amount = std::stod(text, &used);
  } catch (const std::exception&) {
    amount = -1.0;
  }
  if (amount < 0.0 || used + (share ? 1 : 0) != text.size()) {
    throw Error(
        ErrorCode::kUsage,
        "--max-failures: expected a number of rows or a share such as 5%, got '" + text + "'");
  }
  if (share) {
    options.max_failures_share = amount / 100.0;
  } else {
    options.max_failures = amount;
  }
}

void ParseConnections(const std::vector<std::string>& texts, RunOptions& options) {
  for (const std::string& text : texts) {
    const auto [name, url] = SplitAt(text, '=', "--connect", "NAME=URL");
    if (!options.connections.emplace(name, url).second)
      throw Error(ErrorCode::kUsage, "--connect: '" + name + "' is given twice");
  }
}

/// exec, net, files, env; several with commas.
void ParseAllow(const std::vector<std::string>& texts, RunOptions& options) {
  for (const std::string& text : texts) {
    std::istringstream words(text);
    for (std::string word; std::getline(words, word, ',');) {
      if (word != "exec" && word != "net" && word != "files" && word != "env") {
        throw Error(ErrorCode::kUsage,
                    "--allow: expected exec, net, files or env, got '" + word + "'");
      }
      options.allow.insert(word);
    }
  }
}

/// What no flag of its own sets.
void ParseSettings(const std::vector<std::string>& texts, RunOptions& options) {
  for (const std::string& text : texts) {
    const auto [key, value] = SplitAt(text, '=', "--set", "KEY=VALUE");
    if (key == "latency_scale") {
      size_t used = 0;
      try {
        options.latency_scale = std::stod(value, &used);
      } catch (const std::exception&) {
        used = 0;
      }
      const bool fits = used == value.size() && options.latency_scale >= 0.0 &&
                        options.latency_scale <= kMostLatencyScale;
      if (!fits)
        throw Error(ErrorCode::kUsage,
                    "--set latency_scale: expected a number from 0 to 1000, got '" + value + "'");
    } else if (key == "tool_cache" && (value == "on" || value == "off")) {
      options.share_tool_calls = value == "on";
    } else if (key == "replanning" && (value == "on" || value == "off")) {
      options.replan = value == "on";
    } else if (key == "prompt_lookup" && (value == "on" || value == "off")) {
      options.prompt_lookup = value == "on";
    } else if (key == "prefill_ahead" && (value == "on" || value == "off")) {
      options.prefill_ahead = value == "on";
    } else if (key == "cache" && value == "off") {
      options.cache_folder = "";
    } else {
      throw Error(ErrorCode::kUsage,
                  "--set: expected latency_scale=NUMBER, tool_cache=on|off, replanning=on|off, "
                  "prompt_lookup=on|off, prefill_ahead=on|off or cache=off, got '" +
                      text + "'");
    }
  }
}

RunOptions OptionsFrom(const RunFlags& flags) {
  RunOptions options = flags.options;
  options.inputs.push_back({flags.workflow, flags.rows});
  for (const std::string& also : flags.also) {
    const auto [workflow, rows] = SplitAt(also, ':', "--also", "WORKFLOW:ROWS");
    options.inputs.push_back({workflow, rows});
  }
  for (const std::string& model : flags.models) {
    const auto [name, file] = SplitAt(model, '=', "--model", "NAME=FILE.gguf");
    if (!options.models.emplace(name, file).second) {
      throw Error(ErrorCode::kUsage, "--model: '" + name + "' is given twice");
    }
  }
  ParseConnections(flags.connections, options);
  ParseAllow(flags.allow, options);
  ReadProjectFile("halo.yaml", options);
  SetCache(flags.cache, options);
  ParseSettings(flags.settings, options);
  options.environment = [](const std::string& name) { return EnvironmentIfSet(name); };
  // This very file, also where another has been put in its place since.
  if (flags.engine_process == "child") options.engine_program = "/proc/self/exe";
  options.output = flags.output;
  options.stop_on_error = flags.on_error == "stop";
  options.input_order = flags.order == "input";
  if (flags.deterministic > 0) options.deterministic = Determinism::kRequired;
  if (flags.deterministic < 0) options.deterministic = Determinism::kOff;
  ParseMaxFailures(flags.max_failures, options);
  ParseBudget(flags.budget, options);
  options.stop_when_all_fail = !flags.no_breaker;
  if (!flags.worker_memory.empty()) {
    options.worker_memory_bytes = ParseSize(flags.worker_memory, "--worker-memory");
  }
  if (!flags.kept_memory.empty())
    options.kept_memory_bytes = ParseSize(flags.kept_memory, "--kept-memory");
  if (!flags.kept_disk.empty())
    options.kept_disk_bytes =
        flags.kept_disk == "0" ? 0 : ParseSize(flags.kept_disk, "--kept-disk");
  std::istringstream rules(flags.rules_off);
  for (std::string rule; std::getline(rules, rule, ',');) {
    std::erase(rule, ' ');
    options.rules_off.insert(rule);
  }
  if (options.profile_file.empty()) options.profile_file = DefaultProfilePath();
  // Beside the profiles of all machines: token counts are no machine's.
  if (!options.profile_file.empty()) {
    options.history_file =
        (std::filesystem::path(options.profile_file).parent_path() / "history.json").string();
  }
  SetModelPlaces(options);
  return options;
}

/// "auto" becomes RunOptions::workers 0.
CLI::Validator NumberOfWorkers() {
  return CLI::Validator(
      [](std::string& text) {
        if (text == "auto") {
          text = "0";
          return std::string();
        }
        return text == "0" ? "expected auto or a number from 1 on" : CLI::Range(1, 1024)(text);
      },
      "N|auto");
}

void AddFlags(CLI::App& command, RunFlags& flags) {
  RunOptions& options = flags.options;
  command.add_option("workflow", flags.workflow, "Workflow file (YAML)")->required();
  command.add_option("-i,--input", flags.rows,
                     "Rows: .jsonl, .json, .csv, .parquet, 'sql:SELECT ...' over files (DuckDB),\n"
                     "or - for JSONL on standard input\n"
                     "(default: the workflow's `dataset`, a file in its folder)");
  command.add_option("--also", flags.also, "WORKFLOW:ROWS, another workflow in the same batch");
  command.add_option("--model", flags.models,
                     "NAME=FILE.gguf: the file of a model name (repeatable)");
  command.add_option("--models", options.models_file, "YAML file of model names and files");
  command.add_option("--connect", flags.connections,
                     "NAME=URL: the database of a connection, duckdb:PATH, duckdb::memory: or\n"
                     "postgres://... (repeatable)");
  command.add_option("--allow", flags.allow,
                     "What the workflow's tools may reach: exec (programs), net (any host),\n"
                     "files (outside its folder), env; several with commas");
  command.add_option(
      "--set", flags.settings,
      "KEY=VALUE: latency_scale (of declared latencies), tool_cache=off\n"
      "(equal tool calls are made again), replanning=off (the plan stays as it is),\n"
      "prompt_lookup=off (no token is guessed), prefill_ahead=off (engines idle while\n"
      "tools are waited for), cache=off");
  command.add_option("--column", options.column, "Column of the rows that is the prompt");
  command.add_option("--limit", options.limit, "Take only the first N rows")
      ->check(CLI::Range(int64_t{0}, kMostRows));
  command.add_option("--threads", options.threads, "Threads of the engine (default: one a core)")
      ->check(CLI::Range(1, 1024))
      ->envname("HALO_THREADS");
  command
      .add_option("--workers", options.workers,
                  "Workers with equal parts of the threads, each with models of its own\n"
                  "(default auto: as many as are fastest for the models)")
      ->transform(NumberOfWorkers())
      ->envname("HALO_WORKERS");
  command
      .add_option(
          "--worker-memory", flags.worker_memory,
          "Memory of each worker (with --workers auto: of all) for weights and KV, such as\n"
          "4G; models that do not fit side by side take turns (default: all fit, and a\n"
          "quarter of the memory for KV)")
      ->envname("HALO_WORKER_MEMORY");
  command
      .add_option("--kept-memory", flags.kept_memory, "Host memory for KV that is kept, such as 2G")
      ->envname("HALO_KEPT_MEMORY");
  command
      .add_option("--kept-disk", flags.kept_disk,
                  "Disk for KV that host memory has no room for, such as 8G, where temporary\n"
                  "files go; 0: none (default: a quarter of what is free, 16G at most)")
      ->envname("HALO_KEPT_DISK");
  command.add_option("--sequences", options.sequences, "Calls that run at once (default 64)")
      ->check(CLI::Range(1, 256))
      ->envname("HALO_SEQUENCES");
  command.add_option("--context", options.context_tokens, "Longest prompt and answer, in tokens")
      ->check(CLI::Range(2, 1 << 30));
  command.add_option("--kv-layout", options.kv_layout, "auto, split or unified")
      ->check(CLI::IsMember({"auto", "split", "unified"}));
  command
      .add_option("--engine-process", flags.engine_process,
                  "child: each engine in a process of its own, started again when it ends;\n"
                  "in: engines in this process, whose end ends the run (default child)")
      ->check(CLI::IsMember({"child", "in"}))
      ->envname("HALO_ENGINE_PROCESS");
  command.add_option("--planner", options.planner,
                     "What places operators on workers: auto, dp, beam, list or milp");
  command.add_option("--plan", options.plan_file,
                     "A plan that explain --format json printed: layouts, order, what runs");
  command.add_option(
      "--rules-off", flags.rules_off,
      "Rules of the optimizer that are not applied, with commas (explain lists them)");
  command.add_option("--profile", options.profile_file,
                     "Costs of this machine, as halo calibrate stored them");
  command.add_flag("!--no-history", options.use_history,
                   "Plan without what earlier runs turned out to be");
  AddCacheFlags(command, flags.cache);
  command.add_option("--seed", options.seed, "Seed of all draws")->envname("HALO_SEED");
  command.add_option("--date", options.date,
                     "The date that chat templates see, YYYY-MM-DD (default: today)");
}

void AddRunFlags(CLI::App& command, RunFlags& flags) {
  RunOptions& options = flags.options;
  command.add_option("-o,--output", flags.output,
                     ".jsonl, .csv, .parquet, - for standard output, or a folder with --also");
  command.add_flag("--naive", options.naive,
                   "One row and one call at a time, nothing shared: the reference");
  command
      .add_flag(
          "--deterministic,!--no-deterministic", flags.deterministic,
          "Answers bit for bit those of --naive, or an error where that is not known to hold\n"
          "(default: where it costs nothing; --no-deterministic: llama.cpp's own kernels)")
      ->envname("HALO_DETERMINISTIC");
  command.add_flag("--all-outputs", options.all_outputs,
                   "Every operator's output, not only the end operators'");
  command.add_option("--order", flags.order, "Rows in input or in completion order")
      ->check(CLI::IsMember({"input", "completion"}));
  command.add_option("--window", options.window, "Most rows open at once")
      ->check(CLI::Range(int64_t{1}, kMostRows));
  command.add_option("--on-error", flags.on_error, "continue, or stop at the first failed row")
      ->check(CLI::IsMember({"continue", "stop"}));
  command.add_option("--max-failures", flags.max_failures,
                     "Stop after more than N (or P%) failed rows");
  command.add_flag("--no-breaker", flags.no_breaker,
                   "Go on when the first 20 rows, or a hundred in a row, have failed alike");
  command.add_option("--budget", flags.budget,
                     "calls=N,tokens=N,cost=X,seconds=S: what the run may spend at most");
  command
      .add_option("--row-timeout", options.row_timeout_s,
                  "Seconds that a row may take from when it is opened; it fails then")
      ->check(CLI::PositiveNumber);
  command.add_option("--report", options.report, "Write a page about the run (HTML)");
  command
      .add_option("--report-samples", options.report_samples,
                  "Rows whose prompts and answers the page shows (default 0)")
      ->check(CLI::Range(0, 1000));
  command.add_option("--summary-json", options.summary_json, "Write the summary to a file");
  command.add_option("--dump-prompts", options.dump_prompts,
                     "Write every call with its ids and times to a JSONL file");
  command.add_option("--trace", options.trace,
                     "Write what was done when to a JSON file that ui.perfetto.dev opens");
  AddLogFlags(command, flags.quiet, flags.log_format);
}

/// The words of this process's command line.
std::vector<std::string> CommandLine() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::vector<std::string> words;
  for (std::string word; std::getline(file, word, '\0');) words.push_back(word);
  return words;
}

void SayFailures(const Log& log, const RunOutcome& outcome) {
  int64_t rows = 0;
  for (const FailureGroup& group : outcome.failures) {
    rows += group.rows;
    log.Say(LogLevel::kWarning, "failure", DescribeFailure(group),
            {{"operator", group.operator_id},
             {"code", group.code},
             {"rows", group.rows},
             {"example_row", nlohmann::ordered_json::parse(group.example_row)},
             {"example", group.example}});
  }
  const int64_t more = outcome.rows_failed - rows;
  if (more > 0)
    log.Say(LogLevel::kWarning, "failures", "failed: " + Counted(more, "row") + " in other ways",
            {{"rows", more}});
}

/// What a person reads when a run is over.
void SayOutcome(const Log& log, const RunFlags& flags, const RunOutcome& outcome,
                const std::string& run_folder) {
  std::string summary = DescribeSummary(outcome.summary_json);
  if (!summary.empty()) summary.pop_back();
  log.Say(LogLevel::kInfo, "summary", summary,
          {{"status", static_cast<int>(outcome.status)},
           {"summary", nlohmann::ordered_json::parse(outcome.summary_json)}});
  std::vector<std::string> written = outcome.outputs;
  for (const std::string& path : {flags.options.summary_json, flags.options.report})
    if (!path.empty()) written.push_back(path);
  for (const std::string& path : written)
    log.Say(LogLevel::kInfo, "wrote", "wrote " + path, {{"path", path}});
  for (const std::string& notice : outcome.notices)
    log.Say(LogLevel::kWarning, "note", "note: " + notice);
  SayFailures(log, outcome);
  const std::string end = DescribeEnd(outcome);
  if (!end.empty()) log.Say(LogLevel::kWarning, "stopped", end);
  const std::string next = NextCommand(outcome, run_folder, CommandLine());
  if (!next.empty()) log.Say(LogLevel::kInfo, "next", "next: " + next, {{"command", next}});
}

void RequireWritable(const std::string& path, const std::string& flag) {
  if (!path.empty() && !std::ofstream(path, std::ios::app))
    throw Error(ErrorCode::kUsage, flag + " " + path + ": cannot be written");
}

int Run(const RunFlags& flags, RunOptions options, const Log& log) {
  Session session(std::move(options));
  for (const std::string& notice : session.Notices())
    log.Say(LogLevel::kWarning, "note", "note: " + notice);
  InstallSignals();
  RequireWritable(flags.options.summary_json, "--summary-json");
  RequireWritable(flags.options.report, "--report");
  ProgressDisplay display(log, flags.output == "-");
  bool announced = false;
  const auto on_progress = [&display, &announced](const Progress& progress) {
    started = true;
    if (stop_requests.load() > 0 && !std::exchange(announced, true)) {
      display.Say("stopping",
                  "stopping: calls that run are finished, nothing new is started; once more to "
                  "give them up");
    }
    for (const std::string& news : progress.news) display.Say("engine", news);
    display.Show(progress);
  };
  RunOutcome outcome;
  try {
    outcome = session.Run(stop_requests, on_progress);
  } catch (const Error& error) {
    display.Close();
    log.Say(LogLevel::kError, "error", error.what());
    if (const std::string folder = session.RunFolder(); !folder.empty())
      log.Say(LogLevel::kInfo, "next", "next: halo resume " + folder,
              {{"command", "halo resume " + folder}});
    return started ? kExitFailed : kExitUsage;
  }
  display.Close();
  if (!flags.options.summary_json.empty()) {
    std::ofstream file(flags.options.summary_json);
    file << outcome.summary_json << "\n";
    if (!file.flush())
      throw Error(ErrorCode::kIo, flags.options.summary_json + ": could not be written");
  }
  SayOutcome(log, flags, outcome, session.RunFolder());
  if (outcome.status == RunStatus::kInterrupted) {
    return kSignalBase + stop_signal.load();
  }
  return static_cast<int>(outcome.status);
}

/// As Run; in a JSON log every fault is an event, too.
int RunLogged(const RunFlags& flags, const std::function<RunOptions()>& options) {
  const Log log(flags.log_format == "json", flags.quiet);
  if (!log.is_json()) return Run(flags, options(), log);
  try {
    return Run(flags, options(), log);
  } catch (const Error& error) {
    log.Say(LogLevel::kError, "error", error.what());
    return ExitCodeOf(error);
  } catch (const Failure& failure) {
    log.Say(LogLevel::kError, "error", failure.message, {{"code", failure.code}});
  } catch (const std::exception& error) {
    log.Say(LogLevel::kError, "error", error.what());
  }
  return kExitFailed;
}

}  // namespace

/// calls=N, tokens=N, cost=X, seconds=S; several with commas.
void ParseBudget(const std::string& text, RunOptions& options) {
  const std::string form = "calls=N, tokens=N, cost=X or seconds=S";
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const auto [key, value] = SplitAt(part, '=', "--budget", form);
    double amount = -1.0;
    size_t used = 0;
    try {
      amount = std::stod(value, &used);
    } catch (const std::exception&) {
      amount = -1.0;
    }
    constexpr double kMost = 1e15, kMostCost = 1e9;
    const bool is_whole = key == "calls" || key == "tokens";
    const bool is_known = is_whole || key == "seconds" || key == "cost";
    const bool fits = used == value.size() && amount >= 0.0 &&
                      amount <= (key == "cost" ? kMostCost : kMost) &&
                      (!is_whole || amount == std::floor(amount));
    if (!is_known || !fits)
      throw Error(ErrorCode::kUsage, "--budget: expected " + form + ", got '" + part + "'");
    if (key == "seconds") options.most_seconds = amount;
    if (key == "cost") options.most_cost = amount;
    if (key == "calls") options.most_calls = static_cast<int64_t>(amount);
    if (key == "tokens") options.most_tokens = static_cast<int64_t>(amount);
  }
}

void AddLogFlags(CLI::App& command, bool& quiet, std::string& log_format) {
  command.add_flag("--quiet", quiet, "No progress and no summary on standard error");
  command
      .add_option("--log-format", log_format,
                  "What standard error says: text, or json for one object a line")
      ->check(CLI::IsMember({"text", "json"}))
      ->envname("HALO_LOG_FORMAT");
}

int RunAndReport(RunOptions options, bool quiet, const std::string& log_format) {
  RunFlags flags;
  flags.quiet = quiet;
  flags.log_format = log_format;
  flags.output = options.output;
  flags.options.summary_json = options.summary_json;
  flags.options.report = options.report;
  return RunLogged(flags, [&options] { return std::move(options); });
}

void AddEngineProcessCommand(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand(kEngineProcessCommand, "Host an engine for another halo");
  command->group("");  // not for people: it finds its connection as an open descriptor
  command->callback([&exit_code] {
    const std::string fault = RunEngineProcess();
    if (!fault.empty()) std::cerr << fault << "\n";
    exit_code = fault.empty() ? kExitOk : kExitFailed;
  });
}

void AddRunCommand(CLI::App& app, int& exit_code) {
  auto flags =
      std::make_shared<RunFlags>();  // shared with the callback, which outlives this function
  CLI::App* command = app.add_subcommand("run", "Run a workflow over rows");
  AddFlags(*command, *flags);
  AddRunFlags(*command, *flags);
  auto durability = std::make_shared<DurabilityFlags>();  // as `flags`
  AddDurabilityFlags(*command, *durability);
  command->callback([flags, durability, &exit_code] {
    exit_code = RunLogged(*flags, [&] {
      RunOptions options = OptionsFrom(*flags);
      SetDurability(*durability, options);
      // Nothing is kept of the run, unless somebody has asked for this.
      if (durability->ephemeral && flags->cache.where.empty()) options.cache_folder = "";
      return options;
    });
  });
}

void AddCacheExplainCommand(CLI::App& cache, int& exit_code) {
  auto flags = std::make_shared<RunFlags>();  // as above
  CLI::App* command = cache.add_subcommand(
      "explain",
      "What a run would take from the cache, and why not the rest: options are those of run, or\n"
      "give the folder of a run, or its name in runs/, in place of a workflow");
  AddFlags(*command, *flags);
  AddRunFlags(*command, *flags);
  command->callback([flags, &exit_code] {
    const bool is_file = std::filesystem::is_regular_file(flags->workflow);
    std::cout
        << Session(is_file ? OptionsFrom(*flags) : OptionsOfRun(flags->workflow)).ExplainCache();
    exit_code = kExitOk;
  });
}

/// Runs over all rows, keeps no results, and prints what happened beside what was expected.
int Analyze(const RunFlags& flags) {
  RunOptions options = OptionsFrom(flags);
  options.discard_results = true;
  options.cache_folder = "";  // what is not computed cannot be measured
  Session session(std::move(options));
  InstallSignals();
  const Log log(false, flags.quiet);
  ProgressDisplay display(log, false);
  const RunOutcome outcome = session.Run(stop_requests, [&](const Progress& progress) {
    started = true;
    display.Show(progress);
  });
  display.Close();
  std::cout << session.Explain(flags.format);
  SayFailures(log, outcome);
  if (outcome.status == RunStatus::kInterrupted) return kSignalBase + stop_signal.load();
  return static_cast<int>(outcome.status);
}

void AddExplainCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RunFlags>();  // as above
  CLI::App* command = app.add_subcommand("explain", "Print the plan of a workflow; runs nothing");
  AddFlags(*command, *flags);
  command->add_option("--format", flags->format, "text, json, mermaid or html")
      ->check(CLI::IsMember({"text", "json", "mermaid", "html"}));
  command->add_option("--diff", flags->diff,
                      "A plan that --format json printed: print what this one decides otherwise");
  command->add_flag("--analyze", flags->analyze,
                    "Run it, keep no results, and print what happened beside the estimates");
  command->add_flag(
      "--ask-databases", flags->options.ask_databases,
      "Ask databases what queries cost (EXPLAIN), executing none; --analyze always does");
  command->add_flag("--quiet", flags->quiet, "With --analyze: no progress on standard error");
  command->callback([flags, &exit_code] {
    exit_code = kExitOk;
    if (flags->analyze) {
      exit_code = Analyze(*flags);
    } else if (!flags->diff.empty()) {
      const std::optional<std::string> saved = ReadFileText(flags->diff);
      if (!saved) throw Error(ErrorCode::kUsage, "--diff: cannot read '" + flags->diff + "'");
      std::cout << DiffPlans(*saved, flags->diff, Session(OptionsFrom(*flags)).Explain("json"));
    } else {
      std::cout << Session(OptionsFrom(*flags)).Explain(flags->format);
    }
  });
}

void AddValidateCommand(CLI::App& app, int& exit_code) {
  auto flags = std::make_shared<RunFlags>();  // as above
  CLI::App* command = app.add_subcommand("validate", "Check a workflow file and print every fault");
  command->add_option("workflow", flags->workflow, "Workflow file (YAML)")->required();
  auto connect =
      command->add_flag("--connect{}", flags->connections,
                        "Check statements against their databases too, executing none;\n"
                        "--connect=NAME=URL for another database than the file's (repeatable)");
  command->add_option("--allow", flags->allow, "As for run");
  command->callback([flags, connect, &exit_code] {
    const Workflow workflow = LoadWorkflow(flags->workflow);
    if (connect->count() > 0) {
      std::erase(flags->connections, "");
      std::erase(flags->connections, "true");
      Session(OptionsFrom(*flags)).CheckConnections();
    }
    std::cout << flags->workflow << ": ok, " << workflow.operators.size()
              << (workflow.operators.size() == 1 ? " operator\n" : " operators\n");
    // No fault of the file: another machine, or another call, has what is missing.
    for (const std::string& missing : Session(OptionsFrom(*flags)).MissingForTools())
      std::cout << "to run it: " << missing << "\n";
    exit_code = kExitOk;
  });
}

}  // namespace halo::cli
