#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "demo_model/byte_pair_encoding.h"
#include "demo_model/transformer.h"

namespace halo::demo {

enum class WeightType : uint8_t { kF32, kF16, kQ8_0 };

/// What of a model goes into its file.
struct ModelFile {
  const TransformerShape* shape = nullptr;
  const std::vector<float>* parameters = nullptr;  ///< laid out as ParameterTensors(*shape)
  const BytePairEncoding* encoding = nullptr;
  uint64_t seed = 0;
  WeightType type = WeightType::kF16;  ///< of matrices; vectors are F32
};

/// Writes a GGUF file of the architecture "llama" with its vocabulary and chat template; it appears
/// by rename once it is whole. Throws Error(kIo).
void WriteModelFile(const ModelFile& model, const std::string& path);

}  // namespace halo::demo
