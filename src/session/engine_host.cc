#include "session/engine_host.h"

#include <fmt/format.h>
#include <sys/prctl.h>

#include <utility>

#include "engine/llama/llama_host.h"
#include "engine/supervised_engine.h"
#include "halo/session.h"
#include "halo_build_info.h"

namespace halo {
namespace {

/// Engines are as good as their code: another commit may answer otherwise.
std::string ThisVersion() {
  return fmt::format("{} ({})", build_info::kVersion, build_info::kCommit);
}

}  // namespace

std::unique_ptr<Engine> MakeEngine(LlamaEngineOptions options, const EngineHost& host,
                                   int32_t worker, const EngineDescription* like,
                                   const Clock& clock) {
  if (host.program.empty()) return std::make_unique<LlamaEngine>(std::move(options), clock);
  SupervisedEngineOptions supervised;
  supervised.model_name = options.model_name;
  // A backtrace of an abort starts a debugger where there is one, and pushes the assertion out of
  // what is kept of a process's last words.
  supervised.launch =
      ProgramLauncher(host.program, {"halo", kEngineProcessCommand}, {"GGML_NO_BACKTRACE=1"});
  supervised.setup = SetupMessage{std::move(options), ThisVersion(), host.turns ? worker : -1,
                                  host.workers, host.lanes};
  supervised.turns = host.turns.get();
  if (like != nullptr) supervised.description = *like;
  supervised.on_restart = host.on_restart;
  return std::make_unique<SupervisedEngine>(std::move(supervised), clock);
}

std::string RunEngineProcess() {
  prctl(PR_SET_NAME, "halo-engine");  // what tools show: the file may have a path without a name
  return HostLlamaEngine(ThisVersion());
}

}  // namespace halo
