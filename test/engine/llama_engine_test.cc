// What only the embedded engine promises: reuse, room, preemption, stop strings, the two layouts.
#include <iostream>
#include <set>

#include "engine/llama_engine_fixture.h"

namespace halo::test {
namespace {

TEST_F(LlamaEngineTest, UrgentAnswersAreNotHeldUpByThePromptsOfOthers) {
  constexpr int64_t kLong = 300, kShort = 20;
  constexpr RequestId kOthers = 12;
  std::vector<TokenId> answer;
  for (const bool urgent : {false, true}) {
    Make({.sequences = 16});
    Request first = Ask(1, Tokens(1, kShort), 5);
    first.urgent = urgent;
    for (RequestId id = 2; id < 2 + kOthers; ++id) engine_->Submit(Ask(id, Tokens(id, kLong), 4));
    engine_->Submit(first);
    int64_t prefilled = -1;
    while (engine_->pending() > 0) {
      for (const Completion& completion : engine_->Poll(0)) {
        ASSERT_FALSE(completion.failure);
        if (completion.id != 1) continue;
        prefilled = engine_->Statistics().prefill_tokens;
        if (!urgent) answer = completion.tokens;
        EXPECT_EQ(completion.tokens, answer);
      }
      engine_->CheckInvariants();
    }
    // Its prompt and two tokens, then a prompt of another before each of the other three.
    EXPECT_EQ(prefilled, kShort + kLong * (urgent ? 3 : int64_t{kOthers}));
  }
}

TEST_F(LlamaEngineTest, LongPromptsDoNotStallDecodingForLong) {
  constexpr int32_t kPass = 128, kLong = 600;
  Make({.sequences = 16, .kv_bytes = 256 << 20, .batch_tokens = kPass, .still = true});
  engine_->Submit(Ask(1, Tokens(1, 20), 3));
  for (RequestId id = 2; id < 16; ++id) engine_->Submit(Ask(id, Tokens(id, kLong), 1));
  int64_t prefilled = 0;
  while (prefilled == 0 && engine_->pending() > 0) {
    for (const Completion& completion : engine_->Poll(0)) {
      ASSERT_FALSE(completion.failure);
      if (completion.id == 1) prefilled = engine_->Statistics().prefill_tokens;
    }
  }
  // The pass that has its prompt, then as many as may go before each of its other two tokens.
  EXPECT_EQ(prefilled, kPass * (1 + 2 * BatchingController::kMostFirstPasses));
  Drain();
}

TEST_F(LlamaEngineTest, FreeSequencesAreFilledTogetherAndAnswersStayTheSame) {
  std::map<RequestId, std::vector<TokenId>> answers;
  int64_t passes_one_by_one = 0;
  for (const int32_t refill : {1, 4}) {
    Make({.sequences = 8, .refill_sequences = refill, .still = true});
    for (RequestId id = 1; id <= 40; ++id)
      engine_->Submit(Ask(id, Tokens(id, 150), 2 + static_cast<int32_t>(id * 7 % 12)));
    for (auto& [id, completion] : Drain()) {
      if (refill == 1) answers[id] = completion.tokens;
      if (engine_->Describe().exact) {
        EXPECT_EQ(completion.tokens, answers.at(id));
      }
      EXPECT_EQ(completion.tokens.size(), answers.at(id).size());
    }
    const EngineStatistics statistics = engine_->Statistics();
    const int64_t passes = statistics.steps - statistics.decode_steps;
    if (refill == 1) passes_one_by_one = passes;
    EXPECT_EQ(statistics.prefill_tokens, 40 * 150);
    if (refill > 1) {
      EXPECT_LT(2 * passes, passes_one_by_one);
    }
  }
}

TEST_F(LlamaEngineTest, AFixedNumberOfRequestsRuns) {
  Make({.sequences = 8, .running_sequences = 3, .still = true});
  for (RequestId id = 1; id <= 12; ++id) engine_->Submit(Ask(id, Tokens(id, 30), 8));
  EXPECT_EQ(Drain().size(), 12U);
  const EngineStatistics statistics = engine_->Statistics();
  EXPECT_LE(statistics.decode_tokens, 3 * statistics.decode_steps);
}

class BothLayouts : public LlamaEngineTest, public testing::WithParamInterface<KvLayout> {};

INSTANTIATE_TEST_SUITE_P(Layout, BothLayouts, testing::Values(KvLayout::kSplit, KvLayout::kUnified),
                         [](const auto& c) {
                           return c.param == KvLayout::kSplit ? "Split" : "Unified";
                         });

TEST_P(BothLayouts, EveryPromptTokenIsComputedOnce) {
  Make({.layout = GetParam()});
  // A header of all, a context of each group, an instruction of each request: a tree of 40 + 6 x
  // 100 + 24 x 10 tokens.
  const std::vector<TokenId> header = Tokens(1, 40);
  RequestId id = 1;
  for (uint64_t group = 0; group < 6; ++group) {
    const std::vector<TokenId> context = Joined(header, Tokens(100 + group, 100));
    for (uint64_t op = 0; op < 4; ++op) {
      Request request = Ask(id++, Joined(context, Tokens(1000 + group * 10 + op, 10)));
      request.static_prefix_tokens = 40;
      engine_->Submit(std::move(request));
    }
  }
  int64_t prefilled = 0;
  for (const auto& [i, completion] : Drain()) prefilled += completion.prefilled_tokens;
  EXPECT_EQ(prefilled, 40 + 6 * 100 + 24 * 10);
}

TEST_P(BothLayouts, APromptThatIsResidentComputesOneToken) {
  Make({.layout = GetParam()});
  const std::vector<TokenId> prompt = Tokens(7, 50);
  for (RequestId id = 1; id <= 5; ++id) engine_->Submit(Ask(id, prompt));
  const auto all = Drain();
  EXPECT_EQ(all.at(1).prefilled_tokens, 50);
  for (RequestId id = 2; id <= 5; ++id) {
    EXPECT_EQ(all.at(id).prefilled_tokens, 1) << id;
    EXPECT_EQ(all.at(id).tokens, all.at(1).tokens) << id;
  }
}

TEST_P(BothLayouts, AConversationStartsFromItsParentsKv) {
  Make({.layout = GetParam()});
  Request first = Ask(1, Tokens(3, 60), 12);
  first.keep = {2, true};
  engine_->Submit(first);
  const Completion parent = Drain().at(1);
  const std::vector<TokenId> history = Joined(first.prompt_tokens, parent.tokens);
  for (RequestId id = 2; id <= 3; ++id) {
    Request child = Ask(id, Joined(history, Tokens(50 + id, 15)), 12);
    child.consumes = 1;
    engine_->Submit(child);
  }
  const auto children = Drain();
  for (RequestId id = 2; id <= 3; ++id) {
    // The last sampled token of the parent has no KV; the first child computes it, the second finds
    // it done.
    EXPECT_EQ(children.at(id).prefilled_tokens, id == 2 ? 16 : 15) << id;
  }
}

TEST_P(BothLayouts, AnswersBeginAlikeWithAndWithoutReuse) {
  std::vector<Request> requests;
  const std::vector<TokenId> shared = Tokens(9, 80);
  for (RequestId id = 1; id <= 24; ++id) {
    Request request = Ask(id, Joined(shared, Tokens(200 + id, 5 + id)), 16);
    if (id % 2 == 0) {
      request.sampling.temperature = 0.7F;
      request.sampling.top_p = 0.9F;
      request.sampling.draw_key = id;
    }
    requests.push_back(request);
  }
  std::map<RequestId, Completion> answers[2];
  for (const bool reuse : {false, true}) {
    Make({.sequences = reuse ? 8 : 1, .layout = GetParam(), .reuse = reuse});
    for (const Request& request : requests) engine_->Submit(request);
    answers[reuse] = Drain();
  }
  int equal = 0;
  int first_equal = 0;
  for (const auto& [id, completion] : answers[0]) {
    equal += completion.tokens == answers[1].at(id).tokens ? 1 : 0;
    first_equal += completion.tokens.front() == answers[1].at(id).tokens.front() ? 1 : 0;
  }
  std::cout << "[ share    ] " << equal << " of 24 answers and " << first_equal
            << " of 24 first tokens equal the reference's\n";
  // Rounding differs with the batch and a random model soon says something else (exactness is a
  // later issue); but the first token comes straight from the prompt's KV, and a prefix taken from
  // the wrong place would change nearly all of them.
  EXPECT_GE(first_equal, 18);
}

TEST_F(LlamaEngineTest, DrawsDoNotDependOnTheBatch) {
  // One request alone and among others whose prefixes it does not share: same key, same draws,
  // nearly same logits.
  Request request = Ask(1, Tokens(4, 30), 8);
  request.sampling.temperature = 0.7F;
  request.sampling.draw_key = 99;
  Make({.sequences = 1});
  engine_->Submit(request);
  const std::vector<TokenId> alone = Drain().at(1).tokens;
  Make({.sequences = 1});
  engine_->Submit(Ask(5, Tokens(5, 30)));
  engine_->Submit(request);
  EXPECT_EQ(Drain().at(1).tokens, alone);
  request.sampling.draw_key = 100;
  Make({.sequences = 1});
  engine_->Submit(request);
  EXPECT_NE(Drain().at(1).tokens, alone);
}

TEST_P(BothLayouts, LonePromptsAreKeptOnlyALittleFurtherThanOthersBeganAlike) {
  const std::vector<TokenId> shared = Tokens(31, 150);
  for (const bool lone : {false, true}) {
    Make({.sequences = 1, .expected_tokens = 256, .layout = GetParam()});
    std::vector<int64_t> reused;
    for (RequestId id = 1; id <= 3; ++id) {
      Request request = Ask(id, Joined(shared, Tokens(40 + id, 50)), 6);
      request.keep.lone = lone;
      engine_->Submit(request);
      reused.push_back(Drain().at(id).reused_tokens);
      engine_->CheckInvariants();
    }
    // The first is like nothing known: 32 tokens of it stay; the second began so: 32 more.
    EXPECT_EQ(reused,
              lone ? (std::vector<int64_t>{0, 32, 64}) : (std::vector<int64_t>{0, 150, 150}));
  }
}

TEST_P(BothLayouts, AHigherPriorityPreemptsAndTheLowerStillFinishes) {
  Make({.sequences = 1, .expected_tokens = 256, .layout = GetParam()});
  Request low = Ask(1, Tokens(21, 100), 40);
  engine_->Submit(low);
  const std::vector<TokenId> undisturbed = Drain().at(1).tokens;

  Make({.sequences = 1, .expected_tokens = 256, .layout = GetParam()});
  engine_->Submit(low);
  for (int step = 0; step < 10; ++step) engine_->Step();
  Request high = Ask(2, Tokens(22, 100), 5);
  high.priority = 1;
  engine_->Submit(high);
  std::vector<RequestId> ends;
  std::map<RequestId, Completion> all;
  while (engine_->pending() > 0) {
    for (Completion& completion : engine_->Poll(0)) {
      ends.push_back(completion.id);
      all[completion.id] = std::move(completion);
    }
    engine_->CheckInvariants();
  }
  EXPECT_EQ(ends, (std::vector<RequestId>{2, 1}));
  EXPECT_EQ(engine_->Statistics().preemptions, 1);
  EXPECT_EQ(all.at(1).tokens, undisturbed);
  EXPECT_EQ(all.at(1).prompt_tokens, all.at(1).reused_tokens + all.at(1).prefilled_tokens);
}

TEST_P(BothLayouts, MoreThanFitsAtOnceStillFinishes) {
  // 12,288 bytes of KV a token would be plenty here; this gives room for about 700 tokens.
  Make({.sequences = 16,
        .kv_bytes = 700 * 2048,
        .kept_bytes = 1 << 20,
        .context_tokens = 600,
        .layout = GetParam()});
  ASSERT_EQ(engine_->Describe().kv_bytes_per_token, 2048);
  for (RequestId id = 1; id <= 20; ++id)
    engine_->Submit(Ask(id, Tokens(300 + id, 100 + 20 * (id % 5)), 50));
  engine_->Submit(Ask(21, Tokens(999, 500), 90));
  EXPECT_EQ(Drain().size(), 21U);
}

TEST_P(BothLayouts, ALongerRequestThanForeseenGetsALargerRoom) {
  Make({.expected_tokens = 128, .layout = GetParam()});
  engine_->Submit(Ask(1, Tokens(1, 60), 200));
  engine_->Submit(Ask(2, Tokens(2, 20), 200));
  for (int step = 0; step < 5; ++step) engine_->Step();
  const int32_t before = engine_->room_shape().tokens_per_sequence;
  engine_->Submit(Ask(3, Tokens(3, 700), 5));
  EXPECT_EQ(Drain().size(), 3U);
  EXPECT_GT(engine_->room_shape().tokens_per_sequence, before);
}

TEST_F(LlamaEngineTest, KeptKvWithoutConsumersGoesFirstWhenHostMemoryIsFull) {
  Make({.sequences = 1, .kept_bytes = 500 * 2048});
  Request wanted = Ask(1, Tokens(1, 100), 4);
  wanted.keep = {1, true};
  engine_->Submit(wanted);
  const Completion parent = Drain().at(1);
  for (RequestId id = 2; id <= 20; ++id) engine_->Submit(Ask(id, Tokens(id, 100), 4));
  Drain();
  EXPECT_GT(engine_->Statistics().evictions, 0);
  Request child = Ask(30, Joined(Joined(wanted.prompt_tokens, parent.tokens), Tokens(77, 5)), 4);
  child.consumes = 1;
  engine_->Submit(child);
  EXPECT_EQ(Drain().at(30).prefilled_tokens, 6);
}

TEST_P(BothLayouts, WhatIsKeptSurvivesUnloading) {
  Make({.sequences = 4, .expected_tokens = 256, .layout = GetParam()});
  Request parent = Ask(1, Tokens(1, 100), 8);
  parent.keep = {1, true};
  engine_->Submit(parent);
  const Completion said = Drain().at(1);
  engine_->Unload();
  engine_->CheckInvariants();
  EXPECT_EQ(engine_->residency(), Residency::kUnloaded);
  Request child = Ask(2, Joined(Joined(parent.prompt_tokens, said.tokens), Tokens(7, 5)), 8);
  child.consumes = 1;
  engine_->Submit(child);
  const Completion after = Drain().at(2);
  EXPECT_EQ(after.prefilled_tokens, 6);

  Make({.sequences = 4, .expected_tokens = 256, .layout = GetParam()});
  engine_->Submit(parent);
  Drain();
  engine_->Submit(child);
  EXPECT_EQ(Drain().at(2).tokens, after.tokens);
}

TEST_F(LlamaEngineTest, AnEngineThatIsMadeUnloadedSaysWhatItIs) {
  Make({});
  const EngineDescription loaded = engine_->Describe();
  Make({.load = false});
  EXPECT_EQ(engine_->residency(), Residency::kUnloaded);
  EXPECT_EQ(engine_->Describe(), loaded);
  EXPECT_EQ(engine_->Statistics().loads, 0);
  engine_->Submit(Ask(1, Tokens(1, 10), 4));
  EXPECT_EQ(Drain().at(1).output_tokens, 4);
}

TEST_F(LlamaEngineTest, StopStringsSpanTokensAndAreCutOff) {
  Make({});
  const std::vector<TokenId> prompt = Tokens(5, 20);
  engine_->Submit(Ask(1, prompt, 30));
  const std::string whole = Drain().at(1).text;
  ASSERT_GT(whole.size(), 20U);
  // A piece from the middle of what the model says anyway, over token borders.
  size_t from = 8;
  while ((static_cast<unsigned char>(whole[from]) & 0xC0U) == 0x80U) ++from;
  const std::string stop = whole.substr(from, 6);
  Request request = Ask(2, prompt, 30);
  request.sampling.stop = {"never said by anyone", stop};
  engine_->Submit(request);
  const Completion stopped = Drain().at(2);
  EXPECT_EQ(stopped.finish, FinishReason::kStopString);
  EXPECT_TRUE(stopped.cut);
  EXPECT_EQ(stopped.text, whole.substr(0, whole.find(stop)));
  EXPECT_LT(stopped.output_tokens, 30);
}

TEST_F(LlamaEngineTest, EndTokensEndAnswersButNotBeforeMinTokens) {
  Make({.mean_output = 8});
  std::set<int64_t> lengths;
  for (RequestId id = 1; id <= 30; ++id) {
    Request request = Ask(id, Tokens(id, 20), 60);
    request.sampling.temperature = 1.0F;
    request.sampling.draw_key = id;
    engine_->Submit(request);
  }
  int ended = 0;
  for (const auto& [id, completion] : Drain()) {
    lengths.insert(completion.output_tokens);
    ended += completion.finish == FinishReason::kEndToken ? 1 : 0;
    if (completion.finish == FinishReason::kEndToken) {
      EXPECT_TRUE(vocabulary_->IsEndOfGeneration(completion.tokens.back()));
    }
  }
  EXPECT_GT(ended, 20);
  EXPECT_GT(lengths.size(), 3U);
  for (RequestId id = 101; id <= 110; ++id) {
    Request request = Ask(id, Tokens(id, 20), 60);
    request.sampling.temperature = 1.0F;
    request.sampling.draw_key = id;
    request.sampling.min_tokens = 25;
    engine_->Submit(request);
  }
  for (const auto& [id, completion] : Drain()) EXPECT_GT(completion.output_tokens, 25) << id;
}

TEST_F(LlamaEngineTest, APromptTooLongSaysByHowMuch) {
  Make({.context_tokens = 100});
  engine_->Submit(Ask(1, Tokens(1, 130)));
  const std::vector<Completion> finished = engine_->Poll(0);
  ASSERT_EQ(finished.size(), 1U);
  EXPECT_NE(finished[0].failure->message.find("31 too many"), std::string::npos)
      << finished[0].failure->message;
}

/// Random arrivals, priorities, sharing, cancellations and releases, with every invariant looked at
/// after each step.
TEST_P(BothLayouts, InvariantsHoldUnderRandomTraffic) {
  constexpr uint64_t kSeed = 31;
  RandomStream random(kSeed);
  Make({.sequences = 5,
        .kv_bytes = 1500 * 2048,
        .kept_bytes = 600 * 2048,
        .kept_folder = testing::TempDir(),
        .context_tokens = 400,
        .layout = GetParam()});
  std::vector<std::vector<TokenId>> stems;
  for (uint64_t i = 0; i < 6; ++i) stems.push_back(Tokens(i, 20 + 10 * i));
  std::map<RequestId, std::vector<TokenId>> histories;
  RequestId next = 1;
  size_t answered = 0;
  for (int round = 0; round < 400; ++round) {
    if (next <= 120 && random.Below(2) == 0) {
      std::vector<TokenId> prompt = stems[random.Below(stems.size())];
      RequestId parent = 0;
      if (!histories.empty() && random.Below(3) == 0) {
        const auto chosen =
            std::next(histories.begin(), static_cast<ptrdiff_t>(random.Below(histories.size())));
        parent = chosen->first;
        prompt = chosen->second;
      }
      Request request = Ask(next, Joined(prompt, Tokens(5000 + next, 1 + random.Below(30))),
                            1 + static_cast<int32_t>(random.Below(20)));
      if (request.prompt_tokens.size() > 350) continue;
      request.consumes = parent;
      request.priority = static_cast<int32_t>(random.Below(3));
      request.keep = {static_cast<int32_t>(random.Below(3)), random.Below(2) == 0};
      request.static_prefix_tokens = random.Below(2) == 0 ? 10 : 0;
      engine_->Submit(request);
      histories.emplace(next++, request.prompt_tokens);
    }
    if (random.Below(10) == 0 && next > 1) engine_->Cancel(1 + random.Below(next - 1));
    if (random.Below(10) == 0 && next > 1) engine_->Release(1 + random.Below(next - 1), 1);
    answered += engine_->Poll(0).size();
    if (engine_->pending() > 0) engine_->CheckInvariants();
  }
  for (int step = 0; engine_->pending() > 0 && step < 20000; ++step) {
    answered += engine_->Poll(0).size();
    engine_->CheckInvariants();
  }
  EXPECT_EQ(answered, next - 1) << "seed " << kSeed;
  EXPECT_GT(engine_->Statistics().preemptions, 0);
}

}  // namespace
}  // namespace halo::test
