#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "engine/llama/kv_room.h"

namespace halo {

/// KV that host memory has no room for, in a file without a name, which goes when the process does.
/// A thread of its own writes what was handed over; until then it lies in memory. Reading is the
/// caller's. A disk that is full or broken takes nothing more, and what it has not got cannot be
/// read: whoever wanted it computes it again, which changes no answer. One caller thread.
class KvDisk {
 public:
  class Place;
  /// Of memory, until it is written.
  static constexpr int64_t kMostUnwrittenBytes = int64_t{256} << 20;

  /// The folder is looked at with the first blob. `most_bytes`: of the file;
  /// `most_unwritten_bytes`: that wait in memory, or one blob.
  KvDisk(std::string folder, int64_t most_bytes,
         int64_t most_unwritten_bytes = kMostUnwrittenBytes);
  ~KvDisk();
  KvDisk(const KvDisk&) = delete;
  KvDisk& operator=(const KvDisk&) = delete;

  /// Where the blob will lie, free again with the last pointer to it. Null: there is no room, too
  /// much waits to be written, or the disk has failed.
  std::shared_ptr<Place> Put(std::shared_ptr<const KvBlob> blob);
  /// What lies there; null: it cannot be read.
  std::shared_ptr<const KvBlob> Read(Place& place);
  /// It will be read soon: the kernel fetches it meanwhile.
  void Expect(const Place& place);

  /// Of writing a byte and reading it again; what a slow disk takes before anything was measured.
  double UsPerByte() const;
  /// How often writing or reading failed; nothing is written after the first time.
  int64_t faults() const;

 private:
  /// What the two threads share, and places, which may live longer.
  struct File;
  bool Open();
  void Write();

  std::string folder_;
  int64_t most_bytes_, most_unwritten_bytes_;
  std::shared_ptr<File> file_;
  std::jthread writer_;  ///< begins with the first blob; last, so that it ends first
};

}  // namespace halo
