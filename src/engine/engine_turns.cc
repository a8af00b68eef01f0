#include "engine/engine_turns.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>

#include "base/check.h"

namespace halo {
namespace {

constexpr off_t kNextInLine = 0, kTurn = 1, kFirstPlace = 2;  // a byte each, locked only

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

/// Another process has it.
bool IsLocked(const Descriptor& file, off_t byte) {
  struct flock lock = LockOf(byte, F_WRLCK);
  return fcntl(file.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

}  // namespace

Descriptor EngineTurns::MakeFile() { return MakeSharedMemory("halo-turns", sizeof(Announced)); }

EngineTurns::EngineTurns(Descriptor file)
    : file_(std::move(file)), memory_(MappedMemory::Writable(file_, sizeof(Announced))) {
  static_assert(std::atomic<int32_t>::is_always_lock_free, "processes share it");
  for (size_t place = 0; place < kPlaces && place_ == kPlaces; ++place) {
    struct flock lock = LockOf(kFirstPlace + static_cast<off_t>(place), F_WRLCK);
    if (fcntl(file_.get(), F_SETLK, &lock) == 0) place_ = place;
  }
  Announce(0);  // whoever had the place before may have ended in the middle of something
}

void EngineTurns::Announce(int32_t fullness) {
  if (place_ < kPlaces) announced()[place_].store(fullness, std::memory_order_relaxed);
}

bool EngineTurns::IsThere(size_t place) const {
  return IsLocked(file_, kFirstPlace + static_cast<off_t>(place));
}

bool EngineTurns::MayTake() {
  // Of the fullest: from there on a pass costs nearly as little a token.
  constexpr int32_t kEnoughOf = 4, kEnough = 3;
  if (place_ == kPlaces || refusals_ >= kMostRefusals) return true;
  const int32_t ours = announced()[place_].load(std::memory_order_relaxed);
  for (size_t place = 0; place < kPlaces; ++place) {
    const int32_t theirs = announced()[place].load(std::memory_order_relaxed);
    if (place == place_ || kEnoughOf * ours >= kEnough * theirs || !IsThere(place)) continue;
    ++refusals_;
    return false;
  }
  return true;
}

void EngineTurns::Take() {
  refusals_ = 0;
  SetLock(file_, kNextInLine, F_WRLCK);
  SetLock(file_, kTurn, F_WRLCK);
  SetLock(file_, kNextInLine, F_UNLCK);
}

bool EngineTurns::IsAwaited() const { return IsLocked(file_, kNextInLine); }

void EngineTurns::GiveBack() { SetLock(file_, kTurn, F_UNLCK); }

}  // namespace halo
