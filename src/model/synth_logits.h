#pragma once

#include <cstdint>

namespace halo {

/// How the output rows of a random model must be scaled. Everything is worked out for logits that are independent
/// normal draws, which those of a random output matrix are for any hidden state of fixed length; so one
/// computation serves every shape and no model has to be run (measured against llama.cpp in synth_test).
struct LogitScale {
  double deviation = 0;      ///< standard deviation of the logits
  double end_row_scale = 0;  ///< scale of the end token's row against the others
};

/// The deviation at which the likeliest of `tokens` tokens has probability 1/2 on average, and the scale of the end
/// row at which the end token's mean probability is 1 / `mean_output_tokens` (0 if that is 0).
LogitScale ComputeLogitScale(int64_t tokens, double mean_output_tokens);

}  // namespace halo
