#pragma once

#include <cstdint>
#include <vector>

namespace halo {

/// How the output rows of a random model must be scaled. Everything is worked out for logits that
/// are independent normal draws, which those of a random output matrix are for any hidden state of
/// fixed length; so one computation serves every shape and no model has to be run (measured against
/// llama.cpp in synth_test).
struct LogitScale {
  double deviation = 0;      ///< standard deviation of the logits
  double end_row_scale = 0;  ///< scale of the end token's row against the others
};

/// The deviation at which the likeliest of `tokens` tokens has probability 1/2 on average, and the
/// scale of the end row at which the end token's mean probability is 1 / `mean_output_tokens` (0 if
/// that is 0).
LogitScale ComputeLogitScale(int64_t tokens, double mean_output_tokens);

/// Logits of a model in some contexts: of the end token, and log of the sum of exp over all others.
struct EndLogits {
  std::vector<double> end;
  std::vector<double> log_partitions;
};

/// The factor by which the end token's row must be scaled so that its mean probability is 1 /
/// `mean_output_tokens`. The end logits are taken as normal, so that a few hundred contexts tell
/// how often it is above all others.
double CorrectEndRow(const EndLogits& measured, double mean_output_tokens);

}  // namespace halo
