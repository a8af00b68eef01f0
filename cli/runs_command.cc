#include "runs_command.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/utc_time.h"
#include "commands.h"
#include "project_file.h"
#include "run_summary.h"
#include "session/durable_run.h"

namespace halo::cli {
namespace {

constexpr const char* kRuns = "runs";

struct ResumeFlags {
  std::string run;
  std::vector<std::string> connections;
  std::string summary_json, budget;
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

int Resume(const ResumeFlags& flags, bool retry_failed) {
  namespace fs = std::filesystem;
  const std::string folder = fs::canonical(FindRun(flags.run, kRuns)).string();
  const RunState run = LookAtRun(folder);
  RunOptions options = OptionsToResume(folder);
  options.retry_failed = retry_failed;
  ParseBudget(flags.budget, options);
  if (!flags.summary_json.empty()) options.summary_json = fs::absolute(flags.summary_json).string();
  // Its relative paths mean there what they meant when it began.
  std::error_code fault;
  fs::current_path(run.manifest.working_folder, fault);
  if (fault) {
    throw Error(ErrorCode::kUsage, run.manifest.working_folder +
                                       ": the run was begun in this folder: " + fault.message());
  }
  if (run.is_finished && !retry_failed && IsAsItWas(run.manifest)) {
    if (!flags.quiet) std::cerr << folder << ": has finished: nothing is left to do\n";
    return kExitOk;
  }
  ReadProjectFile("halo.yaml", options);
  GiveConnections(flags, options);
  options.environment = [](const std::string& name) { return EnvironmentIfSet(name); };
  options.shipped_models = ShareFolder("models");
  return RunAndReport(std::move(options), flags.quiet);
}

void AddResumeFlags(CLI::App& command, ResumeFlags& flags) {
  command
      .add_option("run", flags.run, "The run's folder, or its name in runs/ (`last`: the newest)")
      ->required();
  command.add_option("--connect", flags.connections,
                     "NAME=URL: a connection whose password the run does not keep (repeatable)");
  command.add_option(
      "--budget", flags.budget,
      "calls=N,tokens=N,seconds=S: another budget, for all parts of the run together");
  command.add_option("--summary-json", flags.summary_json, "Write the summary to a file");
  command.add_flag("--quiet", flags.quiet, "No progress and no summary on standard error");
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

void List() {
  const std::vector<std::string> folders = ListRuns(kRuns);
  if (folders.empty()) std::cerr << "no runs in " << kRuns << "/\n";
  for (const std::string& folder : folders) {
    try {
      const RunState run = LookAtRun(folder);
      std::cout << std::filesystem::path(folder).filename().string() << "  " << run.state;
      const std::string rows = RowsText(run);
      if (!rows.empty()) std::cout << ", " << rows;
      for (const RunOptions::Input& input : run.manifest.options.inputs)
        std::cout << "  " << input.workflow;
      std::cout << " -> " << run.manifest.options.output << "\n";
    } catch (const Error& error) {
      std::cout << std::filesystem::path(folder).filename().string()
                << "  damaged: " << error.what() << "\n";
    }
  }
}

void Show(const std::string& given) {
  const RunState run = LookAtRun(FindRun(given, kRuns));
  const RunManifest& manifest = run.manifest;
  std::cout << "run      " << run.folder << "\nstate    " << run.state << "\nbegun    "
            << UtcText(manifest.created, "%Y-%m-%d %H:%M:%S") << " UTC in "
            << manifest.working_folder << ", " << manifest.parts
            << (manifest.parts == 1 ? " part" : " parts") << "\n";
  for (const RunOptions::Input& input : manifest.options.inputs)
    std::cout << "workflow " << input.workflow << " over "
              << (input.rows.empty() ? "its dataset" : input.rows) << "\n";
  std::cout << "output   " << manifest.options.output << "\nseed     " << manifest.options.seed
            << ", date " << manifest.options.date << "\n";
  for (const FileFacts& model : manifest.models)
    std::cout << "model    " << model.path << " (" << model.digest << ")\n";
  if (!run.summary_json.empty()) std::cout << DescribeSummary(run.summary_json);
  if (!run.is_finished && run.state != "running")
    std::cout << "to go on: halo resume " << run.folder << "\n";
}

}  // namespace

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
  auto shown = std::make_shared<std::string>();
  CLI::App* show = runs->add_subcommand("show", "What a run was asked for, and what came of it");
  show->add_option("run", *shown, "The run's folder, or its name in runs/")->required();
  show->callback([shown, &exit_code] {
    Show(*shown);
    exit_code = kExitOk;
  });
}

}  // namespace halo::cli
