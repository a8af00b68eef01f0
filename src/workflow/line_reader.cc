#include "workflow/line_reader.h"

#include <poll.h>

#include <cstring>

#include "workflow/input_file.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// True when a read returns at once: bytes, the end, or an error, which the read will name.
bool Readable(int fd, int64_t wait_us) {
  constexpr int64_t kUsPerMs = 1000;
  pollfd descriptor{fd, POLLIN, 0};
  const int ready = poll(&descriptor, 1, static_cast<int>((wait_us + kUsPerMs - 1) / kUsPerMs));
  return ready > 0;  // a signal ends the wait early: the caller looks at what was asked and comes again
}

}  // namespace

LineReader::LineReader(int fd, std::string path, std::function<void(std::string_view)> tee)
    : fd_(fd), path_(std::move(path)), tee_(std::move(tee)) {}

bool LineReader::Fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() < end_ + kReadBytes) buffer_.resize(std::max(2 * end_, end_ + kReadBytes));
  const size_t got = ReadSome(fd_, buffer_.data() + end_, kReadBytes, path_);
  at_end_ = got == 0;
  if (tee_ && got > 0) tee_(std::string_view(buffer_).substr(end_, got));
  end_ += got;
  return got > 0;
}

LineReader::Line LineReader::Take(size_t length_bytes) {
  std::string_view text(buffer_.data() + begin_, length_bytes);
  begin_ += length_bytes;
  if (begin_ < end_) ++begin_;  // the line's end
  if (lines_++ == 0 && text.starts_with(kByteOrderMark)) text.remove_prefix(kByteOrderMark.size());
  if (text.ends_with('\r')) text.remove_suffix(1);
  return {text, lines_, false};
}

bool LineReader::Ready(int64_t wait_us) {
  size_t searched = 0;  // bytes after begin_ that hold no line's end
  while (!at_end_) {
    const size_t held = end_ - begin_;
    if (held > searched && std::memchr(buffer_.data() + begin_ + searched, '\n', held - searched)) return true;
    if (held > kMaxLineBytes) return true;  // Next will skip it, and block until its end comes
    searched = held;
    if (!Readable(fd_, wait_us)) return false;
    Fill();
  }
  return true;
}

std::optional<LineReader::Line> LineReader::Next() {
  size_t searched = 0;  // bytes after begin_ that hold no line's end
  bool too_long = false;
  while (true) {
    const char* from = buffer_.data() + begin_ + searched;
    const void* found =
        end_ > begin_ + searched ? std::memchr(from, '\n', end_ - begin_ - searched) : nullptr;
    if (found) {
      const auto length =
          static_cast<size_t>(static_cast<const char*>(found) - (buffer_.data() + begin_));
      Line line = Take(length);
      if (too_long || length > kMaxLineBytes) return Line{{}, line.number, true};
      return line;
    }
    searched = end_ - begin_;
    if (searched > kMaxLineBytes) {  // forget the part that is there, and look for its end
      too_long = true;
      begin_ = end_;
      searched = 0;
    }
    if (Fill()) continue;
    if (searched == 0 && !too_long) return std::nullopt;
    Line line = Take(searched);
    if (too_long) return Line{{}, line.number, true};
    return line;
  }
}

}  // namespace halo
