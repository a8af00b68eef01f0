#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/lower_bound.h"

namespace halo::bench {

/// How rates are measured with llama-batched-bench.
struct MeasurementSetup {
  std::string batched_bench;  ///< the program
  int32_t threads = 1;
  std::vector<int32_t> batches = {1, 2, 4, 8, 16, 32, 64};
  std::vector<std::string> layouts = {"split", "exact", "unified"};
  int32_t most_prefill_batch = 8;   ///< prefill gains nothing from more
  int32_t most_unified_batch = 16;  ///< unified cells are slower the more sequences there are
  int32_t repeat = 1;
};

/// Entries of the vocabulary of a GGUF file. Throws std::runtime_error.
int64_t VocabularySize(const std::string& gguf_path);

/// Seconds a token of a lower estimate of sampling: the largest logit, then one pass of
/// exponentials over the vocabulary, on one thread, divided by the threads.
double MeasureSampling(int64_t vocabulary, int32_t threads);

/// The whole-machine rates of a model at the mean context of `work`. With `focus`, only the best
/// three points of each kind in it and the single-sequence ones are measured again.
ModelRates MeasureRates(const std::string& gguf_path, const ModelWork& work,
                        const MeasurementSetup& setup, const std::optional<ModelRates>& focus);

}  // namespace halo::bench
