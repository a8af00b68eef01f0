#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace halo::test {

/// What SQLite's files go through: a VFS that counts what changes them (writes, synchronizations,
/// changes of length) and lets one of these, and all after it, go wrong. Nothing is ever waited
/// for: a synchronization only marks what a loss of power would leave.
class FaultyDisk {
 public:
  enum class Fault {
    kNone,
    kStop,       ///< nothing is written any more, as if the process had been killed
    kTorn,       ///< the same, but half of the first one is written
    kPowerLoss,  ///< the same, and what was not synchronized is gone
    kNoSpace     ///< the disk is full
  };

  /// Registers itself under `name`, a word that nobody else uses while this lives.
  explicit FaultyDisk(std::string name);
  ~FaultyDisk();
  FaultyDisk(const FaultyDisk&) = delete;
  FaultyDisk& operator=(const FaultyDisk&) = delete;

  const std::string& name() const { return name_; }
  /// Counts anew; `fault` at change number `at`, from 0.
  void Arm(Fault fault, int64_t at);
  int64_t changes() const { return changes_; }

 private:
  friend struct FaultyFile;
  struct Change {
    std::string path, old_bytes;
    int64_t offset = 0, old_size = 0;
  };
  static int Open(sqlite3_vfs* vfs, sqlite3_filename path, sqlite3_file* file, int flags, int* out);
  /// What the next change comes to; SQLITE_OK: it is carried out. `half`: and then half of it.
  int NextChange(int error, bool& half);
  void Remember(const std::string& path, int64_t offset, int64_t count);
  void LoseUnsynchronized();

  std::string name_;
  sqlite3_vfs vfs_{};
  sqlite3_vfs* real_;
  sqlite3_mutex* mutex_;
  Fault fault_ = Fault::kNone;
  int64_t at_ = 0;
  int64_t changes_ = 0;
  std::vector<Change> unsynchronized_;  // oldest first
};

}  // namespace halo::test
