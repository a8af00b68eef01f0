#include "bench/paired_statistics.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace halo::bench {
namespace {

/// Of the standard normal distribution: 95 % lie within so many standard deviations.
constexpr double kZ = 1.959963984540054;

void Check(const Discordance& counts) {
  if (counts.of <= 0 || counts.gained < 0 || counts.lost < 0 ||
      counts.gained + counts.lost > counts.of) {
    throw std::invalid_argument("more discordant pairs than pairs, or none at all");
  }
}

}  // namespace

Interval WilsonInterval(int64_t right, int64_t of) {
  if (of <= 0 || right < 0 || right > of) {
    throw std::invalid_argument("a proportion needs 0 <= right <= of and of > 0");
  }
  const double n = static_cast<double>(of);
  const double p = static_cast<double>(right) / n;
  const double scale = 1.0 + kZ * kZ / n;
  const double center = (p + kZ * kZ / (2.0 * n)) / scale;
  const double half = kZ * std::sqrt(p * (1.0 - p) / n + kZ * kZ / (4.0 * n * n)) / scale;
  // The bound at a proportion of 0 or 1 is exact; rounding must not leave it.
  return {right == 0 ? 0.0 : center - half, right == of ? 1.0 : center + half};
}

double Discordance::difference() const {
  return static_cast<double>(gained - lost) / static_cast<double>(of);
}

Interval PairedDifferenceInterval(const Discordance& counts) {
  Check(counts);
  const double n = static_cast<double>(counts.of) + 2.0;
  const double gained = static_cast<double>(counts.gained) + 0.5;
  const double lost = static_cast<double>(counts.lost) + 0.5;
  const double difference = (gained - lost) / n;
  const double half = kZ * std::sqrt(gained + lost - n * difference * difference) / n;
  return {std::max(-1.0, difference - half), std::min(1.0, difference + half)};
}

double McNemarExactP(const Discordance& counts) {
  Check(counts);
  const int64_t pairs = counts.gained + counts.lost;
  const int64_t fewer = std::min(counts.gained, counts.lost);
  // By logarithms: 2^-pairs alone leaves the range of a double.
  const auto log_factorial = [](int64_t k) { return std::lgamma(static_cast<double>(k) + 1.0); };
  double tail = 0.0;
  for (int64_t k = 0; k <= fewer; ++k) {
    tail += std::exp(log_factorial(pairs) - log_factorial(k) - log_factorial(pairs - k) -
                     static_cast<double>(pairs) * std::log(2.0));
  }
  return std::min(1.0, 2.0 * tail);
}

}  // namespace halo::bench
