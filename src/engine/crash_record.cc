#include "engine/crash_record.h"

#include <algorithm>
#include <atomic>
#include <utility>

namespace halo {

/// Zeros are an empty record.
struct CrashRecord::Layout {
  static constexpr size_t kPlaces = 510;  // llama.cpp has 256 sequences; some may be preempted

  std::atomic<uint64_t> taken;
  std::atomic<uint64_t> is_incomplete;
  std::atomic<uint64_t> computed[kPlaces];  // 0: free
};

CrashRecord::CrashRecord()
    : memory_(MakeSharedMemory("halo-calls", sizeof(Layout))),
      mapping_(MappedMemory::Writable(memory_, sizeof(Layout))) {
  static_assert(std::atomic<uint64_t>::is_always_lock_free, "it is shared between processes");
}

CrashRecord::CrashRecord(Descriptor memory)
    : memory_(std::move(memory)), mapping_(MappedMemory::Writable(memory_, sizeof(Layout))) {}

CrashRecord::Layout& CrashRecord::layout() const { return *static_cast<Layout*>(mapping_.data()); }

void CrashRecord::SetTaken(RequestId id) { layout().taken.store(id); }

void CrashRecord::Begin(RequestId id) {
  Layout& record = layout();
  size_t place = Layout::kPlaces;
  for (size_t i = 0; i < Layout::kPlaces; ++i) {
    const uint64_t there = record.computed[i].load(std::memory_order_relaxed);
    if (there == id) return;
    if (there == 0 && place == Layout::kPlaces) place = i;
  }
  if (place == Layout::kPlaces) {
    record.is_incomplete.store(1);
  } else {
    record.computed[place].store(id);
  }
}

void CrashRecord::End(RequestId id) {
  for (std::atomic<uint64_t>& place : layout().computed) {
    if (place.load(std::memory_order_relaxed) == id) place.store(0);
  }
}

std::optional<std::vector<RequestId>> CrashRecord::Caught() const {
  const Layout& record = layout();
  if (record.is_incomplete.load() != 0) return std::nullopt;
  std::vector<RequestId> caught;
  for (const std::atomic<uint64_t>& place : record.computed) {
    if (const uint64_t id = place.load(); id != 0) caught.push_back(id);
  }
  const uint64_t taken = record.taken.load();
  if (taken != 0 && std::find(caught.begin(), caught.end(), taken) == caught.end())
    caught.push_back(taken);
  return caught;
}

}  // namespace halo
