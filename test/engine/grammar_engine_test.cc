// Requests under a grammar on the embedded engine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "base/clock.h"
#include "base/random.h"
#include "engine/llama/llama_engine.h"
#include "model/output_schema.h"
#include "support/test_models.h"

namespace halo {
namespace {

using testing::HasSubstr;
using Json = nlohmann::ordered_json;

constexpr const char* kPerson =
    R"({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150}, "mood": {"enum": ["good", "bad", "so-so"]},
        "tags": {"type": "array", "maxItems": 3, "items": {"type": "string", "pattern": "^[a-z\u00e9\u20ac]{1,4}$"}}},
        "required": ["name", "age", "mood", "tags"]})";

std::shared_ptr<const OutputSchema> SchemaOf(const char* text) {
  std::vector<SchemaFault> faults;
  auto schema = OutputSchema::OfJsonSchema(Json::parse(text), faults);
  EXPECT_TRUE(faults.empty());
  return schema;
}

class GrammarEngineTest : public testing::Test {
 protected:
  void Make(int32_t sequences, Exactness exactness = Exactness::kOff, double mean_output = 0) {
    LlamaEngineOptions options;
    options.model_name = "tiny";
    options.model_path = test::TinyModel("Q8_0", mean_output);
    options.vocabulary = vocabulary_ = Vocabulary::Load(options.model_path);
    options.sequences = sequences;
    options.kv_bytes = 64 << 20;
    options.kept_bytes = 32 << 20;
    options.context_tokens = 1024;
    options.exactness = exactness;
    options.hash_logits = true;
    engine_ = std::make_unique<LlamaEngine>(std::move(options), clock_);
  }

  static Request Ask(RequestId id, std::string grammar, double temperature = 0.7,
                     int32_t max_tokens = 300) {
    Request request;
    request.id = id;
    request.order = static_cast<int64_t>(id);
    RandomStream random(id);
    for (int i = 0; i < 20; ++i)
      request.prompt_tokens.push_back(static_cast<TokenId>(1000 + random.Below(20'000)));
    request.sampling.max_tokens = max_tokens;
    request.sampling.temperature = static_cast<float>(temperature);
    request.sampling.top_p = id % 2 == 0 ? 0.9F : 1.0F;
    request.sampling.draw_key = id;
    request.grammar = std::move(grammar);
    return request;
  }

  std::map<RequestId, Completion> Run(std::vector<Request> requests) {
    for (Request& request : requests) engine_->Submit(std::move(request));
    std::map<RequestId, Completion> all;
    while (engine_->pending() > 0) {
      for (Completion& completion : engine_->Poll(0)) all[completion.id] = std::move(completion);
      engine_->CheckInvariants();
    }
    return all;
  }
  Completion RunOne(Request request) { return Run({std::move(request)}).begin()->second; }

  SteadyClock clock_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<LlamaEngine> engine_;
};

TEST_F(GrammarEngineTest, EveryAnswerFits) {
  Make(16);
  const auto schema = SchemaOf(kPerson);
  std::vector<Request> requests;
  for (RequestId id = 1; id <= 48; ++id)
    requests.push_back(Ask(id, schema->grammar(), id % 3 == 0 ? 0.0 : id % 3 == 1 ? 0.7 : 3.0));
  for (const auto& [id, completion] : Run(std::move(requests))) {
    ASSERT_FALSE(completion.failure) << completion.failure->message;
    Json value;
    const auto fault = schema->Check(completion.text, false, value);
    EXPECT_FALSE(fault) << fault->message << "\n" << completion.text;
    EXPECT_EQ(completion.finish, FinishReason::kEndToken);
    for (const TokenId token : completion.tokens) {
      EXPECT_TRUE(!vocabulary_->IsSteering(token) || token == completion.tokens.back());
    }
    EXPECT_EQ(vocabulary_->Detokenize(completion.tokens), completion.text);
  }
  EXPECT_GT(engine_->Statistics().grammar_us, 0);
}

/// The same answers, and logits, whatever runs beside them.
TEST_F(GrammarEngineTest, AnswersDoNotDependOnBatches) {
  const auto schema = SchemaOf(kPerson);
  std::map<RequestId, Completion> reference;
  for (const int32_t sequences : {1, 8}) {
    try {
      Make(sequences, Exactness::kRequired);
    } catch (const Error& error) {
      GTEST_SKIP() << error.what();
    }
    std::vector<Request> requests;
    for (RequestId id = 1; id <= 16; ++id) {
      // Some without a grammar, some with another.
      requests.push_back(Ask(id,
                             id % 4 == 0   ? ""
                             : id % 4 == 1 ? "root ::= [a-z ]{5,40} \".\""
                                           : schema->grammar(),
                             id % 5 == 0 ? 0.0 : 0.8, 60));
    }
    auto answers = Run(std::move(requests));
    if (sequences == 1) {
      reference = std::move(answers);
      continue;
    }
    for (const auto& [id, completion] : answers) {
      EXPECT_EQ(completion.tokens, reference.at(id).tokens);
      EXPECT_EQ(completion.text, reference.at(id).text);
      EXPECT_EQ(completion.logits_hash, reference.at(id).logits_hash);
    }
  }
}

TEST_F(GrammarEngineTest, TheEndCostsNoStepWhereNothingElseMayFollow) {
  Make(1);
  const Completion completion = RunOne(Ask(1, "root ::= \"A\""));
  EXPECT_EQ(completion.text, "A");
  EXPECT_EQ(completion.finish, FinishReason::kEndToken);
  ASSERT_EQ(completion.tokens.size(), 2U);
  EXPECT_EQ(completion.tokens.back(), vocabulary_->end_token());
  EXPECT_EQ(engine_->Statistics().decode_steps, 0);  // the prompt's logits gave the A
}

TEST_F(GrammarEngineTest, TheMinimumCannotAskForWhatTheGrammarRefuses) {
  Make(1);
  Request fixed = Ask(1, "root ::= \"AB\"");
  fixed.sampling.min_tokens = 50;
  EXPECT_EQ(RunOne(std::move(fixed)).text, "AB");
  // Where the grammar goes on, the end is held back.
  Request open = Ask(2, "root ::= \"x\"*", 1.0, 30);
  open.sampling.min_tokens = 12;
  const Completion completion = RunOne(std::move(open));
  ASSERT_FALSE(completion.failure);
  EXPECT_GE(completion.output_tokens, 12);
  EXPECT_EQ(completion.text.find_first_not_of('x'), std::string::npos);
}

TEST_F(GrammarEngineTest, AGrammarThatTakesNothingEndsAtOnce) {
  Make(1);
  const Completion completion = RunOne(Ask(1, "root ::= \"\""));
  EXPECT_FALSE(completion.failure);
  EXPECT_EQ(completion.text, "");
  EXPECT_EQ(completion.tokens.size(), 1U);
}

TEST_F(GrammarEngineTest, WhatIsWrongWithAGrammarFailsItsCallAlone) {
  Make(4);
  auto answers = Run({Ask(1, "root ::= nothing"), Ask(2, "root ::= root \"a\" | \"b\""),
                      Ask(3, "root ::= a{0,9000} a{0,9000} a{0,9000}\na ::= [a-z ]"),
                      Ask(4, "root ::= \"yes\" | \"no\""), Ask(5, "", 0.7, 5)});
  EXPECT_EQ(answers.at(1).failure.value().code, "bad_grammar");
  EXPECT_THAT(answers.at(1).failure->message, HasSubstr("there is no rule 'nothing'"));
  EXPECT_EQ(answers.at(2).failure.value().code, "bad_grammar");
  if (answers.at(3).failure) {
    EXPECT_EQ(answers.at(3).failure->code, "grammar_limit");
  }
  EXPECT_THAT(answers.at(4).text, testing::AnyOf("yes", "no"));
  EXPECT_FALSE(answers.at(5).failure);
}

/// Characters of several bytes come of several tokens.
TEST_F(GrammarEngineTest, TokensMayBePartsOfCharacters) {
  Make(4);
  std::vector<Request> requests;
  for (RequestId id = 1; id <= 8; ++id)
    requests.push_back(Ask(id, "root ::= [\U0001F600-\U0001F64F]{3} [\u4e00-\u9fff]{2}", 1.5));
  for (const auto& [id, completion] : Run(std::move(requests))) {
    ASSERT_FALSE(completion.failure);
    EXPECT_EQ(completion.text.size(), 3U * 4 + 2U * 3) << completion.text;
  }
}

TEST_F(GrammarEngineTest, StopStringsCutAsEver) {
  Make(1);
  Request request = Ask(1, "root ::= \"one two three\"");
  request.sampling.stop = {"two"};
  const Completion completion = RunOne(std::move(request));
  EXPECT_EQ(completion.finish, FinishReason::kStopString);
  EXPECT_EQ(completion.text, "one ");
}

}  // namespace
}  // namespace halo
