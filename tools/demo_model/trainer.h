#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "demo_model/adam.h"
#include "demo_model/byte_pair_encoding.h"
#include "demo_model/corpus.h"
#include "demo_model/transformer.h"

namespace halo::demo {

struct TrainingOptions {
  TransformerShape shape;
  AdamOptions adam;
  uint64_t seed = 1;
  /// A step has so many parts, each filled with whole conversations up to a number of tokens. Parts
  /// are computed side by side and their gradients are added in order, so that the number of
  /// threads changes nothing.
  int64_t parts_per_step = 4;
  int64_t tokens_per_part = 1024;
  int32_t threads = 2;
  float prompt_weight = 0.1F;               ///< of the loss of tokens that no answer has
  int64_t vocabulary_conversations = 6000;  ///< the first so many teach the vocabulary
};

struct TrainingStep {
  int64_t step = 0;  ///< 1, 2, ...
  int64_t tokens = 0;
  BatchLoss loss;
  double gradient_norm = 0;
};

/// The vocabulary that training with these options begins with.
BytePairEncoding TrainVocabulary(const TrainingOptions& options);

struct TrainedModel {
  BytePairEncoding encoding;
  TransformerShape shape;
  std::vector<float> parameters;
};

/// Trains a vocabulary and a model on conversations 0, 1, ... of the training split; `report` sees
/// every step. The same options give the same bits on one kind of machine. Throws Error(kUsage) for
/// options that do not fit together.
TrainedModel Train(const TrainingOptions& options,
                   const std::function<void(const TrainingStep&)>& report);

/// Loss over conversations first .. first + count of a split, in nats an answer's token and the
/// share of answers' tokens that are the likeliest.
BatchLoss Measure(const TrainedModel& model, Split split, uint64_t seed, uint64_t first,
                  uint64_t count);

}  // namespace halo::demo
