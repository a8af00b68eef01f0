#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/simulated/simulated_engine.h"
#include "tool/tool.h"

namespace halo {

/// What a simulated tool answers.
struct ScriptedResult {
  nlohmann::ordered_json value;
  int64_t latency_us = 0;
  std::optional<Failure> failure;
  int64_t retry_after_us = 0;
};

struct SimulatedToolOptions {
  int32_t concurrency = 32;  ///< calls of one target (a connection, a host, functions) at once
  /// The answer to a call. Must be a pure function of it, or runs will differ.
  std::function<ScriptedResult(const ToolCall&)> script;
  /// shared with the engines on the clock.
  std::shared_ptr<SimulatedTimeline> timeline;
};

/// Tools without a network or a database: scripted results after scripted latencies on a virtual
/// clock. Each target has a line of its own, as live tools have: a query does not wait for a web
/// service. The waiting is that of simulated engines, so that all move the clock by the same rules.
class SimulatedTools final : public ToolRunner {
 public:
  SimulatedTools(SimulatedToolOptions options, VirtualClock& clock);

  void Submit(ToolCall call) override;
  void Cancel(ToolCallId id) override;
  /// As SimulatedEngine::Poll, over all lines.
  std::vector<ToolCompletion> Poll(int64_t deadline_us) override;
  int64_t pending() const override;

  /// Most calls of one target that ever ran at once.
  int64_t peak_running() const;

 private:
  SimulatedEngine& LineOf(const ToolCall& call);
  SimulatedEngineOptions LineOptions(const std::string& target);
  ToolCompletion Finish(Completion completion);

  SimulatedToolOptions options_;
  VirtualClock& clock_;
  std::unordered_map<ToolCallId, ToolCall> calls_;
  std::unordered_map<ToolCallId, ScriptedResult> results_;         // of calls that have started
  std::map<std::string, std::unique_ptr<SimulatedEngine>> lines_;  // by target
};

}  // namespace halo
