#include "engine/engine_turns.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace halo {
namespace {

// A byte each, locked only: two for each worker, then the places.
constexpr off_t NextInLine(int32_t worker) { return 2 * static_cast<off_t>(worker); }
constexpr off_t Turn(int32_t worker) { return NextInLine(worker) + 1; }
constexpr off_t kFirstPlace = NextInLine(EngineTurns::kMostWorkers);

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

Descriptor EngineTurns::MakeFile() { return MakeSharedMemory("halo-turns", sizeof(Shared)); }

EngineTurns::EngineTurns(Descriptor file, int32_t worker, const ThreadShares& shares)
    : file_(std::move(file)),
      memory_(MappedMemory::Writable(file_, sizeof(Shared))),
      worker_(worker),
      shares_(shares) {
  static_assert(
      std::atomic<int32_t>::is_always_lock_free && std::atomic<size_t>::is_always_lock_free,
      "processes share it");
  HALO_CHECK(worker >= 0 && worker < shares.workers && shares.workers <= kMostWorkers,
             "a worker is one of those that there are");
  for (size_t place = 0; place < kPlaces && place_ == kPlaces; ++place) {
    if (TryLock(file_, kFirstPlace + static_cast<off_t>(place))) place_ = place;
  }
  Announce(0);  // whoever had the place before may have ended in the middle of something
  if (place_ == kPlaces) return;
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
    return false;
  }
  return true;
}

bool EngineTurns::HasWork(int32_t worker) const {
  const size_t used = shared().used.load(std::memory_order_relaxed);
  for (size_t i = 0; i < used; ++i) {
    const Place& place = shared().places[i];
    if (place.fullness.load(std::memory_order_relaxed) > 0 &&
        place.worker.load(std::memory_order_relaxed) == worker && IsThere(i))
      return true;
  }
  return false;
}

int32_t EngineTurns::Take() {
  refusals_ = 0;
  SetLock(file_, NextInLine(worker_), F_WRLCK);
  SetLock(file_, Turn(worker_), F_WRLCK);
  SetLock(file_, NextInLine(worker_), F_UNLCK);
  for (int32_t other = 0; other < shares_.workers; ++other) {
    if (other != worker_ && !HasWork(other) && TryLock(file_, Turn(other)))
      borrowed_.push_back(other);
  }
  const auto workers = static_cast<int32_t>(borrowed_.size()) + 1;
  const int32_t tools = shared().tool_threads.load(std::memory_order_relaxed);
  return std::max(1, workers * shares_.threads - tools);
}

bool EngineTurns::IsAwaited() const {
  return IsLocked(file_, NextInLine(worker_)) ||
         std::any_of(borrowed_.begin(), borrowed_.end(),
                     [this](int32_t other) { return IsLocked(file_, NextInLine(other)); });
}

void EngineTurns::GiveBack() {
  for (const int32_t other : borrowed_) SetLock(file_, Turn(other), F_UNLCK);
  borrowed_.clear();
  SetLock(file_, Turn(worker_), F_UNLCK);
}

BusyTools::BusyTools(const Descriptor& file)
    : memory_(MappedMemory::Writable(file, sizeof(EngineTurns::Shared))) {}

}  // namespace halo
