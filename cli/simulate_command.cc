#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "commands.h"
#include "session/machine.h"
#include "session/simulated_run.h"

namespace halo::cli {
namespace {

constexpr int32_t kMostWorkers = 1024;
constexpr int64_t kMostRows = 100'000'000;

struct SimulateFlags {
  std::string workflow, rows, worker_memory, kept_memory, rules_off, format = "text";
  std::vector<std::string> models, costs_as;
  bool show_time = false;
  SimulationOptions options;
};

std::pair<std::string, std::string> NameAndValue(const std::string& text, const char* flag,
                                                 const char* form) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size())
    throw Error(ErrorCode::kUsage,
                std::string(flag) + ": expected " + form + ", got '" + text + "'");
  return {text.substr(0, equals), text.substr(equals + 1)};
}

/// Of a folder of profiles, as RunOptions::profile_file has it, the one of this machine with the
/// most threads; "" if there is none.
std::string ProfileThatIsThere(const std::string& path) {
  if (!path.ends_with('/')) return std::filesystem::exists(path) ? path : "";
  const auto cores = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  for (int32_t threads = cores; threads > 0; --threads) {
    const std::string file = path + ProfileFileName(MachineFingerprint(threads));
    if (std::filesystem::exists(file)) return file;
  }
  return "";
}

SimulationOptions OptionsFrom(const SimulateFlags& flags) {
  SimulationOptions options = flags.options;
  RunOptions& run = options.run;
  run.inputs = {{flags.workflow, flags.rows}};
  for (const std::string& model : flags.models)
    run.models.insert(NameAndValue(model, "--model", "NAME=FILE.gguf"));
  for (const std::string& entry : flags.costs_as)
    options.costs_as.insert(NameAndValue(entry, "--as", "NAME=MODEL of the profile"));
  if (!flags.worker_memory.empty())
    run.worker_memory_bytes = ParseSize(flags.worker_memory, "--worker-memory");
  if (!flags.kept_memory.empty())
    run.kept_memory_bytes = ParseSize(flags.kept_memory, "--kept-memory");
  std::istringstream rules(flags.rules_off);
  for (std::string rule; std::getline(rules, rule, ',');) run.rules_off.insert(rule);
  const std::string own_profile = DefaultProfilePath();
  if (run.profile_file.empty()) run.profile_file = ProfileThatIsThere(own_profile);
  if (!run.history_file.empty() && !std::filesystem::exists(run.history_file))
    throw Error(ErrorCode::kUsage, "--history " + run.history_file + ": cannot be read");
  if (run.history_file.empty() && !own_profile.empty()) {
    run.history_file = (std::filesystem::path(own_profile).parent_path() / "history.json").string();
  }
  SetModelPlaces(run);
  return options;
}

void AddFlags(CLI::App& command, SimulateFlags& flags) {
  SimulationOptions& options = flags.options;
  RunOptions& run = options.run;
  command.add_option("workflow", flags.workflow, "Workflow file (YAML)")->required();
  command.add_option("-i,--input", flags.rows,
                     "Rows: .jsonl, .json, .csv or .parquet (default: the workflow's `dataset`)");
  command.add_option("-o,--output", options.results,
                     "Write the rows with their made-up answers: .jsonl, .csv or .parquet");
  command.add_option("--profile", run.profile_file,
                     "Costs, as halo calibrate stored them, of this machine or another one\n"
                     "(default: this machine's)");
  command.add_option("--as", flags.costs_as,
                     "NAME=MODEL: a model of the workflow costs what the profile's MODEL does\n"
                     "(repeatable; default: by name, or by the file)");
  command.add_option("--workers", run.workers, "Workers (default 1)")
      ->check(CLI::Range(1, kMostWorkers));
  command.add_option("--worker-memory", flags.worker_memory,
                     "Memory of each worker for weights and KV, such as 80G\n"
                     "(default: this machine's)");
  command.add_option("--kept-memory", flags.kept_memory,
                     "Host memory of each worker for KV that has left it (default: half)");
  command
      .add_option("--sequences", run.sequences,
                  "Calls of a model that run at once on a worker (default 64)")
      ->check(CLI::Range(1, 4096));
  command.add_option("--context", run.context_tokens, "Longest prompt and answer, in tokens")
      ->check(CLI::Range(2, 1 << 30));
  command
      .add_option("--rows", options.rows,
                  "Run so many rows: those of the input over and over, later copies with ids\n"
                  "and texts of their own")
      ->check(CLI::Range(int64_t{0}, kMostRows));
  command.add_option("--limit", run.limit, "Take only the first N rows of the input")
      ->check(CLI::Range(int64_t{0}, kMostRows));
  command.add_option("--model", flags.models,
                     "NAME=FILE.gguf: the file of a model name, for its tokenizer (repeatable)");
  command.add_option("--models", run.models_file, "YAML file of model names and files");
  command.add_option("--column", run.column, "Column of the rows that is the prompt");
  command.add_option("--planner", run.planner,
                     "What places operators on workers: auto, dp, beam, list or milp");
  command.add_option("--rules-off", flags.rules_off,
                     "Rules of the optimizer that are not applied, with commas");
  command.add_flag("--naive", run.naive, "One row and one call at a time, nothing shared");
  command.add_flag("!--no-replanning", run.replan, "The plan stays as it is while the run goes on");
  command.add_option("--history", run.history_file,
                     "What operators turned out to be in earlier runs (default: this machine's)");
  command.add_flag("!--no-history", run.use_history, "Plan and draw answers without it");
  command.add_option("--seed", run.seed, "Seed of all draws")->envname("HALO_SEED");
  command.add_option("--format", flags.format, "text or json")
      ->check(CLI::IsMember({"text", "json"}));
  command.add_flag("--time", flags.show_time,
                   "Say on standard error how long planning and simulating took");
}

int RunSimulate(const SimulateFlags& flags) {
  const SimulationReport report = Simulate(OptionsFrom(flags));
  std::cout << (flags.format == "json" ? SimulationJson(report) : SimulationText(report));
  if (flags.show_time)
    std::cerr << "planned in " << report.planning_s << " s, simulated in " << report.simulating_s
              << " s\n";
  constexpr int kExitRowsFailed = 3;
  return report.rows_failed > 0 ? kExitRowsFailed : kExitOk;
}

}  // namespace

void AddSimulateCommand(CLI::App& app, int& exit_code) {
  // Shared with the callback, which outlives this function.
  auto flags = std::make_shared<SimulateFlags>();
  CLI::App* command = app.add_subcommand(
      "simulate", "Plan and run a workflow on simulated workers, by a cost profile");
  AddFlags(*command, *flags);
  command->callback([flags, &exit_code] { exit_code = RunSimulate(*flags); });
}

}  // namespace halo::cli
