#pragma once

#include <cstdint>
#include <vector>

#include "demo_model/transformer.h"

namespace halo::demo {

struct AdamOptions {
  double peak_rate = 3e-3;
  double last_rate_share = 0.05;  ///< the cosine ends at this share of the peak
  int64_t warm_up_steps = 80;
  int64_t steps = 3000;
  double first_decay = 0.9, second_decay = 0.98;
  double epsilon = 1e-8;
  double weight_decay = 0.05;     ///< of matrices
  double most_gradient_norm = 1;  ///< longer gradients are cut to this length
};

/// AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019) with linear warm-up
/// and a cosine to the end.
class Adam {
 public:
  Adam(const AdamOptions& options, const std::vector<ParameterTensor>& tensors);

  /// The learning rate of step 0, 1, ...
  double RateOf(int64_t step) const;
  /// One step; returns the gradient's norm before it was cut.
  double Step(const std::vector<float>& gradients, std::vector<float>& parameters);

 private:
  AdamOptions options_;
  std::vector<ParameterTensor> tensors_;
  std::vector<float> first_, second_;  // running means of the gradients and of their squares
  int64_t step_ = 0;
};

}  // namespace halo::demo
