#include "demo_model/adam.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace halo::demo {

Adam::Adam(const AdamOptions& options, const std::vector<ParameterTensor>& tensors)
    : options_(options), tensors_(tensors) {
  const ParameterTensor& last = tensors_.back();
  first_.resize(static_cast<size_t>(last.offset + last.size()));
  second_.resize(first_.size());
}

double Adam::RateOf(int64_t step) const {
  const double done = static_cast<double>(step + 1);
  const auto warm_up = static_cast<double>(options_.warm_up_steps);
  if (done < warm_up) return options_.peak_rate * done / warm_up;
  const double left = static_cast<double>(options_.steps) - warm_up;
  const double way = left > 0 ? std::min(1.0, (done - warm_up) / left) : 1.0;
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * way));
  return options_.peak_rate *
         (options_.last_rate_share + (1.0 - options_.last_rate_share) * cosine);
}

double Adam::Step(const std::vector<float>& gradients, std::vector<float>& parameters) {
  double squares = 0;
  for (const float gradient : gradients)
    squares += static_cast<double>(gradient) * static_cast<double>(gradient);
  const double norm = std::sqrt(squares);
  const double cut = norm > options_.most_gradient_norm ? options_.most_gradient_norm / norm : 1.0;
  const double rate = RateOf(step_++);
  const double first_left = 1.0 - std::pow(options_.first_decay, static_cast<double>(step_));
  const double second_left = 1.0 - std::pow(options_.second_decay, static_cast<double>(step_));
  const auto scale = static_cast<float>(cut);
  const auto first_decay = static_cast<float>(options_.first_decay);
  const auto second_decay = static_cast<float>(options_.second_decay);
  const auto step_size = static_cast<float>(rate / first_left);
  const auto second_scale = static_cast<float>(1.0 / second_left);
  const auto epsilon = static_cast<float>(options_.epsilon);
  for (const ParameterTensor& tensor : tensors_) {
    const auto kept =
        tensor.rows == 0 ? 1.0F : static_cast<float>(1.0 - rate * options_.weight_decay);
    const auto begin = static_cast<size_t>(tensor.offset);
    const float* gradient = gradients.data() + begin;
    float* first = first_.data() + begin;
    float* second = second_.data() + begin;
    float* parameter = parameters.data() + begin;
    for (int64_t i = 0; i < tensor.size(); ++i) {
      const float g = gradient[i] * scale;
      first[i] = first_decay * first[i] + (1.0F - first_decay) * g;
      second[i] = second_decay * second[i] + (1.0F - second_decay) * g * g;
      parameter[i] = parameter[i] * kept -
                     step_size * first[i] / (std::sqrt(second[i] * second_scale) + epsilon);
    }
  }
  return norm;
}

}  // namespace halo::demo
