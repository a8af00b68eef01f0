#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/descriptor.h"
#include "engine/llama/llama_engine.h"

namespace halo {

/// Where the engines of a run live.
struct EngineHost {
  std::string program;  ///< RunOptions::engine_program
  Descriptor turns;     ///< of engines that share the cores; none where there is one
  /// Told, in a sentence, of each engine whose process was started again.
  std::function<void(const std::string&)> on_restart;
};

/// An engine in this process, or in a child of the host's program. `host` outlives it. Throws
/// Error(kModel) or Error(kConfig).
std::unique_ptr<Engine> MakeEngine(LlamaEngineOptions options, const EngineHost& host,
                                   const Clock& clock);

}  // namespace halo
