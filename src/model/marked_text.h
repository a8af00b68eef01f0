#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace halo {

/// Where bytes came from. Values from kFirstHole on are holes: parts of a prompt that a template
/// shall only copy or trim, one number each.
using Origin = int32_t;
inline constexpr Origin kFromTemplate = 0;
inline constexpr Origin kFromData = 1;
inline constexpr Origin kFirstHole = 2;

/// A text that knows the origin of each of its bytes. Every operation of a template is made of
/// Append and Slice, so no filter can lose an origin.
class MarkedText {
 public:
  MarkedText() = default;
  MarkedText(std::string bytes, Origin origin) : bytes_(std::move(bytes)), first_(origin) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// True if every byte has this origin; an empty text has every origin.
  bool Is(Origin origin) const { return empty() || (later_.empty() && first_ == origin); }
  bool HasHole() const;
  /// kFromTemplate if all bytes are the template's, else kFromData.
  Origin Blend() const;
  Origin OriginAt(size_t position) const;

  void Append(std::string_view bytes, Origin origin);
  void Append(const MarkedText& other) { AppendSlice(other, 0, other.size()); }
  void AppendSlice(const MarkedText& other, size_t begin, size_t length);
  MarkedText Slice(size_t begin, size_t length) const;
  /// Replaces bytes one by one, origins stay.
  template <typename Change>
  void Transform(Change change) {
    change(&bytes_);
  }
  /// Calls visit(std::string_view, Origin) for each longest part of one origin.
  template <typename Visit>
  void ForEachPart(Visit visit) const {
    size_t begin = 0;
    Origin origin = first_;
    for (const auto& [next, next_origin] : later_) {
      visit(std::string_view(bytes_).substr(begin, next - begin), origin);
      begin = next;
      origin = next_origin;
    }
    if (begin < bytes_.size()) visit(std::string_view(bytes_).substr(begin), origin);
  }

 private:
  std::string bytes_;
  Origin first_ = kFromTemplate;  // origin of the first bytes
  std::vector<std::pair<size_t, Origin>>
      later_;  // (position, origin from there on), ascending, never at 0
};

}  // namespace halo
