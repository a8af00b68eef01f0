#pragma once

#include <string>

namespace halo {

/// A folder for temporary files that goes when the session goes.
class TemporaryFolder {
 public:
  /// Throws Error(kConfig) or Error(kIo) where there can be none.
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

}  // namespace halo
