#include "engine/simulated/simulated_worker.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace halo {
namespace {

constexpr double kUsPerS = 1e6;
/// Requests looked at beyond those that can start, for one whose prefix is there.
constexpr size_t kLookAhead = 64;

/// Four bytes are one token, so that texts that begin alike have tokens that do.
std::vector<TokenId> TokensOfText(const std::string& text) {
  std::vector<TokenId> tokens((text.size() + 3) / 4, 0);
  std::memcpy(tokens.data(), text.data(), text.size());
  if (tokens.empty()) tokens.push_back(0);
  return tokens;
}

}  // namespace

SimulatedWorker::SimulatedWorker(const std::vector<SimulatedModel>& models,
                                 SimulatedWorkerOptions options)
    : models_(models), options_(options), replicas_(models.size()) {
  for (const SimulatedModel& model : models) {
    HALO_CHECK(model.costs.weights_bytes <= options_.memory_bytes, "a worker can hold each model");
  }
}

int32_t SimulatedWorker::ContextTokens(size_t model) const {
  const SimulatedCosts& costs = CostsOf(model);
  if (costs.kv_token_bytes <= 0) return options_.context_tokens;
  const int64_t room = (options_.memory_bytes - costs.weights_bytes) / costs.kv_token_bytes;
  return static_cast<int32_t>(std::min<int64_t>(options_.context_tokens, room));
}

std::optional<Completion> SimulatedWorker::Submit(size_t model, Request request, int64_t now_us) {
  auto live = std::make_unique<Live>();
  live->model = model;
  live->prompt_bytes = request.prompt_text.size();
  live->prompt = models_[model].has_token_ids ? std::move(request.prompt_tokens)
                                              : TokensOfText(request.prompt_text);
  live->request = std::move(request);
  live->request.prompt_tokens = {};
  live->submitted_step = steps_;
  Completion& completion = live->completion;
  completion.id = live->request.id;
  completion.prompt_tokens = static_cast<int64_t>(live->prompt.size());
  const int64_t left = ContextTokens(model) - completion.prompt_tokens;
  if (left < 1 || live->prompt.empty()) {
    Completion refused;
    refused.id = live->request.id;
    refused.failure =
        left < 1 ? Failure{"", "prompt_too_long", "the prompt leaves no room for an answer", false}
                 : Failure{"", "empty_prompt", "the prompt has no tokens", false};
    refused.finished_us = now_us;
    return refused;
  }
  live->max_tokens =
      static_cast<int32_t>(std::min<int64_t>(left, live->request.sampling.max_tokens));
  live->kv_bytes = (completion.prompt_tokens + live->max_tokens) * CostsOf(model).kv_token_bytes;
  with_deadline_ += live->request.deadline_us > 0 ? 1 : 0;
  replicas_[model].waiting.insert(RankOf(live->request));
  if (options_.observer != nullptr)
    options_.observer->OnSubmit(options_.index, model, live->request);
  const bool is_new = live_.emplace(live->request.id, std::move(live)).second;
  HALO_CHECK(is_new, "a request id is used once");
  return std::nullopt;
}

Completion SimulatedWorker::Fail(Live& live, const char* code, const char* message,
                                 int64_t now_us) {
  Completion completion = std::move(live.completion);
  completion.failure = Failure{"", code, message, false};
  completion.finish = FinishReason::kFailed;
  completion.finished_us = now_us;
  completion.engine_us = std::llround(live.engine_us);
  completion.prompt_tokens = completion.reused_tokens + completion.prefilled_tokens;
  Leave(live);
  return completion;
}

/// Takes a request out of everything but its answer.
void SimulatedWorker::Leave(Live& live) {
  Replica& replica = replicas_[live.model];
  if (live.state == Live::State::kWaiting) {
    replica.waiting.erase(RankOf(live.request));
    closes_.erase(RankOf(live.request));
  } else {
    std::erase(replica.running, &live);
    if (live.holder >= 0) replica.kv.RemoveRunning(live.holder);
    running_bytes_ -= live.kv_bytes;
  }
  with_deadline_ -= live.request.deadline_us > 0 ? 1 : 0;
  if (options_.observer != nullptr) options_.observer->OnLeave(options_.index, live.request.id);
  live_.erase(live.request.id);
}

std::optional<Completion> SimulatedWorker::Cancel(RequestId id, int64_t now_us) {
  const auto found = live_.find(id);
  if (found == live_.end()) return std::nullopt;
  return Fail(*found->second, "cancelled", "the call was cancelled", now_us);
}

void SimulatedWorker::CancelWaiting(size_t model, int64_t now_us, std::vector<Completion>& ended) {
  const std::set<Rank> waiting = replicas_[model].waiting;
  for (const Rank& rank : waiting) ended.push_back(*Cancel(std::get<2>(rank), now_us));
}

std::vector<Request> SimulatedWorker::TakeWaiting(size_t model, int64_t most, bool with_source) {
  const std::set<Rank>& waiting = replicas_[model].waiting;
  std::vector<Live*> chosen;
  for (auto rank = waiting.rbegin(); rank != waiting.rend(); ++rank) {
    if (static_cast<int64_t>(chosen.size()) == most) break;
    Live& live = *live_.at(std::get<2>(*rank));
    if (live.request.consumes == 0 || with_source) chosen.push_back(&live);
  }
  std::vector<Request> taken;
  for (Live* live : chosen) {
    Request request = live->request;
    if (models_[model].has_token_ids) request.prompt_tokens = std::move(live->prompt);
    Leave(*live);
    taken.push_back(std::move(request));
  }
  return taken;
}

void SimulatedWorker::Release(size_t model, RequestId id, int32_t consumers) {
  if (const auto found = live_.find(id); found != live_.end()) {
    KeepHint& keep = found->second->request.keep;
    keep.consumers = std::max(0, keep.consumers - consumers);
    return;
  }
  replicas_[model].kv.Release(id, consumers);
}

void SimulatedWorker::FailExpired(int64_t now_us, std::vector<Completion>& ended) {
  if (with_deadline_ == 0) return;
  std::vector<RequestId> expired;
  for (const auto& [id, live] : live_) {
    if (live->request.deadline_us > 0 && live->request.deadline_us < now_us) expired.push_back(id);
  }
  std::sort(expired.begin(), expired.end());
  for (const RequestId id : expired) {
    ended.push_back(
        Fail(*live_.at(id), "deadline", "the call took longer than its deadline allows", now_us));
  }
}

// Memory

int64_t SimulatedWorker::KeptBytes() const {
  int64_t bytes = 0;
  for (size_t m = 0; m < replicas_.size(); ++m)
    bytes += replicas_[m].kv.device_tokens() * CostsOf(m).kv_token_bytes;
  return bytes;
}

int64_t SimulatedWorker::UsedBytes() const { return weights_bytes_ + running_bytes_ + KeptBytes(); }

int64_t SimulatedWorker::RunningCount() const {
  int64_t running = 0;
  for (const Replica& replica : replicas_) running += static_cast<int64_t>(replica.running.size());
  return running;
}

void SimulatedWorker::Spill(size_t model, int64_t tokens) {
  const SimulatedCosts& costs = CostsOf(model);
  const double us = (costs.spill_s + costs.spill_token_s * static_cast<double>(tokens)) * kUsPerS;
  moved_us_ += us;
  Replica& replica = replicas_[model];
  ++replica.statistics.spills;
  // Host memory is shared by the models in equal parts.
  const auto parts = static_cast<int64_t>(models_.size());
  const int64_t each = std::max<int64_t>(1, costs.kv_token_bytes);
  replica.statistics.evictions += replica.kv.ShrinkHost(options_.host_bytes / parts / each);
}

/// Moves what is kept to host memory until `bytes` fit beside the rest. What is not there cannot be
/// moved: false, with nothing lost but places on the device.
bool SimulatedWorker::FreeBytes(int64_t bytes, SimulatedKv::HolderId but, size_t model) {
  for (size_t m = 0; m < replicas_.size(); ++m) {
    while (UsedBytes() + bytes > options_.memory_bytes) {
      const std::optional<int64_t> tokens = replicas_[m].kv.SpillOne(m == model ? but : -1);
      if (!tokens) break;
      Spill(m, *tokens);
    }
  }
  return UsedBytes() + bytes <= options_.memory_bytes;
}

void SimulatedWorker::DropResident(size_t model) {
  Replica& replica = replicas_[model];
  HALO_CHECK(replica.is_resident && replica.running.empty(), "only an idle model is dropped");
  replica.is_resident = false;
  replica.statistics.evictions += replica.kv.on_device();
  replica.kv.DropAll();
  weights_bytes_ -= CostsOf(model).weights_bytes;
}

/// Drops models other than `model` that nothing runs of, the longest unused first, until `bytes`
/// fit; those of which something could begin only if `though_they_wait`.
bool SimulatedWorker::DropIdleFor(int64_t bytes, size_t model, bool though_they_wait) {
  while (UsedBytes() - KeptBytes() + bytes > options_.memory_bytes) {
    std::optional<size_t> oldest;
    for (size_t m = 0; m < replicas_.size(); ++m) {
      const Replica& replica = replicas_[m];
      if (m == model || !replica.is_resident || !replica.running.empty()) continue;
      const bool can_begin = !replica.waiting.empty() && !IsClosedTo(*replica.waiting.begin());
      if (can_begin && !though_they_wait) continue;
      if (!oldest || replica.used_step < replicas_[*oldest].used_step) oldest = m;
    }
    if (!oldest) return false;
    DropResident(*oldest);
  }
  return true;
}

// What is next

/// True if it would pass a request that was passed often enough.
bool SimulatedWorker::IsClosedTo(const Rank& rank) const {
  return !closes_.empty() && *closes_.begin() < rank;
}

/// A request has begun: it has passed all that wait ahead of it, but those whose model had no
/// sequence for them anyway.
void SimulatedWorker::CountPassed(const Rank& by) {
  for (const Replica& replica : replicas_) {
    if (static_cast<int64_t>(replica.running.size()) >= options_.sequences) continue;
    for (const Rank& rank : replica.waiting) {
      if (by < rank) break;
      const int64_t passed = ++live_.at(std::get<2>(rank))->passed;
      if (passed >= kMostPassedPerSequence * options_.sequences) closes_.insert(rank);
    }
  }
}

/// A model that is not here, has requests and, as soon as this returns it, room.
std::optional<size_t> SimulatedWorker::ModelToLoad() {
  std::optional<size_t> wanted;
  for (size_t m = 0; m < replicas_.size(); ++m) {
    const Replica& replica = replicas_[m];
    if (replica.waiting.empty() || replica.is_resident) continue;
    if (!wanted || *replica.waiting.begin() < *replicas_[*wanted].waiting.begin()) wanted = m;
  }
  if (!wanted) return std::nullopt;
  const Replica& replica = replicas_[*wanted];
  // Loaded now it would have to wait, and something else perhaps to be loaded again.
  if (IsClosedTo(*replica.waiting.begin())) return std::nullopt;
  const Live& first = *live_.at(std::get<2>(*replica.waiting.begin()));
  const int64_t bytes = CostsOf(*wanted).weights_bytes + first.kv_bytes;
  if (!DropIdleFor(bytes, *wanted, false)) return std::nullopt;
  return FreeBytes(bytes, -1, *wanted) ? wanted : std::nullopt;
}

void SimulatedWorker::Admit(int64_t now_us) {
  // One line over all models, so that none is overtaken for memory for ever.
  std::vector<std::pair<Rank, Live*>> line;
  std::vector<bool> is_full(replicas_.size(), false);
  for (size_t m = 0; m < replicas_.size(); ++m) {
    const Replica& replica = replicas_[m];
    const auto running = static_cast<int64_t>(replica.running.size());
    is_full[m] = running >= options_.sequences;
    if (!replica.is_resident || is_full[m]) continue;
    size_t taken = 0;
    for (const Rank& rank : replica.waiting) {
      if (taken++ >= static_cast<size_t>(options_.sequences) + kLookAhead) break;
      line.emplace_back(rank, live_.at(std::get<2>(rank)).get());
    }
  }
  if (replicas_.size() > 1) std::sort(line.begin(), line.end());
  for (const auto& [rank, live] : line) {
    if (IsClosedTo(rank)) break;
    if (is_full[live->model]) continue;
    const Admission admission = TryAdmit(*live, now_us);
    if (admission == Admission::kNoMemory) break;
    is_full[live->model] = admission == Admission::kNoSequence;
  }
}

SimulatedWorker::Admission SimulatedWorker::TryAdmit(Live& live, int64_t now_us) {
  Replica& replica = replicas_[live.model];
  if (static_cast<int64_t>(replica.running.size()) >= options_.sequences)
    return Admission::kNoSequence;
  const SimulatedKv::Prefix prefix =
      options_.reuse ? replica.kv.FindPrefix(live.request, live.prompt) : SimulatedKv::Prefix{};
  if (prefix.still_computed) return Admission::kWaitsForPrefix;
  const SimulatedKv::HolderId source = prefix.holder;
  const int64_t kv_token_bytes = CostsOf(live.model).kv_token_bytes;
  const int64_t taken_over = prefix.in_place ? replica.kv.Find(source)->tokens * kv_token_bytes : 0;
  const int64_t bytes = live.kv_bytes - taken_over;
  if (!FreeBytes(bytes, source, live.model)) {
    // Nothing that runs will make room: models that are not in use do.
    const bool is_idle = RunningCount() == 0;
    if (!DropIdleFor(live.kv_bytes, live.model, is_idle)) return Admission::kNoMemory;
    if (!FreeBytes(bytes, source, live.model) && !FreeBytes(live.kv_bytes, -1, live.model))
      return Admission::kNoMemory;
  }
  // Kept KV lies in sequences until these are needed.
  const auto in_use = static_cast<int64_t>(replica.running.size()) + replica.kv.on_device() -
                      (prefix.in_place ? 1 : 0);
  if (in_use >= options_.sequences) {
    const std::optional<int64_t> tokens = replica.kv.SpillOne(prefix.in_place ? source : -1);
    if (tokens) Spill(live.model, *tokens);
  }
  if (source >= 0) TakePrefix(live, prefix);
  if (live.request.consumes != 0) replica.kv.Release(live.request.consumes, 1);
  replica.waiting.erase(RankOf(live.request));
  closes_.erase(RankOf(live.request));
  CountPassed(RankOf(live.request));
  if (live.max_tokens > 0) {
    live.answer = models_[live.model].answer(live.request, live.max_tokens);
  } else {
    live.answer = {.output_tokens = 0, .finish = FinishReason::kMaxTokens};
  }
  live.request.prompt_text = {};
  live.state = Live::State::kPrefilling;
  live.completion.started_us = now_us;
  live.holder = replica.kv.AddRunning(live.request.adapter, live.prompt);
  replica.kv.SetComputed(live.holder, live.computed);
  replica.running.push_back(&live);
  running_bytes_ += live.kv_bytes;
  ++totals_.calls;
  if (options_.observer != nullptr)
    options_.observer->OnStart(options_.index, live.request, steps_ - live.submitted_step);
  return Admission::kStarted;
}

void SimulatedWorker::TakePrefix(Live& live, const SimulatedKv::Prefix& prefix) {
  Replica& replica = replicas_[live.model];
  const SimulatedCosts& costs = CostsOf(live.model);
  const auto tokens = static_cast<double>(prefix.tokens);
  const SimulatedKv::Kept* kept = replica.kv.Find(prefix.holder);
  // Host memory was full when it had to make way.
  if (kept == nullptr && !replica.kv.IsRunning(prefix.holder)) return;
  ++replica.statistics.forks;
  if (kept != nullptr && !kept->on_device) {
    ++replica.statistics.restores;
    moved_us_ += (costs.restore_s + costs.restore_token_s * tokens) * kUsPerS;
  } else if (!prefix.in_place) {
    ++replica.statistics.copies;
    moved_us_ += (costs.copy_s + costs.copy_token_s * tokens) * kUsPerS;
  }
  if (kept != nullptr) {
    if (prefix.in_place && kept->on_device) {
      replica.kv.Drop(prefix.holder);
    } else {
      replica.kv.Touch(prefix.holder);
    }
  }
  live.computed = prefix.tokens;
  live.completion.reused_tokens = prefix.tokens;
}

bool SimulatedWorker::AnyRuns(const Replica& replica, Live::State state, bool urgent) const {
  return std::any_of(replica.running.begin(), replica.running.end(), [&](const Live* live) {
    return live->state == state && live->request.urgent >= urgent;
  });
}

/// Models take turns, pass by pass.
std::optional<size_t> SimulatedWorker::NextReplica() const {
  for (size_t turn = 1; turn <= replicas_.size(); ++turn) {
    const size_t m = (last_model_ + turn) % replicas_.size();
    if (!replicas_[m].running.empty()) return m;
  }
  return std::nullopt;
}

std::vector<SimulatedWorker::Live*> SimulatedWorker::ChoosePrefill(const Replica& replica) const {
  const bool urgent_decodes = AnyRuns(replica, Live::State::kDecoding, true);
  const bool urgent = AnyRuns(replica, Live::State::kPrefilling, true);
  std::vector<Live*> long_ones, together;
  for (Live* live : replica.running) {
    if (live->state != Live::State::kPrefilling || live->request.urgent < urgent) continue;
    const SimulatedCosts& costs = CostsOf(live->model);
    const size_t most_long = urgent_decodes ? 1 : static_cast<size_t>(costs.long_together);
    together.push_back(live);
    const int64_t left = live->completion.prompt_tokens - live->computed;
    if (left >= costs.long_tokens && long_ones.size() < most_long) long_ones.push_back(live);
  }
  return long_ones.empty() ? together : long_ones;
}

double SimulatedWorker::SamplingUs(const Live& live) const {
  const SimulatedCosts& costs = CostsOf(live.model);
  const double token_s =
      (live.request.sampling.temperature > 0.0F ? costs.sampling_token_s : costs.greedy_token_s) +
      (live.request.grammar.empty() ? 0.0 : costs.grammar_token_s);
  return token_s * kUsPerS;
}

void SimulatedWorker::PlanPrefill(Replica& replica, Current& step) {
  const SimulatedCosts& costs = CostsOf(step.model);
  int32_t budget = costs.batch_tokens;
  int64_t tokens = 0, context = 0;
  for (Live* live : ChoosePrefill(replica)) {
    if (budget == 0) break;
    const auto known = static_cast<int32_t>(live->prompt.size());
    int32_t end = std::min(known, live->computed + budget);
    const int32_t fixed = live->request.static_prefix_tokens;
    if (live->computed < fixed && fixed < end) end = fixed;
    const int32_t chunk = end - live->computed;
    budget -= chunk;
    tokens += chunk;
    context += live->computed;
    step.parts.emplace_back(live->request.id, chunk);
    if (end == known) step.token_us += SamplingUs(*live);
  }
  if (step.parts.empty()) return;
  const auto prompts = static_cast<double>(step.parts.size());
  // A hair less, so that prompts that fill a pass are one pass when they are divided again.
  constexpr double kHair = 1.0 - 1e-9;
  step.pass_us = costs.prefill_s(prompts, static_cast<double>(tokens) / prompts * kHair,
                                 static_cast<double>(context) / prompts) *
                 kUsPerS;
}

void SimulatedWorker::PlanDecode(Replica& replica, Current& step) {
  double context = 0.0;
  for (const Live* live : replica.running) {
    if (live->state != Live::State::kDecoding) continue;
    step.parts.emplace_back(live->request.id, 1);
    step.token_us += SamplingUs(*live);
    context += static_cast<double>(live->completion.prompt_tokens + live->sampled);
  }
  const auto sequences = static_cast<double>(step.parts.size());
  step.pass_us = CostsOf(step.model).decode_s(sequences, context / sequences) * kUsPerS;
}

std::optional<int64_t> SimulatedWorker::Begin(int64_t now_us, std::vector<Completion>& ended) {
  HALO_CHECK(!current_, "a worker does one thing at a time");
  FailExpired(now_us, ended);
  if (const std::optional<size_t> load = ModelToLoad()) {
    Current step;
    step.model = *load;
    weights_bytes_ += CostsOf(*load).weights_bytes;
    return StartStep(std::move(step), now_us, CostsOf(*load).load_s);
  }
  Admit(now_us);
  const std::optional<size_t> next = NextReplica();
  if (!next) {
    HALO_CHECK(live_.empty(), "a worker with requests has something to do");
    return std::nullopt;
  }
  Replica& replica = replicas_[*next];
  Current step;
  step.model = last_model_ = *next;
  const bool is_decodes_turn =
      replica.prefilled_last && AnyRuns(replica, Live::State::kDecoding, true);
  step.step = SimulatedStep::kPrefill;
  if (!is_decodes_turn) PlanPrefill(replica, step);
  replica.prefilled_last = !step.parts.empty();
  if (step.parts.empty()) {
    step.step = SimulatedStep::kDecode;
    PlanDecode(replica, step);
  }
  const double seconds = (step.pass_us + step.token_us + std::exchange(moved_us_, 0.0)) / kUsPerS;
  replica.statistics.copy_us += std::llround(seconds * kUsPerS - step.pass_us - step.token_us);
  return StartStep(std::move(step), now_us, seconds);
}

int64_t SimulatedWorker::StartStep(Current step, int64_t now_us, double seconds) {
  step.start_us = now_us;
  const int64_t end_us = now_us + std::max<int64_t>(1, std::llround(seconds * kUsPerS));
  ++steps_;
  replicas_[step.model].used_step = steps_;
  totals_.peak_memory_bytes = std::max(totals_.peak_memory_bytes, UsedBytes());
  if (options_.observer != nullptr) Tell(step, end_us);
  current_ = std::move(step);
  return end_us;
}

void SimulatedWorker::Tell(const Current& step, int64_t end_us) const {
  SimulatedTick tick;
  tick.worker = options_.index;
  tick.model = step.model;
  tick.step = step.step;
  tick.start_us = step.start_us;
  tick.end_us = end_us;
  tick.memory_bytes = options_.memory_bytes;
  tick.weights_bytes = weights_bytes_;
  tick.running_kv_bytes = running_bytes_;
  tick.kept_kv_bytes = KeptBytes();
  for (size_t m = 0; m < replicas_.size(); ++m) {
    tick.host_kv_bytes += replicas_[m].kv.host_tokens() * CostsOf(m).kv_token_bytes;
    tick.running += static_cast<int64_t>(replicas_[m].running.size());
    tick.waiting += static_cast<int64_t>(replicas_[m].waiting.size());
  }
  const Replica& replica = replicas_[step.model];
  tick.sequences = static_cast<int64_t>(replica.running.size()) + replica.kv.on_device();
  tick.in_step = static_cast<int64_t>(step.parts.size());
  for (const auto& [id, tokens] : step.parts) tick.tokens += tokens;
  options_.observer->OnTick(tick);
}

// What steps do

void SimulatedWorker::End(int64_t now_us, std::vector<Completion>& ended) {
  HALO_CHECK(current_.has_value(), "what ends was begun");
  const Current step = *std::exchange(current_, std::nullopt);
  Replica& replica = replicas_[step.model];
  const int64_t took_us = now_us - step.start_us;
  if (step.step == SimulatedStep::kLoad) {
    replica.is_resident = true;
    ++totals_.loads;
    totals_.load_us += took_us;
    return;
  }
  totals_.busy_us += took_us;
  EngineStatistics& statistics = replica.statistics;
  ++statistics.steps;
  statistics.busy_us += took_us;
  statistics.sampling_us += std::llround(step.token_us);
  if (step.step == SimulatedStep::kPrefill) {
    statistics.prefill_us += std::llround(step.pass_us);
    EndPrefill(step, now_us, ended);
  } else {
    statistics.decode_us += std::llround(step.pass_us);
    EndDecode(step, now_us, ended);
  }
}

void SimulatedWorker::EndPrefill(const Current& step, int64_t now_us,
                                 std::vector<Completion>& ended) {
  Replica& replica = replicas_[step.model];
  double all = 0.0;
  for (const auto& [id, tokens] : step.parts) all += tokens;
  replica.statistics.prefill_tokens += std::llround(all);
  for (const auto& [id, tokens] : step.parts) {
    const auto found = live_.find(id);
    if (found == live_.end()) continue;  // cancelled meanwhile
    Live& live = *found->second;
    live.computed += tokens;
    live.completion.prefilled_tokens += tokens;
    live.engine_us += step.pass_us * tokens / all;
    replica.kv.SetComputed(live.holder, live.computed);
    const int32_t fixed = live.request.static_prefix_tokens;
    if (options_.reuse && fixed > 0 && live.computed == fixed) {
      const std::span<const TokenId> prefix(live.prompt.data(), static_cast<size_t>(fixed));
      if (replica.kv.KeepStatic(live.request.adapter, prefix)) Spill(step.model, fixed);
    }
    if (live.computed < static_cast<int32_t>(live.prompt.size())) continue;
    live.state = Live::State::kDecoding;
    Sample(live, now_us, ended);
  }
}

void SimulatedWorker::EndDecode(const Current& step, int64_t now_us,
                                std::vector<Completion>& ended) {
  EngineStatistics& statistics = replicas_[step.model].statistics;
  ++statistics.decode_steps;
  statistics.decode_tokens += static_cast<int64_t>(step.parts.size());
  for (const auto& [id, tokens] : step.parts) {
    const auto found = live_.find(id);
    if (found == live_.end()) continue;
    Live& live = *found->second;
    live.engine_us += step.pass_us / static_cast<double>(step.parts.size());
    Sample(live, now_us, ended);
  }
}

void SimulatedWorker::Sample(Live& live, int64_t now_us, std::vector<Completion>& ended) {
  if (live.max_tokens > 0) live.engine_us += SamplingUs(live);
  if (++live.sampled < live.answer.output_tokens) return;
  if (!live.answer.failure) return Finish(live, now_us, ended);
  Completion completion = std::move(live.completion);
  completion.failure = live.answer.failure;
  completion.output_tokens = live.sampled;
  completion.finished_us = now_us;
  completion.engine_us = std::llround(live.engine_us);
  Leave(live);
  ended.push_back(std::move(completion));
}

void SimulatedWorker::Finish(Live& live, int64_t now_us, std::vector<Completion>& ended) {
  Completion completion = std::move(live.completion);
  completion.finish = live.answer.finish;
  completion.cut = live.answer.finish == FinishReason::kStopString;
  completion.output_tokens = live.answer.output_tokens;
  completion.finished_us = now_us;
  completion.engine_us = std::llround(live.engine_us);
  const Request request = std::move(live.request);
  live.request.id = request.id;  // by which it leaves
  live.request.deadline_us = request.deadline_us;
  Replica& replica = replicas_[live.model];
  std::vector<TokenId> held = std::move(live.prompt);
  if (request.keep.answer) {
    // Without the last token, whose KV nobody has computed.
    const auto& ids = live.answer.tokens;
    if (models_[live.model].has_token_ids) {
      held.insert(held.end(), ids.begin(), ids.empty() ? ids.end() : ids.end() - 1);
    } else {
      std::string text(reinterpret_cast<const char*>(held.data()), live.prompt_bytes);
      held = TokensOfText(text + live.answer.text);
    }
    held.resize(
        std::min(held.size(), static_cast<size_t>(completion.prompt_tokens + live.max_tokens)));
  }
  completion.text = std::move(live.answer.text);
  completion.tokens = std::move(live.answer.tokens);
  Leave(live);
  if (options_.reuse) replica.kv.Keep(request, held, completion.reused_tokens);
  ended.push_back(std::move(completion));
}

}  // namespace halo
