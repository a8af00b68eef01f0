#include "engine/supervised_engine.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace halo {
namespace {

constexpr int64_t kUsPerS = 1'000'000, kNsPerUs = 1'000;
constexpr int64_t kEndPatienceUs = 2'000'000;  // for an end that was seen coming
constexpr int32_t kCaughtBeforeAlone = 2;

Failure Cancelled() { return {"", "cancelled", "the call was cancelled", false}; }

[[noreturn]] void CannotWatch() {
  throw Error(ErrorCode::kConfig,
              std::string("cannot watch over an engine's process: ") + std::strerror(errno));
}

}  // namespace

SupervisedEngine::SupervisedEngine(SupervisedEngineOptions options, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      ready_(epoll_create1(EPOLL_CLOEXEC)),
      timer_(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) {
  if (!ready_ || !timer_) CannotWatch();
  Listen(timer_.get());
  wants_loaded_ = !options_.setup || options_.setup->setup.load;
  description_ = options_.description;
  while (description_.name.empty()) {
    Start();
    constexpr int64_t kSliceUs = 60 * kUsPerS;  // as long as it takes: it is alive
    while (remote_->is_connected() && !remote_->AwaitDescription(clock_.NowUs() + kSliceUs)) {
    }
    if (remote_->is_described()) {
      TakeDescription();
      continue;
    }
    // It has said itself what is wrong, and would say so again.
    if (const std::optional<EngineFault> fault = remote_->fault()) {
      LoseProcess();
      throw Error(fault->code, fault->message);
    }
    OnLoss();
  }
}

SupervisedEngine::~SupervisedEngine() {
  if (!process_) return;
  // A process with nothing to do sees the connection's end at once; another one is in a pass whose
  // results nobody wants.
  const bool is_idle = is_serving() && remote_->pending() == 0;
  remote_.reset();
  process_->End(is_idle ? kEndPatienceUs : 0);
}

void SupervisedEngine::Listen(int descriptor) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = descriptor;
  if (epoll_ctl(ready_.get(), EPOLL_CTL_ADD, descriptor, &event) != 0) CannotWatch();
}

/// Makes the descriptor ready at a time (0: never).
void SupervisedEngine::WakeAt(int64_t time_us) {
  if (std::exchange(wake_at_us_, time_us) == time_us) return;
  itimerspec when{};
  if (time_us > 0) {
    when.it_value.tv_sec = time_us / kUsPerS;
    when.it_value.tv_nsec = time_us % kUsPerS * kNsPerUs;
  }
  const int fault = timerfd_settime(timer_.get(), TFD_TIMER_ABSTIME, &when, nullptr);
  HALO_CHECK(fault == 0, "a timer can be set to a time");
}

void SupervisedEngine::Start() {
  int sockets[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) CannotWatch();
  Descriptor ours(sockets[0]), childs(sockets[1]);
  record_ = std::make_unique<CrashRecord>();
  std::vector<int> inherited = {childs.get(), record_->memory().get()};
  if (options_.turns >= 0) inherited.push_back(options_.turns);
  process_ = std::make_unique<EngineProcess>(options_.launch(inherited));
  Listen(ours.get());
  if (options_.setup) options_.setup->setup.load = wants_loaded_;
  remote_ = std::make_unique<RemoteEngine>(std::move(ours), options_.setup);
  has_answered_ = false;
}

/// False if there is no process: it is tried again in its time. Throws Error if it was the last
/// try.
bool SupervisedEngine::TryToStart() {
  try {
    Start();
    return true;
  } catch (const Error& error) {
    process_.reset();
    record_.reset();
    CountLoss(false, error.what());
    return false;
  }
}

void SupervisedEngine::TakeDescription() {
  failed_starts_ = 0;
  if (const int64_t lost_at_us = std::exchange(lost_at_us_, 0); lost_at_us > 0)
    spans_.Add({EngineSpan::Kind::kRestart, lost_at_us, clock_.NowUs()});
  const EngineDescription& now = remote_->Describe();
  if (description_.name.empty()) {
    description_ = now;
  } else if (now != description_) {
    throw Error(ErrorCode::kIo, "the engine of " + options_.model_name +
                                    " is another one after its process was started again: has the "
                                    "model's file changed?");
  }
  // It was told otherwise while it started.
  const bool is_loaded = remote_->residency() == Residency::kLoaded;
  if (wants_loaded_ && !is_loaded) remote_->Load();
  if (!wants_loaded_ && is_loaded) remote_->Unload();
}

void SupervisedEngine::Export(RequestId id) {
  if (is_serving()) {
    exporting_.insert(id);
    remote_->Export(id);
  } else {
    exports_.push_back({id});
    WakeAt(1);
  }
}

std::vector<KvTransfer> SupervisedEngine::TakeExports() { return std::exchange(exports_, {}); }

/// A process that is not there takes nothing: the request computes what it would have found.
void SupervisedEngine::Import(KvTransfer kv) {
  if (is_serving()) remote_->Import(std::move(kv));
}

void SupervisedEngine::TakeKv() {
  for (KvTransfer& kv : remote_->TakeExports()) {
    const auto asked = exporting_.find(kv.id);
    if (asked == exporting_.end()) continue;
    exporting_.erase(asked);
    exports_.push_back(std::move(kv));
  }
}

void SupervisedEngine::Load() {
  if (std::exchange(wants_loaded_, true) && remote_ != nullptr) return;
  if (is_serving()) {
    remote_->Load();
  } else if (remote_ == nullptr && held_.empty() && clock_.NowUs() >= start_at_us_) {
    TryToStart();
  }
}

void SupervisedEngine::Unload() {
  HALO_CHECK(held_.empty(), "nothing is pending when weights are given back");
  if (!std::exchange(wants_loaded_, false)) return;
  if (is_serving()) remote_->Unload();
}

/// A process that has ended holds nothing, and without requests none is started in its place; one
/// that is being started may hold it all.
Residency SupervisedEngine::residency() const {
  if (is_serving()) return remote_->residency();
  return remote_ != nullptr || !held_.empty() ? Residency::kChanging : Residency::kUnloaded;
}

/// The process is gone, or is made to go. Says how it ended.
std::string SupervisedEngine::LoseProcess() {
  AddStatistics(before_);
  spans_.Add(remote_->TakeSpans());
  if (lost_at_us_ == 0) lost_at_us_ = clock_.NowUs();
  const std::string why = remote_->why_lost();
  const bool was_abused = remote_->was_abused();
  const bool is_ending = !remote_->is_connected() && !was_abused;
  epoll_ctl(ready_.get(), EPOLL_CTL_DEL, remote_->descriptor(), nullptr);
  remote_.reset();  // a process that lives sees this
  std::string how = process_->End(is_ending ? kEndPatienceUs : 0);
  process_.reset();
  return was_abused ? why : how;
}

/// Its process has ended: what was under way is held again, and it is started anew in its time.
void SupervisedEngine::OnLoss() {
  const bool was_serving = is_serving();
  const bool was_abused = remote_->was_abused();
  const std::optional<EngineFault> fault = remote_->fault();
  std::string how = LoseProcess();
  if (fault) how = fault->message;
  // A process that spoke nonsense has lived on, and its record with it.
  const std::optional<std::vector<RequestId>> computed =
      was_abused ? std::nullopt : record_->Caught();
  record_.reset();
  for (const RequestId id : std::exchange(exporting_, {})) exports_.push_back({id});
  CountLoss(was_serving, how);
  CatchRequests(computed, how);
}

void SupervisedEngine::CountLoss(bool was_serving, const std::string& how) {
  int32_t in_a_row = 0;
  if (was_serving) {
    crashes_ = has_answered_ ? 1 : crashes_ + 1;
    in_a_row = crashes_;
  } else {
    in_a_row = ++failed_starts_;
  }
  const int32_t most = was_serving ? options_.most_crashes : options_.most_failed_starts;
  if (in_a_row >= most) {
    throw Error(description_.name.empty() ? ErrorCode::kConfig : ErrorCode::kIo,
                "the engine of " + options_.model_name + " is given up: its process ended " +
                    std::to_string(in_a_row) + " times in a row " +
                    (was_serving ? "without an answer" : "while it was being made") +
                    ", the last time: " + how);
  }
  ++before_.restarts;
  int64_t wait_us = 0;
  if (in_a_row > 1) {
    wait_us = options_.first_wait_us;
    for (int32_t i = 2; i < in_a_row && wait_us < options_.most_wait_us; ++i) wait_us *= 2;
    wait_us = std::min(wait_us, options_.most_wait_us);
  }
  start_at_us_ = clock_.NowUs() + wait_us;
}

/// `computed`: what was being computed; nothing: that is not known, and it may be all.
void SupervisedEngine::CatchRequests(const std::optional<std::vector<RequestId>>& computed,
                                     const std::string& how) {
  int64_t again = 0;
  std::vector<Place> sent;
  for (const auto& [place, held] : held_) {
    if (held.is_sent) sent.push_back(place);
  }
  for (const Place place : sent) {
    Held& held = held_.at(place);
    held.is_sent = false;
    unsent_.insert(place);
    ++again;
    const bool is_caught = !computed || std::find(computed->begin(), computed->end(),
                                                  held.request.id) != computed->end();
    if (held.is_cancelled) {
      EndHeld(place, Cancelled());
    } else if (is_caught) {
      OnCaught(place, held, how);
    }
  }
  if (options_.on_restart && again == 0 && held_.empty()) {
    options_.on_restart(
        "the engine of " + options_.model_name +
        " ended while it had nothing to do, and is started again when it has: " + how);
  } else if (options_.on_restart) {
    options_.on_restart("the engine of " + options_.model_name + " is started again, and " +
                        std::to_string(again) + " calls are given to it again: " + how);
  }
}

void SupervisedEngine::OnCaught(Place place, Held& held, const std::string& how) {
  if (held.caught < kCaughtBeforeAlone) {
    if (++held.caught == kCaughtBeforeAlone) lone_.insert(place);
    return;
  }
  if (has_answered_) return;
  EndHeld(place, {"", "poisonous_call",
                  "the engine's process ended each time it computed this call, the last time while "
                  "it computed nothing else: " +
                      how,
                  false});
}

void SupervisedEngine::EndHeld(Place place, Failure failure) {
  const auto found = held_.find(place);
  Completion completion;
  completion.id = found->second.request.id;
  completion.failure = std::move(failure);
  completion.finished_us = clock_.NowUs();
  finished_.push_back(std::move(completion));
  place_of_.erase(found->second.request.id);
  unsent_.erase(place);
  lone_.erase(place);
  held_.erase(found);
  WakeAt(1);
}

void SupervisedEngine::Send(Held& held) {
  held.is_sent = true;
  remote_->Send(held.request);
}

/// Gives the engine what it may have now: all that is held, or what runs alone if it has nothing.
void SupervisedEngine::SendHeld() {
  if (!is_serving()) return;
  if (lone_.empty()) {
    for (const Place place : std::exchange(unsent_, {})) Send(held_.at(place));
    return;
  }
  if (unsent_.size() < held_.size()) return;
  unsent_.erase(*lone_.begin());
  Send(held_.at(*lone_.begin()));
}

void SupervisedEngine::Submit(Request request) {
  wants_loaded_ = true;  // the engine loads for it
  const Place place = next_place_++;
  const bool added = place_of_.emplace(request.id, place).second;
  HALO_CHECK(added, "a request id is used once");
  held_[place].request = std::move(request);
  unsent_.insert(place);
  SendHeld();
}

void SupervisedEngine::Cancel(RequestId id) {
  const auto found = place_of_.find(id);
  if (found == place_of_.end()) return;
  Held& held = held_.at(found->second);
  held.is_cancelled = true;
  if (held.is_sent) {
    remote_->Cancel(id);
  } else {
    EndHeld(found->second, Cancelled());
  }
}

void SupervisedEngine::CancelWaiting() {
  for (const Place place : std::set<Place>(unsent_)) EndHeld(place, Cancelled());
  if (is_serving()) remote_->CancelWaiting();
}

void SupervisedEngine::Release(RequestId id, int32_t consumers) {
  if (const auto found = place_of_.find(id); found != place_of_.end()) {
    Held& held = held_.at(found->second);
    held.request.keep.consumers = std::max(0, held.request.keep.consumers - consumers);
    if (!held.is_sent) return;  // it is sent with what is left
  }
  // What an earlier process kept is gone: the engine knows nothing of it, and is told in vain.
  if (is_serving()) remote_->Release(id, consumers);
}

void SupervisedEngine::FailExpired() {
  const int64_t now = clock_.NowUs();
  std::vector<Place> expired;
  for (const Place place : unsent_) {
    const int64_t deadline_us = held_.at(place).request.deadline_us;
    if (deadline_us > 0 && deadline_us < now) expired.push_back(place);
  }
  for (const Place place : expired) {
    EndHeld(place, {"", "deadline", "the call took longer than its deadline allows", false});
  }
}

void SupervisedEngine::TakeAnswers(std::vector<Completion> answers) {
  for (Completion& answer : answers) {
    const bool is_lost = !remote_->is_connected() && answer.failure.has_value() &&
                         answer.failure->code == "engine_lost";
    if (is_lost) continue;
    const auto found = place_of_.find(answer.id);
    if (found == place_of_.end()) continue;
    has_answered_ = true;
    lone_.erase(found->second);
    held_.erase(found->second);
    place_of_.erase(found);
    finished_.push_back(std::move(answer));
  }
}

/// Waits until the process has said something, may be started, or it is `deadline_us`, and does
/// what follows.
void SupervisedEngine::Step(int64_t deadline_us) {
  if (remote_ == nullptr) {
    if (clock_.NowUs() < start_at_us_) {
      const int64_t until_us = std::min(deadline_us, start_at_us_);
      if (until_us > clock_.NowUs()) SteadyClock().SleepUntil(until_us);
      return;
    }
    if (!TryToStart()) return;
  }
  process_->ReadErrors();
  if (!is_serving() && remote_->AwaitDescription(deadline_us)) TakeDescription();
  if (is_serving()) {
    SendHeld();
    TakeAnswers(remote_->Poll(deadline_us));
    TakeKv();
    SendHeld();
  }
  if (!remote_->is_connected()) OnLoss();
}

std::vector<Completion> SupervisedEngine::Poll(int64_t deadline_us) {
  FailExpired();
  do {
    if (!finished_.empty() || !exports_.empty()) break;
    if (!is_awaited()) {
      // A process that ends though nothing is wanted of it leaves its socket readable.
      if (remote_ != nullptr) Step(0);
      break;
    }
    Step(deadline_us);
  } while (clock_.NowUs() < deadline_us);
  WakeAt(remote_ == nullptr && !held_.empty() ? start_at_us_ : 0);
  return std::exchange(finished_, {});
}

/// What the process that is there has counted.
void SupervisedEngine::AddStatistics(EngineStatistics& total) const {
  if (remote_ == nullptr) return;
  AddCounters(remote_->Statistics(), total);
}

EngineStatistics SupervisedEngine::Statistics() const {
  EngineStatistics total = before_;
  AddStatistics(total);
  return total;
}

EngineSpans SupervisedEngine::TakeSpans() {
  if (remote_ != nullptr) spans_.Add(remote_->TakeSpans());
  return spans_.Take();
}

}  // namespace halo
