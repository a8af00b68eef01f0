#include "session/report_data.h"

#include <gtest/gtest.h>

#include <numeric>

namespace halo {
namespace {

TEST(MagnitudeCounts, QuantilesAreRightToATenth) {
  MagnitudeCounts counts;
  for (int i = 1; i <= 1000; ++i) counts.Add(i);
  EXPECT_EQ(counts.count(), 1000);
  EXPECT_NEAR(counts.Quantile(0.5), 500.0, 50.0);
  EXPECT_NEAR(counts.Quantile(0.95), 950.0, 95.0);
  EXPECT_NEAR(counts.Quantile(1.0), 1000.0, 100.0);
}

TEST(MagnitudeCounts, TakesWhateverComes) {
  MagnitudeCounts counts;
  EXPECT_EQ(counts.Quantile(0.5), 0.0);
  EXPECT_TRUE(counts.Doublings().empty());
  for (const double value : {0.0, -1.0, 1e-300, 1e300}) counts.Add(value);
  EXPECT_EQ(counts.count(), 4);
  EXPECT_EQ(counts.Quantile(0.5), 0.0);
}

TEST(MagnitudeCounts, DoublingsHoldEveryValueOnce) {
  MagnitudeCounts counts, more;
  for (const double value : {1.0, 1.9, 2.0, 3.9}) counts.Add(value);
  more.Add(16.0);
  counts.Add(more);
  const std::vector<MagnitudeCounts::Bar> bars = counts.Doublings();
  ASSERT_EQ(bars.size(), 5U);  // 1, 2, 4, 8, 16
  EXPECT_EQ(bars[0].low, 1.0);
  EXPECT_EQ(bars[0].count, 2);
  EXPECT_EQ(bars[1].count, 2);
  EXPECT_EQ(bars[2].count + bars[3].count, 0);
  EXPECT_EQ(bars[4].low, 16.0);
  EXPECT_EQ(bars[4].count, 1);
}

double Sum(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0);
}

TEST(ActivityOverTime, KeepsWhatWasUnderWayHoweverLongARunBecomes) {
  ActivityOverTime activity;
  activity.Add(0, 100'000);
  activity.Add(50'000, 100'000);
  const std::vector<double> means = activity.Means(100'000, 2);
  EXPECT_NEAR(means[0], 1.0, 1e-9);
  EXPECT_NEAR(means[1], 2.0, 1e-9);
  // A long call makes columns wide; what was there keeps its place and its sum.
  constexpr int64_t kHourUs = 3'600'000'000;
  activity.Add(kHourUs - 60'000'000, kHourUs);
  const std::vector<double> later = activity.Means(kHourUs, 60);
  EXPECT_NEAR(Sum(later) * kHourUs / 60.0, 60'150'000.0, 1.0);
  EXPECT_NEAR(later.back(), 1.0, 0.25);
  EXPECT_NEAR(later[30], 0.0, 1e-9);
}

TEST(ActivityOverTime, OfNothingIsNothing) {
  const ActivityOverTime activity;
  EXPECT_EQ(Sum(activity.Means(0, 10)), 0.0);
  EXPECT_EQ(Sum(activity.Means(1000, 10)), 0.0);
}

}  // namespace
}  // namespace halo
