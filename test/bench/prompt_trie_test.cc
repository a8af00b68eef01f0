// Unique prompt tokens as contract 7 defines them, by hand and against a brute-force count over
// sets of prefixes.
#include "bench/prompt_trie.h"

#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <set>

#include "make_call.h"

namespace halo::bench {
namespace {

UniqueCount Count(const std::vector<Call>& calls) { return PromptTrie(calls, "m").count(); }

TEST(PromptTrie, NothingCountsNothing) {
  const UniqueCount count = Count({});
  EXPECT_EQ(count.calls, 0);
  EXPECT_EQ(count.unique_prompt_tokens, 0);
  EXPECT_EQ(count.allowance_tokens(), 0);
}

TEST(PromptTrie, ACommonPrefixCountsOnce) {
  const UniqueCount count =
      Count({MakeCall({1, 2, 3, 4}, {9}), MakeCall({1, 2, 5}, {9}), MakeCall({7}, {9})});
  EXPECT_EQ(count.calls, 3);
  EXPECT_EQ(count.prompt_tokens, 8);
  EXPECT_EQ(count.trie_tokens, 6);
  EXPECT_EQ(count.unique_prompt_tokens, 6);
  EXPECT_EQ(count.output_tokens, 3);
  EXPECT_EQ(count.allowance_tokens(), 0);
}

TEST(PromptTrie, AContinuationComputesTheLastSampledTokenAndTheNewTurn) {
  // The answer 10 11 12: 10 and 11 have KV, 12 was never an input.
  const UniqueCount count =
      Count({MakeCall({1, 2, 3}, {10, 11, 12}), MakeCall({1, 2, 3, 10, 11, 12, 20, 21}, {30})});
  EXPECT_EQ(count.trie_tokens, 8);
  EXPECT_EQ(count.generated_in_context, 2);
  EXPECT_EQ(count.unique_prompt_tokens, 6);
  EXPECT_EQ(count.allowance_tokens(), 0)
      << "the child comes after its parent, whose prompt it cannot make resident";
}

TEST(PromptTrie, TwoContinuationsOfOneParentShareItsAnswer) {
  const UniqueCount count = Count({MakeCall({1, 2}, {10, 11}), MakeCall({1, 2, 10, 11, 20}, {30}),
                                   MakeCall({1, 2, 10, 11, 21}, {30})});
  EXPECT_EQ(count.trie_tokens, 6);
  EXPECT_EQ(count.generated_in_context, 1);
  EXPECT_EQ(count.unique_prompt_tokens, 5);
}

TEST(PromptTrie, TheSameAnswerTwiceIsSubtractedOnce) {
  const UniqueCount count =
      Count({MakeCall({1}, {10, 11}), MakeCall({1}, {10, 12}), MakeCall({1, 10, 11, 5}, {9})});
  EXPECT_EQ(count.trie_tokens, 4);
  EXPECT_EQ(count.generated_in_context, 1);
  EXPECT_EQ(count.unique_prompt_tokens, 3);
}

TEST(PromptTrie, AnAnswerInAnotherContextIsNotSubtracted) {
  // The words of an answer come back as a block in another prompt: they have to be computed there.
  const UniqueCount count = Count({MakeCall({1, 2}, {10, 11, 12}), MakeCall({3, 10, 11, 12}, {9})});
  EXPECT_EQ(count.generated_in_context, 0);
  EXPECT_EQ(count.unique_prompt_tokens, 6);
}

TEST(PromptTrie, EqualPromptsAllowOneTokenForAllButTheFirst) {
  const UniqueCount count =
      Count({MakeCall({1, 2}, {10}), MakeCall({1, 2}, {11}), MakeCall({1, 2}, {12})});
  EXPECT_EQ(count.unique_prompt_tokens, 2);
  EXPECT_EQ(count.allowance_tokens(), 2);
  EXPECT_EQ(count.resident_in_dump_order, 2);
}

TEST(PromptTrie, APromptInsideAnotherIsAllowedAToken) {
  const UniqueCount count = Count({MakeCall({1, 2}, {10, 11}), MakeCall({1, 2, 3}, {10})});
  EXPECT_EQ(count.allowance_tokens(), 1) << "the longer one may have run first";
  EXPECT_EQ(count.resident_in_dump_order, 0) << "but finished later";
  EXPECT_EQ(Count({MakeCall({1, 2, 3}, {10}), MakeCall({1, 2}, {10, 11})}).resident_in_dump_order,
            1);
}

TEST(PromptTrie, EqualPromptsWithAContinuationStillLeaveOneThatComputes) {
  const UniqueCount count = Count(
      {MakeCall({1, 2}, {10, 11}), MakeCall({1, 2}, {12, 13}), MakeCall({1, 2, 10, 11, 5}, {9})});
  EXPECT_EQ(count.allowance_tokens(), 1);
}

TEST(PromptTrie, APromptInsideAnAnswerIsAllowedAToken) {
  const UniqueCount count = Count({MakeCall({1, 2}, {10, 11, 12}), MakeCall({1, 2, 10}, {7})});
  EXPECT_EQ(count.unique_prompt_tokens, 2);
  // Either may have run first: the second inside the first one's answer, the first inside the
  // second's prompt.
  EXPECT_EQ(count.allowance_tokens(), 2);
  EXPECT_EQ(count.resident_in_dump_order, 1);
}

TEST(PromptTrie, MergedAndFailedCallsAndOtherModelsDoNotCount) {
  std::vector<Call> calls = {MakeCall({1, 2}, {10}), MakeCall({3, 4}, {10}), MakeCall({5}, {}),
                             MakeCall({6}, {1}, "0", "a", "other")};
  calls[1].merged = true;
  calls[2].finish = "failed";
  const UniqueCount count = Count(calls);
  EXPECT_EQ(count.calls, 1);
  EXPECT_EQ(count.merged_calls, 1);
  EXPECT_EQ(count.failed_calls, 1);
  EXPECT_EQ(count.unique_prompt_tokens, 2);
}

TEST(PromptTrie, OwnTokensAreThoseThatNobodyShares) {
  const std::vector<Call> calls = {MakeCall({1, 2, 3, 4}, {10, 11}), MakeCall({1, 2, 5}, {9}),
                                   MakeCall({1, 2, 3, 4, 10, 11, 6}, {9}), MakeCall({1, 2}, {9})};
  const PromptTrie prompts(calls, "m");
  EXPECT_EQ(prompts.OwnPromptTokens(calls[0]), 1)
      << "all of it is in the child's prompt; at least one";
  EXPECT_EQ(prompts.OwnPromptTokens(calls[1]), 1);
  EXPECT_EQ(prompts.OwnPromptTokens(calls[2]), 2);
  EXPECT_EQ(prompts.OwnPromptTokens(calls[3]), 1);
}

TEST(PromptTrie, AgreesWithSetsOfPrefixes) {
  for (uint32_t seed = 1; seed <= 50; ++seed) {
    std::mt19937 random(seed);
    std::vector<Call> calls;
    for (int i = 0; i < 60; ++i) {
      std::vector<int32_t> prompt;
      if (i > 0 && random() % 3 == 0) {  // goes on from an earlier call
        const Call& parent = calls[random() % calls.size()];
        prompt = parent.prompt;
        prompt.insert(prompt.end(), parent.output.begin(), parent.output.end());
      }
      for (size_t left = 1 + random() % 6; left > 0; --left)
        prompt.push_back(static_cast<int32_t>(random() % 3));
      std::vector<int32_t> output;
      for (size_t left = 1 + random() % 5; left > 0; --left)
        output.push_back(static_cast<int32_t>(random() % 3));
      calls.push_back(MakeCall(prompt, output));
    }
    std::set<std::vector<int32_t>> prefixes, generated;
    for (const Call& call : calls) {
      for (size_t n = 1; n <= call.prompt.size(); ++n)
        prefixes.emplace(call.prompt.begin(), call.prompt.begin() + n);
    }
    for (const Call& call : calls) {
      std::vector<int32_t> context = call.prompt;
      for (size_t k = 0; k + 1 < call.output.size(); ++k) {
        context.push_back(call.output[k]);
        if (prefixes.contains(context)) generated.insert(context);
      }
    }
    const UniqueCount count = Count(calls);
    EXPECT_EQ(count.trie_tokens, static_cast<int64_t>(prefixes.size())) << "seed " << seed;
    EXPECT_EQ(count.generated_in_context, static_cast<int64_t>(generated.size()))
        << "seed " << seed;
    EXPECT_GE(count.allowance_tokens(), count.resident_in_dump_order) << "seed " << seed;
  }
}

TEST(PromptTrie, AMillionTokensAreQuick) {
  std::vector<Call> calls;
  for (int32_t row = 0; row < 1000; ++row) {
    std::vector<int32_t> prompt;
    for (int32_t i = 0; i < 1000; ++i) prompt.push_back(i < 100 ? i : row * 7 + i);
    calls.push_back(MakeCall(prompt, {1, 2}));
  }
  EXPECT_EQ(Count(calls).trie_tokens, 100 + 1000 * 900);
}

}  // namespace
}  // namespace halo::bench
