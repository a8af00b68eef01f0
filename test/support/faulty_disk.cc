#include "support/faulty_disk.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <new>

namespace halo::test {

/// A file as SQLite sees it; the real one lies right behind it.
struct FaultyFile {
  sqlite3_file base;
  FaultyDisk* disk;
  std::string path;

  static FaultyFile& Of(sqlite3_file* file) { return *reinterpret_cast<FaultyFile*>(file); }
  static sqlite3_file* Real(sqlite3_file* file) {
    return reinterpret_cast<sqlite3_file*>(reinterpret_cast<char*>(file) + sizeof(FaultyFile));
  }
  static int Close(sqlite3_file* file) {
    sqlite3_file* real = Real(file);
    const int code = real->pMethods != nullptr ? real->pMethods->xClose(real) : SQLITE_OK;
    Of(file).~FaultyFile();
    return code;
  }
  static int Read(sqlite3_file* file, void* into, int count, sqlite3_int64 offset) {
    return Real(file)->pMethods->xRead(Real(file), into, count, offset);
  }
  static int Write(sqlite3_file* file, const void* bytes, int count, sqlite3_int64 offset) {
    FaultyFile& own = Of(file);
    bool half = false;
    const int code = own.disk->NextChange(SQLITE_IOERR_WRITE, half);
    if (half) Real(file)->pMethods->xWrite(Real(file), bytes, count / 2, offset);
    if (code != SQLITE_OK) return code;
    own.disk->Remember(own.path, offset, count);
    return Real(file)->pMethods->xWrite(Real(file), bytes, count, offset);
  }
  static int Truncate(sqlite3_file* file, sqlite3_int64 size) {
    FaultyFile& own = Of(file);
    bool half = false;
    const int code = own.disk->NextChange(SQLITE_IOERR_TRUNCATE, half);
    if (code != SQLITE_OK) return code;
    sqlite3_int64 old_size = 0;
    FileSize(file, &old_size);
    own.disk->Remember(own.path, size, std::max<int64_t>(0, old_size - size));
    return Real(file)->pMethods->xTruncate(Real(file), size);
  }
  static int Sync(sqlite3_file* file, int) {
    FaultyFile& own = Of(file);
    bool half = false;
    const int code = own.disk->NextChange(SQLITE_IOERR_FSYNC, half);
    if (code != SQLITE_OK) return code;
    sqlite3_mutex_enter(own.disk->mutex_);
    std::erase_if(own.disk->unsynchronized_,
                  [&](const FaultyDisk::Change& change) { return change.path == own.path; });
    sqlite3_mutex_leave(own.disk->mutex_);
    return SQLITE_OK;
  }
  static int FileSize(sqlite3_file* file, sqlite3_int64* size) {
    return Real(file)->pMethods->xFileSize(Real(file), size);
  }
  static int Lock(sqlite3_file* file, int level) {
    return Real(file)->pMethods->xLock(Real(file), level);
  }
  static int Unlock(sqlite3_file* file, int level) {
    return Real(file)->pMethods->xUnlock(Real(file), level);
  }
  static int CheckReservedLock(sqlite3_file* file, int* held) {
    return Real(file)->pMethods->xCheckReservedLock(Real(file), held);
  }
  static int FileControl(sqlite3_file* file, int what, void* argument) {
    return Real(file)->pMethods->xFileControl(Real(file), what, argument);
  }
  static int SectorSize(sqlite3_file* file) {
    return Real(file)->pMethods->xSectorSize(Real(file));
  }
  static int DeviceCharacteristics(sqlite3_file* file) {
    return Real(file)->pMethods->xDeviceCharacteristics(Real(file));
  }
  static int ShmMap(sqlite3_file* file, int page, int size, int extend, void volatile** at) {
    return Real(file)->pMethods->xShmMap(Real(file), page, size, extend, at);
  }
  static int ShmLock(sqlite3_file* file, int offset, int count, int flags) {
    return Real(file)->pMethods->xShmLock(Real(file), offset, count, flags);
  }
  static void ShmBarrier(sqlite3_file* file) { Real(file)->pMethods->xShmBarrier(Real(file)); }
  static int ShmUnmap(sqlite3_file* file, int remove) {
    return Real(file)->pMethods->xShmUnmap(Real(file), remove);
  }
};

namespace {

/// Version 2: no mapped files, which would go around the disk.
const sqlite3_io_methods kMethods = {2,
                                     FaultyFile::Close,
                                     FaultyFile::Read,
                                     FaultyFile::Write,
                                     FaultyFile::Truncate,
                                     FaultyFile::Sync,
                                     FaultyFile::FileSize,
                                     FaultyFile::Lock,
                                     FaultyFile::Unlock,
                                     FaultyFile::CheckReservedLock,
                                     FaultyFile::FileControl,
                                     FaultyFile::SectorSize,
                                     FaultyFile::DeviceCharacteristics,
                                     FaultyFile::ShmMap,
                                     FaultyFile::ShmLock,
                                     FaultyFile::ShmBarrier,
                                     FaultyFile::ShmUnmap,
                                     nullptr,
                                     nullptr};

}  // namespace

FaultyDisk::FaultyDisk(std::string name)
    : name_(std::move(name)),
      real_(sqlite3_vfs_find(nullptr)),
      mutex_(sqlite3_mutex_alloc(SQLITE_MUTEX_RECURSIVE)) {
  vfs_ = *real_;
  vfs_.pNext = nullptr;
  vfs_.zName = name_.c_str();
  vfs_.szOsFile = static_cast<int>(sizeof(FaultyFile)) + real_->szOsFile;
  vfs_.xOpen = Open;
  sqlite3_vfs_register(&vfs_, 0);
}

FaultyDisk::~FaultyDisk() {
  sqlite3_vfs_unregister(&vfs_);
  sqlite3_mutex_free(mutex_);
}

void FaultyDisk::Arm(Fault fault, int64_t at) {
  fault_ = fault;
  at_ = at;
  changes_ = 0;
  unsynchronized_.clear();
}

int FaultyDisk::Open(sqlite3_vfs* vfs, sqlite3_filename path, sqlite3_file* file, int flags,
                     int* out) {
  // The copy of the real one's fields comes first in this object's member.
  auto* disk =
      reinterpret_cast<FaultyDisk*>(reinterpret_cast<char*>(vfs) - offsetof(FaultyDisk, vfs_));
  auto* own = new (file) FaultyFile{{&kMethods}, disk, path == nullptr ? "" : path};
  sqlite3_file* real = FaultyFile::Real(file);
  real->pMethods = nullptr;
  const int code = disk->real_->xOpen(disk->real_, path, real, flags, out);
  if (code != SQLITE_OK) {
    own->~FaultyFile();
    file->pMethods = nullptr;
  }
  return code;
}

int FaultyDisk::NextChange(int error, bool& half) {
  sqlite3_mutex_enter(mutex_);
  const int64_t number = changes_++;
  const bool fails = fault_ != Fault::kNone && number >= at_;
  half = fails && fault_ == Fault::kTorn && number == at_;
  if (fails && fault_ == Fault::kPowerLoss && number == at_) LoseUnsynchronized();
  sqlite3_mutex_leave(mutex_);
  if (!fails) return SQLITE_OK;
  return fault_ == Fault::kNoSpace ? SQLITE_FULL : error;
}

void FaultyDisk::Remember(const std::string& path, int64_t offset, int64_t count) {
  if (fault_ != Fault::kPowerLoss) return;
  Change change{path, std::string(static_cast<size_t>(count), '\0'), offset, 0};
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  struct stat facts {};
  if (fstat(fd, &facts) == 0) change.old_size = facts.st_size;
  const ssize_t got = pread(fd, change.old_bytes.data(), change.old_bytes.size(), offset);
  change.old_bytes.resize(static_cast<size_t>(std::max<ssize_t>(0, got)));
  close(fd);
  sqlite3_mutex_enter(mutex_);
  unsynchronized_.push_back(std::move(change));
  sqlite3_mutex_leave(mutex_);
}

void FaultyDisk::LoseUnsynchronized() {
  for (; !unsynchronized_.empty(); unsynchronized_.pop_back()) {
    const Change& change = unsynchronized_.back();
    const int fd = open(change.path.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) continue;  // it is deleted
    const ssize_t put = pwrite(fd, change.old_bytes.data(), change.old_bytes.size(), change.offset);
    if (put < 0 || ftruncate(fd, change.old_size) != 0) std::abort();
    close(fd);
  }
}

}  // namespace halo::test
