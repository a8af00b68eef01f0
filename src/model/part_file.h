#pragma once

#include <cstdint>
#include <string>

namespace halo {

/// A model file that is being written. It appears under its name only when it is whole: without
/// Keep() it is removed. Throws Error(kIo) naming the file.
class PartFile {
 public:
  explicit PartFile(const std::string& path);
  ~PartFile();
  PartFile(const PartFile&) = delete;
  PartFile& operator=(const PartFile&) = delete;

  int descriptor() const { return descriptor_; }
  const std::string& part() const { return part_; }

  /// Makes the file `file_bytes` long and writes `header` at its start.
  void WriteHeader(const std::string& header, uint64_t file_bytes);
  /// Gives the file its name.
  void Keep();

 private:
  [[noreturn]] void Fail() const;

  std::string path_;
  std::string part_;
  int descriptor_ = -1;
  bool kept_ = false;
};

}  // namespace halo
