#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "demo_model/layer_math.h"

namespace halo::demo {

/// A model of llama.cpp's architecture "llama" with tied embeddings: pre-norm with RMS norms,
/// rotary positions, grouped-query attention, SwiGLU, no biases.
struct TransformerShape {
  int64_t layers = 5, width = 192, heads = 4, kv_heads = 2, head_width = 64, feed_forward = 512;
  int64_t vocabulary = 1024;
  int64_t context_tokens = 1024;
  double rope_base = 10000;
  double norm_epsilon = 1e-5;

  int64_t query_width() const { return heads * head_width; }
  int64_t key_width() const { return kv_heads * head_width; }
};

/// One tensor among a model's parameters, which lie in one vector.
struct ParameterTensor {
  std::string name;     ///< GGUF's
  int64_t rows = 0;     ///< 0: a vector, which weight decay leaves alone
  int64_t columns = 0;  ///< inputs of a matrix; elements of a row lie together
  int64_t offset = 0;   ///< of the first element
  int64_t size() const { return (rows == 0 ? 1 : rows) * columns; }
};

/// In the order of the file: embeddings, layer by layer, the last norm.
std::vector<ParameterTensor> ParameterTensors(const TransformerShape& shape);
int64_t ParameterCount(const TransformerShape& shape);

/// Documents laid end to end; each attends to itself only and begins at position 0.
struct TokenBatch {
  std::vector<int32_t> tokens;   ///< [n]
  std::vector<int32_t> targets;  ///< [n] the token after each
  std::vector<float> weights;    ///< [n] of the target's loss; 0: not learned
  std::vector<int32_t> starts;   ///< where documents begin, and n at the end
};

/// The sum of the targets' weights.
double WeightSum(const TokenBatch& batch);

struct BatchLoss {
  double mean = 0;          ///< nats a token, weighted
  int64_t answers = 0;      ///< targets of weight 1
  int64_t answer_hits = 0;  ///< of these, those that are the likeliest token
};

/// The parameters that training begins with: normal draws that depend on `seed` and the place only;
/// norms are 1.
template <typename Real>
std::vector<Real> RandomParameters(const TransformerShape& shape, uint64_t seed);

/// Forward and backward pass of one batch on the caller's thread.
template <typename Real>
class Transformer {
 public:
  /// `parameters` are laid out as ParameterTensors says, belong to the caller, and are read in each
  /// call.
  Transformer(const TransformerShape& shape, const std::vector<Real>& parameters);

  const std::vector<Real>& gradients() const { return gradients_; }

  /// Logits [n, vocabulary] of the batch; valid until the next call.
  const std::vector<Real>& Forward(const TokenBatch& batch);
  /// Losses are divided by `weight_sum`, which is the batch's or that of a step of several batches.
  BatchLoss Loss(const TokenBatch& batch, double weight_sum);
  /// Also sets gradients() to those of the loss.
  BatchLoss LossAndGradient(const TokenBatch& batch, double weight_sum);

 private:
  /// Where a layer's tensors begin.
  struct LayerOffsets {
    int64_t attention_norm, query, key, value, output, feed_norm, gate, up, down;
  };
  /// What a layer's way back needs, each [n, ...].
  struct LayerState {
    std::vector<Real> input, normed, inverse_rms, query, key, value, mixed, log_sums;
    std::vector<Real> middle, middle_normed, middle_inverse_rms, gate, up, gated;
  };

  void Prepare(const TokenBatch& batch);
  void ForwardLayer(size_t layer, std::vector<Real>& hidden);
  void BackwardLayer(size_t layer);
  void BackwardAttention(const LayerOffsets& at, LayerState& state);
  void Backward(const TokenBatch& batch);
  BatchLoss ReduceLoss(const TokenBatch& batch, double weight_sum);
  AttentionShape Attention() const;

  /// y [n, outputs] = x [n, inputs] W^T.
  void Project(const std::vector<Real>& x, int64_t inputs, int64_t weight, int64_t outputs,
               std::vector<Real>& y, Accumulate accumulate) const;
  /// Adds to the gradient of W, and writes or adds that of x.
  void ProjectBackward(const std::vector<Real>& x, int64_t inputs, int64_t weight, int64_t outputs,
                       const std::vector<Real>& y_gradient, std::vector<Real>& x_gradient,
                       Accumulate accumulate);
  const Real* Weight(int64_t offset) const { return parameters_.data() + offset; }
  Real* Gradient(int64_t offset) { return gradients_.data() + offset; }

  TransformerShape shape_;
  std::vector<LayerOffsets> offsets_;
  int64_t embedding_ = 0;
  int64_t last_norm_ = 0;
  const std::vector<Real>& parameters_;  ///< the caller's
  std::vector<Real> gradients_;
  RotaryTable<Real> rotary_;

  int64_t rows_ = 0;  ///< tokens of the batch in hand
  std::vector<int32_t> positions_;
  std::vector<int32_t> starts_;
  std::vector<LayerState> layers_;
  std::vector<Real> last_, last_normed_, last_inverse_rms_, logits_;
  std::vector<Real> scales_;
  std::vector<double> losses_;
  std::vector<uint8_t> hits_;
  /// Gradients on their way back.
  std::vector<Real> hidden_gradient_, normed_gradient_, wide_gradient_, query_gradient_,
      key_gradient_, value_gradient_;
};

}  // namespace halo::demo
