#include "bench/paired_statistics.h"

#include <gtest/gtest.h>

#include <cmath>

namespace halo::bench {
namespace {

TEST(PairedStatistics, WilsonIntervalsOfKnownProportions) {
  // By hand for 8 of 10: center (0.8 + z^2/20) / (1 + z^2/10), z = 1.96.
  const Interval most = WilsonInterval(8, 10);
  EXPECT_NEAR(most.low, 0.4902, 1e-4);
  EXPECT_NEAR(most.high, 0.9433, 1e-4);
  const Interval all = WilsonInterval(500, 500);
  EXPECT_NEAR(all.low, 500.0 / (500.0 + 3.8415), 1e-5);
  EXPECT_EQ(all.high, 1.0);
  const Interval none = WilsonInterval(0, 500);
  EXPECT_EQ(none.low, 0.0);
  EXPECT_NEAR(none.high, 1.0 - all.low, 1e-12) << "what holds for right holds for wrong";
}

TEST(PairedStatistics, McNemarIsTheBinomialTestOfTheDiscordantPairs) {
  EXPECT_DOUBLE_EQ(McNemarExactP({100, 0, 0}), 1.0);
  EXPECT_DOUBLE_EQ(McNemarExactP({100, 3, 3}), 1.0);
  EXPECT_NEAR(McNemarExactP({100, 0, 5}), 2.0 / 32.0, 1e-12);
  EXPECT_NEAR(McNemarExactP({100, 1, 5}), 2.0 * (1.0 + 6.0) / 64.0, 1e-12);
  EXPECT_DOUBLE_EQ(McNemarExactP({100, 5, 1}), McNemarExactP({100, 1, 5}));
  const double far = McNemarExactP({5000, 0, 3000});
  EXPECT_TRUE(far >= 0.0 && far < 1e-300) << "no overflow on the way";
}

TEST(PairedStatistics, TheIntervalOfADifference) {
  // Agresti and Min: 502 trials, 3.5 gained, 8.5 lost.
  const Discordance counts{500, 3, 8};
  EXPECT_DOUBLE_EQ(counts.difference(), -0.01);
  const double d = -5.0 / 502.0;
  const double half = 1.959964 * std::sqrt(12.0 - 502.0 * d * d) / 502.0;
  EXPECT_NEAR(PairedDifferenceInterval(counts).low, d - half, 1e-7);
  EXPECT_NEAR(PairedDifferenceInterval(counts).high, d + half, 1e-7);
  const Interval same = PairedDifferenceInterval({500, 0, 0});
  EXPECT_LT(same.low, 0.0) << "500 equal pairs do not prove that all are";
  EXPECT_NEAR(same.low, -same.high, 1e-12);
  EXPECT_LE(PairedDifferenceInterval({1, 1, 0}).high, 1.0);
}

TEST(PairedStatistics, CountsThatCannotBeAreRefused) {
  EXPECT_THROW(WilsonInterval(0, 0), std::invalid_argument);
  EXPECT_THROW(WilsonInterval(3, 2), std::invalid_argument);
  EXPECT_THROW(WilsonInterval(-1, 2), std::invalid_argument);
  EXPECT_THROW(McNemarExactP({0, 0, 0}), std::invalid_argument);
  EXPECT_THROW(McNemarExactP({3, 2, 2}), std::invalid_argument);
  EXPECT_THROW(PairedDifferenceInterval({3, -1, 2}), std::invalid_argument);
}

}  // namespace
}  // namespace halo::bench
