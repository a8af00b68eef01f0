#include "workflow/line_reader.h"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "workflow/input_file.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr int kReadsAtOnce = 16;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

/// True when a read returns at once: bytes, the end, or an error, which the read will name.
bool Readable(int fd, int64_t wait_us) {
  constexpr int64_t kUsPerMs = 1000;
  pollfd descriptor{fd, POLLIN, 0};
  const int ready = poll(&descriptor, 1, static_cast<int>((wait_us + kUsPerMs - 1) / kUsPerMs));
  return ready >
         0;  // a signal ends the wait early: the caller looks at what was asked and comes again
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

bool LineReader::HasLine() {
  const size_t held = end_ - begin_;
  const char* text = buffer_.data() + begin_;
  const void* found =
      held > searched_ ? std::memchr(text + searched_, '\n', held - searched_) : nullptr;
  if (found != nullptr) {
    searched_ = static_cast<size_t>(static_cast<const char*>(found) - text);
    return true;
  }
  searched_ = held;
  if (searched_ > kMaxLineBytes) {  // forget the part that is there, and look for its end
    too_long_ = true;
    begin_ = end_;
    searched_ = 0;
  }
  return false;
}

bool LineReader::Ready(int64_t wait_us) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::microseconds(wait_us);
  // Whoever writes without end and never a whole line must not keep the caller.
  for (int reads = 0; !at_end_ && reads < kReadsAtOnce; ++reads) {
    if (HasLine()) return true;
    const auto left =
        std::chrono::duration_cast<std::chrono::microseconds>(deadline - Clock::now()).count();
    if (!Readable(fd_, std::max<int64_t>(0, left))) return false;
    Fill();
  }
  return at_end_ || HasLine();
}

std::optional<LineReader::Line> LineReader::Next() {
  while (!HasLine()) {
    if (Fill()) continue;
    if (searched_ == 0 && !too_long_) return std::nullopt;
    break;  // the last line has no end
  }
  const size_t length = std::exchange(searched_, 0);
  const bool too_long = std::exchange(too_long_, false) || length > kMaxLineBytes;
  const Line line = Take(length);
  return too_long ? Line{{}, line.number, true} : line;
}

}  // namespace halo
