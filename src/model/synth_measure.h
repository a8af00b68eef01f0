#pragma once

#include <cstdint>
#include <string>

#include "model/synth_logits.h"

namespace halo {

/// Runs the model on the CPU over contexts of random normal tokens (`row_scales` 1) and returns the
/// end token's logits in a few hundred of them. Depends on nothing but the file, up to the rounding
/// of llama.cpp's kernels. llama.cpp's log is silenced meanwhile (its sink is one for the process).
/// Throws Error(kModel).
EndLogits MeasureEndLogits(const std::string& gguf_path, int64_t end_token,
                           const std::vector<float>& row_scales);

}  // namespace halo
