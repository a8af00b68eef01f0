#include "model/marked_text.h"

#include <algorithm>

namespace halo {

bool MarkedText::HasHole() const {
  if (empty()) return false;
  if (first_ >= kFirstHole) return true;
  return std::any_of(later_.begin(), later_.end(),
                     [](const auto& part) { return part.second >= kFirstHole; });
}

Origin MarkedText::Blend() const { return Is(kFromTemplate) ? kFromTemplate : kFromData; }

Origin MarkedText::OriginAt(size_t position) const {
  const auto after = std::upper_bound(later_.begin(), later_.end(), position,
                                      [](size_t at, const auto& part) { return at < part.first; });
  return after == later_.begin() ? first_ : std::prev(after)->second;
}

void MarkedText::Append(std::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (bytes_.empty()) {
    first_ = origin;
    later_.clear();
  } else if ((later_.empty() ? first_ : later_.back().second) != origin) {
    later_.emplace_back(bytes_.size(), origin);
  }
  bytes_ += bytes;
}

void MarkedText::AppendSlice(const MarkedText& other, size_t begin, size_t length) {
  const std::string_view bytes = other.bytes_;
  const size_t end = std::min(bytes.size(), begin + length);
  if (begin >= end) return;
  if (other.later_.empty()) {
    Append(bytes.substr(begin, end - begin), other.first_);
    return;
  }
  auto next = std::upper_bound(other.later_.begin(), other.later_.end(), begin,
                               [](size_t at, const auto& part) { return at < part.first; });
  Origin origin = next == other.later_.begin() ? other.first_ : std::prev(next)->second;
  while (begin < end) {
    const size_t part_end = next == other.later_.end() ? end : std::min(end, next->first);
    Append(bytes.substr(begin, part_end - begin), origin);
    begin = part_end;
    if (next != other.later_.end()) {
      origin = next->second;
      ++next;
    }
  }
}

MarkedText MarkedText::Slice(size_t begin, size_t length) const {
  MarkedText slice;
  slice.AppendSlice(*this, begin, length);
  return slice;
}

}  // namespace halo
