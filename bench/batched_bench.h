#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo::bench {

/// One call of llama-batched-bench, the ruler that rates are measured with.
struct BatchedBenchSetup {
  std::string program;  ///< llama-batched-bench
  std::string model;    ///< GGUF file
  int32_t threads = 1;
  int32_t prompt_tokens = 1;       ///< -npp
  int32_t output_tokens = 1;       ///< -ntg
  std::vector<int32_t> sequences;  ///< -npl
  bool unified = false;            ///< -kvu
  bool shared_prompt = false;      ///< -pps
  bool exact = false;              ///< Halo's exact kernels instead of llama.cpp's own
  std::string flash_attention = "on";
  int32_t batch_tokens = 2048;       ///< -b
  int32_t micro_batch_tokens = 512;  ///< -ub
};

/// A line of its results.
struct BatchedBenchResult {
  int32_t sequences = 0;
  double prefill_s = 0.0;  ///< of all prompts (of one, if shared)
  double decode_s = 0.0;
  double prefill_tokens_per_s = 0.0;
  double decode_tokens_per_s = 0.0;
};

/// Throws std::runtime_error if the program fails or a result is missing.
std::vector<BatchedBenchResult> RunBatchedBench(const BatchedBenchSetup& setup);

}  // namespace halo::bench
