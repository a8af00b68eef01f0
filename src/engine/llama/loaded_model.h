#pragma once

#include <cstdint>
#include <memory>
#include <string>

struct llama_model;

namespace halo {

struct LlamaModelDeleter {
  void operator()(llama_model* model) const;
};
using LlamaModelPointer = std::unique_ptr<llama_model, LlamaModelDeleter>;

/// Loads the weights of a decoder model. `path` has passed CheckGguf; `exact` (exactness.h): the
/// weights are not laid out anew. Throws Error(kModel) naming the path.
LlamaModelPointer LoadLlamaModel(const std::string& path, bool exact);

/// The last error that llama.cpp logged on this thread, "" if none since it was forgotten. Its log
/// goes nowhere but here.
const std::string& LastLlamaError();
void ForgetLlamaError();

int64_t KvBytesPerToken(const llama_model* model);
/// Bytes of all weights, as they are computed with.
int64_t WeightsBytes(const llama_model* model);

/// Names of the devices other than the CPU that this process computes on, joined by ", "; "" if
/// there are none. Known once a model has been loaded or asked for here.
std::string AcceleratorNames();

}  // namespace halo
