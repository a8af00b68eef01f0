#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <string>

namespace halo {

/// A regular file that is read twice, by a scan and by a run, and must not change in between.
class InputFile {
 public:
  /// Throws Error(kRows) if `path` cannot be opened or is not a regular file.
  explicit InputFile(std::string path);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int fd() const { return fd_; }
  int64_t size_bytes() const { return size_bytes_; }
  /// Back to the first byte.
  void Rewind();
  /// Throws Error(kIo) if size or modification time are not what they were when the file was
  /// opened.
  void CheckUnchanged() const;
  /// Throws Error(kIo): the file is not what the scan saw.
  [[noreturn]] void ReportChange() const;

 private:
  std::string path_;
  int fd_ = -1;
  int64_t size_bytes_ = 0;
  struct timespec modified_ {};
};

/// read(2) into `buffer`, again after a signal; 0 at the end. Throws Error(kIo) naming `path`.
size_t ReadSome(int fd, char* buffer, size_t capacity_bytes, const std::string& path);

}  // namespace halo
