#include "model/synth.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "model/gguf_check.h"
#include "model/small_model.h"
#include "model/synth_weights.h"
#include "support/test_models.h"

namespace halo {
namespace {

using ::testing::HasSubstr;

const std::string kVocabularies = std::string(HALO_LLAMA_SOURCE_DIR) + "/models";

struct FreeModel {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
};

// A model on one CPU thread, one sequence at a time.
class Runner {
 public:
  explicit Runner(const std::string& path, uint32_t context_tokens = 512) {
    llama_log_set([](ggml_log_level, const char*, void*) {}, nullptr);
    llama_model_params model_params = llama_model_default_params();
    model_params.n_gpu_layers = 0;
    model_.reset(llama_model_load_from_file(path.c_str(), model_params));
    if (model_ == nullptr) return;
    llama_context_params params = llama_context_default_params();
    params.n_ctx = context_tokens;
    params.n_threads = params.n_threads_batch = 1;
    context_.reset(llama_init_from_model(model_.get(), params));
  }
  bool ok() const { return context_ != nullptr; }
  const llama_vocab* vocab() const { return llama_model_get_vocab(model_.get()); }
  size_t size() const { return static_cast<size_t>(llama_vocab_n_tokens(vocab())); }

  // Probabilities at `temperature` after `tokens`, which come after those of earlier calls.
  std::vector<double> Probabilities(std::vector<llama_token> tokens, double temperature) {
    EXPECT_EQ(llama_decode(context_.get(),
                           llama_batch_get_one(tokens.data(), static_cast<int32_t>(tokens.size()))),
              0);
    const float* logits = llama_get_logits_ith(context_.get(), -1);
    const double most = static_cast<double>(*std::max_element(logits, logits + size()));
    std::vector<double> probabilities(size());
    double sum = 0;
    for (size_t i = 0; i < size(); ++i) {
      probabilities[i] = std::exp((static_cast<double>(logits[i]) - most) / temperature);
      sum += probabilities[i];
    }
    for (double& p : probabilities) p /= sum;
    return probabilities;
  }

  // Up to `most` tokens after a random prompt of 16, the end token not included. `seen` gets every
  // step's probabilities.
  std::vector<llama_token> Generate(
      double temperature, size_t most, uint64_t seed,
      const std::function<void(const std::vector<double>&)>& seen = nullptr) {
    llama_memory_clear(llama_get_memory(context_.get()), true);
    RandomStream random(seed);
    std::vector<llama_token> input;
    for (int i = 0; i < 16; ++i)
      input.push_back(static_cast<llama_token>(random.Below(size() / 2)));
    std::vector<llama_token> output;
    while (output.size() < most) {
      const std::vector<double> probabilities =
          Probabilities(input, temperature > 0 ? temperature : 1);
      if (seen) seen(probabilities);
      const llama_token token =
          temperature > 0 ? Draw(probabilities, random) : Likeliest(probabilities);
      if (llama_vocab_is_eog(vocab(), token)) break;
      output.push_back(token);
      input = {token};
    }
    return output;
  }

  static llama_token Likeliest(const std::vector<double>& probabilities) {
    return static_cast<llama_token>(std::max_element(probabilities.begin(), probabilities.end()) -
                                    probabilities.begin());
  }

 private:
  static llama_token Draw(const std::vector<double>& probabilities, RandomStream& random) {
    double left = random.Uniform();
    for (size_t i = 0; i < probabilities.size(); ++i) {
      left -= probabilities[i];
      if (left < 0) return static_cast<llama_token>(i);
    }
    return Likeliest(probabilities);
  }

  std::unique_ptr<llama_model, FreeModel> model_;
  std::unique_ptr<llama_context, FreeModel> context_;
};

class Synth : public ::testing::Test {
 protected:
  Synth() : folder_(test::FreshFolder("synth")) {}
  ~Synth() override { std::filesystem::remove_all(folder_); }

  SynthOptions Options(const std::string& shape) const {
    SynthOptions options;
    options.shape = ShapeByName(shape);
    options.vocabulary_file = VocabularyFile(options.shape.vocabulary, kVocabularies);
    options.output = folder_ + "/" + shape + ".gguf";
    return options;
  }

  // 2 layers over the small vocabulary; rows of 256 elements, which every weight type takes.
  SynthOptions SmallOptions() const {
    SynthOptions options;
    options.shape = {.name = "small",
                     .layers = 2,
                     .width = 256,
                     .heads = 4,
                     .kv_heads = 2,
                     .head_width = 64,
                     .feed_forward = 256,
                     .context_tokens = 512,
                     .vocabulary = ""};
    options.vocabulary_file = folder_ + "/vocabulary.gguf";
    test::WriteFile(options.vocabulary_file, test::SmallVocabulary());
    options.output = folder_ + "/small.gguf";
    return options;
  }

  std::string Bytes(const SynthOptions& options) const {
    SynthesizeModel(options);
    return test::ReadFile(options.output);
  }

  static std::string Refusal(const SynthOptions& options, ErrorCode code = ErrorCode::kUsage) {
    try {
      SynthesizeModel(options);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      EXPECT_FALSE(std::filesystem::exists(options.output));
      EXPECT_FALSE(std::filesystem::exists(options.output + ".part"));
      return error.what();
    }
    return "";
  }

  std::string folder_;
};

TEST_F(Synth, SuggestsShapesAndVocabularies) {
  EXPECT_EQ(NamedShapes().size(), 7U);
  EXPECT_EQ(ShapeByName("llama-3.1-8b").feed_forward, 14336);
  try {
    ShapeByName("llama-3.2-1B");
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'llama-3.2-1b'"));
  }
  EXPECT_EQ(VocabularyFile("gpt-2", kVocabularies), kVocabularies + "/ggml-vocab-gpt-2.gguf");
  EXPECT_EQ(VocabularyFile(kVocabularies + "/ggml-vocab-gpt-2.gguf", ""),
            kVocabularies + "/ggml-vocab-gpt-2.gguf");
  try {
    VocabularyFile("gpt2", kVocabularies);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("did you mean 'gpt-2'"));
  }
}

TEST_F(Synth, SameOptionsSameBytes) {
  SynthOptions options = SmallOptions();
  options.mean_output_tokens = 16;
  const uint64_t first = Hash64(Bytes(options));
  EXPECT_EQ(Hash64(Bytes(options)), first);
  options.seed = 1;
  EXPECT_NE(Hash64(Bytes(options)), first);
}

TEST_F(Synth, BytesDoNotDependOnThreads) {
  std::vector<WeightTensor> tensors(2);
  tensors[0] = {.name = "a",
                .columns = 256,
                .rows = 9000,
                .type = GGML_TYPE_Q8_0,
                .deviation = 1,
                .row_scales = {},
                .values = {},
                .offset = 0};
  tensors[1] = {.name = "b",
                .columns = 96,
                .rows = 700,
                .type = GGML_TYPE_F16,
                .deviation = 2,
                .row_scales = {},
                .values = {},
                .offset = WeightBytes(tensors[0])};
  std::string all[2];
  for (unsigned i = 0; i < 2; ++i) {
    const std::string path = folder_ + "/weights";
    const int descriptor = open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
    WriteWeights(descriptor, path, tensors, 3, i == 0 ? 1 : 3);
    close(descriptor);
    all[i] = test::ReadFile(path);
  }
  EXPECT_EQ(all[0].size(), WeightBytes(tensors[0]) + WeightBytes(tensors[1]));
  EXPECT_TRUE(all[0] == all[1]);
}

TEST_F(Synth, EveryTypeAndArchitectureRuns) {
  for (const char* architecture : {"llama", "qwen3"}) {
    for (const bool tied : {true, false}) {
      for (const char* type : {"F16", "Q8_0", "Q4_K"}) {
        SynthOptions options = SmallOptions();
        options.shape.architecture = architecture;
        options.shape.tied_embeddings = tied;
        options.weight_type = type;
        SynthesizeModel(options);
        const GgufSummary summary = CheckGguf(options.output);
        // In so small a file the embeddings, which Q4_K keeps wider if they are also the output,
        // weigh most.
        EXPECT_EQ(summary.weight_type.substr(0, 2), std::string(type).substr(0, 2))
            << architecture << type << tied;
        Runner runner(options.output);
        ASSERT_TRUE(runner.ok()) << architecture << type << tied;
        for (const double p : runner.Probabilities({1, 2, 3}, 1)) ASSERT_TRUE(std::isfinite(p));
      }
    }
  }
}

TEST_F(Synth, RefusesWhatDoesNotFit) {
  SynthOptions options = Options("135m");
  options.weight_type = "Q4_K";
  EXPECT_THAT(Refusal(options), HasSubstr("rows of 576 elements; Q4_K packs 256"));
  options.weight_type = "Q4_0";
  EXPECT_THAT(Refusal(options), HasSubstr("F16, Q8_0 or Q4_K"));
  options = SmallOptions();
  options.mean_output_tokens = 2;
  EXPECT_THAT(Refusal(options), HasSubstr("4 to 1,000,000"));
  options.mean_output_tokens = std::nan("");
  EXPECT_THAT(Refusal(options), HasSubstr("4 to 1,000,000"));
  options = SmallOptions();
  options.shape.kv_heads = 3;
  EXPECT_THAT(Refusal(options), HasSubstr("divide heads"));
  options = SmallOptions();
  options.shape.width = 100;
  EXPECT_THAT(Refusal(options), HasSubstr("multiple of 32"));
  options = SmallOptions();
  options.vocabulary_file = folder_ + "/none.gguf";
  EXPECT_THAT(Refusal(options, ErrorCode::kModel), HasSubstr("none.gguf"));
  options = SmallOptions();
  options.output = folder_ + "/no/such/folder.gguf";
  EXPECT_THAT(Refusal(options, ErrorCode::kIo), HasSubstr("cannot be written"));
}

TEST_F(Synth, EndTokenFollowsTheTemplate) {
  struct Case {
    const char *vocabulary, *end, *in_template;
  };
  for (const Case& one : {Case{"gpt-2", "<|endoftext|>", "Assistant:"},
                          {"llama-bpe", "<|eot_id|>", "<|start_header_id|>"},
                          {"qwen2", "<|im_end|>", "<|im_start|>"},
                          {"llama-spm", "</s>", "Assistant:"}}) {
    SynthOptions options = SmallOptions();
    options.shape.width = 32;
    options.vocabulary_file = VocabularyFile(one.vocabulary, kVocabularies);
    SynthesizeModel(options);
    EXPECT_THAT(CheckGguf(options.output).chat_template, HasSubstr(one.in_template));
    Runner runner(options.output);
    ASSERT_TRUE(runner.ok());
    EXPECT_STREQ(llama_vocab_get_text(runner.vocab(), llama_vocab_eos(runner.vocab())), one.end);
    EXPECT_TRUE(llama_vocab_is_eog(runner.vocab(), llama_vocab_eos(runner.vocab())));
  }
  SynthOptions options = SmallOptions();
  options.chat_template = "{{ messages[0]['content'] }}";
  SynthesizeModel(options);
  EXPECT_EQ(CheckGguf(options.output).chat_template, options.chat_template);
}

TEST_F(Synth, LikeliestTokenHasHalfTheProbability) {
  SynthOptions options = Options("tiny");
  SynthesizeModel(options);
  Runner runner(options.output);
  ASSERT_TRUE(runner.ok());
  double top = 0, end = 0;
  int positions = 0;
  const auto look = [&](const std::vector<double>& p) {
    top += *std::max_element(p.begin(), p.end());
    end = std::max(end, p[static_cast<size_t>(llama_vocab_eos(runner.vocab()))]);
    ++positions;
  };
  for (uint64_t seed = 0; seed < 4; ++seed) runner.Generate(1, 50, seed, look);
  EXPECT_EQ(positions, 200);
  EXPECT_GT(top / positions, 0.4);
  EXPECT_LT(top / positions, 0.6);
  EXPECT_LT(end, 1e-4);  // no mean output: answers do not end
}

TEST_F(Synth, TextIsVaried) {
  SynthOptions options = Options("tiny");
  SynthesizeModel(options);
  Runner runner(options.output);
  ASSERT_TRUE(runner.ok());
  for (const double temperature : {0.0, 0.7}) {
    const std::vector<llama_token> output = runner.Generate(temperature, 200, 5);
    EXPECT_EQ(output.size(), 200U);
    EXPECT_GT(std::set<llama_token>(output.begin(), output.end()).size(), 120U) << temperature;
  }
}

TEST_F(Synth, AnswersHaveTheMeanLength) {
  constexpr double kMean = 16;
  SynthOptions options = Options("tiny");
  options.mean_output_tokens = kMean;
  SynthesizeModel(options);
  Runner runner(options.output);
  ASSERT_TRUE(runner.ok());
  for (const double temperature : {1.0, 0.0}) {
    constexpr int kAnswers = 128;
    double tokens = 0;
    for (uint64_t seed = 0; seed < kAnswers; ++seed) {
      tokens += static_cast<double>(runner.Generate(temperature, 400, seed).size()) +
                1;  // the end token counts
    }
    // One deviation of the mean of 128 geometric lengths is 9 %.
    EXPECT_GT(tokens / kAnswers, 0.7 * kMean) << temperature;
    EXPECT_LT(tokens / kAnswers, 1.3 * kMean) << temperature;
  }
}

}  // namespace
}  // namespace halo
