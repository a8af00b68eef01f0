#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

namespace halo::demo {

/// exp for loops over many elements. Of float: within 2 units in the last place, without a call or
/// a branch, so that compilers vectorize it; below exp(-87) it gives that. Of double: the
/// library's.
inline float FastExp(float x) {
  x = x < -87.0F ? -87.0F : x;
  x = x > 88.0F ? 88.0F : x;
  // x = n ln 2 + r with |r| <= ln 2 / 2. Adding 1.5 * 2^23 rounds to a whole number.
  constexpr float kRound = 12582912.0F;
  const float n = (x * 1.44269504F + kRound) - kRound;
  // ln 2 in two parts, the first of few enough bits that n times it is exact.
  const float r = (x - n * 0.693359375F) + n * 2.12194440e-4F;
  // Taylor's series; what is left out is below 6e-9.
  float sum = 1.0F / 5040.0F;
  sum = sum * r + 1.0F / 720.0F;
  sum = sum * r + 1.0F / 120.0F;
  sum = sum * r + 1.0F / 24.0F;
  sum = sum * r + 1.0F / 6.0F;
  sum = sum * r + 0.5F;
  sum = sum * r + 1.0F;
  sum = sum * r + 1.0F;
  return sum * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

inline double FastExp(double x) { return std::exp(x); }

}  // namespace halo::demo
