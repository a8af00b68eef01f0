#include "session/temporary_folder.h"

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace halo {

TemporaryFolder::TemporaryFolder() {
  std::error_code fault;
  const std::filesystem::path folder = std::filesystem::temp_directory_path(fault);
  if (fault) {
    throw Error(ErrorCode::kConfig, "no folder for temporary files (" + fault.message() +
                                        "): let TMPDIR name one that is there");
  }
  // mkdtemp() puts letters of its own in place of the six.
  std::string pattern = (folder / "halo-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) {
    throw Error(ErrorCode::kIo, folder.string() + ": cannot make a folder for temporary files: " +
                                    std::strerror(errno) +
                                    "; let TMPDIR name one that can be written to");
  }
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;  // nothing can be done about a temporary file that stays
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace halo
