#include "runtime/result_sink.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "base/text.h"
#include "runtime/parquet_results.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kBufferBytes = size_t{256} << 10;

std::string Compact(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// Buffered writing to a descriptor; every fault names the file.
class OutputStream {
 public:
  OutputStream(int fd, std::string name) : fd_(fd), name_(std::move(name)) {}

  void Append(std::string_view bytes) {
    buffer_.append(bytes);
    if (buffer_.size() >= kBufferBytes) Flush();
  }

  void Flush() {
    std::string_view rest = buffer_;
    while (!rest.empty()) {
      const ssize_t written = write(fd_, rest.data(), rest.size());
      if (written < 0 && errno == EINTR) continue;
      if (written < 0 && errno == EAGAIN) {  // somebody else made the terminal non-blocking
        pollfd ready{fd_, POLLOUT, 0};
        poll(&ready, 1, -1);
        continue;
      }
      if (written < 0) {
        // What was written must not be written again by a later Flush.
        const int fault = errno;
        buffer_.erase(0, buffer_.size() - rest.size());
        Fail("write", fault);
      }
      rest.remove_prefix(static_cast<size_t>(written));
    }
    buffer_.clear();
  }

  [[noreturn]] void Fail(const char* what, int fault) const {
    throw Error(ErrorCode::kIo,
                {{{name_, 0, 0}, std::string("cannot ") + what + ": " + std::strerror(fault)}});
  }
  int fd() const { return fd_; }

 private:
  int fd_;
  std::string name_;
  std::string buffer_;
};

/// How a row becomes text.
class RowFormat {
 public:
  virtual ~RowFormat() = default;
  virtual std::string Header() const = 0;
  virtual std::string Line(const RowResult& row) const = 0;
};

class JsonLinesFormat final : public RowFormat {
 public:
  std::string Header() const override { return ""; }
  std::string Line(const RowResult& row) const override { return Compact(row.ToJson()) + "\n"; }
};

/// RFC 4180, with LF as the end of a line.
class CsvFormat final : public RowFormat {
 public:
  explicit CsvFormat(std::vector<std::string> output_names)
      : output_names_(std::move(output_names)) {}

  std::string Header() const override {
    std::string line = "id,status";
    for (const std::string& name : output_names_) line += "," + Quote(name);
    return line + ",error_operator,error_code,error_message,prompt_tokens,output_tokens\n";
  }

  std::string Line(const RowResult& row) const override {
    std::string line = Cell(row.id) + (row.failure ? ",failed" : ",ok");
    for (const std::string& name : output_names_) {
      line += ',';
      for (const auto& [output, value] : row.outputs) {
        if (output != name) continue;
        line += Cell(value);
        break;
      }
    }
    const Failure failure = row.failure.value_or(Failure{});
    line +=
        "," + Quote(failure.operator_id) + "," + Quote(failure.code) + "," + Quote(failure.message);
    return line + "," + std::to_string(row.prompt_tokens) + "," +
           std::to_string(row.output_tokens) + "\n";
  }

 private:
  static std::string Cell(const Json& value) {
    if (value.is_null()) return "";
    if (value.is_string()) return Quote(value.get_ref<const std::string&>());
    return Quote(Compact(value));
  }

  static std::string Quote(const std::string& value) {
    const std::string text = ReplaceInvalidUtf8(value);
    const bool plain = text.find_first_of(",\"\r\n") == std::string::npos;
    const bool padded = !text.empty() && (text.front() == ' ' || text.back() == ' ');
    if (plain && !padded) return text;
    std::string quoted = "\"";
    for (const char c : text) {
      if (c == '"') quoted += '"';
      quoted += c;
    }
    return quoted + '"';
  }

  const std::vector<std::string> output_names_;
};

/// Rows to a descriptor that belongs to somebody else.
class StreamSink final : public ResultSink {
 public:
  explicit StreamSink(int fd) : stream_(fd, "standard output") {}
  void Write(const RowResult& row) override { stream_.Append(format_.Line(row)); }
  void Flush() override { stream_.Flush(); }
  void Finish() override { stream_.Flush(); }

 private:
  JsonLinesFormat format_;
  OutputStream stream_;
};

/// Rows to PATH.part, which becomes PATH when all are there. The part is locked until then: two
/// runs that wrote to one file would make one of both, in which lines lie across each other.
class FileSink : public ResultSink {
 public:
  FileSink(std::string path, std::unique_ptr<RowFormat> format)
      : path_(std::move(path)),
        part_path_(path_ + ".part"),
        format_(std::move(format)),
        stream_(OpenPart(), part_path_) {
    stream_.Append(format_->Header());
  }

  ~FileSink() override {
    if (finished_) return;
    try {  // what is there is kept in PATH.part
      stream_.Flush();
    } catch (const Error&) {
      // Reported when a row was written, or never: nothing can be thrown from here.
    }
    close(stream_.fd());
  }

  void Write(const RowResult& row) override { stream_.Append(format_->Line(row)); }
  void Flush() override { stream_.Flush(); }

  void Finish() override {
    if (finished_) return;
    stream_.Flush();
    // Some file systems (pipes, /dev) cannot be synchronized, and lose nothing by it.
    if (fsync(stream_.fd()) != 0 && errno != EINVAL && errno != EROFS) {
      stream_.Fail("synchronize", errno);
    }
    Publish();  // under the lock: nobody else begins anew what is renamed here
    finished_ = true;
    if (close(stream_.fd()) != 0 && errno != EINTR) stream_.Fail("close", errno);
    SynchronizeFolder();
  }

 protected:
  /// Makes PATH from PATH.part, which is whole and on the disk.
  virtual void Publish() { Rename(part_path_); }

  void Rename(const std::string& finished_path) const {
    if (std::rename(finished_path.c_str(), path_.c_str()) != 0)
      OutputStream(-1, path_).Fail("rename the finished file to it", errno);
  }
  const std::string& path() const { return path_; }
  const std::string& part_path() const { return part_path_; }

 private:
  int OpenPart() const {
    const auto refuse = [&](const std::string& why) {
      throw Error(ErrorCode::kIo, {{{path_, 0, 0}, why}});
    };
    const std::filesystem::path folder = Folder();
    std::error_code ignored;
    if (std::filesystem::is_directory(path_, ignored)) {
      refuse("this is a folder: give a file to write the results to");
    }
    if (!std::filesystem::is_directory(folder, ignored)) {
      refuse("the folder '" + folder.string() + "' does not exist: create it first");
    }
    // Whoever holds the lock may rename the file before this one has it: then there is another one.
    constexpr int kMostTries = 100;
    for (int tries = 0; tries < kMostTries; ++tries) {
      const int fd = open(part_path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
      if (fd < 0) OutputStream(-1, part_path_).Fail("create", errno);
      if (IsOurs(fd)) return fd;
      close(fd);
    }
    OutputStream(-1, part_path_).Fail("lock", EBUSY);
  }

  /// Locks the part and begins it anew; false: it has another name by now. Throws where another run
  /// has it, and closes it then.
  bool IsOurs(int fd) const {
    struct stat opened {
    }, named{};
    if (fstat(fd, &opened) != 0 || !S_ISREG(opened.st_mode)) return true;  // a device, a pipe
    // Some file systems have no locks: there it is up to whoever starts runs, as it is with links.
    if (flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      close(fd);
      throw Error(ErrorCode::kIo,
                  {{{part_path_, 0, 0},
                    "another run writes to this file: wait for it, or give another place"}});
    }
    if (stat(part_path_.c_str(), &named) != 0 || named.st_ino != opened.st_ino ||
        named.st_dev != opened.st_dev)
      return false;
    if (ftruncate(fd, 0) == 0) return true;
    const int fault = errno;
    close(fd);
    OutputStream(-1, part_path_).Fail("begin anew", fault);
  }

  std::filesystem::path Folder() const {
    const std::filesystem::path folder = std::filesystem::path(path_).parent_path();
    return folder.empty() ? "." : folder;
  }

  /// Makes the new name last over a crash; the data is safe already, so a fault here is no fault of
  /// the run.
  void SynchronizeFolder() const {
    const int fd = open(Folder().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
  }

  const std::string path_;
  const std::string part_path_;
  const std::unique_ptr<RowFormat> format_;
  OutputStream stream_;
  bool finished_ = false;
};

/// Rows to PATH.part as JSON lines, which become PATH as Parquet when all are there. A run that is
/// stopped or killed leaves lines that everybody can read; a Parquet file that is not finished can
/// be read by nobody.
class ParquetSink final : public FileSink {
 public:
  ParquetSink(std::string path, std::vector<std::string> output_names)
      : FileSink(std::move(path), std::make_unique<JsonLinesFormat>()),
        output_names_(std::move(output_names)) {}

 protected:
  void Publish() override {
    const std::string unfinished = part_path() + ".parquet";
    try {
      WriteParquetResults(part_path(), output_names_, unfinished);
      Rename(unfinished);
    } catch (const Error& error) {
      std::remove(unfinished.c_str());
      throw Error(ErrorCode::kIo, std::string(error.what()) + "\nall rows are kept in " +
                                      part_path() + ", one JSON object a line");
    }
    std::remove(part_path().c_str());  // stays, in addition, where it cannot be removed
  }

 private:
  const std::vector<std::string> output_names_;
};

}  // namespace

Json RowResult::ToJson() const {
  Json row;
  row["id"] = id;
  row["status"] = failure ? "failed" : "ok";
  Json values = Json::object();
  for (const auto& [name, value] : outputs) values[name] = value;
  row["outputs"] = std::move(values);
  if (!skipped.empty()) row["skipped"] = skipped;
  row["error"] = nullptr;
  if (failure) {
    row["error"] = {
        {"operator", failure->operator_id}, {"code", failure->code}, {"message", failure->message}};
    if (failure->operator_id.empty()) row["error"]["operator"] = nullptr;
  }
  row["usage"] = {{"prompt_tokens", prompt_tokens}, {"output_tokens", output_tokens}};
  return row;
}

std::unique_ptr<ResultSink> OpenResultSink(const std::string& spec,
                                           const std::vector<std::string>& output_names,
                                           int standard_output_fd) {
  if (spec == "-") return std::make_unique<StreamSink>(standard_output_fd);
  const std::string ending = std::filesystem::path(spec).extension().string();
  if (ending == ".jsonl") {
    return std::make_unique<FileSink>(spec, std::make_unique<JsonLinesFormat>());
  }
  if (ending == ".csv") {
    return std::make_unique<FileSink>(spec, std::make_unique<CsvFormat>(output_names));
  }
  if (ending == ".parquet") {
    CheckParquetColumns(spec, output_names);
    return std::make_unique<ParquetSink>(spec, output_names);
  }
  throw Error(
      ErrorCode::kUsage,
      {{{spec, 0, 0},
        "unknown kind of results: expected a file that ends in .jsonl, .csv or .parquet, or "
        "'-' for JSONL on standard output"}});
}

namespace {

class DiscardingSink final : public ResultSink {
 public:
  void Write(const RowResult&) override {}
  void Finish() override {}
  void Flush() override {}
};

}  // namespace

std::unique_ptr<ResultSink> DiscardResults() { return std::make_unique<DiscardingSink>(); }

}  // namespace halo
