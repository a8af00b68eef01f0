#include "engine/shared_memory.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "base/error.h"

namespace halo {
namespace {

constexpr int kSizeSeals = F_SEAL_SHRINK | F_SEAL_GROW;
constexpr int kAllSeals = kSizeSeals | F_SEAL_WRITE;
/// What comes next may be larger than what came last by this part of it.
constexpr size_t kMargin = 8;

[[noreturn]] void Refuse(const std::string& what) {
  throw Error(ErrorCode::kIo, "shared memory: " + what);
}

Descriptor Create(const char* name) {
  Descriptor memory(memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) Refuse(std::strerror(errno));
  return memory;
}

void Seal(const Descriptor& memory, int seals) {
  if (fcntl(memory.get(), F_ADD_SEALS, seals | F_SEAL_SEAL) != 0) Refuse(std::strerror(errno));
}

void* Map(const Descriptor& memory, size_t bytes, int protection, int flags = 0) {
  void* data = mmap(nullptr, bytes, protection, MAP_SHARED | flags, memory.get(), 0);
  if (data == MAP_FAILED) Refuse(std::strerror(errno));
  return data;
}

}  // namespace

Descriptor MakeSharedMemory(const char* name, size_t bytes) {
  Descriptor memory = Create(name);
  if (ftruncate(memory.get(), static_cast<off_t>(bytes)) != 0) Refuse(std::strerror(errno));
  Seal(memory, kSizeSeals);
  return memory;
}

Descriptor ShareBytes(std::string_view bytes) {
  Descriptor memory = Create("halo-message");
  size_t written = 0;
  while (written < bytes.size()) {
    const ssize_t count = write(memory.get(), bytes.data() + written, bytes.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) Refuse(std::strerror(errno));
    written += static_cast<size_t>(count);
  }
  Seal(memory, kAllSeals);
  return memory;
}

PreparedMemory::Piece PreparedMemory::Make(size_t bytes) {
  Piece piece{Create("halo-kv"), {}};
  if (ftruncate(piece.memory.get(), static_cast<off_t>(bytes)) != 0) Refuse(std::strerror(errno));
  piece.mapped = MappedMemory::Populated(piece.memory, bytes);
  return piece;
}

Descriptor PreparedMemory::Share(size_t most,
                                 const std::function<size_t(std::span<uint8_t>)>& write,
                                 int64_t& written) {
  Piece piece;
  if (next_.valid()) piece = next_.get();
  if (piece.mapped.text().size() < most) piece = Make(most);
  written = static_cast<int64_t>(write({static_cast<uint8_t*>(piece.mapped.data()), most}));
  next_ = std::async(std::launch::async, [bytes = most + most / kMargin] {
    try {
      return Make(bytes);
    } catch (const Error&) {
      return Piece();  // whoever needs one tries again, and says so
    }
  });
  if (written == 0) return {};
  piece.mapped = {};  // it can be sealed once it is mapped nowhere
  if (ftruncate(piece.memory.get(), static_cast<off_t>(written)) != 0) Refuse(std::strerror(errno));
  Seal(piece.memory, kAllSeals);
  return std::move(piece.memory);
}

MappedMemory MappedMemory::Writable(const Descriptor& memory, size_t bytes) {
  return {Map(memory, bytes, PROT_READ | PROT_WRITE), bytes};
}

MappedMemory MappedMemory::Populated(const Descriptor& memory, size_t bytes) {
  return {Map(memory, bytes, PROT_READ | PROT_WRITE, MAP_POPULATE), bytes};
}

MappedMemory MappedMemory::Sealed(const Descriptor& memory, size_t bytes) {
  const int seals = fcntl(memory.get(), F_GET_SEALS);
  if (seals < 0 || (seals & kAllSeals) != kAllSeals)
    Refuse("the other end could change a message while it is read");
  // Huge pages, which can be sealed too, may be missing when they are touched.
  struct statfs file_system {};
  if (fstatfs(memory.get(), &file_system) != 0 || file_system.f_type != TMPFS_MAGIC)
    Refuse("a message does not lie in ordinary pages");
  struct stat status {};
  if (fstat(memory.get(), &status) != 0 || status.st_size != static_cast<off_t>(bytes)) {
    Refuse("a message of " + std::to_string(bytes) + " bytes lies in " +
           std::to_string(status.st_size));
  }
  return {Map(memory, bytes, PROT_READ), bytes};
}

MappedMemory::~MappedMemory() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

MappedMemory::MappedMemory(MappedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}

MappedMemory& MappedMemory::operator=(MappedMemory&& other) noexcept {
  if (this == &other) return *this;
  if (data_ != nullptr) munmap(data_, bytes_);
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

}  // namespace halo
