#include "engine/llama/llama_host.h"

#include <memory>
#include <optional>

#include "base/clock.h"
#include "engine/connection.h"
#include "engine/crash_record.h"
#include "engine/engine_turns.h"
#include "engine/llama/llama_engine.h"
#include "engine/llama/loaded_model.h"
#include "engine/remote_engine.h"

namespace halo {
namespace {

/// The first message; nothing if the other end has gone.
std::optional<SetupMessage> AwaitSetup(Connection& connection) {
  constexpr int64_t kForEver = -1;
  std::optional<SetupMessage> setup;
  while (!setup && connection.is_open()) {
    connection.Wait(kForEver);
    connection.Read([&](std::string_view body, const Descriptor&) {
      ToEngine message = DecodeToEngine(body);
      if (!std::holds_alternative<SetupMessage>(message) || setup)
        throw Error(ErrorCode::kIo, "engine connection: the first message is no setup");
      setup = std::get<SetupMessage>(std::move(message));
    });
  }
  return setup;
}

std::unique_ptr<LlamaEngine> MakeEngine(const LlamaSetup& setup, CrashRecord& record,
                                        const Clock& clock) {
  LlamaEngineOptions options;
  static_cast<LlamaSetup&>(options) = setup;
  options.vocabulary = Vocabulary::Load(setup.model_path);
  options.on_begin = [&record](RequestId id) { record.Begin(id); };
  return std::make_unique<LlamaEngine>(std::move(options), clock);
}

}  // namespace

std::string HostLlamaEngine(const std::string& version) {
  Connection connection{Descriptor(kHostSocket)};
  const std::optional<SetupMessage> setup = AwaitSetup(connection);
  if (!setup) return connection.why();
  const SteadyClock clock;
  std::unique_ptr<CrashRecord> record;
  std::unique_ptr<LlamaEngine> engine;
  try {
    if (setup->version != version) {
      throw Error(ErrorCode::kConfig, "the program that hosts engines is halo " + version +
                                          ", the one that asks is halo " + setup->version);
    }
    record = std::make_unique<CrashRecord>(Descriptor(kHostRecord));
    engine = MakeEngine(setup->setup, *record, clock);
  } catch (const Error& error) {
    connection.Put(EncodeFrame(FromEngine(EngineFault{error.code(), error.what()})));
    connection.Write();
    return error.what();
  }
  std::unique_ptr<EngineTurns> turns;
  if (setup->worker >= 0) {
    turns = std::make_unique<EngineTurns>(
        Descriptor(kHostTurns), setup->worker,
        ThreadShares{setup->workers, setup->setup.threads, setup->lanes});
  }
  ServeEngine(*engine, connection,
              {turns.get(), EndComputeThreads,
               [&engine](int32_t threads) { engine->UseThreads(threads); }, record.get()});
  return "";
}

}  // namespace halo
