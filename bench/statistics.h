#pragma once

#include <algorithm>
#include <stdexcept>
#include <vector>

namespace halo::bench {

/// The middle value, or the mean of the two middle ones.
inline double Median(std::vector<double> values) {
  if (values.empty()) throw std::invalid_argument("the median of nothing");
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  if (values.size() % 2 == 1) return values[middle];
  return 0.5 * (values[middle - 1] + values[middle]);
}

}  // namespace halo::bench
