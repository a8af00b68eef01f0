#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "demo_model/matrix_product.h"

namespace halo::demo {

/// The parts of a transformer that are no matrix products, forward and backward, for Real float and
/// double. Rows are tokens. Work is shared out over OpenMP's threads, every sum has a fixed order:
/// results do not depend on the number of threads.

/// normed[i] = gain * x[i] / rms(x[i]); `inverse_rms` [rows] is kept for the way back.
template <typename Real>
void RmsNorm(int64_t rows, int64_t width, const Real* x, const Real* gain, Real epsilon,
             Real* normed, Real* inverse_rms);

/// Adds to `x_gradient` [rows, width] and `gain_gradient` [width].
template <typename Real>
void RmsNormBackward(int64_t rows, int64_t width, const Real* x, const Real* gain,
                     const Real* inverse_rms, const Real* normed_gradient, Real* x_gradient,
                     Real* gain_gradient);

/// Angles of rotary position embedding: cosine and sine of position * base^(-2 i / width).
template <typename Real>
class RotaryTable {
 public:
  RotaryTable(int64_t positions, int64_t head_width, double base);
  /// Rotates neighbouring pairs of each head (llama.cpp's layout for the architecture "llama").
  /// `x` [rows, heads * head_width]; `positions` [rows]. `backward` rotates the other way, which is
  /// the gradient's way.
  void Rotate(std::span<const int32_t> positions, int64_t heads, bool backward, Real* x) const;

 private:
  int64_t half_;
  std::vector<Real> cosines_;  // [positions, half]
  std::vector<Real> sines_;
};

/// Shapes of causal attention over documents laid end to end; `starts` has where each begins, and
/// the end of the last. Query head h reads key head h / (heads / kv_heads).
struct AttentionShape {
  int64_t heads = 0, kv_heads = 0, head_width = 0;
  std::span<const int32_t> starts;
};

template <typename Real>
struct AttentionInputs {
  const Real* query = nullptr;  ///< [rows, heads * head_width]
  const Real* key = nullptr;    ///< [rows, kv_heads * head_width]
  const Real* value = nullptr;  ///< [rows, kv_heads * head_width]
};

/// `mixed` [rows, heads * head_width]; `log_sums` [heads, rows]: log of the sum of exp of the
/// scores.
template <typename Real>
void Attend(const AttentionShape& shape, const AttentionInputs<Real>& in, Real* mixed,
            Real* log_sums);

template <typename Real>
struct AttentionGradients {
  Real* query = nullptr;
  Real* key = nullptr;
  Real* value = nullptr;
};

/// Writes all three gradients.
template <typename Real>
void AttendBackward(const AttentionShape& shape, const AttentionInputs<Real>& in, const Real* mixed,
                    const Real* log_sums, const Real* mixed_gradient,
                    const AttentionGradients<Real>& out);

/// gated = silu(gate) * up, over `count` elements.
template <typename Real>
void GateForward(int64_t count, const Real* gate, const Real* up, Real* gated);
/// Replaces `gate` and `up` by their gradients.
template <typename Real>
void GateBackward(int64_t count, const Real* gated_gradient, Real* gate, Real* up);

/// Cross-entropy of each row in nats: losses[i], and whether the target is the likeliest token.
/// Replaces the logits [rows, tokens] by the gradient of sum(scales[i] * losses[i]).
template <typename Real>
void CrossEntropy(int64_t rows, int64_t tokens, std::span<const int32_t> targets,
                  std::span<const Real> scales, Real* logits, double* losses, uint8_t* hits);

}  // namespace halo::demo
