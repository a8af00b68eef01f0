#include "demo_model/model_file.h"

#include <gtest/gtest.h>
// house-allow(include): the forward pass is compared with llama.cpp's
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/error.h"
#include "base/random.h"
#include "demo_model/chat_format.h"
#include "model/gguf_check.h"
#include "support/test_models.h"

namespace halo::demo {
namespace {

struct ModelDeleter {
  void operator()(llama_model* model) const { llama_model_free(model); }
};
struct ContextDeleter {
  void operator()(llama_context* context) const { llama_free(context); }
};

/// Logits [tokens, vocabulary] of every position as llama.cpp computes them, with KV in F32.
std::vector<float> LlamaLogits(const std::string& path, std::vector<int32_t> tokens) {
  llama_model_params model_params = llama_model_default_params();
  model_params.n_gpu_layers = 0;
  const std::unique_ptr<llama_model, ModelDeleter> model(
      llama_model_load_from_file(path.c_str(), model_params));
  if (model == nullptr) return {};
  llama_context_params params = llama_context_default_params();
  params.n_ctx = 512;
  params.n_threads = params.n_threads_batch = 1;
  params.type_k = params.type_v = GGML_TYPE_F32;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
  const std::unique_ptr<llama_context, ContextDeleter> context(
      llama_init_from_model(model.get(), params));
  const auto vocabulary =
      static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model.get())));
  std::vector<float> logits;
  for (int32_t token : tokens) {
    if (llama_decode(context.get(), llama_batch_get_one(&token, 1)) != 0) return {};
    const float* last = llama_get_logits_ith(context.get(), -1);
    logits.insert(logits.end(), last, last + vocabulary);
  }
  return logits;
}

/// Bytes and control tokens only; merges are not what is tested here.
BytePairEncoding Bytes() { return BytePairEncoding({}, ControlTokens()); }

TransformerShape ShapeOf(const BytePairEncoding& encoding) {
  TransformerShape shape;
  shape.layers = 2;
  shape.vocabulary = encoding.size();
  return shape;
}

class ModelFileTest : public ::testing::Test {
 protected:
  ModelFileTest() : folder_(test::FreshFolder("demo_model_file")), encoding_(Bytes()) {
    shape_ = ShapeOf(encoding_);
    parameters_ = RandomParameters<float>(shape_, 3);
    // Gains that differ from 1, so that a norm that is left out shows.
    RandomStream random(4);
    for (const ParameterTensor& tensor : ParameterTensors(shape_)) {
      for (int64_t i = 0; tensor.rows == 0 && i < tensor.size(); ++i)
        parameters_[static_cast<size_t>(tensor.offset + i)] =
            static_cast<float>(0.5 + random.Uniform());
    }
  }
  ~ModelFileTest() override { std::filesystem::remove_all(folder_); }

  std::string Write(WeightType type) {
    std::string path = folder_ + "/" + std::to_string(static_cast<int>(type)) + ".gguf";
    WriteModelFile({&shape_, &parameters_, &encoding_, 3, type}, path);
    CheckGguf(path);
    return path;
  }

  /// Largest difference between llama.cpp's logits of the file and our own of the parameters, as a
  /// share of the largest logit.
  double WorstDifference(WeightType type) {
    RandomStream random(5);
    TokenBatch batch;
    for (int i = 0; i < 150; ++i)
      batch.tokens.push_back(
          static_cast<int32_t>(random.Below(static_cast<uint64_t>(shape_.vocabulary))));
    batch.starts = {0, static_cast<int32_t>(batch.tokens.size())};
    const std::vector<float> theirs = LlamaLogits(Write(type), batch.tokens);
    Transformer<float> transformer(shape_, parameters_);
    const std::vector<float>& ours = transformer.Forward(batch);
    if (theirs.size() != ours.size()) return 1e9;
    double worst = 0, largest = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      worst = std::max(worst, std::abs(static_cast<double>(ours[i] - theirs[i])));
      largest = std::max(largest, std::abs(static_cast<double>(ours[i])));
    }
    return worst / largest;
  }

  std::string folder_;
  BytePairEncoding encoding_;
  TransformerShape shape_;
  std::vector<float> parameters_;
};

// Roundings of sums in another order.
TEST_F(ModelFileTest, LogitsOfF32FilesEqualLlamaCpps) {
  EXPECT_LT(WorstDifference(WeightType::kF32), 2e-5);
}
// 11 bits of mantissa in the weights and, in llama.cpp's products, in what they are multiplied
// with.
TEST_F(ModelFileTest, LogitsOfF16FilesAreNearLlamaCpps) {
  EXPECT_LT(WorstDifference(WeightType::kF16), 5e-3);
}
// 8 bits for the largest of 32 weights.
TEST_F(ModelFileTest, LogitsOfQ80FilesAreNearLlamaCpps) {
  EXPECT_LT(WorstDifference(WeightType::kQ8_0), 5e-2);
}

TEST_F(ModelFileTest, TheSameModelHasTheSameBytes) {
  const auto bytes = [](const std::string& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  };
  const std::string first = bytes(Write(WeightType::kQ8_0));
  EXPECT_EQ(bytes(Write(WeightType::kQ8_0)), first);
  EXPECT_GT(first.size(), size_t{800'000});  // about 0.8M weights of 8.5 bits
}

TEST_F(ModelFileTest, SaysWhichFileCannotBeWritten) {
  try {
    WriteModelFile({&shape_, &parameters_, &encoding_, 3, WeightType::kF32},
                   folder_ + "/no/m.gguf");
    FAIL() << "written";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find("/no/m.gguf"), std::string::npos);
  }
}

}  // namespace
}  // namespace halo::demo
