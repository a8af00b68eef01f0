#pragma once

#include "base/descriptor.h"

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
class EngineTurns {
 public:
  /// The file that all of them share. Throws Error(kIo).
  static Descriptor MakeFile();
  explicit EngineTurns(Descriptor file) : file_(std::move(file)) {}

  /// Waits for it.
  void Take();
  /// Another process waits for the turn that this one has.
  bool IsAwaited() const;
  void GiveBack();

 private:
  Descriptor file_;
};

}  // namespace halo
