#include "engine/llama/loaded_model.h"

#include <ggml-backend.h>
#include <llama.h>
#include <omp.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>

#include "base/error.h"

// ggml's threads are OpenMP's where that was there to build it with.
#pragma weak omp_pause_resource_all

namespace halo {
namespace {

std::string& ErrorOfThread() {
  static thread_local std::string text;
  return text;
}

void CaptureLog(ggml_log_level level, const char* text, void*) {
  if (level == GGML_LOG_LEVEL_ERROR) ErrorOfThread() = text;
}

void InitializeBackend() {
  static std::once_flag once;
  std::call_once(once, [] {
    llama_log_set(CaptureLog, nullptr);
    llama_backend_init();
  });
}

/// Width of a head's keys or values; by default what its share of the embedding is.
int64_t HeadWidth(const llama_model* model, const char* which) {
  char text[64] = {};
  std::string architecture = "llama";
  if (llama_model_meta_val_str(model, "general.architecture", text, sizeof(text)) > 0)
    architecture = text;
  const std::string key = architecture + ".attention." + which + "_length";
  if (llama_model_meta_val_str(model, key.c_str(), text, sizeof(text)) > 0)
    return std::max(1, std::atoi(text));
  return llama_model_n_embd(model) / std::max(1, llama_model_n_head(model));
}

/// GPUs, in llama.cpp's order.
std::vector<ggml_backend_dev_t> Devices() {
  InitializeBackend();
  std::vector<ggml_backend_dev_t> devices;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_GPU) devices.push_back(device);
  }
  return devices;
}

LlamaModelPointer LoadFrom(const std::string& path, const llama_model_params& params) {
  InitializeBackend();
  ForgetLlamaError();
  LlamaModelPointer model(llama_model_load_from_file(path.c_str(), params));
  if (!model) {
    throw Error(ErrorCode::kModel,
                path + ": llama.cpp cannot load this model: " +
                    (LastLlamaError().empty() ? "no reason given" : LastLlamaError()));
  }
  if (llama_model_has_encoder(model.get()) || llama_model_is_diffusion(model.get()))
    throw Error(ErrorCode::kModel, path + ": only decoder models can run here");
  return model;
}

}  // namespace

void LlamaModelDeleter::operator()(llama_model* model) const { llama_model_free(model); }

LlamaModelPointer LoadLlamaModel(const std::string& path, bool exact,
                                 const std::vector<int32_t>& devices) {
  llama_model_params params = llama_model_default_params();
  std::vector<ggml_backend_dev_t> used;
  if (!devices.empty()) {
    const std::vector<ggml_backend_dev_t> all = Devices();
    for (const int32_t device : devices) {
      const bool is_there = device >= 0 && static_cast<size_t>(device) < all.size();
      if (!is_there) {
        throw Error(ErrorCode::kConfig, path + ": there is no accelerator number " +
                                            std::to_string(device) + " any more, of " +
                                            std::to_string(all.size()));
      }
      used.push_back(all[static_cast<size_t>(device)]);
    }
    used.push_back(nullptr);  // ends the list
    params.devices = used.data();
  }
  // Weights laid out anew for wide batches have kernels of their own for single rows.
  if (exact) params.use_extra_bufts = false;
  return LoadFrom(path, params);
}

LlamaModelPointer DescribeLlamaModel(const std::string& path) {
  llama_model_params params = llama_model_default_params();
  params.no_alloc = true;
  params.load_mode = LLAMA_LOAD_MODE_NONE;  // a mapped file is memory, too
  return LoadFrom(path, params);
}

const std::string& LastLlamaError() { return ErrorOfThread(); }
void ForgetLlamaError() { ErrorOfThread().clear(); }

int64_t KvBytesPerToken(const llama_model* model) {
  constexpr int64_t kHalfBytes = 2;
  return static_cast<int64_t>(llama_model_n_layer(model)) * llama_model_n_head_kv(model) *
         (HeadWidth(model, "key") + HeadWidth(model, "value")) * kHalfBytes;
}

int64_t WeightsBytes(const llama_model* model) {
  return static_cast<int64_t>(llama_model_size(model));
}

void EndComputeThreads() {
  if (omp_pause_resource_all != nullptr) omp_pause_resource_all(omp_pause_soft);
}

std::vector<Accelerator> Accelerators() {
  std::vector<Accelerator> accelerators;
  for (ggml_backend_dev_t device : Devices()) {
    size_t free_bytes = 0, bytes = 0;
    ggml_backend_dev_memory(device, &free_bytes, &bytes);
    accelerators.push_back({ggml_backend_dev_description(device), static_cast<int64_t>(bytes)});
  }
  return accelerators;
}

std::string AcceleratorNames() {
  std::string names;
  for (const Accelerator& accelerator : Accelerators())
    names += (names.empty() ? "" : ", ") + accelerator.name;
  return names;
}

}  // namespace halo
