#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/descriptor.h"
#include "engine/shared_memory.h"

namespace halo {

/// Turns among engines that share the cores, each in a process of its own: one pass of one of them
/// at a time, since two at once, each with a thread a core, take longer than one after the other
/// (HOUSE measurements: threads beyond the cores halve the rate). The kernel takes a turn back from
/// a process that has ended.
///
/// Two locks on a file make it fair: who wants a turn first takes the place of the next in line,
/// and gives that up once it has the turn; so nobody has two turns in a row while another waits.
/// Record locks belong to a process and go with the first of its descriptors of the file that is
/// closed.
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
  /// Throws Error(kIo).
  explicit EngineTurns(Descriptor file);

  /// How full this engine's next pass would be, up to kFull; 0: there is nothing to do.
  void Announce(int32_t fullness);
  /// False while a process that lives has announced passes much fuller than this one's. Counts how
  /// often that was so.
  bool MayTake();

  /// Waits for it.
  void Take();
  /// Another process waits for the turn that this one has.
  bool IsAwaited() const;
  void GiveBack();

 private:
  static constexpr size_t kPlaces = 64;  ///< engines beyond these announce nothing
  /// [places] What was announced. Of a process that has ended it stays: a lock tells.
  using Announced = std::array<std::atomic<int32_t>, kPlaces>;

  bool IsThere(size_t place) const;
  Announced& announced() const { return *static_cast<Announced*>(memory_.data()); }

  Descriptor file_;
  MappedMemory memory_;
  size_t place_ = kPlaces;
  int32_t refusals_ = 0;  ///< in a row
};

}  // namespace halo
