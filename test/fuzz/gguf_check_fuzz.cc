#include <cstddef>
#include <cstdint>
#include <span>

#include "base/error.h"
#include "model/gguf_check.h"

/// The GGUF check must read anything or throw Error; nothing else may happen. Seeds: the files of
/// llama.cpp's models folder that are small, or what test/model/small_model.h makes.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    halo::CheckGgufBytes(std::span(data, size), "fuzzed.gguf");
  } catch (const halo::Error&) {
  }
  return 0;
}
