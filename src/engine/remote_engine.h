#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/descriptor.h"
#include "engine/connection.h"
#include "engine/engine.h"
#include "engine/span_log.h"
#include "engine/wire.h"

namespace halo {

class CrashRecord;
class EngineTurns;

/// The caller's end of an engine behind a connected stream socket. What is submitted is sent with
/// the next Poll, all at once, so that requests which belong together are taken together. A lost
/// connection fails every request that is under way, and every later one, with "engine_lost"
/// (retriable).
class RemoteEngine final : public Engine {
 public:
  /// Does not wait for the other end, which may load a model for minutes. `setup` is sent first.
  explicit RemoteEngine(Descriptor socket, std::optional<SetupMessage> setup = std::nullopt);

  /// Waits until the other end has described itself, has gone, or it is `deadline_us` on the steady
  /// clock. Before it has, there is no description.
  bool AwaitDescription(int64_t deadline_us);
  bool is_described() const { return is_described_; }
  bool is_connected() const { return connection_.is_open(); }
  /// What was seen when the connection was lost.
  const std::string& why_lost() const { return connection_.why(); }
  bool was_abused() const { return connection_.was_abused(); }
  /// What the other end said of why it has no engine.
  const std::optional<EngineFault>& fault() const { return fault_; }
  int descriptor() const { return connection_.descriptor(); }

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override { Send(request); }
  /// The same of a request that the caller keeps.
  void Send(const Request& request);
  void Cancel(RequestId id) override;
  void CancelWaiting() override;
  void Release(RequestId id, int32_t consumers) override;
  /// `deadline_us` on the steady clock; 0 looks only at what has come.
  std::vector<Completion> Poll(int64_t deadline_us) override;
  int64_t pending() const override {
    return static_cast<int64_t>(pending_.size() + lost_.size() + arrived_.size());
  }
  EngineStatistics Statistics() const override { return statistics_; }
  EngineSpans TakeSpans() override { return spans_.Take(); }
  int ready_descriptor() const override { return connection_.descriptor(); }
  void Export(RequestId id) override;
  std::vector<KvTransfer> TakeExports() override { return std::exchange(exports_, {}); }
  void Import(KvTransfer kv) override;
  void Load() override { TellResidency(true); }
  void Unload() override { TellResidency(false); }
  Residency residency() const override {
    if (unanswered_loads_ > 0) return Residency::kChanging;
    return is_told_to_load_ ? Residency::kLoaded : Residency::kUnloaded;
  }

 private:
  void TellResidency(bool load);
  /// The other end will say something.
  bool is_awaited() const {
    return !pending_.empty() || unanswered_loads_ > 0 || unanswered_exports_ > 0;
  }
  void Receive();
  void LosePending();
  void Take(std::string_view body, Descriptor attachment);

  Connection connection_;
  EngineDescription description_;
  bool is_described_ = false;
  bool is_waited_for_ = false;  ///< it has answered, and what follows is being made
  std::optional<EngineFault> fault_;
  EngineStatistics statistics_;
  bool is_told_to_load_ = true;  ///< the last time
  int64_t unanswered_loads_ = 0, unanswered_exports_ = 0;
  SpanLog spans_;
  std::unordered_set<RequestId> pending_;
  std::vector<Completion> arrived_;
  std::vector<KvTransfer> exports_;
  std::vector<Completion> lost_;
};

/// What an engine that is served shares with others and with its supervisor; null: nothing.
struct ServedWith {
  EngineTurns* turns = nullptr;
  /// Called before a turn goes to a process that waits for it.
  void (*rest)() = nullptr;
  /// Told how many threads the next pass may have; empty: it always has the same.
  std::function<void(int32_t)> use_threads;
  CrashRecord* record = nullptr;
};

/// Serves one engine, in the calling thread, until the other end goes or says what is no message;
/// `connection.why()` tells which.
void ServeEngine(Engine& engine, Connection& connection, const ServedWith& with = {});

}  // namespace halo
