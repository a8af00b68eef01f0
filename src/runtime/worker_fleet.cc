#include "runtime/worker_fleet.h"

#include <poll.h>
#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "base/error.h"
#include "engine/wire.h"

namespace halo {

/// One model as the scheduler sees it.
class WorkerFleet::Front final : public Engine {
 public:
  Front(WorkerFleet& fleet, size_t model) : fleet_(fleet), model_(model) {
    const std::vector<int32_t>& workers = fleet.options_.workers_of_model[model];
    description_ = fleet.At(workers.front(), model).engine->Describe();
    const auto count = static_cast<int32_t>(workers.size());
    description_.sequences *= count;
    description_.kv_tokens *= count;
  }

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override { fleet_.Submit(model_, std::move(request)); }
  void Cancel(RequestId id) override { fleet_.Cancel(id); }
  void CancelWaiting() override { fleet_.CancelWaiting(model_); }
  void Release(RequestId id, int32_t consumers) override { fleet_.Release(id, consumers); }
  std::vector<Completion> Poll(int64_t deadline_us) override {
    return fleet_.Poll(model_, deadline_us);
  }
  int64_t pending() const override { return pending_; }
  EngineStatistics Statistics() const override {
    EngineStatistics total;
    for (const std::vector<Replica>& worker : fleet_.replicas_) {
      if (worker[model_].engine) AddCounters(worker[model_].engine->Statistics(), total);
    }
    return total;
  }
  Residency residency() const override {
    const bool is_anywhere =
        std::any_of(fleet_.replicas_.begin(), fleet_.replicas_.end(), [&](const auto& worker) {
          const Replica& replica = worker[model_];
          return replica.engine && replica.engine->residency() == Residency::kLoaded;
        });
    return is_anywhere ? Residency::kLoaded : Residency::kUnloaded;
  }
  int ready_descriptor() const override {
    return fleet_.works_elsewhere_ ? fleet_.ready_.get() : -1;
  }

  int64_t pending_ = 0;           ///< submitted and not yet given back
  std::vector<Completion> done_;  ///< not yet given back

 private:
  WorkerFleet& fleet_;
  size_t model_;
  EngineDescription description_;
};

WorkerFleet::WorkerFleet(WorkerFleetOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock), ready_(epoll_create1(EPOLL_CLOEXEC)) {
  HALO_CHECK(
      !options_.memory_bytes.empty() && options_.workers_of_model.size() == options_.models.size(),
      "a fleet has workers, and each model a place");
  if (!ready_)
    throw Error(ErrorCode::kConfig,
                std::string("cannot wait for engines: ") + std::strerror(errno));
  for (size_t w = 0; w < options_.memory_bytes.size(); ++w)
    replicas_.emplace_back(options_.models.size());
  moving_.resize(options_.models.size(), 0);
  for (size_t m = 0; m < options_.models.size(); ++m) {
    for (const int32_t w : options_.workers_of_model[m]) {
      const int64_t room = options_.memory_bytes[static_cast<size_t>(w)] - UsedBytes(w);
      Make(w, m, BytesOf(m) <= room);
    }
    fronts_.push_back(std::make_unique<Front>(*this, m));
  }
}

WorkerFleet::~WorkerFleet() = default;

Engine& WorkerFleet::engine(size_t model) { return *fronts_[model]; }

Engine* WorkerFleet::replica(int32_t worker, size_t model) {
  return At(worker, model).engine.get();
}

void WorkerFleet::Make(int32_t worker, size_t model, bool load) {
  const EngineDescription* like = nullptr;
  for (const std::vector<Replica>& other : replicas_) {
    if (other[model].engine) like = &other[model].engine->Describe();
  }
  Replica& replica = At(worker, model);
  replica.engine = options_.make(worker, model, load, like);
  replica.idle_since_us = clock_.NowUs();
  if (load) replica.engine->Load();
  const int descriptor = replica.engine->ready_descriptor();
  if (descriptor < 0) {
    works_elsewhere_ = false;
    return;
  }
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  const int fault = epoll_ctl(ready_.get(), EPOLL_CTL_ADD, descriptor, &event);
  HALO_CHECK(fault == 0, "an engine's descriptor can be waited for");
}

// Where requests go

int64_t WorkerFleet::Pending(int32_t worker, size_t model) const {
  const Replica& replica = At(worker, model);
  return replica.sent + static_cast<int64_t>(replica.held.size());
}

int64_t WorkerFleet::PendingOf(int32_t worker) const {
  int64_t pending = 0;
  for (size_t m = 0; m < options_.models.size(); ++m) pending += Pending(worker, m);
  return pending;
}

int32_t WorkerFleet::ChooseWorker(size_t model, const Request& request) const {
  const int32_t planned = request.worker;
  if (planned >= 0 && planned < workers() && CanRun(planned, model)) return planned;
  int32_t best = -1;
  std::tuple<bool, bool, int64_t> least;
  const std::vector<int32_t>& of_plan = options_.workers_of_model[model];
  for (int32_t w = 0; w < workers(); ++w) {
    if (!CanRun(w, model)) continue;
    const Engine* engine = At(w, model).engine.get();
    const bool is_loaded = engine != nullptr && engine->residency() != Residency::kUnloaded;
    const bool is_planned = std::binary_search(of_plan.begin(), of_plan.end(), w);
    const std::tuple badness(!is_planned, !is_loaded, PendingOf(w));
    if (best < 0 || badness < least) {
      best = w;
      least = badness;
    }
  }
  HALO_CHECK(best >= 0, "a model that nobody can run ends the run");
  return best;
}

void WorkerFleet::ForgetConsumers(RequestId id, int32_t consumers) {
  const auto kept = kept_.find(id);
  if (kept == kept_.end()) return;
  kept->second.consumers -= consumers;
  if (kept->second.consumers <= 0) kept_.erase(kept);
}

void WorkerFleet::Submit(size_t model, Request request) {
  ++fronts_[model]->pending_;
  Sent sent;
  sent.model = model;
  sent.consumers = request.keep.consumers;
  if (workers() > 1) sent.copy = std::make_unique<const Request>(request);
  const bool is_new = sent_.emplace(request.id, std::move(sent)).second;
  HALO_CHECK(is_new, "a request id is used once");
  const int32_t worker = ChooseWorker(model, request);
  Route(model, worker, std::move(request));
}

/// Gives a request to a worker, with the KV that it goes on from if that lies elsewhere.
void WorkerFleet::Route(size_t model, int32_t worker, Request request) {
  const auto kept = kept_.find(request.consumes);
  if (kept == kept_.end()) {
    request.consumes = 0;
    return Place(model, worker, std::move(request));
  }
  const int32_t from = kept->second.worker;
  ForgetConsumers(request.consumes, 1);
  if (from == worker) return Place(model, worker, std::move(request));
  BringKv(model, from, worker, std::move(request));
}

/// By what computing took there so far, and the speed at which memory is written and read at least.
bool WorkerFleet::IsWorthBringing(size_t model, int32_t from, const Request& request) const {
  constexpr double kCopyBytesPerUs = 1000.0, kMessagesUs = 1000.0, kPrefillUsPerToken = 20.0;
  const Engine& engine = *At(from, model).engine;
  if (!engine.Describe().has_kv || !engine.Describe().has_token_ids) return false;
  const EngineStatistics statistics = engine.Statistics();
  const double token_us = statistics.prefill_tokens > 0
                              ? static_cast<double>(statistics.prefill_us) /
                                    static_cast<double>(statistics.prefill_tokens)
                              : kPrefillUsPerToken;
  const auto tokens = static_cast<double>(request.prompt_tokens.size());
  const double bytes = tokens * static_cast<double>(engine.Describe().kv_bytes_per_token);
  return 2.0 * bytes / kCopyBytesPerUs + kMessagesUs < tokens * token_us;
}

/// A request whose KV lies with `from` goes to `to`.
void WorkerFleet::BringKv(size_t model, int32_t from, int32_t to, Request request) {
  Replica& replica = At(from, model);
  const RequestId source = request.consumes;
  if (!IsWorthBringing(model, from, request)) {
    replica.engine->Release(source, 1);
    request.consumes = 0;
    return Place(model, to, std::move(request));
  }
  ++replica.exporting;
  Sent& sent = sent_.at(request.id);
  sent.is_arriving = true;
  sent.is_held = true;
  sent.moves_to = -1;
  sent.worker = to;
  arriving_.emplace(source, Arriving{model, from, to, std::move(request)});
  replica.engine->Export(source);
}

void WorkerFleet::OnKv(int32_t worker, size_t model, KvTransfer kv) {
  const auto [first, last] = arriving_.equal_range(kv.id);
  const auto found = std::find_if(first, last, [&](const auto& entry) {
    return entry.second.from == worker && entry.second.model == model;
  });
  if (found == last) return;  // it was cancelled meanwhile
  const int32_t to = found->second.to;
  Request request = std::move(found->second.request);
  arriving_.erase(found);
  if (kv.bytes == 0 || !HandOver(model, to, std::move(kv))) request.consumes = 0;
  Place(model, to, std::move(request));
}

/// False if the worker cannot take it: what is asked for there computes it.
bool WorkerFleet::HandOver(size_t model, int32_t to, KvTransfer kv) {
  try {
    if (!At(to, model).engine) Make(to, model, false);
    At(to, model).engine->Import(std::move(kv));
    return true;
  } catch (const Error&) {
    return false;
  }
}

/// Gives a request to a worker: to its replica if that may begin, else it is held.
void WorkerFleet::Place(size_t model, int32_t worker, Request request) {
  Sent& sent = sent_.at(request.id);
  sent.worker = worker;
  sent.is_held = true;
  sent.is_arriving = false;
  sent.is_called_back = false;
  sent.moves_to = -1;
  Replica& replica = At(worker, model);
  const Rank rank = RankOf(request);
  replica.held.emplace(rank, std::move(request));
  const bool may_begin = replica.engine && !replica.is_ahead && !replica.is_leaving &&
                         replica.engine->residency() == Residency::kLoaded;
  if (may_begin) SendHeld(worker, model);
}

void WorkerFleet::SendHeld(int32_t worker, size_t model) {
  Replica& replica = At(worker, model);
  for (auto& [rank, request] : std::exchange(replica.held, {})) {
    sent_.at(request.id).is_held = false;
    ++replica.sent;
    replica.engine->Submit(std::move(request));
  }
}

/// Ends a request that no engine has.
void WorkerFleet::EndHeld(RequestId id) {
  const auto found = sent_.find(id);
  const Sent& sent = found->second;
  Replica& replica = At(sent.worker, sent.model);
  const auto held = std::find_if(replica.held.begin(), replica.held.end(),
                                 [&](const auto& entry) { return entry.second.id == id; });
  if (held != replica.held.end()) {
    const RequestId source = held->second.consumes;
    if (source != 0 && replica.engine) replica.engine->Release(source, 1);
    replica.held.erase(held);
  }
  std::erase_if(arriving_, [&](const auto& entry) { return entry.second.request.id == id; });
  fronts_[sent.model]->done_.push_back(NotBegun(id));
  sent_.erase(found);
}

Completion WorkerFleet::NotBegun(RequestId id) const {
  Completion completion;
  completion.id = id;
  completion.failure = Failure{"", "cancelled", "the call was cancelled", false};
  completion.finished_us = clock_.NowUs();
  return completion;
}

void WorkerFleet::Cancel(RequestId id) {
  const auto found = sent_.find(id);
  if (found == sent_.end()) return;
  Sent& sent = found->second;
  if (sent.is_held) return EndHeld(id);
  sent.is_cancelled = true;
  if (std::exchange(sent.moves_to, -1) >= 0) {
    --moving_[sent.model];
  } else {
    At(sent.worker, sent.model).engine->Cancel(id);
  }
}

void WorkerFleet::CancelWaiting(size_t model) {
  std::vector<RequestId> held;
  for (auto& [id, sent] : sent_) {
    if (sent.model != model) continue;
    if (sent.is_held) held.push_back(id);
    sent.is_cancelled = true;
    sent.moves_to = -1;
  }
  moving_[model] = 0;
  std::sort(held.begin(), held.end());
  for (const RequestId id : held) EndHeld(id);
  for (std::vector<Replica>& worker : replicas_) {
    if (worker[model].engine) worker[model].engine->CancelWaiting();
  }
}

void WorkerFleet::Release(RequestId id, int32_t consumers) {
  if (const auto found = sent_.find(id); found != sent_.end()) {
    Sent& sent = found->second;
    sent.consumers = std::max(0, sent.consumers - consumers);
    Replica& replica = At(sent.worker, sent.model);
    if (!sent.is_held) return replica.engine->Release(id, consumers);
    for (auto& [rank, request] : replica.held) {
      if (request.id == id) request.keep.consumers = sent.consumers;
    }
    for (auto& [source, arriving] : arriving_) {
      if (arriving.request.id == id) arriving.request.keep.consumers = sent.consumers;
    }
    return;
  }
  const auto kept = kept_.find(id);
  if (kept == kept_.end()) return;
  At(kept->second.worker, kept->second.model).engine->Release(id, consumers);
  ForgetConsumers(id, consumers);
}

// Residency

int64_t WorkerFleet::UsedBytes(int32_t worker) const {
  int64_t used = 0;
  for (size_t m = 0; m < options_.models.size(); ++m) {
    const Replica& replica = At(worker, m);
    if (!replica.engine || replica.is_lost) continue;
    if (replica.engine->residency() == Residency::kUnloaded) continue;
    used += replica.is_ahead ? options_.models[m].weights_bytes : BytesOf(m);
  }
  return used;
}

void WorkerFleet::ManageResidency(int32_t worker) {
  std::vector<std::pair<Rank, size_t>> wanted;
  for (size_t m = 0; m < options_.models.size(); ++m) {
    Replica& replica = At(worker, m);
    if (replica.is_leaving && replica.engine->residency() == Residency::kUnloaded)
      replica.is_leaving = false;
    // What came while its model was on its way; otherwise a model that is there would wait for one
    // that cannot come before it has gone.
    const bool is_there = replica.engine && !replica.is_ahead && !replica.is_leaving &&
                          replica.engine->residency() != Residency::kUnloaded;
    if (is_there) SendHeld(worker, m);
    if (!replica.held.empty()) wanted.emplace_back(replica.held.begin()->first, m);
  }
  std::sort(wanted.begin(), wanted.end());
  for (const auto& [rank, model] : wanted) {
    // What comes later in order takes no room from what comes first.
    if (!TryLoad(worker, model)) return LoadAhead(worker, model);
    SendHeld(worker, model);
  }
}

void WorkerFleet::LoadNow(int32_t worker, size_t model) {
  Replica& replica = At(worker, model);
  if (!replica.engine) Make(worker, model, false);
  replica.engine->Load();
}

/// True if the model is loaded, or on its way, with room for its KV.
bool WorkerFleet::TryLoad(int32_t worker, size_t model) {
  Replica& replica = At(worker, model);
  if (replica.is_leaving) return false;
  const int64_t memory = options_.memory_bytes[static_cast<size_t>(worker)];
  while (true) {
    const bool is_there = replica.engine && replica.engine->residency() != Residency::kUnloaded;
    if (is_there && !replica.is_ahead) return true;
    const int64_t has = is_there ? options_.models[model].weights_bytes : 0;
    if (UsedBytes(worker) - has + BytesOf(model) <= memory) {
      if (!is_there) LoadNow(worker, model);
      replica.is_ahead = false;
      return true;
    }
    if (!UnloadOneFor(worker, model)) return false;
  }
}

bool WorkerFleet::MayLeave(const Replica& replica) const {
  const bool is_idle = replica.engine && !replica.is_lost && replica.sent == 0 &&
                       replica.held.empty() && replica.engine->residency() == Residency::kLoaded;
  if (!is_idle || options_.more_may_come == nullptr || !options_.more_may_come()) return is_idle;
  const EngineStatistics statistics = replica.engine->Statistics();
  const int64_t load_us = statistics.load_us / std::max<int64_t>(1, statistics.loads);
  return clock_.NowUs() - replica.idle_since_us >= load_us;
}

/// Unloads one idle model. True if its memory is free now; else it will be, or there is none.
bool WorkerFleet::UnloadOneFor(int32_t worker, size_t model) {
  Replica* oldest = nullptr;
  for (size_t m = 0; m < options_.models.size(); ++m) {
    Replica& replica = At(worker, m);
    if (replica.is_leaving) return false;
    if (m == model || !MayLeave(replica)) continue;
    if (oldest == nullptr || replica.idle_since_us < oldest->idle_since_us) oldest = &replica;
  }
  if (oldest == nullptr) return false;
  oldest->engine->Unload();
  oldest->is_ahead = false;
  ++statistics_.model_switches;
  oldest->is_leaving = oldest->engine->residency() != Residency::kUnloaded;
  return !oldest->is_leaving;
}

/// The weights of the next model come while the last sequences of those before it drain.
void WorkerFleet::LoadAhead(int32_t worker, size_t model) {
  const Replica& next = At(worker, model);
  if (next.is_ahead || next.is_leaving) return;
  for (size_t m = 0; m < options_.models.size(); ++m) {
    const Replica& replica = At(worker, m);
    if (m == model || !replica.engine || replica.is_lost) continue;
    if (replica.engine->residency() == Residency::kChanging) return;
    if (replica.sent > replica.engine->Describe().sequences || !replica.held.empty()) return;
  }
  const int64_t used = UsedBytes(worker) + options_.models[model].weights_bytes;
  if (used > options_.memory_bytes[static_cast<size_t>(worker)]) return;
  At(worker, model).is_ahead = true;
  LoadNow(worker, model);
}

// Uneven work

/// That one replica runs at once.
int64_t WorkerFleet::SequencesOf(size_t model) const {
  return fronts_[model]->Describe().sequences /
         static_cast<int64_t>(options_.workers_of_model[model].size());
}

/// Requests that have not begun.
int64_t WorkerFleet::Waiting(int32_t worker, size_t model) const {
  const Replica& replica = At(worker, model);
  return static_cast<int64_t>(replica.held.size()) +
         std::max<int64_t>(0, replica.sent - SequencesOf(model));
}

/// The worker that has least to do and would soon have nothing; -1: none.
int32_t WorkerFleet::WhoTakesOver(size_t model, int32_t busiest) const {
  const int64_t sequences = SequencesOf(model);
  int32_t best = -1;
  for (int32_t w = 0; w < workers(); ++w) {
    if (w == busiest || !CanRun(w, model)) continue;
    const Engine* engine = At(w, model).engine.get();
    const bool is_loaded = engine != nullptr && engine->residency() == Residency::kLoaded &&
                           !At(w, model).is_leaving && !At(w, model).is_ahead;
    const int64_t pending = PendingOf(w);
    const bool may =
        is_loaded ? 2 * pending < sequences : pending == 0 && Waiting(busiest, model) >= sequences;
    if (may && (best < 0 || pending < PendingOf(best))) best = w;
  }
  return best;
}

void WorkerFleet::Balance(size_t model) {
  if (moving_[model] > 0) return;
  int32_t busiest = 0;
  for (int32_t w = 1; w < workers(); ++w) {
    if (Waiting(w, model) > Waiting(busiest, model)) busiest = w;
  }
  if (Waiting(busiest, model) == 0) return;
  const int32_t to = WhoTakesOver(model, busiest);
  if (to < 0) return;
  const int64_t half = (Pending(busiest, model) - PendingOf(to)) / 2;
  if (half > 0) Move(model, busiest, to, std::min(half, Waiting(busiest, model)));
}

/// Moves the last in order, which have the longest to wait.
void WorkerFleet::Move(size_t model, int32_t from, int32_t to, int64_t most) {
  Replica& replica = At(from, model);
  const bool is_long = Waiting(from, model) >= SequencesOf(model);
  std::vector<Rank> ranks;
  for (const auto& [id, sent] : sent_) {
    if (sent.model != model || sent.worker != from || sent.is_cancelled || sent.is_arriving)
      continue;
    if (sent.copy->consumes == 0 || is_long) ranks.push_back(RankOf(*sent.copy));
  }
  const auto count = std::min(ranks.size(), static_cast<size_t>(most));
  std::partial_sort(ranks.begin(), ranks.begin() + static_cast<std::ptrdiff_t>(count), ranks.end(),
                    std::greater<>());
  for (size_t i = 0; i < count; ++i) {
    const RequestId id = std::get<2>(ranks[i]);
    Sent& sent = sent_.at(id);
    if (sent.is_held) {
      replica.held.erase(ranks[i]);
      MoveTo(to, model, id);
    } else {
      sent.moves_to = to;
      sent.is_called_back = true;
      ++moving_[model];
      replica.engine->Cancel(id);
    }
  }
}

/// A request that no engine has any more goes to a worker.
void WorkerFleet::MoveTo(int32_t to, size_t model, RequestId id) {
  ++statistics_.moved_calls;
  const Sent& sent = sent_.at(id);
  Request request = *sent.copy;
  request.keep.consumers = sent.consumers;
  const bool has_kv = request.consumes != 0 && At(sent.worker, model).engine;
  if (has_kv) return BringKv(model, sent.worker, to, std::move(request));
  request.consumes = 0;
  Place(model, to, std::move(request));
}

// Answers

void WorkerFleet::Deliver(int32_t worker, size_t model, std::vector<Completion> ended) {
  Replica& replica = At(worker, model);
  for (Completion& completion : ended) {
    const auto found = sent_.find(completion.id);
    HALO_CHECK(found != sent_.end(), "a request ends once");
    Sent& sent = found->second;
    --replica.sent;
    const bool is_back =
        sent.is_called_back && completion.failure && completion.failure->code == "cancelled";
    if (sent.moves_to >= 0) {
      --moving_[model];
      if (is_back) {
        const int32_t to =
            CanRun(sent.moves_to, model) ? sent.moves_to : ChooseWorker(model, *sent.copy);
        MoveTo(to, model, completion.id);
        continue;
      }
    }
    // It was to move when the scheduler took back what had not begun. Its engine may have begun
    // with it before it heard of the move: that is no failure of its row.
    if (is_back) completion = NotBegun(completion.id);
    if (sent.consumers > 0 && !completion.failure)
      kept_[completion.id] = {model, worker, sent.consumers};
    sent_.erase(found);
    completion.worker = worker;
    fronts_[model]->done_.push_back(std::move(completion));
  }
  if (replica.sent == 0) replica.idle_since_us = clock_.NowUs();
}

/// Takes all requests from a worker, those whose KV was to come from it too.
std::vector<RequestId> WorkerFleet::TakeAllOf(int32_t worker, size_t model) {
  std::vector<RequestId> ids;
  for (const auto& [source, arriving] : arriving_) {
    if (arriving.model == model && arriving.from == worker) ids.push_back(arriving.request.id);
  }
  for (auto& [id, sent] : sent_) {
    if (sent.model != model || sent.worker != worker) continue;
    ids.push_back(id);
    if (std::exchange(sent.moves_to, -1) >= 0) --moving_[model];
  }
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
  std::erase_if(arriving_, [&](const auto& entry) {
    return std::binary_search(ids.begin(), ids.end(), entry.second.request.id);
  });
  At(worker, model).held.clear();
  At(worker, model).sent = 0;
  At(worker, model).exporting = 0;
  return ids;
}

/// A replica is given up: the model's other workers take what it had.
void WorkerFleet::OnLoss(int32_t worker, size_t model, const std::string& why) {
  At(worker, model).is_lost = true;
  epoll_ctl(ready_.get(), EPOLL_CTL_DEL, At(worker, model).engine->ready_descriptor(), nullptr);
  std::erase_if(kept_, [&](const auto& entry) {
    return entry.second.worker == worker && entry.second.model == model;
  });
  if (options_.on_loss)
    options_.on_loss("worker " + std::to_string(worker) + " is lost to " +
                     options_.models[model].name + ", others take its calls: " + why);
  for (const RequestId id : TakeAllOf(worker, model)) {
    const Sent& sent = sent_.at(id);
    ++statistics_.moved_calls;
    Request request = *sent.copy;
    request.keep.consumers = sent.consumers;
    request.consumes = 0;
    const int32_t to = ChooseWorker(model, request);
    Place(model, to, std::move(request));
  }
}

void WorkerFleet::CollectFrom(int32_t worker, size_t model) {
  Replica& replica = At(worker, model);
  try {
    Deliver(worker, model, replica.engine->Poll(0));
    for (KvTransfer& kv : replica.engine->TakeExports()) {
      --replica.exporting;
      OnKv(worker, model, std::move(kv));
    }
  } catch (const Error& error) {
    replica.is_lost = true;
    bool others = false;
    for (int32_t w = 0; w < workers(); ++w) others = others || CanRun(w, model);
    if (!others) throw;
    OnLoss(worker, model, error.what());
  }
}

void WorkerFleet::Collect() {
  const size_t models = options_.models.size();
  const size_t all = replicas_.size() * models;
  // One of which nothing is wanted may have news, too: that its process has ended.
  pollfd ready{ready_.get(), POLLIN, 0};
  const bool any_ready = works_elsewhere_ && poll(&ready, 1, 0) > 0;
  for (size_t turn = 0; turn < all; ++turn) {
    const size_t at = next_turn_;
    next_turn_ = (next_turn_ + 1) % all;
    const auto worker = static_cast<int32_t>(at / models);
    const size_t model = at % models;
    Replica& replica = At(worker, model);
    if (!replica.engine || replica.is_lost) continue;
    const bool has_news = any_ready || replica.sent > 0 || replica.exporting > 0 ||
                          replica.engine->residency() == Residency::kChanging;
    if (has_news) CollectFrom(worker, model);
    // What follows from an answer is submitted before the next one's turn.
    if (!works_elsewhere_ && AnyDone()) return;
  }
}

bool WorkerFleet::AnyDone() const {
  return std::any_of(fronts_.begin(), fronts_.end(),
                     [](const auto& front) { return !front->done_.empty(); });
}

/// What follows from the last answers has been submitted: who is idle now is.
void WorkerFleet::Manage() {
  for (int32_t w = 0; w < workers(); ++w) ManageResidency(w);
  if (workers() == 1) return;
  for (size_t m = 0; m < options_.models.size(); ++m) Balance(m);
}

void WorkerFleet::Wait(int64_t until_us) const {
  constexpr int64_t kUsPerMs = 1000, kMostUs = 100'000;  // how often idle models are looked at
  const int64_t left_us = std::clamp<int64_t>(until_us - clock_.NowUs(), 0, kMostUs);
  pollfd waited{ready_.get(), POLLIN, 0};
  poll(&waited, 1, static_cast<int>((left_us + kUsPerMs - 1) / kUsPerMs));
}

std::vector<Completion> WorkerFleet::Poll(size_t model, int64_t deadline_us) {
  Front& front = *fronts_[model];
  while (!AnyDone()) {
    Manage();
    Collect();
    if (AnyDone() || front.pending_ == 0 || clock_.NowUs() >= deadline_us) break;
    if (works_elsewhere_) Wait(deadline_us);
  }
  front.pending_ -= static_cast<int64_t>(front.done_.size());
  return std::exchange(front.done_, {});
}

}  // namespace halo
