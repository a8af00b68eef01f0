#pragma once

#include <cstdint>

namespace halo::bench {

struct Interval {
  double low = 0.0;
  double high = 0.0;
};

/// 95 % confidence interval of a proportion (Wilson's score interval): `right` of `of` trials.
/// Throws std::invalid_argument unless 0 <= right <= of and of > 0.
Interval WilsonInterval(int64_t right, int64_t of);

/// The same trials under two treatments: how many only the second got right, and only the first.
struct Discordance {
  int64_t of = 0;
  int64_t gained = 0;
  int64_t lost = 0;

  /// (gained - lost) / of
  double difference() const;
};

/// 95 % confidence interval of the difference of two paired proportions (Agresti and Min: Wald's
/// with half a trial added to each of the four cells). Throws std::invalid_argument for counts that
/// cannot be.
Interval PairedDifferenceInterval(const Discordance& counts);

/// McNemar's exact test, two-sided: how probable a division of the discordant pairs at least as
/// uneven is when both treatments are equally good. 1 without discordant pairs.
double McNemarExactP(const Discordance& counts);

}  // namespace halo::bench
