#include "session/trace_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace halo {
namespace {

std::string Quoted(std::string_view text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace

TraceFile::TraceFile(std::string path, int64_t start_us, int64_t most_bytes)
    : path_(std::move(path)),
      start_us_(start_us),
      most_bytes_(most_bytes),
      file_(open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666)),
      buffer_("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[") {
  if (!file_ || lseek(file_.get(), 0, SEEK_SET) != 0) {
    throw Error(ErrorCode::kIo, path_ + ": cannot be written (--trace): " + std::strerror(errno));
  }
  Flush();
  if (!fault_.empty()) throw Error(ErrorCode::kIo, fault_);
}

void TraceFile::NameProcess(int32_t process, std::string_view name) {
  Add("M", {process, 0}, "process_name", "", {{"name", name}});
  Add("M", {process, 0}, "process_sort_index", "", {{"sort_index", process}});
}

void TraceFile::NameThread(Lane lane, std::string_view name, int32_t rank) {
  Add("M", lane, "thread_name", "", {{"name", name}});
  Add("M", lane, "thread_sort_index", "", {{"sort_index", rank}});
}

void TraceFile::AddSpan(Lane lane, std::string_view name, int64_t start_us, int64_t end_us,
                        const Arguments& arguments) {
  Add("X", lane, name,
      fmt::format(",\"ts\":{},\"dur\":{}", start_us - start_us_, end_us - start_us), arguments);
}

void TraceFile::AddInstant(Lane lane, std::string_view name, int64_t time_us,
                           const Arguments& arguments) {
  Add("i", lane, name, fmt::format(",\"ts\":{},\"s\":\"t\"", time_us - start_us_), arguments);
}

void TraceFile::AddCounter(int32_t process, std::string_view name, int64_t time_us, int64_t value) {
  Add("C", {process, 0}, name, fmt::format(",\"ts\":{}", time_us - start_us_), {{"value", value}});
}

void TraceFile::Add(std::string_view type, Lane lane, std::string_view name, std::string_view more,
                    const Arguments& arguments) {
  const auto held = static_cast<int64_t>(buffer_.size());
  if (!fault_.empty() || written_bytes_ + held >= most_bytes_) {
    ++left_out_;
    return;
  }
  // Viewers take the number of a thread for one of the machine's, whatever its process.
  constexpr int64_t kThreadsOfProcess = 1'000'000;
  const int64_t thread = lane.process * kThreadsOfProcess + lane.thread;
  buffer_ += fmt::format("{}\n{{\"ph\":\"{}\",\"pid\":{},\"tid\":{},\"name\":{}{}",
                         is_first_ ? "" : ",", type, lane.process, thread, Quoted(name), more);
  is_first_ = false;
  if (!arguments.is_null()) {
    buffer_ += ",\"args\":";
    buffer_ += arguments.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
  }
  buffer_ += '}';
  ++buffered_events_;
  if (buffer_.size() >= kBufferBytes) Flush();
}

std::string TraceFile::End() const {
  return fmt::format("\n],\"otherData\":{{\"events_left_out\":\"{}\"}}}}\n", left_out_);
}

/// Writes over the end. False with errno.
bool TraceFile::Put(std::string_view text) {
  int64_t at = written_bytes_;
  while (!text.empty()) {
    const ssize_t count = pwrite(file_.get(), text.data(), text.size(), at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += count;
    text.remove_prefix(static_cast<size_t>(count));
  }
  return true;
}

void TraceFile::Flush() {
  if (!fault_.empty()) return;
  if (Put(buffer_ + End())) {
    written_bytes_ += static_cast<int64_t>(buffer_.size());
    buffer_.clear();
    buffered_events_ = 0;
    return;
  }
  fault_ = path_ + ": could not be written completely (--trace): " + std::strerror(errno);
  left_out_ += std::exchange(buffered_events_, 0);
  buffer_.clear();
  // Room that the failed write took is given back, so that there is an end at least.
  if (written_bytes_ == 0 || ftruncate(file_.get(), written_bytes_) != 0) return;
  if (!Put(End())) fault_ += "; it has no end";
}

}  // namespace halo
