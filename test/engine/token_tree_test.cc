#include "engine/llama/token_tree.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "base/random.h"

namespace halo {
namespace {

using Tokens = std::vector<TokenId>;

TEST(TokenTree, AnEmptyTreeMatchesNothing) {
  const TokenTree tree;
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3}).tokens, 0);
  EXPECT_TRUE(tree.Longest(Tokens{1, 2, 3}).holders.empty());
}

TEST(TokenTree, FindsTheLongestCommonPrefixInsideARun) {
  TokenTree tree;
  tree.Insert(1, Tokens{1, 2, 3, 4, 5});
  tree.Insert(2, Tokens{1, 2, 9});
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3, 7}).tokens, 3);
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3, 7}).holders, (std::vector<TokenTree::HolderId>{1}));
  EXPECT_EQ(tree.Longest(Tokens{1, 2}).tokens, 2);
  EXPECT_EQ(tree.Longest(Tokens{1, 2}).holders.size(), 2U);
}

TEST(TokenTree, TheShortestHolderComesFirst) {
  TokenTree tree;
  tree.Insert(7, Tokens{1, 2, 3, 4, 5, 6});
  tree.Insert(8, Tokens{1, 2, 3});
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3, 9}).holders.front(), 8);
}

TEST(TokenTree, WhatIsRemovedIsNotFound) {
  TokenTree tree;
  tree.Insert(1, Tokens{1, 2, 3});
  tree.Insert(2, Tokens{1, 2, 4});
  tree.Remove(1);
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3}).tokens, 2);
  tree.Remove(2);
  EXPECT_EQ(tree.Longest(Tokens{1, 2, 3}).tokens, 0);
  EXPECT_EQ(tree.size(), 0U);
}

/// The tree against the plain definition, over random inserts and removals of a small alphabet.
TEST(TokenTree, AgreesWithComparingEveryHolder) {
  constexpr uint64_t kSeed = 20261120;
  RandomStream random(kSeed);
  TokenTree tree;
  std::map<TokenTree::HolderId, Tokens> holders;
  const auto random_tokens = [&] {
    Tokens tokens(random.Below(12));
    for (TokenId& token : tokens) token = static_cast<TokenId>(random.Below(3));
    return tokens;
  };
  for (TokenTree::HolderId step = 0; step < 4000; ++step) {
    if (holders.size() > 40 || (!holders.empty() && random.Below(3) == 0)) {
      auto victim =
          std::next(holders.begin(), static_cast<ptrdiff_t>(random.Below(holders.size())));
      tree.Remove(victim->first);
      holders.erase(victim);
    } else {
      const Tokens tokens = random_tokens();
      tree.Insert(step, tokens);
      holders.emplace(step, tokens);
    }
    const Tokens prompt = random_tokens();
    const TokenTree::Match match = tree.Longest(prompt, 1000);
    size_t longest = 0;
    const auto common = [&prompt](const Tokens& tokens) {
      size_t length = 0;
      while (length < std::min(prompt.size(), tokens.size()) && prompt[length] == tokens[length])
        ++length;
      return length;
    };
    for (const auto& [holder, tokens] : holders) longest = std::max(longest, common(tokens));
    ASSERT_EQ(match.tokens, static_cast<int32_t>(longest)) << "seed " << kSeed << " step " << step;
    if (longest == 0) continue;
    size_t sharing = 0;
    for (const auto& [holder, tokens] : holders) sharing += common(tokens) == longest ? 1 : 0;
    ASSERT_EQ(match.holders.size(), sharing) << "seed " << kSeed << " step " << step;
    for (const TokenTree::HolderId holder : match.holders)
      ASSERT_EQ(common(holders.at(holder)), longest);
  }
}

}  // namespace
}  // namespace halo
