#include "demo_model/trainer.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "demo_model/chat_format.h"

namespace halo::demo {
namespace {

/// A training of seconds: a narrow model and a few steps, all else as in earnest.
TrainingOptions ShortTraining() {
  TrainingOptions options;
  options.shape.layers = 1;
  options.shape.width = 64;
  options.shape.heads = 2;
  options.shape.kv_heads = 1;
  options.shape.head_width = 32;
  options.shape.feed_forward = 96;
  options.shape.vocabulary = 512;
  options.vocabulary_conversations = 100;
  options.adam.steps = 12;
  options.adam.warm_up_steps = 4;
  options.threads = 1;
  return options;
}

TrainedModel ModelOf(const TrainingOptions& options) {
  return Train(options, [](const TrainingStep&) {});
}

std::vector<TrainingStep> StepsOf(const TrainingOptions& options) {
  std::vector<TrainingStep> steps;
  Train(options, [&](const TrainingStep& step) { steps.push_back(step); });
  return steps;
}

TEST(Trainer, TheSameOptionsGiveTheSameBitsWithAnyNumberOfThreads) {
  TrainingOptions options = ShortTraining();
  const TrainedModel first = ModelOf(options);
  for (const int32_t threads : {1, 2, 3}) {
    options.threads = threads;
    const TrainedModel again = ModelOf(options);
    ASSERT_EQ(again.encoding.merges(), first.encoding.merges());
    ASSERT_EQ(again.parameters, first.parameters) << threads << " threads";
  }
  options.seed = 2;
  EXPECT_NE(ModelOf(options).parameters, first.parameters);
}

TEST(Trainer, LearnsFromWhatItReads) {
  const std::vector<TrainingStep> steps = StepsOf(ShortTraining());
  ASSERT_EQ(steps.size(), 12U);
  EXPECT_NEAR(steps.front().loss.mean, 6.24, 0.4);  // log 512: knows nothing
  EXPECT_LT(steps.back().loss.mean, steps.front().loss.mean - 0.5);
  for (const TrainingStep& step : steps) {
    EXPECT_GT(step.tokens, 2500);  // conversations are not cut
    EXPECT_LE(step.tokens, 4096);
    EXPECT_GT(step.gradient_norm, 0);
  }
}

TEST(Trainer, RefusesOptionsThatDoNotFitTogether) {
  const auto refuses = [](auto change) {
    TrainingOptions options = ShortTraining();
    change(options);
    EXPECT_THROW(StepsOf(options), Error);
  };
  refuses([](TrainingOptions& o) { o.shape.kv_heads = 3; });
  refuses([](TrainingOptions& o) { o.shape.width = 48; });
  refuses([](TrainingOptions& o) { o.adam.steps = 0; });
  refuses([](TrainingOptions& o) { o.threads = 0; });
  refuses([](TrainingOptions& o) { o.tokens_per_part = 512; });
  refuses([](TrainingOptions& o) { o.shape.vocabulary = 100'000; });
}

TEST(Adam, FirstStepMovesEveryParameterByTheRateAgainstItsGradient) {
  AdamOptions options;
  options.warm_up_steps = 1;
  options.weight_decay = 0;
  Adam adam(options, {{"v", 0, 3, 0}});
  std::vector<float> parameters = {1.0F, 1.0F, 1.0F};
  const double norm = adam.Step({3.0F, -4.0F, 0.0F}, parameters);
  EXPECT_DOUBLE_EQ(norm, 5.0);
  EXPECT_NEAR(parameters[0], 1.0 - options.peak_rate, 1e-6);
  EXPECT_NEAR(parameters[1], 1.0 + options.peak_rate, 1e-6);
  EXPECT_EQ(parameters[2], 1.0F);
}

TEST(Adam, DecaysMatricesOnlyAndFollowsTheCosine) {
  AdamOptions options;
  options.steps = 100;
  options.warm_up_steps = 10;
  Adam adam(options, {{"matrix", 1, 1, 0}, {"vector", 0, 1, 1}});
  EXPECT_DOUBLE_EQ(adam.RateOf(4), 0.5 * options.peak_rate);
  EXPECT_DOUBLE_EQ(adam.RateOf(9), options.peak_rate);
  EXPECT_NEAR(adam.RateOf(54), 0.525 * options.peak_rate, 1e-9);
  EXPECT_NEAR(adam.RateOf(99), 0.05 * options.peak_rate, 1e-12);
  std::vector<float> parameters = {1.0F, 1.0F};
  for (int step = 0; step < 20; ++step) adam.Step({0.0F, 0.0F}, parameters);
  EXPECT_LT(parameters[0], 1.0F);
  EXPECT_EQ(parameters[1], 1.0F);
}

TEST(ChatFormat, AnswersAreLearnedInFullPromptsALittleAndWrongAnswersNotAtAll) {
  const BytePairEncoding encoding({}, ControlTokens());
  const EncodedConversation encoded =
      EncodeConversation({{Turn::Role::kUser, "a"},
                          {Turn::Role::kAssistant, "b", /*learned=*/false},
                          {Turn::Role::kUser, "c"},
                          {Turn::Role::kAssistant, "d"}},
                         encoding, 0.1F);
  const TokenId user = encoding.ControlId(1), answer = encoding.ControlId(2),
                end = encoding.ControlId(kEndOfTurn);
  EXPECT_EQ(encoded.tokens, (std::vector<TokenId>{user, 'a', end, answer, 'b', end, user, 'c', end,
                                                  answer, 'd', end}));
  EXPECT_EQ(encoded.weights, (std::vector<float>{0, 0.1F, 0.1F, 0, 0, 0, 0, 0.1F, 0.1F, 0, 1, 1}));
  TokenBatch batch;
  AppendToBatch(encoded, batch);
  AppendToBatch(encoded, batch);
  EXPECT_EQ(batch.starts, (std::vector<int32_t>{0, 11, 22}));
  // Each position's target is the next token, and its weight the target's.
  EXPECT_EQ(batch.targets[9], 'd');
  EXPECT_EQ(batch.weights[9], 1.0F);
  EXPECT_EQ(batch.targets[10], end);
  EXPECT_EQ(batch.tokens[11], user);
}

}  // namespace
}  // namespace halo::demo
