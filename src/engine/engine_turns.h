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
  int32_t workers = 1;
  int32_t threads = 1;  ///< of each worker
  int32_t lanes = 1;    ///< of each worker; divides `threads`. All: at most EngineTurns::kMostLanes

  /// As many lanes as `engines` of a worker can use, each with as many threads as the others.
  static int32_t LanesFor(int32_t threads, int32_t engines);
};

/// Who computes when, among engines that share the cores, each in a process of its own. Threads
/// beyond the cores halve the rate, so a thread belongs to one pass at a time.
/// The kernel takes a turn back from a process that has ended.
///
/// Threads of one pass wait for each other at each of its hundreds of operations; passes of
/// different engines wait for nobody. So a worker with several engines has lanes, each with its
/// part of the threads, and a pass takes any lane that is free. Where one engine alone has work it
/// has all of them.
///
/// Two locks on a file, for each lane, make it fair: who finds none free takes the place of
/// the next in line, and gives that up once it has the turn; so nobody has two turns in a row while
/// another waits. Record locks belong to a process and go with the first of its descriptors of the
/// file that is closed.
///
/// Threads that nobody uses are lent: who has a turn takes the lanes of workers that have nothing
/// to do along, so that the last calls of a run, or the only ones, have the whole machine. A worker
/// that gets work meanwhile has its threads back after that pass. While queries compute in the
/// process of the tools (BusyTools), a pass of several threads leaves them theirs.
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

  static constexpr int32_t kMostLanes = 256;

 private:
  friend class BusyTools;
  static constexpr size_t kPlaces = 1024;  ///< engines beyond these announce nothing
  struct Place {
    /// What was announced. Of a process that has ended it stays: a lock tells.
    std::atomic<int32_t> fullness;
    std::atomic<int32_t> worker;
    std::atomic<int32_t> gathers;  ///< 1: it lets calls gather, and needs no threads until then
  };
  struct Shared {
    std::array<Place, kPlaces> places;
    std::atomic<size_t> used;           ///< places from the first on that anybody has ever had
    std::atomic<int32_t> tool_threads;  ///< that compute now
  };

  bool IsThere(size_t place) const;
  /// An engine of this worker, other than this one, would compute if it could.
  bool OthersHaveWork(int32_t worker) const;
  void SetGathers(bool gathers);
  int32_t TakeLane();
  Shared& shared() const { return *static_cast<Shared*>(memory_.data()); }

  Descriptor file_;
  MappedMemory memory_;
  int32_t worker_;
  ThreadShares shares_;
  size_t place_ = kPlaces;
  int32_t refusals_ = 0;           ///< in a row
  int32_t lane_ = -1;              ///< whose turn it has; lanes of all workers are counted through
  std::vector<int32_t> borrowed_;  ///< lanes whose turn it has beside
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
