#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <memory>
#include <thread>

#include "base/error.h"
#include "commands.h"
#include "halo/session.h"
#include "model/model_names.h"
#include "session/calibrate.h"
#include "session/machine.h"

namespace halo::cli {

std::string DefaultProfilePath() {
  const std::string given = Environment("HALO_PROFILE");
  if (!given.empty()) return given;
  const std::string state = Environment("XDG_STATE_HOME");
  const std::string home = Environment("HOME");
  // A relative path is to be taken for none (XDG base directory specification).
  const std::string folder = state.starts_with("/") ? state
                             : home.empty()         ? ""
                                                    : home + "/.local/state";
  if (folder.empty()) return "";
  return folder + "/halo/profiles/";
}

namespace {

/// A model's own file, where a folder is given: workers have as many threads as suit the model.
std::string ProfileOf(const std::string& path, int32_t threads) {
  return path.ends_with('/') ? path + ProfileFileName(MachineFingerprint(threads)) : path;
}

struct CalibrateFlags {
  std::vector<std::string> models;
  std::string models_file;
  std::string profile;
  int threads = 0;
  double seconds = 180.0;
  bool quiet = false;
};

/// The files of NAME=FILE, and of NAME alone where names are looked up.
std::vector<ResolvedModel> ModelsOf(const CalibrateFlags& flags) {
  ModelSearchPath search = ModelPlaces(flags.models_file);
  std::vector<ModelRequest> requests;
  for (const std::string& text : flags.models) {
    const size_t equals = text.find('=');
    const std::string name = text.substr(0, equals);
    const bool has_file = equals != std::string::npos;
    if (name.empty() || (has_file && equals + 1 == text.size()))
      throw Error(ErrorCode::kUsage, "--model: expected NAME=FILE.gguf, got '" + text + "'");
    const auto same = [&](const ModelRequest& request) { return request.name == name; };
    if (std::any_of(requests.begin(), requests.end(), same))
      throw Error(ErrorCode::kUsage, "--model: '" + name + "' is given twice");
    if (has_file) search.flags.emplace(name, text.substr(equals + 1));
    requests.push_back({name, "", ""});
  }
  return ResolveModels(requests, search);
}

int RunCalibrate(const CalibrateFlags& flags) {
  const std::string path = flags.profile.empty() ? DefaultProfilePath() : flags.profile;
  if (path.empty()) {
    throw Error(ErrorCode::kUsage,
                "no place for the profile: give --profile FILE, or set HALO_PROFILE or HOME");
  }
  for (const ResolvedModel& model : ModelsOf(flags)) {
    CalibrateRequest request;
    request.model = model.request.name;
    request.model_path = model.path;
    request.threads = flags.threads;
    if (request.threads == 0) {
      // As a run has them that is not told otherwise.
      const auto bytes = static_cast<int64_t>(std::filesystem::file_size(model.path));
      const auto cores = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
      constexpr int64_t kManyCalls = 64;
      request.threads = cores / AutomaticWorkers(cores, bytes, kManyCalls);
    }
    request.profile_path = ProfileOf(path, request.threads);
    request.budget_s = flags.seconds;
    if (!flags.quiet) {
      request.on_progress = [&](const std::string& text) {
        std::cerr << model.request.name << ": " << text << "\n";
      };
    }
    const CalibrateOutcome outcome = CalibrateModel(request);
    std::cout << model.request.name << " (" << model.path << ")\non " << outcome.machine << "\n"
              << outcome.report << std::flush;
    if (!flags.quiet)
      std::cerr << "stored in " << request.profile_path << " (" << outcome.profile.model_digest
                << ")\n";
  }
  return kExitOk;
}

}  // namespace

void AddCalibrateCommand(CLI::App& app, int& exit_code) {
  // Shared with the callback, which outlives this function.
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* command = app.add_subcommand(
      "calibrate", "Measure this machine's rates for a model and store the cost profile");
  command
      ->add_option("--model", flags->models,
                   "NAME=FILE.gguf, or a NAME that can be resolved (repeatable)")
      ->required();
  command->add_option("--models", flags->models_file, "YAML file of model names and files");
  command
      ->add_option("--threads", flags->threads,
                   "Threads of the engine; default: as many as `halo run` gives a worker")
      ->check(CLI::Range(1, 1024));
  command->add_option("--profile", flags->profile,
                      "File to store the profile in; default: $HALO_PROFILE, else one for this\n"
                      "machine in $XDG_STATE_HOME/halo/profiles or ~/.local/state/halo/profiles");
  command
      ->add_option("--seconds", flags->seconds,
                   "How long a model may be measured (default 180); one round is always made")
      ->check(CLI::Range(0.0, 86400.0));
  command->add_flag("--quiet", flags->quiet, "Say nothing on standard error");
  command->callback([flags, &exit_code] { exit_code = RunCalibrate(*flags); });
}

}  // namespace halo::cli
