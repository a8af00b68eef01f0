#pragma once

#include <string>

#include "model/synth.h"

namespace halo::test {

/// Path of a synthetic model with the shape `tiny`, made on first use and kept beside the test
/// programs. `mean_output` 0: answers end only by max_tokens.
std::string TinyModel(const std::string& weight_type = "Q8_0", double mean_output = 0);

/// Path of a synthetic model of any shape, made and kept likewise.
std::string SynthModel(const SynthShape& shape, const std::string& weight_type,
                       double mean_output = 0);

/// Path of a synthetic LoRA adapter for a model of these, made and kept likewise.
std::string Adapter(const std::string& model_path, const std::string& weight_type, int64_t rank,
                    uint64_t seed);

/// A fresh folder for one test, under the test programs' folder.
std::string FreshFolder(const std::string& name);

}  // namespace halo::test
