#include "engine/engine_turns.h"

#include <fcntl.h>

#include <cerrno>

#include "base/check.h"
#include "engine/shared_memory.h"

namespace halo {
namespace {

constexpr off_t kNextInLine = 0, kTurn = 1;  // a byte each

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

}  // namespace

Descriptor EngineTurns::MakeFile() { return MakeSharedMemory("halo-turns", kTurn + 1); }

void EngineTurns::Take() {
  SetLock(file_, kNextInLine, F_WRLCK);
  SetLock(file_, kTurn, F_WRLCK);
  SetLock(file_, kNextInLine, F_UNLCK);
}

bool EngineTurns::IsAwaited() const {
  struct flock lock = LockOf(kNextInLine, F_WRLCK);
  return fcntl(file_.get(), F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

void EngineTurns::GiveBack() { SetLock(file_, kTurn, F_UNLCK); }

}  // namespace halo
