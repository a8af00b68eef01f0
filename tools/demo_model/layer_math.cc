#include "demo_model/layer_math.h"

#include <algorithm>
#include <cmath>

#include "demo_model/fast_exp.h"

namespace halo::demo {
namespace {

template <typename Real>
Real Dot(const Real* a, const Real* b, int64_t count) {
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

}  // namespace

template <typename Real>
void RmsNorm(int64_t rows, int64_t width, const Real* x, const Real* gain, Real epsilon,
             Real* normed, Real* inverse_rms) {
  for (int64_t row = 0; row < rows; ++row) {
    const Real* in = x + row * width;
    Real* out = normed + row * width;
    const Real inverse = 1 / std::sqrt(Dot(in, in, width) / static_cast<Real>(width) + epsilon);
    inverse_rms[row] = inverse;
    for (int64_t i = 0; i < width; ++i) out[i] = in[i] * inverse * gain[i];
  }
}

template <typename Real>
void RmsNormBackward(int64_t rows, int64_t width, const Real* x, const Real* gain,
                     const Real* inverse_rms, const Real* normed_gradient, Real* x_gradient,
                     Real* gain_gradient) {
  for (int64_t row = 0; row < rows; ++row) {
    const Real* in = x + row * width;
    const Real* gradient = normed_gradient + row * width;
    Real* out = x_gradient + row * width;
    const Real inverse = inverse_rms[row];
    Real along = 0;
#pragma omp simd reduction(+ : along)
    for (int64_t i = 0; i < width; ++i) along += gradient[i] * gain[i] * in[i];
    along *= inverse * inverse * inverse / static_cast<Real>(width);
    for (int64_t i = 0; i < width; ++i) {
      gain_gradient[i] += gradient[i] * in[i] * inverse;
      out[i] += gradient[i] * gain[i] * inverse - in[i] * along;
    }
  }
}

template <typename Real>
RotaryTable<Real>::RotaryTable(int64_t positions, int64_t head_width, double base)
    : half_(head_width / 2) {
  for (int64_t position = 0; position < positions; ++position) {
    for (int64_t i = 0; i < half_; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_width));
      cosines_.push_back(static_cast<Real>(std::cos(angle)));
      sines_.push_back(static_cast<Real>(std::sin(angle)));
    }
  }
}

template <typename Real>
void RotaryTable<Real>::Rotate(std::span<const int32_t> positions, int64_t heads, bool backward,
                               Real* x) const {
  const Real direction = backward ? Real{-1} : Real{1};
  for (int64_t row = 0; row < std::ssize(positions); ++row) {
    const int64_t at = positions[static_cast<size_t>(row)] * half_;
    const Real* cosines = cosines_.data() + at;
    const Real* sines = sines_.data() + at;
    for (int64_t head = 0; head < heads; ++head) {
      Real* pairs = x + (row * heads + head) * 2 * half_;
      for (int64_t i = 0; i < half_; ++i) {
        const Real first = pairs[2 * i], second = pairs[2 * i + 1];
        const Real sine = direction * sines[i];
        pairs[2 * i] = first * cosines[i] - second * sine;
        pairs[2 * i + 1] = first * sine + second * cosines[i];
      }
    }
  }
}

template <typename Real>
void GateForward(int64_t count, const Real* gate, const Real* up, Real* gated) {
  for (int64_t i = 0; i < count; ++i) gated[i] = gate[i] * up[i] / (1 + FastExp(-gate[i]));
}

template <typename Real>
void GateBackward(int64_t count, const Real* gated_gradient, Real* gate, Real* up) {
  for (int64_t i = 0; i < count; ++i) {
    const Real sigmoid = 1 / (1 + FastExp(-gate[i]));
    const Real silu = gate[i] * sigmoid;
    gate[i] = gated_gradient[i] * up[i] * (sigmoid + silu * (1 - sigmoid));
    up[i] = gated_gradient[i] * silu;
  }
}

template <typename Real>
void CrossEntropy(int64_t rows, int64_t tokens, std::span<const int32_t> targets,
                  std::span<const Real> scales, Real* logits, double* losses, uint8_t* hits) {
  for (int64_t row = 0; row < rows; ++row) {
    Real* line = logits + row * tokens;
    const size_t index = static_cast<size_t>(row);
    const int32_t target = targets[index];
    const Real target_logit = line[target];
    const Real most = *std::max_element(line, line + tokens);
    Real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < tokens; ++i) {
      line[i] = FastExp(line[i] - most);
      sum += line[i];
    }
    losses[row] = static_cast<double>(std::log(sum) + most - target_logit);
    hits[row] = target_logit >= most ? 1 : 0;
    const Real factor = scales[index] / sum;
    for (int64_t i = 0; i < tokens; ++i) line[i] *= factor;
    line[target] -= scales[index];
  }
}

#define HALO_INSTANTIATE(Real)                                                                 \
  template void RmsNorm<Real>(int64_t, int64_t, const Real*, const Real*, Real, Real*, Real*); \
  template void RmsNormBackward<Real>(int64_t, int64_t, const Real*, const Real*, const Real*, \
                                      const Real*, Real*, Real*);                              \
  template class RotaryTable<Real>;                                                            \
  template void GateForward<Real>(int64_t, const Real*, const Real*, Real*);                   \
  template void GateBackward<Real>(int64_t, const Real*, Real*, Real*);                        \
  template void CrossEntropy<Real>(int64_t, int64_t, std::span<const int32_t>,                 \
                                   std::span<const Real>, Real*, double*, uint8_t*)
HALO_INSTANTIATE(float);
HALO_INSTANTIATE(double);
#undef HALO_INSTANTIATE

}  // namespace halo::demo
