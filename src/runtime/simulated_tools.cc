#include "runtime/simulated_tools.h"

#include <algorithm>
#include <utility>

namespace halo {
namespace {

/// What bounds how many calls run at once: the database, the host, or this machine.
std::string TargetOf(const ToolCall& call) {
  if (const auto* sql = std::get_if<SqlCall>(&call.what)) return "sql " + sql->connection;
  const auto* http = std::get_if<HttpCall>(&call.what);
  if (http == nullptr) return "functions";
  const size_t scheme_end = http->url.find("://");
  const size_t host = scheme_end == std::string::npos ? 0 : scheme_end + 3;
  return "http " + http->url.substr(0, http->url.find_first_of("/?#", host));
}

}  // namespace

SimulatedTools::SimulatedTools(SimulatedToolOptions options, VirtualClock& clock)
    : options_(std::move(options)), clock_(clock) {
  // Without engines on it, the lines among themselves still must not overtake each other.
  if (options_.timeline == nullptr) options_.timeline = std::make_shared<SimulatedTimeline>();
}

SimulatedEngineOptions SimulatedTools::LineOptions(const std::string& target) {
  SimulatedEngineOptions line;
  line.model_name = target;
  line.sequences = options_.concurrency;
  line.timeline = options_.timeline;
  line.script = [this](const Request& request) {
    ScriptedResult& result = results_[request.id] = options_.script(calls_.at(request.id));
    return ScriptedReply{"", result.latency_us, FinishReason::kEndToken, result.failure};
  };
  return line;
}

SimulatedEngine& SimulatedTools::LineOf(const ToolCall& call) {
  const std::string target = TargetOf(call);
  std::unique_ptr<SimulatedEngine>& line = lines_[target];
  if (line == nullptr) line = std::make_unique<SimulatedEngine>(LineOptions(target), clock_);
  return *line;
}

void SimulatedTools::Submit(ToolCall call) {
  Request place;
  place.id = call.id;
  place.order = call.order;
  place.deadline_us = call.deadline_us;
  SimulatedEngine& line = LineOf(call);
  calls_.emplace(call.id, std::move(call));
  line.Submit(std::move(place));
}

void SimulatedTools::Cancel(ToolCallId id) {
  const auto call = calls_.find(id);
  if (call != calls_.end()) LineOf(call->second).Cancel(id);
}

ToolCompletion SimulatedTools::Finish(Completion completion) {
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
  return result;
}

std::vector<ToolCompletion> SimulatedTools::Poll(int64_t deadline_us) {
  std::vector<ToolCompletion> finished;
  // What is over already; then the line whose turn on the timeline it is may move the clock, once.
  for (const bool may_move : {false, true}) {
    for (auto& [target, line] : lines_) {
      if (may_move && !finished.empty()) return finished;
      for (Completion& completion : line->Poll(may_move ? deadline_us : clock_.NowUs()))
        finished.push_back(Finish(std::move(completion)));
    }
  }
  return finished;
}

int64_t SimulatedTools::pending() const {
  int64_t pending = 0;
  for (const auto& [target, line] : lines_) pending += line->pending();
  return pending;
}

int64_t SimulatedTools::peak_running() const {
  int64_t peak = 0;
  for (const auto& [target, line] : lines_) peak = std::max(peak, line->peak_running());
  return peak;
}

}  // namespace halo
