#pragma once

#include <cstdint>
#include <iterator>
#include <map>

namespace halo {

/// Rows of one source by their indices, kept as ranges, since they come in long ones.
class RowSet {
 public:
  void Add(int64_t first, int64_t count) {
    Remove(first, count);  // so that nothing overlaps
    int64_t end = first + count;
    const auto after = ranges_.find(end);
    if (after != ranges_.end()) {
      end = after->second;
      ranges_.erase(after);
    }
    const auto next = ranges_.upper_bound(first);
    if (next != ranges_.begin() && std::prev(next)->second == first) {
      std::prev(next)->second = end;
    } else {
      ranges_[first] = end;
    }
  }
  void Remove(int64_t first, int64_t count) {
    const int64_t end = first + count;
    auto it = ranges_.upper_bound(first);
    if (it != ranges_.begin()) --it;
    while (it != ranges_.end() && it->first < end) {
      const auto [from, to] = *it;
      if (to <= first) {
        ++it;
        continue;
      }
      it = ranges_.erase(it);
      if (from < first) ranges_[from] = first;
      if (to > end) ranges_[end] = to;
    }
  }
  bool Contains(int64_t row) const {
    const auto next = ranges_.upper_bound(row);
    return next != ranges_.begin() && row < std::prev(next)->second;
  }
  int64_t size() const {
    int64_t rows = 0;
    for (const auto& [first, end] : ranges_) rows += end - first;
    return rows;
  }

 private:
  std::map<int64_t, int64_t> ranges_;  // first -> end; neither touching nor overlapping
};

}  // namespace halo
