#include "optimizer/row_statistics.h"

#include <gtest/gtest.h>

#include "base/hash.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

TEST(DistinctCounterTest, IsExactWhileThereAreFew) {
  DistinctCounter counter;
  for (int64_t i = 0; i < 100'000; ++i) counter.Add(Hash64(std::to_string(i % 30'000)));
  EXPECT_EQ(counter.Count(), Estimate::Exactly(30'000));
}

TEST(DistinctCounterTest, EstimatesManyWithinItsInterval) {
  DistinctCounter counter;
  constexpr int64_t kMany = 1'000'000;
  for (int64_t i = 0; i < kMany; ++i) counter.Add(Hash64(std::to_string(i)));
  const Estimate count = counter.Count();
  EXPECT_FALSE(count.is_exact());
  EXPECT_NEAR(count.value, kMany, 0.02 * kMany);
  EXPECT_LT(count.low, count.value);
}

TEST(DistinctCounterTest, CountsOfTwoSourcesAreThoseOfBothTogether) {
  DistinctCounter a, b, both;
  for (int64_t i = 0; i < 300'000; ++i) {
    const uint64_t hash = Hash64(std::to_string(i % 200'000));
    (i % 2 == 0 ? a : b).Add(hash);
    both.Add(hash);
  }
  a.Merge(b);
  EXPECT_NEAR(a.Count().value, both.Count().value, 0.01 * both.Count().value);
}

TEST(RowStatisticsTest, CountsCombinationsOfColumns) {
  RowStatistics rows({{"a"}, {"a", "b"}, {"*"}, {"a"}});
  rows.Add({{"id", 1}, {"a", "x"}, {"b", 1}});
  rows.Add({{"id", 2}, {"a", "x"}, {"b", 1}});
  rows.Add({{"id", 3}, {"a", "x"}, {"b", "1"}});
  rows.Add({{"id", 4}, {"a", "y"}});
  EXPECT_EQ(rows.rows(), 4);
  EXPECT_EQ(rows.Find({"a"})->Count(), Estimate::Exactly(2));
  // The number 1 and the text "1" print alike, and are taken for two.
  EXPECT_EQ((rows.Find({"a", "b"})->Count()), Estimate::Exactly(3));
  EXPECT_EQ(rows.Find({"*"})->Count(), Estimate::Exactly(4));
  EXPECT_EQ(rows.Find({"b"}), nullptr);
}

TEST(RowStatisticsTest, TheSampleIsDrawnFromAllRowsAndAlwaysTheSame) {
  RowStatistics first({}), second({});
  constexpr int64_t kRows = 20'000;
  for (int64_t i = 0; i < kRows; ++i) {
    first.Add({{"n", i}});
    second.Add({{"n", i}});
  }
  ASSERT_EQ(first.sample().size(), RowStatistics::kSample);
  EXPECT_EQ(first.sample(), second.sample());
  double mean = 0.0;
  for (const Json& row : first.sample()) mean += row["n"].get<double>();
  mean /= static_cast<double>(RowStatistics::kSample);
  // Five standard errors of a mean of 256 even draws.
  EXPECT_NEAR(mean, kRows / 2.0, 5.0 * kRows / std::sqrt(12.0 * RowStatistics::kSample));
}

}  // namespace
}  // namespace halo
