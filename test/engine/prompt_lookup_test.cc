#include "engine/llama/prompt_lookup.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace halo {
namespace {

using Ids = std::vector<TokenId>;

/// Follows the tokens behind the first `prompt`, one by one; the guess after the last.
PromptLookup Followed(const Ids& tokens, size_t prompt) {
  PromptLookup lookup;
  for (size_t size = prompt + 1; size <= tokens.size(); ++size)
    lookup.Follow(std::span(tokens).first(size));
  return lookup;
}

TEST(PromptLookup, WhatFollowedTheSameTokensIsGuessed) {
  const Ids tokens = {1, 2, 3, 4, 5, 6, 9, 2, 3, 4};
  const PromptLookup lookup = Followed(tokens, 7);
  ASSERT_TRUE(lookup.has_guess());
  EXPECT_EQ(lookup.Draft(tokens, 3), (Ids{5, 6, 9}));
}

TEST(PromptLookup, TheLatestPlaceCounts) {
  const Ids tokens = {1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3};
  EXPECT_EQ(Followed(tokens, 8).Draft(tokens, 1), (Ids{8}));
}

TEST(PromptLookup, FewerTokensAlikeAreNoReason) {
  const Ids tokens = {1, 2, 3, 4, 9, 2, 3};
  EXPECT_FALSE(Followed(tokens, 4).has_guess());
  EXPECT_FALSE(Followed({1, 1}, 0).has_guess());
  EXPECT_FALSE(Followed({1}, 0).has_guess());
}

TEST(PromptLookup, ACopyOfItselfGoesOn) {
  const Ids tokens = {5, 6, 5, 6, 5};
  EXPECT_EQ(Followed(tokens, 0).Draft(tokens, 5), (Ids{6, 5, 6, 5, 6}));
}

TEST(PromptLookup, TellsWhetherTheGuessWasRight) {
  Ids tokens = {1, 2, 3, 4, 5, 1, 2};
  PromptLookup lookup;
  const auto follow = [&](TokenId token) {
    tokens.push_back(token);
    return lookup.Follow(tokens);
  };
  EXPECT_EQ(follow(3), std::nullopt);  // nothing was guessed yet
  EXPECT_EQ(follow(4), true);
  EXPECT_EQ(follow(8), false);
  EXPECT_EQ(follow(9), std::nullopt);
  EXPECT_FALSE(lookup.has_guess());
}

/// Against looking everywhere, on few different tokens.
TEST(PromptLookup, AgreesWithItsDefinition) {
  RandomStream random(3);
  Ids tokens;
  PromptLookup lookup;
  for (int i = 0; i < 2000; ++i) {
    tokens.push_back(static_cast<TokenId>(random.Below(4)));
    const bool had = lookup.has_guess();
    const TokenId guess = had ? lookup.Draft(std::span(tokens).first(tokens.size() - 1), 1)[0] : -1;
    const std::optional<bool> right = lookup.Follow(tokens);
    ASSERT_EQ(right.has_value(), had);
    if (had) {
      ASSERT_EQ(*right, guess == tokens.back());
    }
    if (right == true) continue;
    TokenId wanted = -1;
    for (size_t end = 3; end < tokens.size(); ++end) {
      if (std::equal(tokens.end() - 3, tokens.end(), tokens.begin() + static_cast<int>(end) - 3))
        wanted = tokens[end];
    }
    ASSERT_EQ(lookup.has_guess(), wanted >= 0);
    if (wanted >= 0) {
      ASSERT_EQ(lookup.Draft(tokens, 1)[0], wanted);
    }
  }
}

TEST(GuessRate, IsKnownAfterEnoughAndFollows) {
  GuessRate rate;
  for (int i = 0; i < 31; ++i) rate.Add(true);
  EXPECT_EQ(rate.value(), 0.0);
  rate.Add(true);
  EXPECT_DOUBLE_EQ(rate.value(), 1.0);
  for (int i = 0; i < 300; ++i) rate.Add(i % 4 == 0);
  EXPECT_NEAR(rate.value(), 0.25, 0.1);
}

}  // namespace
}  // namespace halo
