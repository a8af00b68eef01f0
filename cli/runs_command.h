#pragma once

#include <string>

#include "halo/session.h"

namespace CLI {
class App;
}

namespace halo::cli {

/// `halo runs`, `halo resume` and `halo retry`.
void AddRunsCommands(CLI::App& app, int& exit_code);

/// What a run that is kept was asked for, to ask the same anew; from now on this process works in
/// the folder in which it was begun. Throws Error(kUsage).
RunOptions OptionsOfRun(const std::string& given);

/// Where and whether a run is kept.
struct DurabilityFlags {
  std::string run_folder;
  bool ephemeral = false, begin_anew = false;
};
void AddDurabilityFlags(CLI::App& command, DurabilityFlags& flags);
void SetDurability(const DurabilityFlags& flags, RunOptions& options);

/// `--budget calls=N,tokens=N,cost=X,seconds=S`. Throws Error(kUsage).
void ParseBudget(const std::string& text, RunOptions& options);

/// --quiet and --log-format, of every command that runs rows.
void AddLogFlags(CLI::App& command, bool& quiet, std::string& log_format);

/// Runs, shows how it goes, says what came of it; returns the exit code.
int RunAndReport(RunOptions options, bool quiet, const std::string& log_format);

}  // namespace halo::cli
