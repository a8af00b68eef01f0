#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/descriptor.h"

namespace halo {

/// A file of Chrome trace events, which ui.perfetto.dev and chrome://tracing open. Times are given
/// in microseconds of the run's clock and written from the run's start.
///
/// The file is whole after each write: what is written last is the end of the document, and the
/// next write begins over it. So a run may be killed at any moment, and its trace opens.
///
/// Bounds: kBufferBytes in memory, kMostBytes in the file (what a browser still opens). Events
/// beyond that, or behind a write that failed, are left out and counted.
class TraceFile {
 public:
  static constexpr size_t kBufferBytes = 64 * 1024;
  static constexpr int64_t kMostBytes = int64_t{1} << 30;

  using Arguments = nlohmann::ordered_json;  ///< an object, or null for none

  /// A row of the picture: a thread of a process. Both numbers are the caller's, and less than a
  /// million.
  struct Lane {
    int32_t process = 0;
    int32_t thread = 0;
  };

  /// `start_us`: of the run, on its clock. Throws Error(kIo) where the file cannot be made, or has
  /// no place to go back to (a pipe).
  TraceFile(std::string path, int64_t start_us, int64_t most_bytes = kMostBytes);

  /// Processes stand in the order of their numbers.
  void NameProcess(int32_t process, std::string_view name);
  /// Threads of a process stand in the order of `rank`.
  void NameThread(Lane lane, std::string_view name, int32_t rank);
  /// Spans of one lane may lie in each other, and may not overlap otherwise.
  void AddSpan(Lane lane, std::string_view name, int64_t start_us, int64_t end_us,
               const Arguments& arguments = {});
  void AddInstant(Lane lane, std::string_view name, int64_t time_us,
                  const Arguments& arguments = {});
  /// The value holds until the next one of the same process and name.
  void AddCounter(int32_t process, std::string_view name, int64_t time_us, int64_t value);
  /// Counts events that somebody else had to leave out.
  void AddLeftOut(int64_t events) { left_out_ += events; }
  /// Writes what is held in memory.
  void Flush();

  int64_t left_out() const { return left_out_; }
  /// What went wrong with a write, naming the file; "" if nothing did.
  const std::string& fault() const { return fault_; }

 private:
  void Add(std::string_view type, Lane lane, std::string_view name, std::string_view more,
           const Arguments& arguments);
  std::string End() const;
  bool Put(std::string_view text);

  std::string path_;
  int64_t start_us_;
  int64_t most_bytes_;
  Descriptor file_;
  std::string buffer_;
  int64_t buffered_events_ = 0;
  int64_t written_bytes_ = 0;  ///< without the end
  bool is_first_ = true;
  int64_t left_out_ = 0;
  std::string fault_;
};

}  // namespace halo
