#pragma once

#include <cstdint>
#include <functional>

namespace halo {

/// What a simulated model costs on a simulated worker. Whoever makes one says where the figures
/// come from (a measured profile, say); this room knows only how to spend them.
struct SimulatedCosts {
  /// Seconds of one pass over `prompts` prompts of `tokens` new tokens each (a mean), after
  /// `context` tokens of each that are there.
  std::function<double(double prompts, double tokens, double context)> prefill_s;
  /// Seconds of one decode step of `sequences` sequences that are `context` tokens long on average.
  std::function<double(double sequences, double context)> decode_s;
  double sampling_token_s = 0.0;  ///< of a drawn token (temperature > 0)
  double greedy_token_s = 0.0;    ///< of a token at temperature 0
  double grammar_token_s = 0.0;   ///< more, for a token that is kept to a grammar
  double load_s = 0.0;
  int64_t weights_bytes = 0;
  int64_t kv_token_bytes = 0;
  /// KV copied on the device, moved to host memory and back: of each, and of each token.
  double copy_s = 0.0, copy_token_s = 0.0;
  double spill_s = 0.0, spill_token_s = 0.0;
  double restore_s = 0.0, restore_token_s = 0.0;

  // How prompts are put into passes (LlamaEngine).
  int32_t batch_tokens = 2048;  ///< most tokens of a pass
  int32_t long_tokens = 128;    ///< prompts with at least so many go by few
  int32_t long_together = 4;    ///< most long prompts of a pass
};

}  // namespace halo
