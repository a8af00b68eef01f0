#include "runtime/simulated_tools.h"

#include <utility>

namespace halo {

SimulatedEngineOptions SimulatedTools::LineOptions(
    const SimulatedToolOptions& options, std::unordered_map<ToolCallId, ScriptedResult>& results,
    std::unordered_map<ToolCallId, ToolCall>& calls) {
  SimulatedEngineOptions line;
  line.model_name = "tools";
  line.sequences = options.concurrency;
  line.timeline = options.timeline;
  line.script = [&options, &results, &calls](const Request& request) {
    ScriptedResult& result = results[request.id] = options.script(calls.at(request.id));
    return ScriptedReply{"", result.latency_us, FinishReason::kEndToken, result.failure};
  };
  return line;
}

SimulatedTools::SimulatedTools(SimulatedToolOptions options, VirtualClock& clock)
    : options_(std::move(options)), line_(LineOptions(options_, results_, calls_), clock) {}

void SimulatedTools::Submit(ToolCall call) {
  Request place;
  place.id = call.id;
  place.order = call.order;
  place.deadline_us = call.deadline_us;
  calls_.emplace(call.id, std::move(call));
  line_.Submit(std::move(place));
}

std::vector<ToolCompletion> SimulatedTools::Poll(int64_t deadline_us) {
  std::vector<ToolCompletion> finished;
  for (Completion& completion : line_.Poll(deadline_us)) {
    ToolCompletion result;
    result.id = completion.id;
    result.failure = std::move(completion.failure);
    result.started_us = completion.started_us;
    result.finished_us = completion.finished_us;
    if (const auto found = results_.find(completion.id); found != results_.end()) {
      result.value = std::move(found->second.value);
      result.retry_after_us = found->second.retry_after_us;
      results_.erase(found);
    }
    calls_.erase(completion.id);
    finished.push_back(std::move(result));
  }
  return finished;
}

}  // namespace halo
