#pragma once

#include <string>

#include "halo/session.h"

namespace CLI {
class App;
}

namespace halo::cli {

/// Where answers are kept for later runs, as it was written.
struct CacheFlags {
  std::string where;  ///< a folder, "on" or "off"; "": on
  std::string size;
  bool off = false;
};
void AddCacheFlags(CLI::App& command, CacheFlags& flags);
/// Throws Error(kUsage).
void SetCache(const CacheFlags& flags, RunOptions& options);

/// `halo cache`.
void AddCacheCommands(CLI::App& app, int& exit_code);

}  // namespace halo::cli
