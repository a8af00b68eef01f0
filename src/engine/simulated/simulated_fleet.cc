#include "engine/simulated/simulated_fleet.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/wire.h"

namespace halo {

/// One model as the scheduler sees it.
class SimulatedFleet::Front final : public Engine {
 public:
  Front(SimulatedFleet& fleet, size_t model) : fleet_(fleet), model_(model) {
    const SimulatedFleetOptions& options = fleet.options_;
    const SimulatedModel& what = options.models[model];
    const auto all = static_cast<int32_t>(options.memory_bytes.size());
    const int32_t workers =
        options.workers_of_model.empty() ? all : options.workers_of_model[model];
    description_.name = "simulated";
    description_.model = what.name;
    description_.vocabulary = what.vocabulary;
    description_.has_token_ids = what.has_token_ids;
    description_.has_kv = true;
    description_.sequences = options.sequences * std::clamp(workers, 1, all);
    description_.kv_bytes_per_token = what.costs.kv_token_bytes;
    description_.context_tokens = fleet.workers_.front()->ContextTokens(model);
    for (const auto& worker : fleet.workers_) {
      description_.context_tokens =
          std::min(description_.context_tokens, worker->ContextTokens(model));
      description_.kv_tokens += worker->ContextTokens(model);
    }
  }

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override { fleet_.Submit(model_, std::move(request)); }
  void Cancel(RequestId id) override { fleet_.Cancel(id); }
  void CancelWaiting() override { fleet_.CancelWaiting(model_); }
  void Release(RequestId id, int32_t consumers) override { fleet_.Release(model_, id, consumers); }
  std::vector<Completion> Poll(int64_t deadline_us) override {
    return fleet_.Poll(model_, deadline_us);
  }
  int64_t pending() const override { return pending_; }
  EngineStatistics Statistics() const override { return fleet_.Statistics(model_); }

  int64_t pending_ = 0;           ///< submitted and not yet given back
  std::vector<Completion> done_;  ///< not yet given back

 private:
  SimulatedFleet& fleet_;
  size_t model_;
  EngineDescription description_;
};

SimulatedFleet::SimulatedFleet(SimulatedFleetOptions options, VirtualClock& clock)
    : options_(std::move(options)), clock_(clock) {
  HALO_CHECK(!options_.memory_bytes.empty() && !options_.models.empty(),
             "a fleet has workers and models");
  for (size_t w = 0; w < options_.memory_bytes.size(); ++w) {
    SimulatedWorkerOptions worker;
    worker.index = static_cast<int32_t>(w);
    worker.memory_bytes = options_.memory_bytes[w];
    worker.host_bytes = options_.host_bytes;
    worker.sequences = options_.sequences;
    worker.context_tokens = options_.context_tokens;
    worker.reuse = options_.reuse;
    worker.observer = options_.observer;
    workers_.push_back(std::make_unique<SimulatedWorker>(options_.models, worker));
  }
  has_event_.resize(workers_.size(), false);
  for (size_t m = 0; m < options_.models.size(); ++m)
    fronts_.push_back(std::make_unique<Front>(*this, m));
}

SimulatedFleet::~SimulatedFleet() {
  events_.clear();
  Announce();
}

Engine& SimulatedFleet::engine(size_t model) { return *fronts_[model]; }

/// Says on the timeline when something happens here next. Without requests nothing does: what is
/// left of a step whose requests were cancelled holds up nobody, who would not be polled for it.
void SimulatedFleet::Announce() {
  if (options_.timeline == nullptr) return;
  const int64_t next_us = events_.empty() || model_of_.empty() ? -1 : events_.begin()->first;
  if (next_us == announced_us_) return;
  std::multiset<int64_t>& due_us = options_.timeline->due_us;
  if (announced_us_ >= 0) due_us.erase(due_us.find(announced_us_));
  if (next_us >= 0) due_us.insert(next_us);
  announced_us_ = next_us;
}

void SimulatedFleet::Wake(int32_t worker) {
  if (!has_event_[static_cast<size_t>(worker)]) events_.emplace(clock_.NowUs(), worker);
  has_event_[static_cast<size_t>(worker)] = true;
  Announce();
}

int32_t SimulatedFleet::ChooseWorker(size_t model, const Request& request) const {
  if (options_.worker_of) {
    const int32_t planned = options_.worker_of(request);
    if (planned >= 0 && planned < workers()) return planned;
  }
  int32_t best = 0;
  const auto badness = [&](int32_t w) {
    const SimulatedWorker& worker = *workers_[static_cast<size_t>(w)];
    return std::pair(!worker.IsResident(model), worker.pending());
  };
  for (int32_t w = 1; w < workers(); ++w) {
    if (badness(w) < badness(best)) best = w;
  }
  // Loading the model elsewhere is worth it once there is a full batch in line.
  if (badness(best).second >= options_.sequences) {
    for (int32_t w = 0; w < workers(); ++w) {
      if (badness(w).second == 0) return w;
    }
  }
  return best;
}

void SimulatedFleet::Submit(size_t model, Request request) {
  const RequestId id = request.id;
  HALO_CHECK(!placed_.contains(id), "a request id is used once");
  const int32_t chosen = ChooseWorker(model, request);
  if (const auto source = placed_.find(request.consumes); source != placed_.end()) {
    const int32_t there = source->second.worker;
    // What lies elsewhere is not taken from there.
    if (there != chosen) workers_[static_cast<size_t>(there)]->Release(model, request.consumes, 1);
    ForgetConsumers(request.consumes, 1);
    if (there != chosen) request.consumes = 0;
  }
  placed_.emplace(id, Placed{chosen, request.keep.consumers, false});
  model_of_.emplace(id, model);
  ++fronts_[model]->pending_;
  SimulatedWorker& worker = *workers_[static_cast<size_t>(chosen)];
  if (std::optional<Completion> refused =
          worker.Submit(model, std::move(request), clock_.NowUs())) {
    std::vector<Completion> ended;
    ended.push_back(std::move(*refused));
    return Deliver(std::move(ended));
  }
  Wake(chosen);
}

void SimulatedFleet::ForgetConsumers(RequestId id, int32_t consumers) {
  const auto found = placed_.find(id);
  if (found == placed_.end()) return;
  found->second.consumers -= consumers;
  if (found->second.is_done && found->second.consumers <= 0) placed_.erase(found);
}

void SimulatedFleet::Deliver(std::vector<Completion> ended) {
  for (Completion& completion : ended) {
    const auto model = model_of_.find(completion.id);
    HALO_CHECK(model != model_of_.end(), "a request ends once");
    const auto placed = placed_.find(completion.id);
    placed->second.is_done = true;
    if (placed->second.consumers <= 0 || completion.failure) placed_.erase(placed);
    fronts_[model->second]->done_.push_back(std::move(completion));
    model_of_.erase(model);
  }
  Announce();
}

void SimulatedFleet::Cancel(RequestId id) {
  if (!model_of_.contains(id)) return;
  const int32_t worker = placed_.at(id).worker;
  std::vector<Completion> ended;
  if (std::optional<Completion> completion =
          workers_[static_cast<size_t>(worker)]->Cancel(id, clock_.NowUs())) {
    ended.push_back(std::move(*completion));
  }
  Deliver(std::move(ended));
}

void SimulatedFleet::CancelWaiting(size_t model) {
  std::vector<Completion> ended;
  for (const auto& worker : workers_) worker->CancelWaiting(model, clock_.NowUs(), ended);
  Deliver(std::move(ended));
}

void SimulatedFleet::Release(size_t model, RequestId id, int32_t consumers) {
  const auto found = placed_.find(id);
  if (found == placed_.end()) return;
  workers_[static_cast<size_t>(found->second.worker)]->Release(model, id, consumers);
  ForgetConsumers(id, consumers);
}

/// The worker's event: a step ends, or it has been idle and something came.
void SimulatedFleet::Run(int64_t time_us, int32_t index) {
  SimulatedWorker& worker = *workers_[static_cast<size_t>(index)];
  std::vector<Completion> ended;
  const int64_t now_us = clock_.NowUs();
  if (worker.is_busy()) worker.End(time_us, ended);
  std::optional<int64_t> next_us = now_us;  // to begin, once the scheduler has heard
  if (ended.empty()) next_us = worker.Begin(now_us, ended);
  has_event_[static_cast<size_t>(index)] = next_us.has_value();
  if (next_us) events_.emplace(*next_us, index);
  const bool has_ended_some = !ended.empty();
  Deliver(std::move(ended));
  if (!options_.moves_calls) return;
  if (has_ended_some) TakeOver(index);
  for (int32_t w = 0; w < workers(); ++w) {
    if (workers_[static_cast<size_t>(w)]->pending() == 0) TakeOver(w);
  }
}

/// As WorkerFleet::Balance, seen from the worker that has little to do.
void SimulatedFleet::TakeOver(int32_t to) {
  const SimulatedWorker& taker = *workers_[static_cast<size_t>(to)];
  const int64_t sequences = options_.sequences;
  if (2 * taker.pending() >= sequences) return;
  for (size_t model = 0; model < fronts_.size(); ++model) {
    if (fronts_[model]->pending_ == 0) continue;
    int32_t busiest = -1;
    int64_t most = 0;
    for (int32_t w = 0; w < workers(); ++w) {
      const int64_t waiting = workers_[static_cast<size_t>(w)]->waiting(model);
      if (w == to || waiting <= most) continue;
      busiest = w;
      most = waiting;
    }
    const bool may = taker.IsResident(model) ? 2 * taker.pending() < sequences
                                             : taker.pending() == 0 && most >= sequences;
    if (busiest >= 0 && may) Move(model, busiest, to);
  }
}

void SimulatedFleet::Move(size_t model, int32_t from, int32_t to) {
  SimulatedWorker& giver = *workers_[static_cast<size_t>(from)];
  SimulatedWorker& taker = *workers_[static_cast<size_t>(to)];
  const int64_t half = (giver.pending(model) - taker.pending()) / 2;
  const bool is_long = giver.waiting(model) >= options_.sequences;
  std::vector<Completion> ended;
  for (Request& request : giver.TakeWaiting(model, std::max<int64_t>(0, half), is_long)) {
    if (request.consumes != 0) giver.Release(model, std::exchange(request.consumes, 0), 1);
    placed_.at(request.id).worker = to;
    if (auto refused = taker.Submit(model, std::move(request), clock_.NowUs()))
      ended.push_back(std::move(*refused));
  }
  Deliver(std::move(ended));
  if (taker.pending() > 0) Wake(to);
}

std::vector<Completion> SimulatedFleet::Poll(size_t model, int64_t deadline_us) {
  std::vector<Completion>& done = fronts_[model]->done_;
  const auto any_done = [&] {
    return std::any_of(fronts_.begin(), fronts_.end(),
                       [](const auto& front) { return !front->done_.empty(); });
  };
  while (!events_.empty() && !any_done()) {
    const auto [time_us, worker] = *events_.begin();
    const bool others_first =
        options_.timeline != nullptr && *options_.timeline->due_us.begin() < time_us;
    if (others_first) break;
    if (deadline_us > 0 && time_us > deadline_us) {
      clock_.SleepUntil(deadline_us);
      break;
    }
    clock_.SleepUntil(time_us);
    events_.erase(events_.begin());
    Run(time_us, worker);
    Announce();
  }
  fronts_[model]->pending_ -= static_cast<int64_t>(done.size());
  return std::exchange(done, {});
}

EngineStatistics SimulatedFleet::Statistics(size_t model) const {
  EngineStatistics sum;
  for (const auto& worker : workers_) AddCounters(worker->Statistics(model), sum);
  return sum;
}

}  // namespace halo
