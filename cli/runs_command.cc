#include "runs_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ctime>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/utc_time.h"
#include "commands.h"
#include "log.h"
#include "project_file.h"
#include "run_summary.h"
#include "session/durable_run.h"

namespace halo::cli {
namespace {

constexpr const char* kRuns = "runs";

struct ResumeFlags {
  std::string run;
  std::vector<std::string> connections;
  std::string summary_json, budget, log_format = "text";
  bool quiet = false;
};

/// Passwords are not kept with a run.
void GiveConnections(const ResumeFlags& flags, RunOptions& options) {
  for (const std::string& text : flags.connections) {
    const size_t at = text.find('=');
    if (at == std::string::npos || at == 0)
      throw Error(ErrorCode::kUsage, "--connect: expected NAME=URL, got '" + text + "'");
    options.connections[text.substr(0, at)] = text.substr(at + 1);
  }
  std::string missing;
  for (const std::string& name : MaskedConnections(options))
    missing += (missing.empty() ? "" : ", ") + name;
  if (!missing.empty()) {
    throw Error(ErrorCode::kUsage,
                "the password of these connections is not kept with the run: give them again with "
                "--connect NAME=URL: " +
                    missing);
  }
}

/// Relative paths of a run mean there what they meant when it began.
void WorkWhereItBegan(const RunManifest& manifest) {
  std::error_code fault;
  std::filesystem::current_path(manifest.working_folder, fault);
  if (fault) {
    throw Error(ErrorCode::kUsage,
                manifest.working_folder + ": the run was begun in this folder: " + fault.message());
  }
}

/// What a run is not kept with, since it is this machine's or this process's.
void AddSurroundings(RunOptions& options) {
  ReadProjectFile("halo.yaml", options);
  options.environment = [](const std::string& name) { return EnvironmentIfSet(name); };
  options.shipped_models = ShareFolder("models");
}

int Resume(const ResumeFlags& flags, bool retry_failed) {
  namespace fs = std::filesystem;
  const std::string folder = fs::canonical(FindRun(flags.run, kRuns)).string();
  const RunState run = LookAtRun(folder);
  RunOptions options = OptionsToResume(folder);
  options.retry_failed = retry_failed;
  ParseBudget(flags.budget, options);
  if (!flags.summary_json.empty()) options.summary_json = fs::absolute(flags.summary_json).string();
  WorkWhereItBegan(run.manifest);
  if (run.is_finished && !retry_failed && IsAsItWas(run.manifest)) {
    if (!flags.quiet) std::cerr << folder << ": has finished: nothing is left to do\n";
    return kExitOk;
  }
  AddSurroundings(options);
  GiveConnections(flags, options);
  return RunAndReport(std::move(options), flags.quiet, flags.log_format);
}

void AddResumeFlags(CLI::App& command, ResumeFlags& flags) {
  command
      .add_option("run", flags.run, "The run's folder, or its name in runs/ (`last`: the newest)")
      ->required();
  command.add_option("--connect", flags.connections,
                     "NAME=URL: a connection whose password the run does not keep (repeatable)");
  command.add_option(
      "--budget", flags.budget,
      "calls=N,tokens=N,cost=X,seconds=S: another budget, for all parts of the run together");
  command.add_option("--summary-json", flags.summary_json, "Write the summary to a file");
  AddLogFlags(command, flags.quiet, flags.log_format);
}

/// "12 of 64 rows, 2 failed", or nothing where no part of the run has come to an end.
std::string RowsText(const RunState& run) {
  const auto summary = nlohmann::json::parse(run.summary_json, nullptr, false);
  if (!summary.is_object() || !summary.contains("rows")) return "";
  const nlohmann::json& rows = summary["rows"];
  const int64_t ok = rows.value("ok", 0), failed = rows.value("failed", 0);
  std::string text =
      std::to_string(ok + failed) + " of " + std::to_string(rows.value("total", 0)) + " rows";
  if (failed > 0) text += ", " + std::to_string(failed) + " failed";
  return text;
}

/// One line of `runs ls`.
std::string Listed(const std::string& folder) {
  std::string line = std::filesystem::path(folder).filename().string() + "  ";
  try {
    const RunState run = LookAtRun(folder);
    const std::string rows = RowsText(run);
    std::string what = run.state + (rows.empty() ? "" : ", " + rows);
    for (const RunOptions::Input& input : run.manifest.options.inputs)
      what += "  " + input.workflow;
    return line + what + " -> " + run.manifest.options.output;
  } catch (const std::exception& error) {  // of a file that is damaged: the others are shown
    return line + "damaged: " + error.what();
  }
}

void List() {
  const std::vector<std::string> folders = ListRuns(kRuns);
  if (folders.empty()) std::cerr << "no runs in " << kRuns << "/\n";
  for (const std::string& folder : folders) std::cout << Printable(Listed(folder)) << "\n";
}

/// "" where no part of the run has come to an end.
std::string SummaryText(const RunState& run) {
  if (run.summary_json.empty()) return "";
  try {
    return DescribeSummary(run.summary_json);
  } catch (const nlohmann::json::exception& error) {
    throw Error(ErrorCode::kIo, run.folder + "/summary.json: is damaged: " + error.what());
  }
}

void Show(const std::string& given) {
  const RunState run = LookAtRun(FindRun(given, kRuns));
  const RunManifest& manifest = run.manifest;
  std::ostringstream text;
  text << "run      " << run.folder << "\nstate    " << run.state << "\nbegun    "
       << UtcText(manifest.created, "%Y-%m-%d %H:%M:%S") << " UTC in " << manifest.working_folder
       << ", " << manifest.parts << (manifest.parts == 1 ? " part" : " parts") << "\n";
  for (const RunOptions::Input& input : manifest.options.inputs)
    text << "workflow " << input.workflow << " over "
         << (input.rows.empty() ? "its dataset" : input.rows) << "\n";
  text << "output   " << manifest.options.output << "\nseed     " << manifest.options.seed
       << ", date " << manifest.options.date << "\n";
  for (const FileFacts& model : manifest.models)
    text << "model    " << model.path << " (" << model.digest << ")\n";
  text << SummaryText(run);
  if (!run.is_finished && run.state != "running")
    text << "to go on: halo resume " << run.folder << "\n";
  std::cout << PrintableLines(text.str());
}

struct RemoveFlags {
  std::vector<std::string> runs;
  double older_than_days = -1;
  bool force = false;
};

/// Why a run should not be deleted, or "".
std::string WhyKeep(const std::string& folder) {
  try {
    const RunState run = LookAtRun(folder);
    return run.is_finished ? "" : run.state;
  } catch (const Error&) {
    return "damaged";
  }
}

/// Those that were begun so long ago; what is unfinished or damaged stays, and is named.
std::vector<std::string> OldRuns(double days, bool force) {
  constexpr double kSecondsPerDay = 86'400;
  const auto now = static_cast<double>(std::time(nullptr));
  std::vector<std::string> old;
  for (const std::string& folder : ListRuns(kRuns)) {
    const std::string why = WhyKeep(folder);
    const bool may_go = why.empty() || (force && why != "damaged" && why != "running");
    const bool is_old =
        why == "damaged" ||
        now - static_cast<double>(ReadManifest(folder).created) >= days * kSecondsPerDay;
    if (!is_old) continue;
    if (may_go) {
      old.push_back(folder);
    } else {
      std::cerr << folder << " stays: " << why << "\n";
    }
  }
  return old;
}

/// Runs that are named can all be deleted, or none is.
void Remove(const RemoveFlags& flags) {
  if (flags.runs.empty() == (flags.older_than_days < 0))
    throw Error(ErrorCode::kUsage, "runs rm: name runs, or say --older-than DAYS");
  std::vector<std::string> chosen;
  if (flags.older_than_days >= 0) chosen = OldRuns(flags.older_than_days, flags.force);
  for (const std::string& given : flags.runs) {
    const std::string folder = std::filesystem::canonical(FindRun(given, kRuns)).string();
    const std::string why = WhyKeep(folder);
    if (!why.empty() && !flags.force)
      throw Error(ErrorCode::kUsage, given + ": " + why + "; --force deletes it all the same");
    chosen.push_back(folder);
  }
  for (const std::string& folder : chosen) {
    RemoveRun(folder);
    std::cout << "deleted " << folder << "\n";
  }
}

void AddRemoveCommand(CLI::App& runs, int& exit_code) {
  auto flags = std::make_shared<RemoveFlags>();  // shared with the callback, as below
  CLI::App* command = runs.add_subcommand("rm", "Delete runs that have finished");
  command->add_option("run", flags->runs, "Folders of runs, or their names in runs/");
  command
      ->add_option("--older-than", flags->older_than_days,
                   "DAYS: those in runs/ that were begun before; what is unfinished stays")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--force", flags->force, "Unfinished ones, too");
  command->callback([flags, &exit_code] {
    Remove(*flags);
    exit_code = kExitOk;
  });
}

}  // namespace

RunOptions OptionsOfRun(const std::string& given) {
  const std::string folder = std::filesystem::canonical(FindRun(given, kRuns)).string();
  const RunManifest manifest = ReadManifest(folder);
  RunOptions options = manifest.options;
  WorkWhereItBegan(manifest);
  AddSurroundings(options);
  return options;
}

void AddDurabilityFlags(CLI::App& command, DurabilityFlags& flags) {
  command.add_option("--run-dir", flags.run_folder,
                     "Folder that the run is kept in, so that `halo resume` can go on with it\n"
                     "(default: a new one in runs/)");
  command
      .add_flag("--ephemeral", flags.ephemeral,
                "Keep nothing: a run that stops begins anew (not with --run-dir)")
      ->envname("HALO_EPHEMERAL");
  command.add_flag("--new", flags.begin_anew,
                   "Begin a new run although an unfinished one would do the same thing");
}

void SetDurability(const DurabilityFlags& flags, RunOptions& options) {
  if (flags.ephemeral && flags.run_folder.empty()) return;
  options.run_folder = flags.run_folder;
  options.runs_folder = kRuns;
  options.begin_anew = flags.begin_anew;
}

void AddRunsCommands(CLI::App& app, int& exit_code) {
  // shared with the callbacks, which outlive this function
  auto resumed = std::make_shared<ResumeFlags>();
  CLI::App* resume = app.add_subcommand("resume", "Go on with a run that has not come to its end");
  AddResumeFlags(*resume, *resumed);
  resume->callback([resumed, &exit_code] { exit_code = Resume(*resumed, false); });

  auto retried = std::make_shared<ResumeFlags>();
  CLI::App* retry = app.add_subcommand(
      "retry", "Run the failed rows of a run once more, and what had not come to its end");
  AddResumeFlags(*retry, *retried);
  retry->callback([retried, &exit_code] { exit_code = Resume(*retried, true); });

  CLI::App* runs = app.add_subcommand("runs", "The runs that are kept in runs/");
  runs->require_subcommand(1);
  CLI::App* list = runs->add_subcommand("ls", "One line each, oldest first");
  list->callback([&exit_code] {
    List();
    exit_code = kExitOk;
  });
  AddRemoveCommand(*runs, exit_code);
  auto shown = std::make_shared<std::string>();
  CLI::App* show = runs->add_subcommand("show", "What a run was asked for, and what came of it");
  show->add_option("run", *shown, "The run's folder, or its name in runs/")->required();
  show->callback([shown, &exit_code] {
    Show(*shown);
    exit_code = kExitOk;
  });
}

}  // namespace halo::cli
