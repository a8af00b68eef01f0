#pragma once

#include <functional>
#include <memory>
#include <unordered_map>

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
  int32_t concurrency = 32;  ///< calls that run at once, whatever they ask
  /// The answer to a call. Must be a pure function of it, or runs will differ.
  std::function<ScriptedResult(const ToolCall&)> script;
  /// shared with the engines on the clock.
  std::shared_ptr<SimulatedTimeline> timeline;
};

/// Tools without a network or a database: scripted results after scripted latencies on a virtual
/// clock. The waiting is that of a simulated engine, so that both move the clock by the same rules.
class SimulatedTools final : public ToolRunner {
 public:
  SimulatedTools(SimulatedToolOptions options, VirtualClock& clock);

  void Submit(ToolCall call) override;
  void Cancel(ToolCallId id) override { line_.Cancel(id); }
  std::vector<ToolCompletion> Poll(int64_t deadline_us) override;
  int64_t pending() const override { return line_.pending(); }

  /// Most calls that ever ran at once.
  int64_t peak_running() const { return line_.peak_running(); }

 private:
  static SimulatedEngineOptions LineOptions(const SimulatedToolOptions& options,
                                            std::unordered_map<ToolCallId, ScriptedResult>& results,
                                            std::unordered_map<ToolCallId, ToolCall>& calls);

  SimulatedToolOptions options_;
  std::unordered_map<ToolCallId, ToolCall> calls_;
  std::unordered_map<ToolCallId, ScriptedResult> results_;  // of calls that have started
  SimulatedEngine line_;
};

}  // namespace halo
