#include "workflow/json_array_reader.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "workflow/input_file.h"

namespace halo {
namespace {

constexpr size_t kReadBytes = size_t{1} << 18;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

bool IsBlank(int byte) { return byte == ' ' || byte == '\n' || byte == '\r' || byte == '\t'; }

}  // namespace

JsonArrayReader::JsonArrayReader(int fd, std::string path) : fd_(fd), path_(std::move(path)) {
  buffer_.resize(kReadBytes);
  while (end_ < kByteOrderMark.size() && !at_end_) {
    const size_t got = ReadSome(fd_, buffer_.data() + end_, buffer_.size() - end_, path_);
    at_end_ = got == 0;
    end_ += got;
  }
  if (std::string_view(buffer_.data(), end_).starts_with(kByteOrderMark))
    begin_ = kByteOrderMark.size();
}

int JsonArrayReader::Peek() {
  if (begin_ == end_ && !at_end_) {
    begin_ = 0;
    end_ = ReadSome(fd_, buffer_.data(), buffer_.size(), path_);
    at_end_ = end_ == 0;
  }
  return begin_ == end_ ? kEnd : static_cast<unsigned char>(buffer_[begin_]);
}

void JsonArrayReader::Take() {
  if (buffer_[begin_++] == '\n') {
    ++place_.line;
    place_.column = 1;
  } else {
    ++place_.column;
  }
}

int JsonArrayReader::PeekBehindBlanks() {
  while (IsBlank(Peek())) Take();
  return Peek();
}

JsonArrayReader::Element JsonArrayReader::Fault(std::string message) {
  state_ = State::kDone;
  return {place_, "", std::move(message)};
}

std::optional<JsonArrayReader::Element> JsonArrayReader::Next() {
  if (state_ == State::kDone) return std::nullopt;
  if (state_ == State::kBeforeArray) {
    const int first = PeekBehindBlanks();
    if (first == kEnd) return Fault("not valid JSON: the file is empty, expected an array");
    if (first != '[') return Fault("expected an array of objects");
    Take();
    state_ = State::kFirst;
  }
  int next = PeekBehindBlanks();
  const bool end_of_array = next == ']';
  if (end_of_array) {
    Take();
    if (PeekBehindBlanks() != kEnd)
      return Fault("not valid JSON: expected nothing behind the array");
    state_ = State::kDone;
    return std::nullopt;
  }
  if (state_ == State::kBehindElement) {
    if (next != ',') return Fault("not valid JSON: expected a comma or the end of the array");
    Take();
    next = PeekBehindBlanks();
  }
  if (next == kEnd || next == ',' || next == ']' || next == '}')
    return Fault("not valid JSON: expected a row");
  state_ = State::kBehindElement;
  return ReadElement();
}

JsonArrayReader::Element JsonArrayReader::ReadElement() {
  Element element;
  element.start = place_;
  ReadText(element.text);
  if (element.text.size() > kMaxElementBytes) {
    element.fault = "the row that begins here has more than 64 MiB: is every bracket closed?";
    state_ = State::kDone;
  }
  return element;
}

/// To the bracket that closes the first one, or to what ends a value without brackets.
void JsonArrayReader::ReadText(std::string& text) {
  size_t depth = 0;
  bool in_string = false;
  bool escaped = false;
  while (text.size() <= kMaxElementBytes) {
    const int byte = Peek();
    if (byte == kEnd) return;
    const bool ends = byte == ',' || byte == ']' || byte == '}' || IsBlank(byte);
    if (depth == 0 && !in_string && ends) return;
    text += static_cast<char>(byte);
    Take();
    if (in_string) {
      if (byte == '"' && !escaped) in_string = false;
      escaped = byte == '\\' && !escaped;
    } else if (byte == '"') {
      in_string = true;
      escaped = false;
    } else if (byte == '{' || byte == '[') {
      ++depth;
    } else if ((byte == '}' || byte == ']') && --depth == 0) {
      return;
    }
  }
}

JsonArrayReader::Place JsonArrayReader::PlaceIn(const Element& element, size_t offset) {
  const std::string_view before =
      std::string_view(element.text).substr(0, std::min(offset, element.text.size()));
  const auto lines = std::count(before.begin(), before.end(), '\n');
  if (lines == 0)
    return {element.start.line, element.start.column + static_cast<int64_t>(before.size())};
  return {element.start.line + lines, static_cast<int64_t>(before.size() - before.rfind('\n'))};
}

}  // namespace halo
