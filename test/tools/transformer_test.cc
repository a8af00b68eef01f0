#include "demo_model/transformer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/random.h"
#include "demo_model/fast_exp.h"

namespace halo::demo {
namespace {

TransformerShape SmallShape() {
  TransformerShape shape;
  shape.layers = 2;
  shape.width = 32;
  shape.heads = 4;
  shape.kv_heads = 2;
  shape.head_width = 8;
  shape.feed_forward = 48;
  shape.vocabulary = 50;
  shape.context_tokens = 160;
  return shape;
}

/// Three documents, the last longer than the blocks that attention is computed in.
TokenBatch SmallBatch(const TransformerShape& shape) {
  RandomStream random(11);
  TokenBatch batch;
  batch.starts.push_back(0);
  for (const int length : {5, 1, 140}) {
    for (int i = 0; i < length; ++i) {
      batch.tokens.push_back(
          static_cast<int32_t>(random.Below(static_cast<uint64_t>(shape.vocabulary))));
      batch.targets.push_back(
          static_cast<int32_t>(random.Below(static_cast<uint64_t>(shape.vocabulary))));
      batch.weights.push_back(i % 3 == 0 ? 0.1F : 1.0F);
    }
    batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
  }
  return batch;
}

TEST(Transformer, GradientsEqualFiniteDifferencesForEveryKindOfParameter) {
  const TransformerShape shape = SmallShape();
  const TokenBatch batch = SmallBatch(shape);
  const double weight_sum = WeightSum(batch);
  std::vector<double> parameters = RandomParameters<double>(shape, 5);
  // Gains that differ from 1 and from each other.
  RandomStream random(6);
  for (const ParameterTensor& tensor : ParameterTensors(shape)) {
    for (int64_t i = 0; tensor.rows == 0 && i < tensor.size(); ++i)
      parameters[static_cast<size_t>(tensor.offset + i)] = 0.5 + random.Uniform();
  }
  Transformer<double> transformer(shape, parameters);
  transformer.LossAndGradient(batch, weight_sum);
  const std::vector<double> gradients = transformer.gradients();
  for (const ParameterTensor& tensor : ParameterTensors(shape)) {
    for (int draw = 0; draw < 6; ++draw) {
      // Of the embedding a row that the batch reads, so that both its uses are seen.
      const int64_t place =
          tensor.name == "token_embd.weight"
              ? batch.tokens[static_cast<size_t>(draw)] * tensor.columns + draw
              : static_cast<int64_t>(random.Below(static_cast<uint64_t>(tensor.size())));
      double& parameter = parameters[static_cast<size_t>(tensor.offset + place)];
      const double kept = parameter;
      constexpr double kStep = 1e-5;
      parameter = kept + kStep;
      const double above = transformer.Loss(batch, weight_sum).mean;
      parameter = kept - kStep;
      const double below = transformer.Loss(batch, weight_sum).mean;
      parameter = kept;
      const double difference = (above - below) / (2 * kStep);
      const double gradient = gradients[static_cast<size_t>(tensor.offset + place)];
      EXPECT_NEAR(gradient, difference, 1e-8 + 1e-5 * std::abs(difference))
          << tensor.name << " element " << place;
    }
  }
}

TEST(Transformer, DocumentsDoNotSeeEachOther) {
  const TransformerShape shape = SmallShape();
  const TokenBatch batch = SmallBatch(shape);
  const std::vector<double> parameters = RandomParameters<double>(shape, 5);
  Transformer<double> transformer(shape, parameters);
  const std::vector<double> together = transformer.Forward(batch);
  for (size_t document = 0; document + 1 < batch.starts.size(); ++document) {
    const int32_t begin = batch.starts[document], end = batch.starts[document + 1];
    TokenBatch alone;
    alone.tokens.assign(batch.tokens.begin() + begin, batch.tokens.begin() + end);
    alone.starts = {0, end - begin};
    const std::vector<double>& logits = transformer.Forward(alone);
    for (int64_t i = 0; i < (end - begin) * shape.vocabulary; ++i) {
      ASSERT_NEAR(logits[static_cast<size_t>(i)],
                  together[static_cast<size_t>(begin * shape.vocabulary + i)], 1e-12);
    }
  }
}

TEST(Transformer, LaterTokensDoNotChangeEarlierLogits) {
  const TransformerShape shape = SmallShape();
  const std::vector<double> parameters = RandomParameters<double>(shape, 5);
  Transformer<double> transformer(shape, parameters);
  TokenBatch batch;
  for (int32_t i = 0; i < 130; ++i) batch.tokens.push_back(i % 50);
  batch.starts = {0, 130};
  const std::vector<double> before = transformer.Forward(batch);
  batch.tokens.back() = 7;
  const std::vector<double>& after = transformer.Forward(batch);
  for (int64_t i = 0; i < 129 * shape.vocabulary; ++i)
    ASSERT_EQ(before[static_cast<size_t>(i)], after[static_cast<size_t>(i)]);
}

TEST(FastExp, IsWithinTwoUnitsOfTheLastPlace) {
  double worst = 0;
  for (float x = -86.0F; x < 86.0F; x += 0.0137F) {
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(FastExp(x)) / exact - 1.0));
  }
  EXPECT_LT(worst, 2.5e-7);
  EXPECT_GT(FastExp(-1e9F), 0.0F);
}

}  // namespace
}  // namespace halo::demo
