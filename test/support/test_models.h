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

/// A fresh folder for one test, under the test programs' folder.
std::string FreshFolder(const std::string& name);

}  // namespace halo::test
