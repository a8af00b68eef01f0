#pragma once

#include <optional>
#include <string>

namespace CLI {
class App;
}

namespace halo {
class Error;
struct ModelSearchPath;
struct RunOptions;
}  // namespace halo

namespace halo::cli {

/// Each adds its subcommand to `app`; the exit code of the one that runs is left in `exit_code`.
void AddEngineProcessCommand(CLI::App& app, int& exit_code);
void AddRunCommand(CLI::App& app, int& exit_code);
void AddExplainCommand(CLI::App& app, int& exit_code);
void AddValidateCommand(CLI::App& app, int& exit_code);
void AddModelsCommand(CLI::App& app, int& exit_code);
void AddCalibrateCommand(CLI::App& app, int& exit_code);
void AddSimulateCommand(CLI::App& app, int& exit_code);
void AddVersionCommand(CLI::App& app, int& exit_code);

/// Exit codes of contract section 1 that are not halo::RunStatus.
inline constexpr int kExitOk = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

/// The exit code of an error that was thrown before anything ran.
int ExitCodeOf(const Error& error);

/// The environment's value, or "".
std::string Environment(const char* name);
/// Nothing if the variable is not set.
std::optional<std::string> EnvironmentIfSet(const std::string& name);

/// Where this machine's cost profiles are kept, as RunOptions::profile_file: $HALO_PROFILE, else
/// the folder $XDG_STATE_HOME/halo/profiles/ or ~/.local/state/halo/profiles/; "" if none of them
/// is set.
std::string DefaultProfilePath();

/// Where every command looks model names up: `models_file` ("": none), $HALO_MODELS, the Hugging
/// Face cache ($HF_HUB_CACHE, else $HF_HOME/hub, else ~/.cache/huggingface/hub), and the models
/// that came with Halo.
ModelSearchPath ModelPlaces(const std::string& models_file);
/// The same of a run whose models_file is set.
void SetModelPlaces(RunOptions& options);

/// A folder beside the program, bin/../share/halo/NAME, whether it exists or not.
std::string ShareFolder(const char* name);

/// "12K", "3G", "512M" or a plain number of bytes. Throws halo::Error(kUsage) naming `flag`.
long long ParseSize(const std::string& text, const std::string& flag);

}  // namespace halo::cli
