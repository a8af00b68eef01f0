// Any bytes, taken for a file of rows in the format that the first byte names, are as many rows as
// the scan promised or an Error that says where and what. Standard input is never refused: its bad
// lines are failed rows.

#include <fcntl.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "fuzz/property.h"
#include "workflow/rows.h"

namespace {

using halo::fuzz::Require;

/// A folder of this process, removed when it ends.
class Folder {
 public:
  Folder() : path_((std::filesystem::temp_directory_path() / "halo-rows-fuzz-XXXXXX").string()) {
    Require(mkdtemp(path_.data()) != nullptr, "a folder for temporary files can be made");
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  Require(file.good(), "the file of rows can be written");
}

void CheckRow(const halo::Row& row, int64_t index) {
  Require(row.index == index, "rows are counted");
  Require(row.values.is_object(), "a row is an object");
  Require(row.failure.has_value() || row.id.is_string() || row.id.is_number(),
          "a row's id is a text or a number");
}

void ReadFileOfRows(const std::string& path) {
  halo::RowOptions options;
  options.spec = path;
  try {
    const auto rows = halo::OpenRows(options);
    int64_t count = 0;
    while (const auto row = rows->Next()) {
      CheckRow(*row, count++);
      Require(!row->failure, "a scanned file has no failed rows");
    }
    Require(count == rows->total(), "a file has as many rows as its scan said");
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, true);
  }
}

void ReadStandardInput(const std::string& path, const std::string& folder) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Require(fd >= 0, "the file of rows can be opened");
  halo::RowOptions options;
  options.spec = "-";
  options.spool_folder = folder;
  options.standard_input_fd = fd;
  {
    const auto rows = halo::OpenRows(options);
    int64_t count = 0;
    while (const auto row = rows->Next()) CheckRow(*row, count++);
  }
  close(fd);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Folder folder;
  if (size == 0) return 0;
  const std::string bytes = halo::fuzz::Text(data + 1, size - 1);
  const auto in = [](const char* name) { return folder.path() + "/" + name; };
  switch (data[0]) {
    case 'a':
      WriteFile(in("rows.json"), bytes);
      ReadFileOfRows(in("rows.json"));
      break;
    case 'c':
      WriteFile(in("rows.csv"), bytes);
      ReadFileOfRows(in("rows.csv"));
      break;
    case 'l':
      WriteFile(in("rows.jsonl"), bytes);
      ReadFileOfRows(in("rows.jsonl"));
      ReadStandardInput(in("rows.jsonl"), folder.path());
      break;
    default:
      break;
  }
  return 0;
}
