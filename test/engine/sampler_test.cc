#include "engine/llama/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "base/random.h"
#include "engine/llama/step_sampler.h"

namespace halo {
namespace {

std::vector<float> RandomLogits(uint64_t seed, size_t count, double spread) {
  RandomStream random(seed);
  std::vector<float> logits(count);
  for (float& logit : logits) {
    const double u = std::max(1e-12, random.Uniform());
    logit = static_cast<float>(spread * std::sqrt(-2.0 * std::log(u)) *
                               std::cos(6.283185307179586 * random.Uniform()));
  }
  return logits;
}

/// The definition, with a full sort and doubles: which tokens may be drawn, and with what
/// probability.
std::vector<double> ReferenceDistribution(const std::vector<float>& logits,
                                          const SamplingParameters& p) {
  std::vector<double> weights(logits.size());
  const float largest = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i)
    weights[i] = std::exp((static_cast<double>(logits[i]) - largest) / p.temperature);
  std::vector<size_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0U);
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return weights[a] > weights[b]; });
  std::vector<size_t> kept;
  for (const size_t i : order) {
    if (weights[i] >= static_cast<double>(p.min_p)) kept.push_back(i);
  }
  if (p.top_k > 0 && kept.size() > static_cast<size_t>(p.top_k))
    kept.resize(static_cast<size_t>(p.top_k));
  double mass = 0.0;
  for (const size_t i : kept) mass += weights[i];
  std::vector<double> distribution(logits.size(), 0.0);
  double sum = 0.0;
  double total = 0.0;
  for (const size_t i : kept) {
    if (p.top_p < 1.0F && sum >= static_cast<double>(p.top_p) * mass) break;
    sum += weights[i];
    distribution[i] = weights[i];
  }
  for (const double d : distribution) total += d;
  for (double& d : distribution) d /= total;
  return distribution;
}

struct Case {
  const char* name;
  size_t vocabulary;
  double spread;
  float temperature, top_p;
  int32_t top_k;
  float min_p;
};

class SamplerCases : public testing::TestWithParam<Case> {};

/// Draws at evenly spaced points invert the cumulative distribution in id order; so the share of
/// draws that give a token is its probability, to the spacing.
TEST_P(SamplerCases, DrawsFollowTheDefinition) {
  const Case& c = GetParam();
  Sampler sampler;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const std::vector<float> logits = RandomLogits(seed, c.vocabulary, c.spread);
    SamplingParameters p;
    p.temperature = c.temperature;
    p.top_p = c.top_p;
    p.top_k = c.top_k;
    p.min_p = c.min_p;
    const std::vector<double> expected = ReferenceDistribution(logits, p);
    constexpr int kDraws = 2000;
    std::vector<double> seen(c.vocabulary, 0.0);
    for (int i = 0; i < kDraws; ++i) {
      const TokenId token = sampler.Sample(logits, p, {}, (i + 0.5) / kDraws);
      ASSERT_GE(token, 0);
      seen[static_cast<size_t>(token)] += 1.0 / kDraws;
    }
    double distance = 0.0;
    for (size_t i = 0; i < c.vocabulary; ++i) {
      // A token at the nucleus' edge may fall to either side by rounding; nothing else may be drawn
      // that should not.
      if (seen[i] > 0.0 && expected[i] == 0.0) {
        EXPECT_LE(seen[i], 2.0 / kDraws) << c.name << " token " << i;
      }
      distance += std::abs(seen[i] - expected[i]);
    }
    const auto support = static_cast<double>(
        std::count_if(expected.begin(), expected.end(), [](double d) { return d > 0; }));
    EXPECT_LE(distance, 2.0 * std::min(support, static_cast<double>(kDraws)) / kDraws + 1e-3)
        << c.name << " seed " << seed;
  }
}

INSTANTIATE_TEST_SUITE_P(All, SamplerCases,
                         testing::Values(Case{"defaults", 4000, 4.0, 0.7F, 0.9F, 0, 0.0F},
                                         Case{"flat", 4000, 0.01, 1.0F, 0.9F, 0, 0.0F},
                                         Case{"peaked", 4000, 20.0, 0.7F, 0.9F, 0, 0.0F},
                                         Case{"small_nucleus", 4000, 4.0, 0.7F, 0.01F, 0, 0.0F},
                                         Case{"top_k", 4000, 3.0, 1.0F, 1.0F, 40, 0.0F},
                                         Case{"top_k_and_p", 4000, 3.0, 1.0F, 0.8F, 40, 0.0F},
                                         Case{"min_p", 4000, 3.0, 1.0F, 1.0F, 0, 0.1F},
                                         Case{"all_three", 4000, 3.0, 0.9F, 0.95F, 100, 0.02F},
                                         Case{"everything", 500, 2.0, 1.0F, 1.0F, 0, 0.0F},
                                         Case{"tiny_vocabulary", 3, 1.0, 1.0F, 0.5F, 0, 0.0F}),
                         [](const auto& c) { return c.param.name; });

TEST(Sampler, TemperatureZeroTakesTheLikeliestAndTheLowerIdAmongEquals) {
  Sampler sampler;
  std::vector<float> logits(1000, 0.0F);
  logits[700] = 3.0F;
  logits[300] = 3.0F;
  EXPECT_EQ(sampler.Sample(logits, {}, {}, 0.99), 300);
}

TEST(Sampler, ForbiddenTokensAreNeverDrawn) {
  Sampler sampler;
  std::vector<float> logits(50, 0.0F);
  logits[7] = 100.0F;
  logits[8] = 90.0F;
  SamplingParameters p;
  p.temperature = 1.0F;
  const std::vector<TokenId> forbidden = {7};
  for (int i = 0; i < 100; ++i) EXPECT_NE(sampler.Sample(logits, p, forbidden, i / 100.0), 7);
  p.temperature = 0.0F;
  EXPECT_EQ(sampler.Sample(logits, p, forbidden, 0.0), 8);
}

TEST(Sampler, LogitsThatAreNoNumbersGiveNoToken) {
  Sampler sampler;
  const std::vector<float> logits(64, std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(sampler.Sample(logits, {}, {}, 0.5), -1);
  SamplingParameters p;
  p.temperature = 0.7F;
  EXPECT_EQ(sampler.Sample(logits, p, {}, 0.5), -1);
}

TEST(Sampler, TheSameArgumentsGiveTheSameToken) {
  const std::vector<float> logits = RandomLogits(5, 50257, 3.0);
  SamplingParameters p;
  p.temperature = 0.7F;
  p.top_p = 0.9F;
  Sampler first;
  Sampler second;
  second.Sample(RandomLogits(6, 50257, 1.0), p, {}, 0.3);  // buffers with something in them
  for (int i = 0; i < 50; ++i) {
    EXPECT_EQ(first.Sample(logits, p, {}, i / 50.0), second.Sample(logits, p, {}, i / 50.0));
  }
}

/// Drawing among allowed tokens is drawing with all others forbidden, whichever way the mask is
/// kept.
TEST(Sampler, DrawsAmongAllowedTokensOnly) {
  Sampler sampler;
  RandomStream random(7);
  for (const size_t vocabulary : {200U, 4099U}) {
    for (int turn = 0; turn < 200; ++turn) {
      const std::vector<float> logits = RandomLogits(static_cast<uint64_t>(turn), vocabulary, 2.0);
      const bool few = turn % 2 == 0;
      TokenMask mask;
      mask.is_dense = !few;
      if (!few) mask.bits.assign((vocabulary + 63) / 64, 0);
      std::vector<TokenId> forbidden;
      const std::vector<TokenId> also = {3, static_cast<TokenId>(vocabulary - 1)};
      for (size_t token = 0; token < vocabulary; ++token) {
        const auto id = static_cast<TokenId>(token);
        const bool allowed = few ? random.Below(50) == 0 : random.Below(4) != 0 || token / 64 == 1;
        if (allowed && few) mask.tokens.push_back(id);
        if (allowed && !few) mask.bits[token / 64] |= uint64_t{1} << token % 64;
        mask.count += allowed ? 1 : 0;
        if (!allowed && id != also[0] && id != also[1]) forbidden.push_back(id);
      }
      SamplingParameters parameters;
      parameters.temperature = turn % 3 == 0 ? 0.0F : 0.8F;
      if (turn % 3 == 1) parameters.top_p = 0.9F;
      if (turn % 5 == 1) parameters.top_k = 10;
      const double draw = random.Uniform();
      EXPECT_EQ(sampler.SampleAllowed(logits, parameters, mask, also, draw),
                sampler.Sample(logits, parameters, forbidden, draw));
    }
  }
}

TEST(Sampler, NothingIsDrawnWhereNoAllowedTokenHasANumber) {
  Sampler sampler;
  std::vector<float> logits(300, 1.0F);
  logits[5] = logits[6] = -std::numeric_limits<float>::infinity();
  TokenMask few;
  few.tokens = {5, 6};
  few.count = 2;
  EXPECT_EQ(sampler.SampleAllowed(logits, {}, few, {}, 0.5), -1);
  TokenMask dense;
  dense.is_dense = true;
  dense.bits.assign(5, 0);
  dense.bits[0] = 3U << 5;
  dense.count = 2;
  EXPECT_EQ(sampler.SampleAllowed(logits, {}, dense, {}, 0.5), -1);
}

TEST(StepSampler, DrawsWhatASamplerDrawsWhateverTheThreads) {
  constexpr size_t kSequences = 33, kVocabulary = 1000;
  const std::vector<TokenId> forbidden = {3, 7};
  std::vector<SamplingParameters> parameters(kSequences);
  std::vector<std::vector<float>> logits;
  std::vector<TokenDraw> draws;
  RandomStream random(5);
  for (size_t i = 0; i < kSequences; ++i) {
    logits.push_back(RandomLogits(i, kVocabulary, 2.0));
    parameters[i].temperature = i % 4 == 0 ? 0.0F : 0.8F;
    parameters[i].top_p = i % 3 == 0 ? 1.0F : 0.9F;
    parameters[i].top_k = i % 5 == 0 ? 20 : 0;
  }
  for (size_t i = 0; i < kSequences; ++i) {
    draws.push_back({logits[i], &parameters[i], {}, random.Uniform()});
    if (i % 2 == 0) draws.back().forbidden = forbidden;
  }
  for (const int32_t threads : {1, 2, 5}) {
    StepSampler side_by_side(threads);
    std::vector<TokenDraw> drawn = draws;
    side_by_side.Sample(drawn);
    Sampler alone;
    for (const TokenDraw& one : drawn)
      EXPECT_EQ(one.token, alone.Sample(one.logits, *one.parameters, one.forbidden, one.draw));
    side_by_side.Sample({});
  }
}

}  // namespace
}  // namespace halo
