#include "engine/engine_turns.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace halo {
namespace {

// A byte each, locked only: two for each lane, then the places.
constexpr off_t NextInLine(int32_t lane) { return 2 * static_cast<off_t>(lane); }
constexpr off_t Turn(int32_t lane) { return NextInLine(lane) + 1; }
constexpr off_t kFirstPlace = NextInLine(EngineTurns::kMostLanes);

struct flock LockOf(off_t byte, int16_t type) {
  struct flock lock {};
  lock.l_type = type;
  lock.l_whence = SEEK_SET;
  lock.l_start = byte;
  lock.l_len = 1;
  return lock;
}

void SetLock(const Descriptor& file, off_t byte, int16_t type) {
  struct flock lock = LockOf(byte, type);
  int done = -1;
  do {
    done = fcntl(file.get(), F_SETLKW, &lock);
  } while (done != 0 && errno == EINTR);
  HALO_CHECK(done == 0, "a file in memory can be locked");
}

/// False if another process has it.
bool TryLock(const Descriptor& file, off_t byte) {
  struct flock lock = LockOf(byte, F_WRLCK);
  return fcntl(file.get(), F_SETLK, &lock) == 0;
}

/// Another process has it.
bool IsLocked(const Descriptor& file, off_t byte) {
  struct flock lock = LockOf(byte, F_WRLCK);
  return fcntl(file.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

int32_t ThreadShares::LanesFor(int32_t threads, int32_t engines) {
  int32_t lanes = std::max(1, std::min(threads, engines));
  while (threads % lanes != 0) --lanes;
  return lanes;
}

Descriptor EngineTurns::MakeFile() { return MakeSharedMemory("halo-turns", sizeof(Shared)); }

EngineTurns::EngineTurns(Descriptor file, int32_t worker, const ThreadShares& shares)
    : file_(std::move(file)),
      memory_(MappedMemory::Writable(file_, sizeof(Shared))),
      worker_(worker),
      shares_(shares) {
  static_assert(
      std::atomic<int32_t>::is_always_lock_free && std::atomic<size_t>::is_always_lock_free,
      "processes share it");
  HALO_CHECK(worker >= 0 && worker < shares.workers && shares.lanes >= 1 &&
                 shares.lanes <= kMostLanes / shares.workers && shares.threads % shares.lanes == 0,
             "a worker is one of those that there are, and its lanes have equal parts");
  for (size_t place = 0; place < kPlaces && place_ == kPlaces; ++place) {
    if (TryLock(file_, kFirstPlace + static_cast<off_t>(place))) place_ = place;
  }
  Announce(0);  // whoever had the place before may have ended in the middle of something
  if (place_ == kPlaces) return;
  SetGathers(false);
  shared().places[place_].worker.store(worker_, std::memory_order_relaxed);
  size_t used = shared().used.load(std::memory_order_relaxed);
  while (used <= place_ && !shared().used.compare_exchange_weak(used, place_ + 1)) {
  }
}

void EngineTurns::Announce(int32_t fullness) {
  if (place_ < kPlaces) shared().places[place_].fullness.store(fullness, std::memory_order_relaxed);
}

bool EngineTurns::IsThere(size_t place) const {
  return IsLocked(file_, kFirstPlace + static_cast<off_t>(place));
}

void EngineTurns::SetGathers(bool gathers) {
  if (place_ < kPlaces)
    shared().places[place_].gathers.store(gathers ? 1 : 0, std::memory_order_relaxed);
}

bool EngineTurns::MayTake() {
  // Of the fullest: from there on a pass costs nearly as little a token.
  constexpr int32_t kEnoughOf = 4, kEnough = 3;
  if (place_ == kPlaces || refusals_ >= kMostRefusals) return true;
  const int32_t ours = shared().places[place_].fullness.load(std::memory_order_relaxed);
  const size_t used = shared().used.load(std::memory_order_relaxed);
  for (size_t i = 0; i < used; ++i) {
    const Place& place = shared().places[i];
    const int32_t theirs = place.fullness.load(std::memory_order_relaxed);
    if (i == place_ || kEnoughOf * ours >= kEnough * theirs ||
        place.worker.load(std::memory_order_relaxed) != worker_ || !IsThere(i))
      continue;
    ++refusals_;
    SetGathers(true);
    return false;
  }
  return true;
}

bool EngineTurns::OthersHaveWork(int32_t worker) const {
  const size_t used = shared().used.load(std::memory_order_relaxed);
  for (size_t i = 0; i < used; ++i) {
    const Place& place = shared().places[i];
    if (i != place_ && place.fullness.load(std::memory_order_relaxed) > 0 &&
        place.gathers.load(std::memory_order_relaxed) == 0 &&
        place.worker.load(std::memory_order_relaxed) == worker && IsThere(i))
      return true;
  }
  return false;
}

/// One that is free, or the next turn of this engine's own.
int32_t EngineTurns::TakeLane() {
  const int32_t first = worker_ * shares_.lanes;
  const int32_t own = static_cast<int32_t>(place_ % static_cast<size_t>(shares_.lanes));
  for (int32_t i = 0; i < shares_.lanes && shares_.lanes > 1; ++i) {
    const int32_t lane = first + (own + i) % shares_.lanes;
    if (!IsLocked(file_, NextInLine(lane)) && TryLock(file_, Turn(lane))) return lane;
  }
  SetLock(file_, NextInLine(first + own), F_WRLCK);
  SetLock(file_, Turn(first + own), F_WRLCK);
  SetLock(file_, NextInLine(first + own), F_UNLCK);
  return first + own;
}

int32_t EngineTurns::Take() {
  refusals_ = 0;
  SetGathers(false);
  lane_ = TakeLane();
  for (int32_t worker = 0; worker < shares_.workers; ++worker) {
    const bool has_others = worker != worker_ || shares_.lanes > 1;
    if (!has_others || OthersHaveWork(worker)) continue;
    for (int32_t lane = worker * shares_.lanes; lane < (worker + 1) * shares_.lanes; ++lane) {
      if (lane != lane_ && TryLock(file_, Turn(lane))) borrowed_.push_back(lane);
    }
  }
  const auto lanes = static_cast<int32_t>(borrowed_.size()) + 1;
  const int32_t tools = shared().tool_threads.load(std::memory_order_relaxed);
  return std::max(1, lanes * (shares_.threads / shares_.lanes) - tools);
}

bool EngineTurns::IsAwaited() const {
  return IsLocked(file_, NextInLine(lane_)) ||
         std::any_of(borrowed_.begin(), borrowed_.end(),
                     [this](int32_t lane) { return IsLocked(file_, NextInLine(lane)); });
}

void EngineTurns::GiveBack() {
  for (const int32_t lane : borrowed_) SetLock(file_, Turn(lane), F_UNLCK);
  borrowed_.clear();
  SetLock(file_, Turn(lane_), F_UNLCK);
}

BusyTools::BusyTools(const Descriptor& file)
    : memory_(MappedMemory::Writable(file, sizeof(EngineTurns::Shared))) {}

}  // namespace halo
