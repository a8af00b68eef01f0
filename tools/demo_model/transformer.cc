#include "demo_model/transformer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/check.h"
#include "base/random.h"

namespace halo::demo {
namespace {

constexpr size_t kTensorsOfLayer = 9;

/// Normal draws by the method of Box and Muller, of which the cosine is used.
double NormalDraw(RandomStream& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * random.Uniform());
}

/// Deviation of a matrix's first weights. What is added to the residual stream is smaller the more
/// often that happens.
double FirstDeviation(const ParameterTensor& tensor, const TransformerShape& shape) {
  if (tensor.name == "token_embd.weight") return 0.05;
  const double by_width = 0.7 / std::sqrt(static_cast<double>(tensor.columns));
  const bool into_stream =
      tensor.name.ends_with("attn_output.weight") || tensor.name.ends_with("ffn_down.weight");
  return into_stream ? by_width / std::sqrt(2.0 * static_cast<double>(shape.layers)) : by_width;
}

template <typename Real>
void Resize(std::vector<Real>& values, int64_t size) {
  if (std::ssize(values) < size) values.resize(static_cast<size_t>(size));
}

}  // namespace

std::vector<ParameterTensor> ParameterTensors(const TransformerShape& shape) {
  std::vector<ParameterTensor> tensors;
  int64_t offset = 0;
  const auto add = [&](std::string name, int64_t rows, int64_t columns) {
    tensors.push_back({std::move(name), rows, columns, offset});
    offset += tensors.back().size();
  };
  add("token_embd.weight", shape.vocabulary, shape.width);
  for (int64_t layer = 0; layer < shape.layers; ++layer) {
    const auto name = [layer](const char* part) {
      return fmt::format("blk.{}.{}.weight", layer, part);
    };
    add(name("attn_norm"), 0, shape.width);
    add(name("attn_q"), shape.query_width(), shape.width);
    add(name("attn_k"), shape.key_width(), shape.width);
    add(name("attn_v"), shape.key_width(), shape.width);
    add(name("attn_output"), shape.width, shape.query_width());
    add(name("ffn_norm"), 0, shape.width);
    add(name("ffn_gate"), shape.feed_forward, shape.width);
    add(name("ffn_up"), shape.feed_forward, shape.width);
    add(name("ffn_down"), shape.width, shape.feed_forward);
  }
  add("output_norm.weight", 0, shape.width);
  return tensors;
}

int64_t ParameterCount(const TransformerShape& shape) {
  const ParameterTensor last = ParameterTensors(shape).back();
  return last.offset + last.size();
}

double WeightSum(const TokenBatch& batch) {
  double sum = 0;
  for (const float weight : batch.weights) sum += static_cast<double>(weight);
  return sum;
}

template <typename Real>
std::vector<Real> RandomParameters(const TransformerShape& shape, uint64_t seed) {
  std::vector<Real> parameters;
  RandomStream random(seed);
  for (const ParameterTensor& tensor : ParameterTensors(shape)) {
    const double deviation = tensor.rows == 0 ? 0.0 : FirstDeviation(tensor, shape);
    for (int64_t i = 0; i < tensor.size(); ++i) {
      parameters.push_back(
          static_cast<Real>(tensor.rows == 0 ? 1.0 : deviation * NormalDraw(random)));
    }
  }
  return parameters;
}

template <typename Real>
Transformer<Real>::Transformer(const TransformerShape& shape, const std::vector<Real>& parameters)
    : shape_(shape),
      parameters_(parameters),
      gradients_(parameters.size()),
      rotary_(shape.context_tokens, shape.head_width, shape.rope_base),
      layers_(static_cast<size_t>(shape.layers)) {
  const std::vector<ParameterTensor> tensors = ParameterTensors(shape);
  HALO_CHECK(std::ssize(parameters) == ParameterCount(shape), "parameters fit the shape");
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    const ParameterTensor* t = &tensors[1 + layer * kTensorsOfLayer];
    offsets_.push_back({t[0].offset, t[1].offset, t[2].offset, t[3].offset, t[4].offset,
                        t[5].offset, t[6].offset, t[7].offset, t[8].offset});
  }
  last_norm_ = tensors.back().offset;
}

template <typename Real>
void Transformer<Real>::Project(const std::vector<Real>& x, int64_t inputs, int64_t weight,
                                int64_t outputs, std::vector<Real>& y,
                                Accumulate accumulate) const {
  Multiply<Real>({rows_, outputs, inputs}, Rows(x.data(), inputs),
                 Transposed(Weight(weight), inputs), y.data(), outputs, accumulate);
}

template <typename Real>
void Transformer<Real>::ProjectBackward(const std::vector<Real>& x, int64_t inputs, int64_t weight,
                                        int64_t outputs, const std::vector<Real>& y_gradient,
                                        std::vector<Real>& x_gradient, Accumulate accumulate) {
  Multiply<Real>({outputs, inputs, rows_}, Transposed(y_gradient.data(), outputs),
                 Rows(x.data(), inputs), Gradient(weight), inputs, Accumulate::kAdd);
  Multiply<Real>({rows_, inputs, outputs}, Rows(y_gradient.data(), outputs),
                 Rows(Weight(weight), inputs), x_gradient.data(), inputs, accumulate);
}

template <typename Real>
AttentionShape Transformer<Real>::Attention() const {
  return {shape_.heads, shape_.kv_heads, shape_.head_width, starts_};
}

template <typename Real>
void Transformer<Real>::Prepare(const TokenBatch& batch) {
  HALO_CHECK(!batch.starts.empty() && batch.starts.back() == std::ssize(batch.tokens),
             "starts end with the number of tokens");
  rows_ = std::ssize(batch.tokens);
  starts_ = batch.starts;
  positions_.clear();
  for (size_t i = 0; i + 1 < starts_.size(); ++i) {
    const int32_t length = starts_[i + 1] - starts_[i];
    HALO_CHECK(length <= shape_.context_tokens, "a document is no longer than the context");
    for (int32_t position = 0; position < length; ++position) positions_.push_back(position);
  }
  const int64_t stream = rows_ * shape_.width;
  const int64_t queries = rows_ * shape_.query_width(), keys = rows_ * shape_.key_width();
  for (LayerState& state : layers_) {
    for (auto* part : {&state.input, &state.normed, &state.middle, &state.middle_normed})
      Resize(*part, stream);
    for (auto* part : {&state.query, &state.mixed}) Resize(*part, queries);
    for (auto* part : {&state.key, &state.value}) Resize(*part, keys);
    for (auto* part : {&state.gate, &state.up, &state.gated})
      Resize(*part, rows_ * shape_.feed_forward);
    for (auto* part : {&state.inverse_rms, &state.middle_inverse_rms}) Resize(*part, rows_);
    Resize(state.log_sums, rows_ * shape_.heads);
  }
  for (auto* part : {&last_, &last_normed_, &hidden_gradient_, &normed_gradient_})
    Resize(*part, stream);
  Resize(last_inverse_rms_, rows_);
  Resize(logits_, rows_ * shape_.vocabulary);
  Resize(wide_gradient_, rows_ * shape_.feed_forward);
  Resize(query_gradient_, queries);
  Resize(key_gradient_, keys);
  Resize(value_gradient_, keys);
}

template <typename Real>
void Transformer<Real>::ForwardLayer(size_t layer, std::vector<Real>& hidden) {
  const LayerOffsets& at = offsets_[layer];
  LayerState& state = layers_[layer];
  const int64_t width = shape_.width;
  const auto epsilon = static_cast<Real>(shape_.norm_epsilon);
  const std::span<const int32_t> positions(positions_);
  const int64_t stream = rows_ * width;

  std::copy_n(hidden.begin(), stream, state.input.begin());
  RmsNorm(rows_, width, state.input.data(), Weight(at.attention_norm), epsilon, state.normed.data(),
          state.inverse_rms.data());
  Project(state.normed, width, at.query, shape_.query_width(), state.query, Accumulate::kReplace);
  Project(state.normed, width, at.key, shape_.key_width(), state.key, Accumulate::kReplace);
  Project(state.normed, width, at.value, shape_.key_width(), state.value, Accumulate::kReplace);
  rotary_.Rotate(positions, shape_.heads, false, state.query.data());
  rotary_.Rotate(positions, shape_.kv_heads, false, state.key.data());
  Attend<Real>(Attention(), {state.query.data(), state.key.data(), state.value.data()},
               state.mixed.data(), state.log_sums.data());
  Project(state.mixed, shape_.query_width(), at.output, width, hidden, Accumulate::kAdd);

  std::copy_n(hidden.begin(), stream, state.middle.begin());
  RmsNorm(rows_, width, state.middle.data(), Weight(at.feed_norm), epsilon,
          state.middle_normed.data(), state.middle_inverse_rms.data());
  Project(state.middle_normed, width, at.gate, shape_.feed_forward, state.gate,
          Accumulate::kReplace);
  Project(state.middle_normed, width, at.up, shape_.feed_forward, state.up, Accumulate::kReplace);
  GateForward(rows_ * shape_.feed_forward, state.gate.data(), state.up.data(), state.gated.data());
  Project(state.gated, shape_.feed_forward, at.down, width, hidden, Accumulate::kAdd);
}

template <typename Real>
const std::vector<Real>& Transformer<Real>::Forward(const TokenBatch& batch) {
  Prepare(batch);
  const int64_t width = shape_.width;
  for (int64_t row = 0; row < rows_; ++row) {
    const Real* embedding = Weight(embedding_ + batch.tokens[static_cast<size_t>(row)] * width);
    std::copy_n(embedding, width, last_.data() + row * width);
  }
  for (size_t layer = 0; layer < layers_.size(); ++layer) ForwardLayer(layer, last_);
  RmsNorm(rows_, width, last_.data(), Weight(last_norm_), static_cast<Real>(shape_.norm_epsilon),
          last_normed_.data(), last_inverse_rms_.data());
  Project(last_normed_, width, embedding_, shape_.vocabulary, logits_, Accumulate::kReplace);
  return logits_;
}

/// Losses of the logits; the logits become their own gradient.
template <typename Real>
BatchLoss Transformer<Real>::ReduceLoss(const TokenBatch& batch, double weight_sum) {
  HALO_CHECK(weight_sum > 0, "a batch has something to learn");
  const auto rows = static_cast<size_t>(rows_);
  scales_.resize(rows);
  losses_.resize(rows);
  hits_.resize(rows);
  for (size_t row = 0; row < rows; ++row)
    scales_[row] = static_cast<Real>(static_cast<double>(batch.weights[row]) / weight_sum);
  CrossEntropy<Real>(rows_, shape_.vocabulary, batch.targets, scales_, logits_.data(),
                     losses_.data(), hits_.data());
  BatchLoss loss;
  for (size_t row = 0; row < rows; ++row) {
    loss.mean += losses_[row] * static_cast<double>(batch.weights[row]) / weight_sum;
    if (batch.weights[row] < 1.0F) continue;
    ++loss.answers;
    loss.answer_hits += hits_[row];
  }
  return loss;
}

template <typename Real>
BatchLoss Transformer<Real>::Loss(const TokenBatch& batch, double weight_sum) {
  Forward(batch);
  return ReduceLoss(batch, weight_sum);
}

template <typename Real>
BatchLoss Transformer<Real>::LossAndGradient(const TokenBatch& batch, double weight_sum) {
  Forward(batch);
  const BatchLoss loss = ReduceLoss(batch, weight_sum);
  Backward(batch);
  return loss;
}

template <typename Real>
void Transformer<Real>::BackwardAttention(const LayerOffsets& at, LayerState& state) {
  const int64_t width = shape_.width;
  const std::span<const int32_t> positions(positions_);
  std::vector<Real>& mixed_gradient = wide_gradient_;
  Resize(mixed_gradient, rows_ * shape_.query_width());
  ProjectBackward(state.mixed, shape_.query_width(), at.output, width, hidden_gradient_,
                  mixed_gradient, Accumulate::kReplace);
  AttendBackward<Real>(Attention(), {state.query.data(), state.key.data(), state.value.data()},
                       state.mixed.data(), state.log_sums.data(), mixed_gradient.data(),
                       {query_gradient_.data(), key_gradient_.data(), value_gradient_.data()});
  rotary_.Rotate(positions, shape_.heads, true, query_gradient_.data());
  rotary_.Rotate(positions, shape_.kv_heads, true, key_gradient_.data());
  ProjectBackward(state.normed, width, at.query, shape_.query_width(), query_gradient_,
                  normed_gradient_, Accumulate::kReplace);
  ProjectBackward(state.normed, width, at.key, shape_.key_width(), key_gradient_, normed_gradient_,
                  Accumulate::kAdd);
  ProjectBackward(state.normed, width, at.value, shape_.key_width(), value_gradient_,
                  normed_gradient_, Accumulate::kAdd);
}

template <typename Real>
void Transformer<Real>::BackwardLayer(size_t layer) {
  const LayerOffsets& at = offsets_[layer];
  LayerState& state = layers_[layer];
  const int64_t width = shape_.width, wide = shape_.feed_forward;
  ProjectBackward(state.gated, wide, at.down, width, hidden_gradient_, wide_gradient_,
                  Accumulate::kReplace);
  GateBackward(rows_ * wide, wide_gradient_.data(), state.gate.data(), state.up.data());
  ProjectBackward(state.middle_normed, width, at.gate, wide, state.gate, normed_gradient_,
                  Accumulate::kReplace);
  ProjectBackward(state.middle_normed, width, at.up, wide, state.up, normed_gradient_,
                  Accumulate::kAdd);
  RmsNormBackward(rows_, width, state.middle.data(), Weight(at.feed_norm),
                  state.middle_inverse_rms.data(), normed_gradient_.data(), hidden_gradient_.data(),
                  Gradient(at.feed_norm));
  BackwardAttention(at, state);
  RmsNormBackward(rows_, width, state.input.data(), Weight(at.attention_norm),
                  state.inverse_rms.data(), normed_gradient_.data(), hidden_gradient_.data(),
                  Gradient(at.attention_norm));
}

template <typename Real>
void Transformer<Real>::Backward(const TokenBatch& batch) {
  const int64_t width = shape_.width;
  std::fill(gradients_.begin(), gradients_.end(), Real{0});
  std::fill(hidden_gradient_.begin(), hidden_gradient_.end(), Real{0});
  ProjectBackward(last_normed_, width, embedding_, shape_.vocabulary, logits_, normed_gradient_,
                  Accumulate::kReplace);
  RmsNormBackward(rows_, width, last_.data(), Weight(last_norm_), last_inverse_rms_.data(),
                  normed_gradient_.data(), hidden_gradient_.data(), Gradient(last_norm_));
  for (size_t layer = layers_.size(); layer > 0; --layer) BackwardLayer(layer - 1);
  for (int64_t row = 0; row < rows_; ++row) {
    Real* gradient = Gradient(embedding_ + batch.tokens[static_cast<size_t>(row)] * width);
    const Real* from = hidden_gradient_.data() + row * width;
    for (int64_t i = 0; i < width; ++i) gradient[i] += from[i];
  }
}

template std::vector<float> RandomParameters<float>(const TransformerShape&, uint64_t);
template std::vector<double> RandomParameters<double>(const TransformerShape&, uint64_t);
template class Transformer<float>;
template class Transformer<double>;

}  // namespace halo::demo
