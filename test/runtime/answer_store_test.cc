#include "runtime/answer_store.h"

#include <gtest/gtest.h>

#include <filesystem>

#include "base/random.h"

namespace halo {
namespace {

Signature SignatureOf(int64_t number) { return SignatureBuilder().Add(number).Finish(); }

Completion AnswerOf(int64_t number) {
  Completion answer;
  answer.finish = number % 2 == 0 ? FinishReason::kEndToken : FinishReason::kMaxTokens;
  answer.text =
      "answer " + std::to_string(number) + std::string(static_cast<size_t>(number % 7), 'x');
  for (int64_t i = 0; i < number % 5; ++i)
    answer.tokens.push_back(static_cast<TokenId>(number + i));
  answer.cut = number % 3 == 0;
  answer.prompt_tokens = number;
  answer.output_tokens = static_cast<int64_t>(answer.tokens.size());
  answer.logits_hash = static_cast<uint64_t>(number) * 7919;
  return answer;
}

void ExpectAnswer(const AnswerStore& store, int64_t number) {
  const std::optional<Completion> found = store.Find(SignatureOf(number));
  ASSERT_TRUE(found) << number;
  const Completion expected = AnswerOf(number);
  EXPECT_EQ(found->text, expected.text);
  EXPECT_EQ(found->tokens, expected.tokens);
  EXPECT_EQ(found->finish, expected.finish);
  EXPECT_EQ(found->cut, expected.cut);
  EXPECT_EQ(found->prompt_tokens, expected.prompt_tokens);
  EXPECT_EQ(found->output_tokens, expected.output_tokens);
  EXPECT_EQ(found->logits_hash, expected.logits_hash);
  EXPECT_FALSE(found->failure);
}

TEST(AnswerStoreTest, FindsEveryAnswerInMemoryOnDiskAndInRuns) {
  AnswerStore store({testing::TempDir(), 10, 64 << 10});  // 2048 places, so a run at 1536
  constexpr int64_t kAnswers = 20'000;
  RandomStream random(3);
  for (int64_t number = 0; number < kAnswers; ++number) {
    EXPECT_FALSE(store.Find(SignatureOf(number))) << "it was not put yet: " << number;
    store.Put(SignatureOf(number), AnswerOf(number));
    ExpectAnswer(store, static_cast<int64_t>(random.Below(static_cast<uint64_t>(number + 1))));
  }
  EXPECT_GT(store.runs(), 5U);
  EXPECT_EQ(store.spilled(), kAnswers - 10);
  for (int64_t number = 0; number < kAnswers; ++number) ExpectAnswer(store, number);
  for (int64_t number = kAnswers; number < 2 * kAnswers; ++number)
    EXPECT_FALSE(store.Find(SignatureOf(number)));
  EXPECT_EQ(store.failure(), "");
}

TEST(AnswerStoreTest, AnAnswerThatComesAgainIsStoredOnce) {
  AnswerStore store({testing::TempDir(), 1, 64 << 10});
  for (int round = 0; round < 5; ++round) {
    for (int64_t number = 0; number < 3; ++number) store.Put(SignatureOf(number), AnswerOf(number));
  }
  EXPECT_EQ(store.spilled(), 3);
  for (int64_t number = 0; number < 3; ++number) ExpectAnswer(store, number);
}

TEST(AnswerStoreTest, WithoutAFolderOnlyRecentAnswersAreKept) {
  AnswerStore store({"", 2, 64 << 10});
  for (int64_t number = 0; number < 3; ++number) store.Put(SignatureOf(number), AnswerOf(number));
  EXPECT_FALSE(store.Find(SignatureOf(0)));
  ExpectAnswer(store, 1);
  ExpectAnswer(store, 2);
  EXPECT_EQ(store.spilled(), 0);
}

TEST(AnswerStoreTest, AFolderThatCannotBeWrittenCostsOlderAnswersOnly) {
  AnswerStore store({testing::TempDir() + "/no/such/folder", 2, 64 << 10});
  for (int64_t number = 0; number < 5; ++number) store.Put(SignatureOf(number), AnswerOf(number));
  EXPECT_FALSE(store.Find(SignatureOf(0)));
  ExpectAnswer(store, 4);
  EXPECT_NE(store.failure().find("no/such/folder"), std::string::npos) << store.failure();
}

TEST(AnswerStoreTest, LeavesNoFileBehind) {
  const std::string folder = testing::TempDir() + "/answers";
  std::filesystem::create_directory(folder);
  AnswerStore store({folder, 1, 64 << 10});
  for (int64_t number = 0; number < 3000; ++number)
    store.Put(SignatureOf(number), AnswerOf(number));
  EXPECT_GT(store.runs(), 0U);
  EXPECT_TRUE(std::filesystem::is_empty(folder));
  std::filesystem::remove(folder);
}

}  // namespace
}  // namespace halo
