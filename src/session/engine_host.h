#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "engine/llama/llama_engine.h"

namespace halo {

/// Where the engines of a run live.
struct EngineHost {
  std::string program;      ///< RunOptions::engine_program
  Descriptor turns;         ///< EngineTurns of all workers; none: engines are in this process
  int32_t workers = 1;      ///< that share the cores
  int32_t lanes = 1;        ///< of each worker (ThreadShares)
  std::string kept_folder;  ///< for KV that host memory has no room for; "": none
  /// Told, in a sentence, of each engine whose process was started again.
  std::function<void(const std::string&)> on_restart;
};

/// An engine of a worker, in this process or in a child of the host's program. `host` outlives it.
/// `like`: what it will be, so that a child need not be waited for; null: not known. Throws
/// Error(kModel) or Error(kConfig).
std::unique_ptr<Engine> MakeEngine(LlamaEngineOptions options, const EngineHost& host,
                                   int32_t worker, const EngineDescription* like,
                                   const Clock& clock);

}  // namespace halo
