#pragma once

#include <optional>
#include <vector>

#include "base/descriptor.h"
#include "engine/engine.h"
#include "engine/shared_memory.h"

namespace halo {

/// Which requests an engine's process is computing, written where it survives that process: those
/// were caught when it ended. Many more wait inside an engine than it computes, and they are not to
/// blame. The process may write nonsense here; readers take it as a hint about requests they know.
class CrashRecord {
 public:
  /// A new one, of the process that supervises. Throws Error(kIo).
  CrashRecord();
  /// The same one in the engine's process.
  explicit CrashRecord(Descriptor memory);

  const Descriptor& memory() const { return memory_; }

  // The engine's process writes.
  /// A request is being handed to the engine; 0: no longer.
  void SetTaken(RequestId id);
  void Begin(RequestId id);
  void End(RequestId id);

  /// What was being taken or computed, in no order; nothing if that was more than there is room
  /// for.
  std::optional<std::vector<RequestId>> Caught() const;

 private:
  struct Layout;
  Layout& layout() const;

  Descriptor memory_;
  MappedMemory mapping_;
};

}  // namespace halo
