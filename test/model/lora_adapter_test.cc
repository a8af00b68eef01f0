#include "model/lora_adapter.h"

#include <ggml.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <map>
#include <string>

#include "base/error.h"
#include "base/random.h"
#include "model/gguf_writer.h"
#include "model/mutation.h"
#include "model/small_model.h"
#include "support/test_models.h"

namespace halo {
namespace {

using testing::HasSubstr;

class LoraAdapterTest : public testing::Test {
 protected:
  LoraAdapterTest() {
    test::WriteFile(model_, test::SmallModel(folder_));
    SynthesizeAdapter({model_, 4, "F16", 1, adapter_});
  }

  /// What is wrong with an adapter for a matrix of 64 x 64 that is changed by `change`.
  std::string Fault(const std::function<void(GgufHeader&)>& keys, const std::string& matrix,
                    std::vector<std::pair<std::string, std::array<int64_t, 2>>> factors = {
                        {".lora_a", {64, 2}}, {".lora_b", {2, 64}}}) {
    GgufHeader header;
    keys(header);
    for (const auto& [suffix, dims] : factors)
      header.AddTensor(matrix + suffix, dims, GGML_TYPE_F32,
                       static_cast<uint64_t>(dims[0] * dims[1]) * sizeof(float));
    test::WriteFile(adapter_, header.Finish() + std::string(header.data_bytes(), '\0'));
    try {
      CheckLoraAdapter(adapter_, model_);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kModel);
      EXPECT_THAT(error.what(), HasSubstr(adapter_));
      return error.what();
    }
    return "";
  }

  static void Plain(GgufHeader& header) {
    header.AddText("general.architecture", "llama");
    header.AddText("general.type", "adapter");
    header.AddText("adapter.type", "lora");
    header.AddFloat32("adapter.lora.alpha", 4.0F);
  }

  const std::string folder_ = test::FreshFolder("lora_adapter");
  const std::string model_ = folder_ + "/model.gguf";
  const std::string adapter_ = folder_ + "/adapter.gguf";
};

constexpr const char* kQuery = "blk.0.attn_q.weight";

TEST_F(LoraAdapterTest, ASyntheticAdapterFitsItsModel) {
  const LoraSummary summary = CheckLoraAdapter(adapter_, model_);
  EXPECT_EQ(summary.architecture, "llama");
  EXPECT_EQ(summary.matrices, 2 * 7);  // layers x q, k, v, output, gate, up, down
  EXPECT_EQ(summary.rank, 4);
  EXPECT_EQ(summary.alpha, 4.0);
  EXPECT_EQ(summary.weight_type, "F16");
  const std::string first = test::ReadFile(adapter_);
  SynthesizeAdapter({model_, 4, "F16", 1, adapter_});
  EXPECT_EQ(test::ReadFile(adapter_), first);
  SynthesizeAdapter({model_, 4, "F16", 2, adapter_});
  EXPECT_NE(test::ReadFile(adapter_), first);
  EXPECT_THROW(SynthesizeAdapter({model_, 0, "F16", 1, adapter_}), Error);
  EXPECT_THROW(SynthesizeAdapter({model_, 4, "Q4_K", 1, adapter_}), Error);
}

TEST_F(LoraAdapterTest, WhatIsNoAdapterForTheModelIsRefused) {
  EXPECT_EQ(Fault(Plain, kQuery), "");
  EXPECT_THAT(Fault([](GgufHeader& h) { h.AddText("general.architecture", "llama"); }, kQuery),
              HasSubstr("general.type is missing or no text, expected 'adapter'"));
  const auto with = [](const char* type, const char* kind, const char* architecture) {
    return [=](GgufHeader& header) {
      header.AddText("general.architecture", architecture);
      header.AddText("general.type", type);
      header.AddText("adapter.type", kind);
    };
  };
  EXPECT_EQ(Fault(with("adapter", "lora", "llama"), kQuery), "");
  EXPECT_THAT(Fault(with("model", "lora", "llama"), kQuery), HasSubstr("this is no adapter"));
  EXPECT_THAT(Fault(with("adapter", "control", "llama"), kQuery), HasSubstr("no LoRA adapter"));
  EXPECT_THAT(Fault(with("adapter", "lora", "qwen3"), kQuery), HasSubstr("for another model"));
  EXPECT_THAT(Fault(
                  [](GgufHeader& header) {
                    Plain(header);
                    header.AddUint32("adapter.alora.invocation_tokens", 5);
                  },
                  kQuery),
              HasSubstr("aLoRA"));
  EXPECT_THAT(Fault(
                  [](GgufHeader& header) {
                    header.AddText("general.architecture", "llama");
                    header.AddText("general.type", "adapter");
                    header.AddText("adapter.type", "lora");
                    header.AddUint32("adapter.lora.alpha", 4);
                  },
                  kQuery),
              HasSubstr("adapter.lora.alpha: expected a finite number"));
  EXPECT_THROW(CheckLoraAdapter(model_, model_), Error);
  EXPECT_THROW(CheckLoraAdapter(folder_ + "/none.gguf", model_), Error);
}

TEST_F(LoraAdapterTest, FactorsThatDoNotFitAreRefused) {
  EXPECT_THAT(Fault(Plain, kQuery, {}), HasSubstr("no tensors"));
  EXPECT_THAT(Fault(Plain, kQuery, {{".lora_a", {64, 2}}}), HasSubstr(".lora_b is missing"));
  EXPECT_THAT(Fault(Plain, kQuery, {{".lora_a", {32, 2}}, {".lora_b", {2, 64}}}),
              HasSubstr("the factors of 'blk.0.attn_q.weight' are 32 x 2 and 2 x 64"));
  EXPECT_THAT(Fault(Plain, kQuery, {{".lora_a", {64, 2}}, {".lora_b", {3, 64}}}),
              HasSubstr("made for another model"));
  EXPECT_THAT(Fault(Plain, "blk.9.attn_q.weight"), HasSubstr("does not have"));
  EXPECT_THAT(Fault(Plain, "token_embd.weight", {{".lora_a", {2, 600}}, {".lora_b", {2, 64}}}),
              HasSubstr("token embeddings"));
  EXPECT_THAT(Fault(Plain, "blk.0.attn_norm.weight", {{".lora_a", {64, 1}}, {".lora_b", {1, 1}}}),
              HasSubstr("is no matrix"));
  // llama.cpp would leave it out without a word.
  EXPECT_THAT(Fault(Plain, "blk.0.attn_norm.weight", {{"", {64, 1}}}), HasSubstr("is no factor"));
}

/// What becomes of a process that loads the adapter and computes a token with it.
bool Survives(const std::string& model_path, const std::string& adapter_path) {
  const pid_t child = fork();
  if (child == 0) {
    constexpr unsigned kMostSeconds = 60;
    alarm(kMostSeconds);
    close(STDERR_FILENO);
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_model* model =
        llama_model_load_from_file(model_path.c_str(), llama_model_default_params());
    llama_adapter_lora* adapter = llama_adapter_lora_init(model, adapter_path.c_str());
    if (adapter == nullptr) _exit(0);
    llama_context_params params = llama_context_default_params();
    params.n_ctx = 64;
    params.n_threads = params.n_threads_batch = 1;
    llama_context* context = llama_init_from_model(model, params);
    float scale = 1.0F;
    llama_set_adapters_lora(context, &adapter, 1, &scale);
    llama_token tokens[] = {65, 66, 67};
    llama_decode(context, llama_batch_get_one(tokens, 3));
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

TEST_F(LoraAdapterTest, DamagedAdaptersThatAreAcceptedDoNotEndLlamaCpp) {
  const std::string original = test::ReadFile(adapter_);
  const std::string path = folder_ + "/mutated.gguf";
  RandomStream random(11);
  int accepted = 0;
  for (int i = 0; i < 3000 && accepted < 60; ++i) {
    const std::string mutated = test::Mutated(original, random);
    if (mutated == original) continue;
    test::WriteFile(path, mutated);
    try {
      CheckLoraAdapter(path, model_);
    } catch (const Error&) {
      continue;
    }
    ++accepted;
    ASSERT_TRUE(Survives(model_, path)) << "kept in " << path;
  }
  EXPECT_GT(accepted, 20);
}

}  // namespace
}  // namespace halo
