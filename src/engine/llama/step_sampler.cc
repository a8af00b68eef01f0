#include "engine/llama/step_sampler.h"

#ifdef _OPENMP
#include <omp.h>
#endif

#include <algorithm>
#include <cstddef>

namespace halo {
namespace {

/// Position of the calling thread in its team.
size_t ThreadOfTeam() {
#ifdef _OPENMP
  return static_cast<size_t>(omp_get_thread_num());
#else
  return 0;
#endif
}

}  // namespace

StepSampler::StepSampler(int32_t threads) : samplers_(static_cast<size_t>(std::max(1, threads))) {}

void StepSampler::UseThreads(int32_t threads) {
  // The first one stays: it may have been given out.
  samplers_.resize(static_cast<size_t>(std::max(1, threads)));
}

void StepSampler::Sample(std::span<TokenDraw> draws) {
  const auto count = static_cast<std::ptrdiff_t>(draws.size());
#ifdef _OPENMP
#pragma omp parallel for num_threads(static_cast <int>(samplers_.size())) \
    schedule(dynamic) if (count > 1)
#endif
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    TokenDraw& draw = draws[static_cast<size_t>(i)];
    draw.token =
        samplers_[ThreadOfTeam()].Sample(draw.logits, *draw.parameters, draw.forbidden, draw.draw);
  }
}

}  // namespace halo
