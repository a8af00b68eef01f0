#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/descriptor.h"
#include "engine/shared_memory.h"

namespace halo {

/// How engines share this machine's threads.
struct ThreadShares {
  int32_t workers = 1;  ///< at most EngineTurns::kMostWorkers
  int32_t threads = 1;  ///< of each worker
};

/// Who computes when, among engines that share the cores, each in a process of its own. Threads
/// beyond the cores halve the rate (HOUSE measurements), so a worker's threads belong to one pass
/// at a time, of one of its engines. The kernel takes a turn back from a process that has ended.
///
/// Two locks on a file, for each worker, make it fair: who wants a turn first takes the place of
/// the next in line, and gives that up once it has the turn; so nobody has two turns in a row while
/// another waits. Record locks belong to a process and go with the first of its descriptors of the
/// file that is closed.
///
/// Threads that nobody uses are lent: who has a turn takes those of workers that have nothing to do
/// along, so that the last calls of a run, or the only ones, have the whole machine. A worker that
/// gets work meanwhile has its threads back after that pass. While queries compute in the process
/// of the tools (BusyTools), a pass of several threads leaves them theirs.
///
/// Fair turns alone waste them: a model that is asked about what others have answered gets its
/// calls a few at a time, and a pass over a few costs nearly what one over many does (tiny model:
/// 1.1 ms a token at 8 sequences, 0.4 at 64; three models in one workflow took 1.9 times their
/// lower bound). So engines say how full their next passes would be, and one whose passes would be
/// much emptier than another's lets calls gather first. Nobody waits for ever: the fullest may
/// always go, what is gathered makes a pass fuller, and after kMostRefusals in a row it is let
/// through.
class EngineTurns {
 public:
  /// The most that can be announced: a pass over all sequences that the engine has.
  static constexpr int32_t kFull = 1024;
  static constexpr int32_t kMostRefusals = 500;

  /// The file that all of them share. Throws Error(kIo).
  static Descriptor MakeFile();
  /// Of an engine of this worker. Throws Error(kIo).
  EngineTurns(Descriptor file, int32_t worker, const ThreadShares& shares);

  /// How full this engine's next pass would be, up to kFull; 0: there is nothing to do.
  void Announce(int32_t fullness);
  /// False while a process of this worker that lives has announced passes much fuller than this
  /// one's. Counts how often that was so.
  bool MayTake();

  /// Waits for it. Returns how many threads the pass may have: at least one, at most those of all
  /// workers.
  int32_t Take();
  /// Another process waits for a turn that this one has.
  bool IsAwaited() const;
  void GiveBack();

  static constexpr int32_t kMostWorkers = 256;

 private:
  friend class BusyTools;
  static constexpr size_t kPlaces = 1024;  ///< engines beyond these announce nothing
  struct Place {
    /// What was announced. Of a process that has ended it stays: a lock tells.
    std::atomic<int32_t> fullness;
    std::atomic<int32_t> worker;
  };
  struct Shared {
    std::array<Place, kPlaces> places;
    std::atomic<size_t> used;           ///< places from the first on that anybody has ever had
    std::atomic<int32_t> tool_threads;  ///< that compute now
  };

  bool IsThere(size_t place) const;
  bool HasWork(int32_t worker) const;
  Shared& shared() const { return *static_cast<Shared*>(memory_.data()); }

  Descriptor file_;
  MappedMemory memory_;
  int32_t worker_;
  ThreadShares shares_;
  size_t place_ = kPlaces;
  int32_t refusals_ = 0;           ///< in a row
  std::vector<int32_t> borrowed_;  ///< workers whose turn it has beside its own
};

/// Says that threads of tools compute on the cores that engines share. Thread-safe.
class BusyTools {
 public:
  /// Throws Error(kIo).
  explicit BusyTools(const Descriptor& file);

  /// So many threads more, or less.
  void Add(int32_t threads) { shared().tool_threads.fetch_add(threads, std::memory_order_relaxed); }

 private:
  EngineTurns::Shared& shared() const { return *static_cast<EngineTurns::Shared*>(memory_.data()); }
  MappedMemory memory_;
};

}  // namespace halo
