// Kept KV that host memory has no room for.
#include <sys/resource.h>

#include <csignal>

#include "engine/llama_engine_fixture.h"

namespace halo::test {
namespace {

/// Conversations that all go on, more than host memory has room for.
class KvOnDisk : public LlamaEngineTest {
 protected:
  static constexpr RequestId kConversations = 12;

  /// What the second turns said; their prompts are computed from where the first ones ended if
  /// their KV is still there.
  std::map<RequestId, Completion> GoOn(const std::string& folder) {
    Make({.sequences = 2, .kept_bytes = 300 * 2048, .kept_folder = folder, .exact = true});
    std::vector<Request> first;
    for (RequestId id = 1; id <= kConversations; ++id) {
      first.push_back(Ask(id, Tokens(id, 100), 4));
      first.back().keep = {1, true};
      engine_->Submit(first.back());
    }
    const std::map<RequestId, Completion> said = Drain();
    for (RequestId id = 1; id <= kConversations; ++id) {
      Request next = Ask(
          100 + id,
          Joined(Joined(first[id - 1].prompt_tokens, said.at(id).tokens), Tokens(50 + id, 5)), 4);
      next.consumes = id;
      engine_->Submit(next);
    }
    return Drain();
  }
};

TEST_F(KvOnDisk, WhatIsWantedGoesThereAndComesBack) {
  const std::map<RequestId, Completion> in_memory = GoOn("");
  EXPECT_GT(engine_->Statistics().evictions, 0);
  EXPECT_EQ(engine_->Statistics().disk_writes, 0);
  const std::map<RequestId, Completion> on_disk = GoOn(testing::TempDir());
  const EngineStatistics statistics = engine_->Statistics();
  EXPECT_GT(statistics.disk_writes, 0);
  EXPECT_GT(statistics.disk_reads, 0);
  EXPECT_EQ(statistics.disk_faults, 0);
  for (const auto& [id, completion] : on_disk) {
    EXPECT_EQ(completion.prefilled_tokens, 6) << id;
    if (engine_->Describe().exact) {
      EXPECT_EQ(completion.tokens, in_memory.at(id).tokens) << id;
    }
  }
}

/// Conversations that have been gone on with leave their room to the next ones.
TEST_F(KvOnDisk, ItsRoomIsForWhatIsStillWanted) {
  constexpr int64_t kConversation = 104 * 2048;
  Make({.sequences = 2,
        .kept_bytes = 3 * kConversation,
        .kept_folder = testing::TempDir(),
        .kept_disk_bytes = 16 * kConversation});
  int64_t before = 0;
  for (RequestId round = 0; round < 5; ++round) {
    std::vector<Request> first;
    for (RequestId id = 1000 * round + 1; id <= 1000 * round + kConversations; ++id) {
      first.push_back(Ask(id, Tokens(id, 100), 4));
      first.back().keep = {1, true};
      engine_->Submit(first.back());
    }
    const std::map<RequestId, Completion> said = Drain();
    for (const Request& parent : first) {
      Request next = Ask(100 + parent.id,
                         Joined(Joined(parent.prompt_tokens, said.at(parent.id).tokens),
                                Tokens(50 + parent.id, 5)),
                         4);
      next.consumes = parent.id;
      engine_->Submit(next);
    }
    for (const auto& [id, completion] : Drain()) EXPECT_EQ(completion.prefilled_tokens, 6) << id;
    const int64_t writes = engine_->Statistics().disk_writes;
    EXPECT_GT(writes, before) << "round " << round;
    before = writes;
  }
}

TEST_F(KvOnDisk, AnswersAreTheSameWhereItCannotBeWritten) {
  const std::map<RequestId, Completion> in_memory = GoOn("");
  const std::map<RequestId, Completion> on_disk = GoOn("/nonexistent");
  const EngineStatistics statistics = engine_->Statistics();
  EXPECT_EQ(statistics.disk_writes, 0);
  EXPECT_EQ(statistics.disk_faults, 1);
  EXPECT_GT(statistics.evictions, 0);
  for (const auto& [id, completion] : on_disk) {
    if (engine_->Describe().exact) {
      EXPECT_EQ(completion.tokens, in_memory.at(id).tokens) << id;
    }
  }
}

TEST_F(KvOnDisk, AnswersAreTheSameWhereItIsFull) {
  const std::map<RequestId, Completion> in_memory = GoOn("");
  struct rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  const struct rlimit full = {1000, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  const std::map<RequestId, Completion> on_disk = GoOn(testing::TempDir());
  setrlimit(RLIMIT_FSIZE, &before);
  const EngineStatistics statistics = engine_->Statistics();
  EXPECT_GT(statistics.disk_writes, 0) << "it was tried";
  EXPECT_EQ(statistics.disk_faults, 1);
  for (const auto& [id, completion] : on_disk) {
    if (engine_->Describe().exact) {
      EXPECT_EQ(completion.tokens, in_memory.at(id).tokens) << id;
    }
  }
}

}  // namespace
}  // namespace halo::test
