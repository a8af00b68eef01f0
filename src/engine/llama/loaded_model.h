#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct llama_model;

namespace halo {

struct LlamaModelDeleter {
  void operator()(llama_model* model) const;
};
using LlamaModelPointer = std::unique_ptr<llama_model, LlamaModelDeleter>;

/// Loads the weights of a decoder model. `path` has passed CheckGguf; `exact` (exactness.h): the
/// weights are not laid out anew. `devices`: places in Accelerators(), over which its layers are
/// split; empty: all there are. Throws Error(kModel) naming the path.
LlamaModelPointer LoadLlamaModel(const std::string& path, bool exact,
                                 const std::vector<int32_t>& devices = {});
/// All that the file says of the model, without its weights: it can be asked, not computed with.
LlamaModelPointer DescribeLlamaModel(const std::string& path);

/// The last error that llama.cpp logged on this thread, "" if none since it was forgotten. Its log
/// goes nowhere but here.
const std::string& LastLlamaError();
void ForgetLlamaError();

int64_t KvBytesPerToken(const llama_model* model);
/// Bytes of all weights, as they are computed with.
int64_t WeightsBytes(const llama_model* model);

/// Ends the threads that have computed for this one beside it; the next pass starts them anew, in
/// some 50 us each. For a process that lets another one compute: threads which wait for their next
/// pass use a core each for milliseconds, and two such processes in turns took 1.6 times as long.
void EndComputeThreads();

/// A device other than the CPU.
struct Accelerator {
  std::string name;
  int64_t memory_bytes = 0;  ///< all of it, free or not
};
/// Those that this process computes on, in llama.cpp's order.
std::vector<Accelerator> Accelerators();
/// Their names, joined by ", "; "" if there are none.
std::string AcceleratorNames();

}  // namespace halo
