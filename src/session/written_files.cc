#include "session/written_files.h"

#include <filesystem>

#include "base/error.h"

namespace halo {
namespace {

namespace fs = std::filesystem;

const std::string& RealPath(const WrittenFile& file) {
  return file.stage.empty() ? file.path : file.stage;
}

/// Where a path leads, be it there yet or not; "" if that cannot be said, as for "".
fs::path PlaceOf(const std::string& path) {
  std::error_code fault;
  const fs::path absolute = fs::absolute(path, fault);
  if (fault) return {};
  fs::path place = fs::weakly_canonical(absolute, fault);
  return fault ? fs::path() : place;
}

/// True if both are one file, be it under two names or not there yet.
bool AreOne(const std::string& one, const std::string& other) {
  std::error_code not_there;
  if (fs::equivalent(one, other, not_there)) return true;
  const fs::path place = PlaceOf(one);
  return !place.empty() && place == PlaceOf(other);
}

bool IsDevice(const std::string& path) {
  std::error_code fault;  // what cannot be looked at is no device
  const fs::file_status status = fs::status(path, fault);
  return !fault && fs::exists(status) && !fs::is_regular_file(status) && !fs::is_directory(status);
}

[[noreturn]] void Refuse(const WrittenFile& file, const std::string& why) {
  const std::string through =
      file.stage.empty() ? "" : ": it is written to " + file.stage + " first, which";
  throw Error(ErrorCode::kUsage,
              file.option + " " + file.path + through + " " + why + ": choose another file");
}

}  // namespace

std::vector<WrittenFile> FilesOfResults(const std::string& output) {
  if (output.empty() || output == "-") return {};
  const std::string part = output + ".part";
  std::vector<WrittenFile> files = {{"-o", output, ""}, {"-o", output, part}};
  if (output.ends_with(".parquet")) files.push_back({"-o", output, part + ".parquet"});
  return files;
}

void CheckWrittenFiles(const std::vector<WrittenFile>& written,
                       const std::vector<std::string>& read) {
  for (size_t i = 0; i < written.size(); ++i) {
    const std::string& path = RealPath(written[i]);
    if (path.empty() || IsDevice(path)) continue;
    for (const std::string& input : read) {
      if (AreOne(path, input)) Refuse(written[i], "is an input of this run");
    }
    for (size_t other = 0; other < i; ++other) {
      const WrittenFile& earlier = written[other];
      if (earlier.option != written[i].option && AreOne(path, RealPath(earlier)))
        Refuse(written[i], "is written by " + earlier.option + " too");
    }
  }
}

}  // namespace halo
