#pragma once

#include <cstdint>
#include <string>

namespace halo {

/// What an adapter file says of itself.
struct LoraSummary {
  std::string architecture;
  int64_t matrices = 0;     ///< of the model that it changes
  int64_t rank = 0;         ///< the largest
  double alpha = 0;         ///< 0: changes are not scaled by rank
  std::string weight_type;  ///< of the first factor: "F16", "F32", ...
};

/// Reads a LoRA adapter (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR
/// 2022, section 4: W + scale * alpha / rank * B A) in llama.cpp's GGUF form, and checks that it
/// fits the model before llama.cpp sees it: kinds of keys, pairs of factors, their shapes and
/// types.
///
/// Refused although llama.cpp would load them, since it would leave part of their effect out or
/// abort: adapters that change norms, biases, token embeddings or stacked experts, and those that
/// wait for words of invocation (aLoRA). Both files are mapped as GgufFile says; `model_path` has
/// passed CheckGguf. Throws Error(kModel) naming the adapter and what is wrong.
LoraSummary CheckLoraAdapter(const std::string& path, const std::string& model_path);

struct SynthAdapterOptions {
  std::string model_path;           ///< the model that it is for
  int64_t rank = 8;                 ///< 1 to 512
  std::string weight_type = "F16";  ///< F16 or F32
  uint64_t seed = 0;
  std::string output;  ///< path of the file to write
};

/// Writes an adapter of random numbers that changes every matrix of a model's attention and feed
/// forward, by about half the deviation of what the matrix itself gives, at scale 1. The same bytes
/// for the same options. Throws Error(kUsage), Error(kModel) for the model, Error(kIo).
void SynthesizeAdapter(const SynthAdapterOptions& options);

}  // namespace halo
