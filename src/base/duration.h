#pragma once

#include <algorithm>
#include <cstdint>

namespace halo {

/// Thirty years are as good as no limit, and can be counted.
inline int64_t MicrosecondsOf(double seconds) {
  constexpr double kMostSeconds = 1e9, kUsPerS = 1e6;
  return static_cast<int64_t>(std::min(seconds, kMostSeconds) * kUsPerS);
}

}  // namespace halo
