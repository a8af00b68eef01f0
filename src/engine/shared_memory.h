#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <span>
#include <string_view>

#include "base/descriptor.h"

namespace halo {

/// Anonymous shared memory of `bytes` zeros under one name for debuggers; its size stays what it is
/// from then on. Throws Error(kIo).
Descriptor MakeSharedMemory(const char* name, size_t bytes);

/// Anonymous shared memory that holds these bytes and can never be changed again, by anyone. Throws
/// Error(kIo).
Descriptor ShareBytes(std::string_view bytes);

/// A mapping of shared memory. Owns the mapping, not the descriptor.
class MappedMemory {
 public:
  MappedMemory() = default;
  /// All of what MakeSharedMemory made, to be read and written. Throws Error(kIo).
  static MappedMemory Writable(const Descriptor& memory, size_t bytes);
  /// The same, with all pages there.
  static MappedMemory Populated(const Descriptor& memory, size_t bytes);
  /// What another process shared, to be read in place. Refuses (Error kIo) what that process could
  /// still change or cut while it is being read, which would end this one with a signal, and what
  /// is not `bytes` long.
  static MappedMemory Sealed(const Descriptor& memory, size_t bytes);
  ~MappedMemory();
  MappedMemory(MappedMemory&& other) noexcept;
  MappedMemory& operator=(MappedMemory&& other) noexcept;

  void* data() const { return data_; }
  std::string_view text() const { return {static_cast<const char*>(data_), bytes_}; }

 private:
  MappedMemory(void* data, size_t bytes) : data_(data), bytes_(bytes) {}

  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Shared memory to be written in place, its pages made ahead: making them takes several times as
/// long as writing them (docs/benchmarks/processor.md), and can be done beside other work. From the
/// first use on one piece as large as the last one lies ready, made on a thread of its own. Not
/// thread-safe.
class PreparedMemory {
 public:
  /// What `write` puts into the front of `most` bytes, as many as it says, sealed as by ShareBytes;
  /// 0: nothing, and no memory is returned. Throws Error(kIo).
  Descriptor Share(size_t most, const std::function<size_t(std::span<uint8_t>)>& write,
                   int64_t& written);

 private:
  struct Piece {
    Descriptor memory;
    MappedMemory mapped;
  };
  static Piece Make(size_t bytes);

  std::future<Piece> next_;  ///< empty pieces: there was no memory for one
};

}  // namespace halo
