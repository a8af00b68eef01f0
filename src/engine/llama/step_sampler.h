#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "engine/llama/sampler.h"
#include "model/span.h"

namespace halo {

/// A token that is to be drawn for one sequence of a step.
struct TokenDraw {
  std::span<const float> logits;  ///< [vocabulary]
  const SamplingParameters* parameters = nullptr;
  std::span<const TokenId> forbidden;  ///< ids that may not be drawn now
  double draw = 0.0;                   ///< uniform in [0, 1)
  TokenId token = -1;                  ///< what comes out, as Sampler::Sample says it
};

/// Draws the next tokens of all sequences of a step side by side, on the threads that have just
/// computed it: the calling thread's OpenMP team of as many threads as llama.cpp asks for, so that
/// none are added. Draws depend on nothing but their own logits, so their order and the number of
/// threads change no token. (Tiny model, 50k vocabulary, temperature 0.7, one thread: 68 us a
/// token, a tenth of a voting run.)
///
/// Without OpenMP (thread sanitizer, fuzzing) one after the other.
class StepSampler {
 public:
  explicit StepSampler(int32_t threads);

  void UseThreads(int32_t threads);
  void Sample(std::span<TokenDraw> draws);
  /// For what has to be done in the calling thread, between steps.
  Sampler& sampler() { return samplers_.front(); }

 private:
  std::vector<Sampler> samplers_;  // [threads]
};

}  // namespace halo
