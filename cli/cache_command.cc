#include "cache_command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>
#include <memory>

#include "base/error.h"
#include "base/utc_time.h"
#include "commands.h"
#include "run_command.h"
#include "runtime/result_cache.h"

namespace halo::cli {
namespace {

/// $XDG_CACHE_HOME/halo, else ~/.cache/halo; "" if neither is set.
std::string DefaultCacheFolder() {
  const std::string caches = Environment("XDG_CACHE_HOME");
  const std::string home = Environment("HOME");
  // A relative path is to be taken for none (XDG base directory specification).
  if (caches.starts_with("/")) return caches + "/halo";
  return home.empty() ? "" : home + "/.cache/halo";
}

/// The cache that the flags mean. Throws Error(kUsage) where they mean none.
std::string FolderOf(const CacheFlags& flags) {
  RunOptions options;
  SetCache(flags, options);
  if (options.cache_folder.empty())
    throw Error(ErrorCode::kUsage, "there is no cache of answers: it is switched off");
  return options.cache_folder;
}

std::string Megabytes(int64_t bytes) {
  constexpr double kMega = 1 << 20;
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / kMega);
}

std::string TimeOf(int64_t us) {
  constexpr int64_t kUsPerS = 1'000'000;
  return UtcText(us / kUsPerS, "%Y-%m-%d %H:%M:%S") + " UTC";
}

void ShowStatistics(const CacheFlags& flags) {
  const std::string folder = FolderOf(flags);
  if (!std::filesystem::exists(folder + "/answers.db")) {
    std::cout << folder << ": no answers are kept yet\n";
    return;
  }
  ResultCache::Options options;
  options.folder = folder;
  ResultCache cache(std::move(options));
  if (!cache.notice().empty()) std::cerr << "note: " << cache.notice() << "\n";
  const CacheContents contents = cache.Contents();
  std::cout << folder << ": " << contents.answers << " answers of models, " << contents.results
            << " results of tools, " << Megabytes(contents.bytes) << "\n";
  if (contents.first_us > 0)
    std::cout << "made from " << TimeOf(contents.first_us) << " to " << TimeOf(contents.last_us)
              << "\n";
}

}  // namespace

void AddCacheFlags(CLI::App& command, CacheFlags& flags) {
  command
      .add_option("--cache", flags.where,
                  "Folder of answers that later runs take (default: halo in the user's folder of\n"
                  "caches), or off; docs/cache.md")
      ->envname("HALO_CACHE");
  command.add_flag("--no-cache", flags.off, "Neither take answers of earlier runs nor keep any");
  command
      .add_option("--cache-size", flags.size,
                  "What they may take; the least recently used go first (default 1G)")
      ->envname("HALO_CACHE_SIZE");
}

void SetCache(const CacheFlags& flags, RunOptions& options) {
  if (!flags.size.empty()) {
    constexpr int64_t kLeast = 1 << 20;
    options.cache_bytes = ParseSize(flags.size, "--cache-size");
    if (options.cache_bytes < kLeast)
      throw Error(ErrorCode::kUsage, "--cache-size: expected 1M at least, got " + flags.size);
  }
  const bool is_default = flags.where.empty() || flags.where == "on";
  options.cache_folder = flags.off || flags.where == "off" ? ""
                         : is_default                      ? DefaultCacheFolder()
                                      : std::filesystem::absolute(flags.where).string();
}

void AddCacheCommands(CLI::App& app, int& exit_code) {
  CLI::App* cache = app.add_subcommand("cache", "Answers that runs keep for later ones");
  cache->require_subcommand(1);
  // shared with the callbacks, which outlive this function
  auto flags = std::make_shared<CacheFlags>();
  CLI::App* statistics = cache->add_subcommand("stats", "How many there are, and what they take");
  AddCacheFlags(*statistics, *flags);
  statistics->callback([flags, &exit_code] {
    ShowStatistics(*flags);
    exit_code = kExitOk;
  });
  CLI::App* clear = cache->add_subcommand("clear", "Forget them all");
  AddCacheFlags(*clear, *flags);
  clear->callback([flags, &exit_code] {
    const std::string folder = FolderOf(*flags);
    std::cout << folder << ": " << Megabytes(ClearCache(folder)) << " cleared\n";
    exit_code = kExitOk;
  });
  AddCacheExplainCommand(*cache, exit_code);
}

}  // namespace halo::cli
