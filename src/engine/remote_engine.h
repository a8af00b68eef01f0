#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "engine/engine.h"
#include "engine/wire.h"

namespace halo {

/// The caller's end of an engine behind a connected stream socket. Owns the descriptor. A lost
/// connection fails every request that is under way, and every later one, with "engine_lost"
/// (retriable).
class RemoteEngine final : public Engine {
 public:
  /// Waits for the other end's description. Throws Error(kIo).
  explicit RemoteEngine(int socket);
  ~RemoteEngine() override;

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override;
  void Cancel(RequestId id) override;
  void CancelWaiting() override;
  void Release(RequestId id, int32_t consumers) override;
  /// `deadline_us` on the steady clock; 0 looks only at what has come.
  std::vector<Completion> Poll(int64_t deadline_us) override;
  int64_t pending() const override { return static_cast<int64_t>(pending_.size() + lost_.size()); }
  EngineStatistics Statistics() const override { return statistics_; }

 private:
  void Send(const ToEngine& message);
  void Receive(int64_t timeout_us);
  void Lose(const std::string& why);
  void Take(const std::string& body);

  int socket_;
  bool connected_ = true;
  std::string why_lost_;
  FrameReader reader_;
  EngineDescription description_;
  bool described_ = false;
  EngineStatistics statistics_;
  std::unordered_set<RequestId> pending_;
  std::vector<Completion> arrived_;
  std::vector<Completion> lost_;
};

/// Serves one engine on a connected stream socket until the other end closes it. Does not own the
/// descriptor. Runs in the calling thread; throws Error(kIo) for bytes that are no frame.
void ServeEngine(Engine& engine, int socket);

}  // namespace halo
