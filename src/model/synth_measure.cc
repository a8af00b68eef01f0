#include "model/synth_measure.h"

#include <llama.h>

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/error.h"
#include "base/random.h"

namespace halo {
namespace {

constexpr int kContexts = 8;
constexpr int kContextTokens = 128;
constexpr int kFirstMeasured = 16;  // before it, attention has little to average

class SilentLlamaLog {
 public:
  SilentLlamaLog() {
    llama_log_get(&callback_, &user_data_);
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
  }
  ~SilentLlamaLog() { llama_log_set(callback_, user_data_); }
  SilentLlamaLog(const SilentLlamaLog&) = delete;
  SilentLlamaLog& operator=(const SilentLlamaLog&) = delete;

 private:
  ggml_log_callback callback_ = nullptr;
  void* user_data_ = nullptr;
};

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};
using Model = std::unique_ptr<llama_model, ModelDeleter>;
using Context = std::unique_ptr<llama_context, ContextDeleter>;

Model LoadOnCpu(const std::string& path) {
  ggml_backend_dev_t no_devices[] = {nullptr};
  llama_model_params params = llama_model_default_params();
  params.devices = no_devices;
  params.n_gpu_layers = 0;
  Model model(llama_model_load_from_file(path.c_str(), params));
  if (model == nullptr)
    throw Error(ErrorCode::kModel, path + ": llama.cpp cannot load the model just made");
  return model;
}

Context OpenContext(llama_model* model, const std::string& path) {
  llama_context_params params = llama_context_default_params();
  params.n_ctx = kContextTokens;
  params.n_batch = kContextTokens;
  params.n_ubatch = kContextTokens;
  params.n_seq_max = 1;
  // One thread: seconds of work, in which several would mostly wait for each other on a busy
  // machine (41 s against 2 s seen), and nothing depends on their number.
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  Context context(llama_init_from_model(model, params));
  if (context == nullptr)
    throw Error(ErrorCode::kModel, path + ": llama.cpp cannot run the model just made");
  return context;
}

void AddPosition(const float* logits, size_t tokens, size_t end_token, EndLogits& measured) {
  const double most = static_cast<double>(*std::max_element(logits, logits + tokens));
  double sum = 0;
  for (size_t i = 0; i < tokens; ++i) {
    if (i != end_token) sum += std::exp(static_cast<double>(logits[i]) - most);
  }
  measured.end.push_back(static_cast<double>(logits[end_token]));
  measured.log_partitions.push_back(most + std::log(sum));
}

}  // namespace

EndLogits MeasureEndLogits(const std::string& gguf_path, int64_t end_token,
                           const std::vector<float>& row_scales) {
  const SilentLlamaLog silent;
  const Model model = LoadOnCpu(gguf_path);
  const Context context = OpenContext(model.get(), gguf_path);
  std::vector<llama_token> normal_tokens;
  for (size_t i = 0; i < row_scales.size(); ++i) {
    if (row_scales[i] == 1.0F) normal_tokens.push_back(static_cast<llama_token>(i));
  }
  constexpr uint64_t kStream = 0x656e64;
  RandomStream random(kStream);
  llama_batch batch = llama_batch_init(kContextTokens, 0, 1);
  const std::unique_ptr<llama_batch, void (*)(llama_batch*)> free_batch(
      &batch, [](llama_batch* b) { llama_batch_free(*b); });
  EndLogits measured;
  for (int i = 0; i < kContexts; ++i) {
    llama_memory_clear(llama_get_memory(context.get()), true);
    batch.n_tokens = kContextTokens;
    for (int k = 0; k < kContextTokens; ++k) {
      batch.token[k] = normal_tokens[random.Below(normal_tokens.size())];
      batch.pos[k] = k;
      batch.n_seq_id[k] = 1;
      batch.seq_id[k][0] = 0;
      batch.logits[k] = k >= kFirstMeasured ? 1 : 0;
    }
    if (llama_decode(context.get(), batch) != 0) {
      throw Error(ErrorCode::kModel, gguf_path + ": llama.cpp cannot run the model just made");
    }
    for (int k = kFirstMeasured; k < kContextTokens; ++k) {
      AddPosition(llama_get_logits_ith(context.get(), k), row_scales.size(),
                  static_cast<size_t>(end_token), measured);
    }
  }
  return measured;
}

}  // namespace halo
