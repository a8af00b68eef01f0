#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace halo {

/// Lines of a file or a pipe, each as soon as it is complete, in memory bounded by the longest
/// allowed line.
class LineReader {
 public:
  struct Line {
    std::string_view text;  ///< without "\n" or "\r\n"; valid until the next call
    int64_t number = 0;     ///< from 1
    bool too_long = false;  ///< more than kMaxLineBytes: `text` is empty, the line was skipped
  };
  static constexpr size_t kMaxLineBytes = size_t{64} << 20;

  /// Reads `fd`, which the caller keeps open; `path` is what errors name. `tee` (may be empty) sees
  /// all bytes as they are read.
  LineReader(int fd, std::string path, std::function<void(std::string_view)> tee = {});

  /// The next line, or nothing at the end; a UTF-8 byte order mark before the first line is left
  /// out. Throws Error(kIo).
  std::optional<Line> Next();
  /// True if Next will not block: a line is whole, or the end was reached. Waits for that at most
  /// `wait_us`, and reads at most a few MiB. Throws Error(kIo).
  bool Ready(int64_t wait_us);

 private:
  /// A whole line is held: its length is in searched_. Lets go of the beginning of one that is too
  /// long.
  bool HasLine();
  /// Reads more bytes after those that are held; false at the end.
  bool Fill();
  Line Take(size_t length_bytes);

  int fd_;
  std::string path_;
  std::function<void(std::string_view)> tee_;
  std::string buffer_;
  size_t begin_ = 0;       ///< of the bytes not yet given out
  size_t end_ = 0;         ///< behind the last byte read
  size_t searched_ = 0;    ///< bytes after begin_ that hold no line's end
  bool too_long_ = false;  ///< the beginning of this line was let go
  int64_t lines_ = 0;
  bool at_end_ = false;
};

}  // namespace halo
