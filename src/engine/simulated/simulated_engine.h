#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"

namespace halo {

/// What a simulated model says.
struct ScriptedReply {
  std::string text;
  int64_t latency_us = 0;
  FinishReason finish = FinishReason::kEndToken;
  std::optional<Failure> failure;
};

/// When engines on one clock have something to do (a call ends, or can start), so that none moves
/// the clock past what another has still to report.
struct SimulatedTimeline {
  std::multiset<int64_t> due_us;
};

struct SimulatedEngineOptions {
  std::string model_name = "simulated";
  int32_t sequences = 1024;  ///< requests that run at once
  int32_t context_tokens = 1 << 20;
  /// The reply to a request. Must be a pure function of it, or runs will differ.
  std::function<ScriptedReply(const Request&)> script;
  /// shared by the engines on one clock. May be left out where there is one.
  std::shared_ptr<SimulatedTimeline> timeline;
};

/// An engine without a model: scripted replies after scripted latencies on a virtual clock, so that
/// the real scheduler runs in no time and the same way each time. Prompts are text; a "token" is a
/// word. Requests start by priority, then order, as in every engine; `sequences` run side by side,
/// each for its own latency.
class SimulatedEngine final : public Engine {
 public:
  SimulatedEngine(SimulatedEngineOptions options, VirtualClock& clock);
  ~SimulatedEngine() override;

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override;
  void Cancel(RequestId id) override;
  void CancelWaiting() override;
  void Release(RequestId id, int32_t consumers) override;
  /// Moves the virtual clock to the next completion, but not past `deadline_us` (0: as far as
  /// needed) nor past the next completion of another engine on the timeline.
  std::vector<Completion> Poll(int64_t deadline_us) override;
  int64_t pending() const override {
    return static_cast<int64_t>(waiting_.size() + running_ids_.size() + ended_.size());
  }
  EngineStatistics Statistics() const override { return statistics_; }

  /// Most requests that ever ran at once.
  int64_t peak_running() const { return peak_running_; }

 private:
  struct Running {
    int64_t end_us;
    int64_t sequence_number;  ///< equal ends finish in order of start
    Completion completion;
    bool operator>(const Running& other) const {
      return std::tie(end_us, sequence_number) > std::tie(other.end_us, other.sequence_number);
    }
  };
  void StartWaiting();
  void DropTop();
  /// True if another engine has something to do before `end_us`.
  bool OthersFirst(int64_t end_us) const {
    return options_.timeline != nullptr && *options_.timeline->due_us.begin() < end_us;
  }
  void AnnounceStart();
  Completion Complete(const Request& request, int64_t prompt_words, ScriptedReply reply) const;

  SimulatedEngineOptions options_;
  VirtualClock& clock_;
  EngineDescription description_;
  std::map<std::tuple<int32_t, int64_t, RequestId>, Request> waiting_;
  std::unordered_map<RequestId, std::tuple<int32_t, int64_t, RequestId>> waiting_keys_;
  std::priority_queue<Running, std::vector<Running>, std::greater<>> running_;
  std::unordered_set<RequestId> running_ids_;
  std::vector<Completion> ended_;        ///< cancelled or expired before their time
  std::optional<int64_t> start_due_us_;  ///< on the timeline: a waiting call can start
  int64_t started_ = 0;
  int64_t peak_running_ = 0;
  EngineStatistics statistics_;
};

}  // namespace halo
