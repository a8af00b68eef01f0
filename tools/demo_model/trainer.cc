#include "demo_model/trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <thread>

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
  if (options.adam.steps < 1 || options.parts_per_step < 1 || options.threads < 1 ||
      options.tokens_per_part < shape.context_tokens) {
    throw Error(
        ErrorCode::kUsage,
        fmt::format(
            "at least one step, part and thread, and parts of at least the context's {} tokens",
            shape.context_tokens));
  }
}

/// Conversations of the training split in order, packed into batches.
class BatchPacker {
 public:
  BatchPacker(const TrainingOptions& options, const BytePairEncoding& encoding)
      : options_(options), encoding_(encoding), waiting_(Next()) {}

  /// As many whole conversations as fit.
  TokenBatch Pack() {
    TokenBatch batch;
    while (std::ssize(batch.tokens) + std::ssize(waiting_.tokens) <= options_.tokens_per_part) {
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

/// The parts of a step, computed by several threads.
class StepWorkers {
 public:
  StepWorkers(const TrainingOptions& options, const std::vector<float>& parameters)
      : threads_(options.threads), gradients_(parameters.size()) {
    for (int64_t i = 0; i < options.parts_per_step; ++i)
      transformers_.emplace_back(options.shape, parameters);
  }

  /// Sets gradients() to those of the mean loss over all batches, one for each part.
  BatchLoss Compute(const std::vector<TokenBatch>& batches) {
    double weight_sum = 0;
    for (const TokenBatch& batch : batches) weight_sum += WeightSum(batch);
    std::vector<BatchLoss> losses(batches.size());
    std::atomic<size_t> next = 0;
    const auto work = [&] {
      for (size_t part = next++; part < batches.size(); part = next++)
        losses[part] = transformers_[part].LossAndGradient(batches[part], weight_sum);
    };
    {
      std::vector<std::jthread> others;
      for (int32_t i = 1; i < threads_; ++i) others.emplace_back(work);
      work();
    }
    BatchLoss sum;
    std::fill(gradients_.begin(), gradients_.end(), 0.0F);
    for (size_t part = 0; part < batches.size(); ++part) {
      sum.mean += losses[part].mean;
      sum.answers += losses[part].answers;
      sum.answer_hits += losses[part].answer_hits;
      const std::vector<float>& from = transformers_[part].gradients();
      for (size_t i = 0; i < gradients_.size(); ++i) gradients_[i] += from[i];
    }
    return sum;
  }

  const std::vector<float>& gradients() const { return gradients_; }

 private:
  int32_t threads_;
  std::deque<Transformer<float>> transformers_;
  std::vector<float> gradients_;
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
  TrainedModel model{TrainVocabulary(options), options.shape,
                     RandomParameters<float>(options.shape, options.seed)};
  Adam adam(options.adam, ParameterTensors(options.shape));
  BatchPacker packer(options, model.encoding);
  StepWorkers workers(options, model.parameters);
  for (int64_t step = 1; step <= options.adam.steps; ++step) {
    std::vector<TokenBatch> batches;
    TrainingStep done{step};
    for (int64_t part = 0; part < options.parts_per_step; ++part) {
      batches.push_back(packer.Pack());
      done.tokens += std::ssize(batches.back().tokens);
    }
    done.loss = workers.Compute(batches);
    done.gradient_norm = adam.Step(workers.gradients(), model.parameters);
    report(done);
  }
  return model;
}

BatchLoss Measure(const TrainedModel& model, Split split, uint64_t seed, uint64_t first,
                  uint64_t count) {
  Transformer<float> transformer(model.shape, model.parameters);
  BatchLoss sum;
  for (uint64_t index = first; index < first + count; ++index) {
    TokenBatch batch;
    AppendToBatch(EncodeConversation(MakeConversation(split, seed, index).turns, model.encoding, 0),
                  batch);
    const BatchLoss loss = transformer.Loss(batch, WeightSum(batch));
    sum.mean += loss.mean * static_cast<double>(loss.answers);
    sum.answers += loss.answers;
    sum.answer_hits += loss.answer_hits;
  }
  sum.mean /= static_cast<double>(std::max<int64_t>(sum.answers, 1));
  return sum;
}

}  // namespace halo::demo
