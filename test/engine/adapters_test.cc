// LoRA adapters: which request is computed with which, and whose turn it is.
#include <array>
#include <set>

#include "engine/llama_engine_fixture.h"

namespace halo::test {
namespace {

class Adapters : public LlamaEngineTest {
 protected:
  static constexpr std::array kNames = {"", "x", "y"};

  Request AskWith(const std::string& adapter, RequestId id, std::vector<TokenId> prompt,
                  int32_t max_tokens = 6) {
    Request request = Ask(id, std::move(prompt), max_tokens);
    request.adapter = adapter;
    return request;
  }
};

TEST_F(Adapters, EachRequestIsComputedWithItsOwn) {
  // Turns over three adapters at once, then each alone in an engine of its own.
  std::map<RequestId, Completion> together;
  std::map<RequestId, Request> asked;
  Make({.adapters = true});
  if (!engine_->Describe().exact) GTEST_SKIP() << "kernels round by the batch here";
  RequestId id = 1;
  for (int round = 0; round < 2; ++round) {
    for (uint64_t context = 0; context < 3; ++context) {
      for (const char* adapter : kNames) {
        for (uint64_t op = 0; op < 2; ++op) {
          Request request =
              AskWith(adapter, id, Joined(Tokens(context, 60), Tokens(10 + op, 10)), 8);
          request.keep = {1, true};
          if (round == 1) {
            // The conversation with the same adapter goes on.
            const RequestId parent = id - 18;
            request.prompt_tokens = Joined(asked.at(parent).prompt_tokens,
                                           Joined(together.at(parent).tokens, Tokens(id, 12)));
            request.consumes = parent;
          }
          asked[id] = request;
          engine_->Submit(request);
          ++id;
        }
      }
    }
    for (auto& [i, completion] : Drain()) together[i] = std::move(completion);
  }
  EXPECT_GT(engine_->Statistics().adapter_changes, 2);
  int64_t reused = 0;
  for (const auto& [i, completion] : together) reused += completion.reused_tokens;
  EXPECT_GT(reused, 18 * 70);  // the second round's conversations, and contexts in the first
  std::map<std::string, std::set<std::vector<TokenId>>> answers;
  Make({.sequences = 1, .reuse = false, .adapters = true});
  for (auto& [i, request] : asked) {
    request.consumes = 0;
    engine_->Submit(request);
    const Completion alone = Drain().at(i);
    EXPECT_EQ(together.at(i).tokens, alone.tokens) << i << " with '" << request.adapter << "'";
    answers[request.adapter].insert(alone.tokens);
  }
  EXPECT_NE(answers.at(""), answers.at("x"));
  EXPECT_NE(answers.at("y"), answers.at("x"));
}

TEST_F(Adapters, KvOfOneIsNeverTakenByAnother) {
  Make({.adapters = true});
  const std::vector<TokenId> prompt = Tokens(5, 80);
  RequestId id = 1;
  for (const char* adapter : kNames) {
    engine_->Submit(AskWith(adapter, id++, prompt));
    engine_->Submit(AskWith(adapter, id++, prompt));
  }
  for (const auto& [i, completion] : Drain())
    EXPECT_EQ(completion.prefilled_tokens, i % 2 == 1 ? 80 : 1) << i;
}

TEST_F(Adapters, OneTurnForAllThatWaits) {
  Make({.adapters = true});
  RequestId id = 1;
  for (int i = 0; i < 10; ++i) {
    for (const char* adapter : kNames) {
      engine_->Submit(AskWith(adapter, id, Tokens(id, 20)));
      ++id;
    }
  }
  Drain();
  EXPECT_EQ(engine_->Statistics().adapter_changes, 2);
}

TEST_F(Adapters, ATurnEndsThoughItsWorkDoesNot) {
  Make({.sequences = 2, .adapters = true});
  RequestId id = 1;
  const RequestId waiting = 1000;
  engine_->Submit(Ask(id++, Tokens(1, 20)));
  engine_->Poll(0);
  Request other = AskWith("x", waiting, Tokens(2, 20));
  other.order = 2;
  engine_->Submit(other);
  bool answered = false;
  // There is always more for the model as it is, and all of it later in order.
  for (; id < 200 && !answered; ++id) {
    engine_->Submit(Ask(id, Tokens(id, 20)));
    do {
      for (const Completion& completion : engine_->Poll(0))
        answered = answered || completion.id == waiting;
    } while (engine_->pending() > 6);
  }
  EXPECT_TRUE(answered);
  Drain();
}

TEST_F(Adapters, ThoseAheadGoFirstButThoseBehindPassAFewTimesOnly) {
  constexpr int32_t kSequences = 2;
  Make({.sequences = kSequences, .adapters = true});
  constexpr RequestId kWaits = 1000, kBehind = 2000;
  const auto submit = [&](const std::string& adapter, RequestId id) {
    Request request = AskWith(adapter, id, Tokens(id, 20));
    request.order = static_cast<int64_t>(id);
    engine_->Submit(request);
  };
  // A chain ahead of what waits for its adapter's turn; and always there are some behind it.
  RequestId ahead = 1, behind = kBehind;
  submit("", ahead);
  engine_->Poll(0);
  submit("x", kWaits);
  for (; behind < kBehind + 4; ++behind) submit("", behind + 1);
  std::map<RequestId, int64_t> started_us;
  while (engine_->pending() > 0) {
    for (const Completion& completion : engine_->Poll(0)) {
      started_us[completion.id] = completion.started_us;
      if (completion.id < kWaits && ahead < 30) submit("", ++ahead);
      if (completion.id >= kBehind && behind < kBehind + 100) submit("", ++behind);
    }
    engine_->CheckInvariants();
  }
  const auto before = [&](RequestId first, RequestId end) {
    return std::count_if(started_us.lower_bound(first), started_us.lower_bound(end),
                         [&](const auto& each) { return each.second < started_us.at(kWaits); });
  };
  EXPECT_EQ(before(kBehind, kBehind + 1000), kMostPassedPerSequence * kSequences);
  EXPECT_EQ(before(0, kWaits), static_cast<std::ptrdiff_t>(ahead));
  EXPECT_EQ(engine_->Statistics().adapter_changes, 2);
}

TEST_F(Adapters, AHigherPriorityDoesNotWaitForATurn) {
  Make({.sequences = 4, .adapters = true});
  for (RequestId id = 1; id <= 4; ++id) engine_->Submit(Ask(id, Tokens(id, 40), 200));
  for (int i = 0; i < 8; ++i) engine_->Poll(0);
  Request urgent = AskWith("x", 9, Tokens(9, 40));
  urgent.priority = 1;
  engine_->Submit(urgent);
  std::vector<RequestId> order;
  while (engine_->pending() > 0) {
    for (const Completion& completion : engine_->Poll(0)) order.push_back(completion.id);
    engine_->CheckInvariants();
  }
  ASSERT_EQ(order.size(), 5U);
  EXPECT_EQ(order.front(), 9U);
  EXPECT_EQ(engine_->Statistics().preemptions, 4);
}

TEST_F(Adapters, AnUnknownOneFailsTheRequest) {
  Make({.adapters = true});
  engine_->Submit(AskWith("z", 1, Tokens(1, 20)));
  const std::vector<Completion> failed = engine_->Poll(0);
  ASSERT_EQ(failed.size(), 1U);
  ASSERT_TRUE(failed[0].failure);
  EXPECT_EQ(failed[0].failure->code, "unknown_adapter");
}

}  // namespace
}  // namespace halo::test
