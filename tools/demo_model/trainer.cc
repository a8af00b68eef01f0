#include "demo_model/trainer.h"

#include <fmt/format.h>

#include "base/error.h"
#include "demo_model/chat_format.h"

namespace halo::demo {
namespace {

void CheckOptions(const TrainingOptions& options) {
  const TransformerShape& shape = options.shape;
  const bool shape_fits = shape.layers > 0 && shape.kv_heads > 0 && shape.heads > 0 &&
                          shape.heads % shape.kv_heads == 0 && shape.head_width % 2 == 0 &&
                          shape.width % 32 == 0 && shape.feed_forward % 32 == 0 &&
                          shape.query_width() % 32 == 0;
  if (!shape_fits) {
    throw Error(ErrorCode::kUsage,
                "key-value heads divide heads, head widths are even, and rows of matrices are "
                "multiples of 32 long");
  }
  if (options.adam.steps < 1 || options.tokens_per_step < shape.context_tokens) {
    throw Error(ErrorCode::kUsage,
                fmt::format("at least one step, of at least the context's {} tokens",
                            shape.context_tokens));
  }
}

/// Conversations of the training split in order, packed into steps.
class StepPacker {
 public:
  StepPacker(const TrainingOptions& options, const BytePairEncoding& encoding)
      : options_(options), encoding_(encoding), waiting_(Next()) {}

  /// As many whole conversations as fit.
  TokenBatch Pack() {
    TokenBatch batch;
    while (std::ssize(batch.tokens) + std::ssize(waiting_.tokens) <= options_.tokens_per_step) {
      AppendToBatch(waiting_, batch);
      waiting_ = Next();
    }
    return batch;
  }

 private:
  /// The next conversation that fits into the context.
  EncodedConversation Next() {
    for (;;) {
      const Conversation conversation = MakeConversation(Split::kTraining, options_.seed, index_++);
      EncodedConversation encoded =
          EncodeConversation(conversation.turns, encoding_, options_.prompt_weight);
      if (std::ssize(encoded.tokens) <= options_.shape.context_tokens) return encoded;
    }
  }

  const TrainingOptions& options_;
  const BytePairEncoding& encoding_;
  uint64_t index_ = 0;
  EncodedConversation waiting_;
};

}  // namespace

BytePairEncoding TrainVocabulary(const TrainingOptions& options) {
  std::vector<std::string> texts;
  for (int64_t i = 0; i < options.vocabulary_conversations; ++i) {
    const Conversation conversation =
        MakeConversation(Split::kTraining, options.seed, static_cast<uint64_t>(i));
    for (const Turn& turn : conversation.turns) texts.push_back(turn.text);
  }
  return BytePairEncoding::Train(texts, options.shape.vocabulary, ControlTokens());
}

TrainedModel Train(const TrainingOptions& options,
                   const std::function<void(const TrainingStep&)>& report) {
  CheckOptions(options);
  TrainedModel model{TrainVocabulary(options),
                     std::make_unique<Transformer<float>>(options.shape, options.seed)};
  Transformer<float>& transformer = *model.transformer;
  Adam adam(options.adam, transformer.tensors());
  StepPacker packer(options, model.encoding);
  for (int64_t step = 1; step <= options.adam.steps; ++step) {
    const TokenBatch batch = packer.Pack();
    TrainingStep done{step, std::ssize(batch.tokens), transformer.LossAndGradient(batch)};
    done.gradient_norm = adam.Step(transformer.gradients(), transformer.parameters());
    report(done);
  }
  return model;
}

BatchLoss Measure(TrainedModel& model, Split split, uint64_t seed, uint64_t first,
                  uint64_t count) {
  BatchLoss sum;
  for (uint64_t index = first; index < first + count; ++index) {
    TokenBatch batch;
    AppendToBatch(EncodeConversation(MakeConversation(split, seed, index).turns, model.encoding, 0),
                  batch);
    const BatchLoss loss = model.transformer->Loss(batch);
    sum.mean += loss.mean * static_cast<double>(loss.answers);
    sum.answers += loss.answers;
    sum.answer_hits += loss.answer_hits;
  }
  sum.mean /= static_cast<double>(std::max<int64_t>(sum.answers, 1));
  return sum;
}

}  // namespace halo::demo
