#include "model/part_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/error.h"

namespace halo {

PartFile::PartFile(const std::string& path) : path_(path), part_(path + ".part") {
  descriptor_ = open(part_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) Fail();
}

PartFile::~PartFile() {
  if (descriptor_ >= 0) close(descriptor_);
  if (!kept_) unlink(part_.c_str());
}

void PartFile::WriteHeader(const std::string& header, uint64_t file_bytes) {
  if (ftruncate(descriptor_, static_cast<off_t>(file_bytes)) != 0) Fail();
  size_t written = 0;
  while (written < header.size()) {
    const ssize_t count = pwrite(descriptor_, header.data() + written, header.size() - written,
                                 static_cast<off_t>(written));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) Fail();
    written += static_cast<size_t>(count);
  }
}

void PartFile::Keep() {
  const int closed = close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || std::rename(part_.c_str(), path_.c_str()) != 0) Fail();
  kept_ = true;
}

void PartFile::Fail() const {
  throw Error(ErrorCode::kIo,
              fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
}

}  // namespace halo
