#pragma once

#include <algorithm>

namespace halo {

/// A predicted quantity with the interval that its sources give (about 80 %). Units are those of
/// whatever it stands for. Intervals add up as if all errors pointed one way, which is careful.
struct Estimate {
  double value = 0.0;
  double low = 0.0, high = 0.0;

  static Estimate Exactly(double value) { return {value, value, value}; }
  /// value +- share of it; never below zero.
  static Estimate Within(double value, double share) {
    return {value, value * std::max(0.0, 1.0 - share), value * (1.0 + share)};
  }
  bool is_exact() const { return low == high; }

  friend bool operator==(const Estimate&, const Estimate&) = default;
};

inline Estimate operator+(const Estimate& a, const Estimate& b) {
  return {a.value + b.value, a.low + b.low, a.high + b.high};
}
inline Estimate& operator+=(Estimate& a, const Estimate& b) { return a = a + b; }
inline Estimate operator*(const Estimate& a, double factor) {
  const double one = a.low * factor, other = a.high * factor;
  return {a.value * factor, std::min(one, other), std::max(one, other)};
}
/// Of quantities that are never negative.
inline Estimate operator*(const Estimate& a, const Estimate& b) {
  return {a.value * b.value, a.low * b.low, a.high * b.high};
}

}  // namespace halo
