// Guessed tokens beside those that are known: the answers and logits are those without them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/clock.h"
#include "base/error.h"
#include "engine/llama/llama_engine.h"
#include "support/test_models.h"

namespace halo {
namespace {

struct Outcome {
  std::map<RequestId, Completion> completions;
  EngineStatistics statistics;
};

class DraftTest : public testing::Test {
 protected:
  /// Answers of the requests in an engine that guesses so many tokens a step; 0: none.
  Outcome Run(int32_t draft_tokens, int32_t sequences, const std::vector<Request>& requests) {
    LlamaEngineOptions options;
    options.model_path = model_;
    options.vocabulary = vocabulary_;
    options.sequences = sequences;
    options.kv_bytes = 64 << 20;
    options.kept_bytes = 32 << 20;
    options.context_tokens = 1024;
    options.exactness = exactness_;
    options.hash_logits = true;
    options.prompt_lookup = draft_tokens > 0;
    options.draft_tokens = draft_tokens;
    LlamaEngine engine(std::move(options), clock_);
    for (const Request& request : requests) engine.Submit(request);
    Outcome outcome;
    while (engine.pending() > 0) {
      for (Completion& completion : engine.Poll(0))
        outcome.completions[completion.id] = std::move(completion);
      engine.CheckInvariants();
    }
    outcome.statistics = engine.Statistics();
    return outcome;
  }

  static void ExpectEqual(const Outcome& outcome, const Outcome& reference) {
    ASSERT_EQ(outcome.completions.size(), reference.completions.size());
    for (const auto& [id, completion] : outcome.completions) {
      SCOPED_TRACE(id);
      const Completion& wanted = reference.completions.at(id);
      ASSERT_FALSE(completion.failure) << completion.failure->message;
      EXPECT_EQ(completion.tokens, wanted.tokens);
      EXPECT_EQ(completion.text, wanted.text);
      EXPECT_EQ(completion.finish, wanted.finish);
      EXPECT_EQ(completion.logits_hash, wanted.logits_hash);
      EXPECT_EQ(completion.prefilled_tokens, wanted.prefilled_tokens);
    }
    EXPECT_EQ(outcome.statistics.decode_tokens, reference.statistics.decode_tokens);
  }

  /// One that the model copies much of.
  Request Extract(RequestId id, const std::string& product, int32_t max_tokens = 96) {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    request.script_operator = "extract";
    PromptSpan prompt;
    prompt.text =
        "<|user|>My son tells me that the same " + product +
        " came with a stuck base. It is urgent.\n\nExtract product, problem, sentiment and "
        "urgency as a JSON object. Write nothing else.<|end|><|assistant|>";
    request.prompt_tokens = vocabulary_->TokenizePrompt({prompt});
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = id % 2 == 0 ? 0.0F : 0.3F;
    request.sampling.draw_key = id;
    return request;
  }

  const std::string model_ = std::string(HALO_SOURCE_DIR) + "/models/halo-demo.q8_0.gguf";
  const std::shared_ptr<const Vocabulary> vocabulary_ = Vocabulary::Load(model_);
  Exactness exactness_ = Exactness::kRequired;
  SteadyClock clock_;
};

TEST_F(DraftTest, ChangesNoAnswer) {
  std::vector<Request> requests;
  for (RequestId id = 1; id <= 6; ++id)
    requests.push_back(Extract(id, id < 4 ? "compact telescope" : "plastic kettle"));
  // What ends within a draft: by length, by a stop string, by a grammar.
  requests.push_back(Extract(7, "desk lamp", 9));
  requests.push_back(Extract(8, "desk lamp"));
  requests.back().sampling.stop = {"stuck"};
  requests.push_back(Extract(9, "desk lamp"));
  requests.back().grammar = R"(root ::= ("ab" | "ba" | "c"){40})";
  Outcome reference;
  try {
    reference = Run(0, 1, requests);
  } catch (const Error& error) {
    GTEST_SKIP() << error.what();  // no exact kernels are known for this CPU (exactness.h)
  }
  EXPECT_EQ(reference.statistics.draft_tokens, 0);
  for (const int32_t sequences : {1, 2, 8}) {
    for (const int32_t tokens : {1, 5}) {
      SCOPED_TRACE(testing::Message() << sequences << " sequences, " << tokens << " tokens");
      const Outcome drafted = Run(tokens, sequences, requests);
      ExpectEqual(drafted, reference);
      if (sequences > 1) continue;  // all of them have to have a guess at once
      EXPECT_GT(drafted.statistics.accepted_tokens, 50);
      EXPECT_GT(drafted.statistics.draft_tokens, drafted.statistics.accepted_tokens);
      EXPECT_LT(drafted.statistics.decode_steps, reference.statistics.decode_steps);
    }
  }
}

/// What is kept of an answer has nothing of what was guessed: a conversation goes on from it.
TEST_F(DraftTest, KeptAnswersAreWhole) {
  std::vector<Outcome> outcomes;
  for (const int32_t tokens : {0, 5}) {
    Request first = Extract(1, "compact telescope", 30);
    first.keep = {.consumers = 1, .answer = true};
    try {
      outcomes.push_back(Run(tokens, 1, {first}));
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();  // no exact kernels are known for this CPU (exactness.h)
    }
    Request second = first;
    second.id = 2;
    second.keep = {};
    const std::vector<TokenId>& said = outcomes.back().completions.at(1).tokens;
    second.prompt_tokens.insert(second.prompt_tokens.end(), said.begin(), said.end());
    second.consumes = 1;
    outcomes.back() = Run(tokens, 1, {first, second});
  }
  ExpectEqual(outcomes[1], outcomes[0]);
  EXPECT_GT(outcomes[1].completions.at(2).reused_tokens, 30);
  EXPECT_EQ(outcomes[1].completions.at(2).reused_tokens,
            outcomes[0].completions.at(2).reused_tokens);
}

/// Exact answers where they are known to be, else none that a draft could have rounded.
TEST_F(DraftTest, NothingIsGuessedWhereExactAnswersWereWantedAndAreNotToBeHad) {
  // Kernels that are exact are known for split streams only.
  exactness_ = Exactness::kIfKnown;
  LlamaEngineOptions options;
  options.model_path = model_;
  options.vocabulary = vocabulary_;
  options.sequences = 1;
  options.kv_bytes = 64 << 20;
  options.context_tokens = 1024;
  options.layout = KvLayout::kUnified;
  options.exactness = exactness_;
  options.draft_tokens = 4;
  LlamaEngine engine(std::move(options), clock_);
  ASSERT_FALSE(engine.Describe().exact);
  engine.Submit(Extract(1, "compact telescope"));
  while (engine.pending() > 0) engine.Poll(0);
  EXPECT_EQ(engine.Statistics().draft_tokens, 0);
}

}  // namespace
}  // namespace halo
