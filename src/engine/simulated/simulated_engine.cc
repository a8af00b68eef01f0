#include "engine/simulated/simulated_engine.h"

#include <algorithm>

#include "base/check.h"

namespace halo {
namespace {

constexpr const char* kDeadlineMessage = "the call took longer than its deadline allows";

int64_t CountWords(const std::string& text) {
  int64_t words = 0;
  bool after_space = true;
  for (const char c : text) {
    const bool space = c == ' ' || c == '\n' || c == '\t' || c == '\r';
    words += static_cast<int64_t>(after_space & !space);
    after_space = space;
  }
  return words;
}

Completion Failed(RequestId id, const char* code, const char* message, int64_t now_us) {
  Completion completion;
  completion.id = id;
  completion.failure = Failure{"", code, message, false};
  completion.finished_us = now_us;
  return completion;
}

}  // namespace

SimulatedEngine::SimulatedEngine(SimulatedEngineOptions options, VirtualClock& clock)
    : options_(std::move(options)), clock_(clock) {
  description_.name = "simulated";
  description_.model = options_.model_name;
  description_.context_tokens = options_.context_tokens;
  description_.sequences = options_.sequences;
}

SimulatedEngine::~SimulatedEngine() {
  waiting_.clear();
  AnnounceStart();
  while (!running_.empty()) DropTop();
}

void SimulatedEngine::Submit(Request request) {
  const std::tuple key(-int64_t{request.priority}, request.order, request.id);
  HALO_CHECK(!waiting_keys_.contains(request.id) && !running_ids_.contains(request.id),
             "a request id is used once");
  waiting_keys_.emplace(request.id, key);
  waiting_.emplace(key, std::move(request));
  AnnounceStart();
}

void SimulatedEngine::AnnounceStart() {
  if (options_.timeline == nullptr) return;
  const bool can_start =
      !waiting_.empty() && static_cast<int32_t>(running_ids_.size()) < options_.sequences;
  if (can_start == start_due_us_.has_value()) return;
  if (can_start) {
    start_due_us_ = clock_.NowUs();
    options_.timeline->due_us.insert(*start_due_us_);
  } else {
    options_.timeline->due_us.erase(options_.timeline->due_us.find(*start_due_us_));
    start_due_us_.reset();
  }
}

void SimulatedEngine::Cancel(RequestId id) {
  if (const auto waiting = waiting_keys_.find(id); waiting != waiting_keys_.end()) {
    waiting_.erase(waiting->second);
    waiting_keys_.erase(waiting);
  } else if (running_ids_.erase(id) == 0) {
    return;
  }
  ended_.push_back(Failed(id, "cancelled", "the call was cancelled", clock_.NowUs()));
}

void SimulatedEngine::CancelWaiting() {
  std::vector<RequestId> ids;
  for (const auto& [key, request] : waiting_) ids.push_back(request.id);
  for (const RequestId id : ids) Cancel(id);
}

void SimulatedEngine::Release(RequestId, int32_t) {}  // keeps no KV

Completion SimulatedEngine::Complete(const Request& request, int64_t prompt_words,
                                     ScriptedReply reply) const {
  Completion completion;
  completion.id = request.id;
  completion.prompt_tokens = prompt_words;
  completion.prefilled_tokens = completion.prompt_tokens;
  completion.started_us = clock_.NowUs();
  completion.finished_us = completion.started_us + reply.latency_us;
  if (reply.failure) {
    completion.failure = std::move(reply.failure);
    return completion;
  }
  completion.finish = reply.finish;
  completion.cut = reply.finish == FinishReason::kStopString;
  completion.text = std::move(reply.text);
  completion.output_tokens = CountWords(completion.text) + 1;
  return completion;
}

void SimulatedEngine::StartWaiting() {
  while (!waiting_.empty() && static_cast<int32_t>(running_ids_.size()) < options_.sequences) {
    const auto first = waiting_.begin();
    const Request request = std::move(first->second);
    waiting_keys_.erase(request.id);
    waiting_.erase(first);
    if (request.deadline_us > 0 && request.deadline_us < clock_.NowUs()) {
      ended_.push_back(Failed(request.id, "deadline", kDeadlineMessage, clock_.NowUs()));
      continue;
    }
    const int64_t prompt_words = CountWords(request.prompt_text);
    if (prompt_words >= options_.context_tokens) {
      ended_.push_back(Failed(request.id, "prompt_too_long",
                              "the prompt is longer than the context", clock_.NowUs()));
      continue;
    }
    Completion completion = Complete(request, prompt_words, options_.script(request));
    if (request.deadline_us > 0 && completion.finished_us > request.deadline_us) {
      completion = Failed(request.id, "deadline", kDeadlineMessage, request.deadline_us);
    }
    const int64_t end_us = completion.finished_us;
    running_ids_.insert(request.id);
    if (options_.timeline) options_.timeline->due_us.insert(end_us);
    running_.push(Running{end_us, started_++, std::move(completion)});
  }
  peak_running_ = std::max(peak_running_, static_cast<int64_t>(running_ids_.size()));
  AnnounceStart();
}

void SimulatedEngine::DropTop() {
  if (options_.timeline)
    options_.timeline->due_us.erase(options_.timeline->due_us.find(running_.top().end_us));
  running_.pop();
}

std::vector<Completion> SimulatedEngine::Poll(int64_t deadline_us) {
  StartWaiting();
  std::vector<Completion> finished = std::exchange(ended_, {});
  while (!running_.empty()) {
    const Running& next = running_.top();
    // A cancelled request has left the set; its entry in the queue is passed over.
    if (!running_ids_.contains(next.completion.id)) {
      DropTop();
      continue;
    }
    if (next.end_us > clock_.NowUs()) {
      if (!finished.empty() || OthersFirst(next.end_us)) break;
      if (deadline_us > 0 && next.end_us > deadline_us) {
        clock_.AdvanceTo(std::max(clock_.NowUs(), deadline_us));
        break;
      }
      clock_.AdvanceTo(next.end_us);
    }
    running_ids_.erase(next.completion.id);
    ++statistics_.steps;
    // Nothing compares completions, so the top may lose its own.
    finished.push_back(std::move(const_cast<Running&>(next).completion));
    DropTop();
  }
  AnnounceStart();
  return finished;
}

}  // namespace halo
