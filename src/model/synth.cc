#include "model/synth.h"

#include <fmt/format.h>
#include <ggml.h>
#include <llama.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/text.h"
#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "model/part_file.h"
#include "model/synth_logits.h"
#include "model/synth_measure.h"
#include "model/synth_weights.h"

namespace halo {
namespace {

// Token types of tokenizer.ggml.token_type.
constexpr int64_t kNormalToken = 1;
constexpr int64_t kByteToken = 6;

// Deviation of the attention scores before the softmax. Sharp enough that a few positions are
// attended to, others for every token; without that a random model's greedy text soon runs in a
// circle.
constexpr double kScoreDeviation = 4;
// Deviation that all attention halves together, and all feed-forward halves together, add to the
// residual stream, against an embedding of deviation 1. Attention averages over a sequence and so
// makes its positions alike: with a deviation of 1 for each half of each layer, 30 layers left 65
// different tokens in 200 greedy ones, these leave nearly 200. And what all positions share keeps
// the end token's logit off its mean for a whole answer: with scores of 2.5 and an attention share
// of 1 answers had 27 tokens for 16 asked, with these 16 to 17.
constexpr double kAttentionShare = 0.5;
constexpr double kFeedForwardShare = 2.0;
// Part of a value's variance that is left after attention has averaged (about, for 100 positions).
constexpr double kAveragedVariance = 0.2;
// Mean of (silu(x) y)^2 for independent standard normal x and y.
constexpr double kGatedVariance = 0.356;
// Rows of tokens that are never to be sampled: their logits stay far below the others', yet as
// input they still differ from each other.
constexpr float kQuietRowScale = 0.1F;

// Up to this size a model is run to correct the end token's row: in a narrow model the hidden
// states fill fewer directions than its width, and one row may lie well or ill among them (answers
// of 30 to 110 tokens for 64 asked).
constexpr uint64_t kMostMeasuredParameters = 256'000'000;

constexpr double kLeastMeanOutput = 4;
constexpr size_t kLeastVocabulary = 512;

// A template for vocabularies that have none, chosen by the control tokens that they have.
constexpr std::string_view kHeaderTemplate =
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% "
    "endif %}";
constexpr std::string_view kChatMlTemplate =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ "
    "'<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "
    "endif %}";
constexpr std::string_view kPlainTemplate =
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{{ 'Assistant:' + message['content'] + eos_token + '\n' }}"
    "{% else %}{{ message['role'] | capitalize + ': ' + message['content'] + '\n' }}{% endif %}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}";

// Tokens that close an answer in well-known templates.
constexpr std::string_view kTurnEnds[] = {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",
                                          "<turn|>"};

[[noreturn]] void Usage(const std::string& message) { throw Error(ErrorCode::kUsage, message); }

SynthShape Llama3(std::string name, int64_t layers, int64_t width, int64_t heads,
                  int64_t head_width, int64_t feed_forward, bool tied) {
  return {.name = std::move(name),
          .architecture = "llama",
          .layers = layers,
          .width = width,
          .heads = heads,
          .kv_heads = 8,
          .head_width = head_width,
          .feed_forward = feed_forward,
          .context_tokens = 131072,
          .rope_frequency_base = 500000,
          .norm_epsilon = 1e-5,
          .tied_embeddings = tied,
          .vocabulary = "llama-bpe"};
}

SynthShape Qwen3(std::string name, int64_t layers, int64_t width, int64_t heads,
                 int64_t feed_forward, bool tied) {
  return {.name = std::move(name),
          .architecture = "qwen3",
          .layers = layers,
          .width = width,
          .heads = heads,
          .kv_heads = 8,
          .head_width = 128,
          .feed_forward = feed_forward,
          .context_tokens = 40960,
          .rope_frequency_base = 1000000,
          .norm_epsilon = 1e-6,
          .tied_embeddings = tied,
          .vocabulary = "qwen2"};
}

SynthShape Small(std::string name, int64_t layers, int64_t width, int64_t heads, int64_t kv_heads,
                 int64_t feed_forward) {
  SynthShape shape;
  shape.name = std::move(name);
  shape.layers = layers;
  shape.width = width;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_width = 64;
  shape.feed_forward = feed_forward;
  shape.context_tokens = 8192;
  shape.vocabulary = "gpt-2";
  return shape;
}

// What of the vocabulary the weights and the header depend on.
struct VocabularyPlan {
  int64_t tokens = 0;
  std::string chat_template;
  std::optional<int64_t> end_token;
  std::vector<float> row_scales;  // [tokens] of embedding and output rows
};

void CheckShape(const SynthShape& shape) {
  const auto require = [&](bool holds, std::string_view what) {
    if (!holds) Usage(fmt::format("shape '{}': {}", shape.name, what));
  };
  constexpr int64_t kMost = int64_t{1} << 20;
  require(shape.architecture == "llama" || shape.architecture == "qwen3",
          "the architecture is llama or qwen3");
  require(shape.layers >= 1 && shape.layers <= 512, "1 to 512 layers");
  require(shape.width >= 32 && shape.width <= kMost && shape.width % 32 == 0,
          "width is a multiple of 32");
  require(shape.feed_forward >= 32 && shape.feed_forward <= kMost && shape.feed_forward % 32 == 0,
          "the feed-forward width is a multiple of 32");
  require(shape.kv_heads >= 1 && shape.heads >= 1 && shape.heads <= 1024 &&
              shape.heads % shape.kv_heads == 0,
          "key-value heads divide heads, at most 1,024 heads");
  require(shape.head_width >= 2 && shape.head_width <= 1024 && shape.head_width % 2 == 0,
          "the head width is even, at most 1,024");
  require(shape.heads * shape.head_width % 32 == 0, "heads x head width is a multiple of 32");
  require(shape.context_tokens >= 1 && shape.context_tokens <= (int64_t{1} << 30),
          "the context is 1 to 2^30 tokens");
  require(shape.rope_frequency_base > 1 && shape.norm_epsilon > 0,
          "rope base and norm epsilon are positive");
}

// Types of a file: the matrices, and the two that llama.cpp's quantizer keeps wider in a Q4_K file.
struct FileTypes {
  ggml_type matrix = GGML_TYPE_F16;
  ggml_type output = GGML_TYPE_F16;
  uint32_t file_type = LLAMA_FTYPE_MOSTLY_F16;
};

FileTypes TypesByName(const std::string& name, const SynthShape& shape) {
  if (name == "F16") return {};
  if (name == "Q8_0") return {GGML_TYPE_Q8_0, GGML_TYPE_Q8_0, LLAMA_FTYPE_MOSTLY_Q8_0};
  if (name != "Q4_K") {
    Usage(fmt::format("weight type '{}': F16, Q8_0 or Q4_K{}", name,
                      DidYouMean(name, {"F16", "Q8_0", "Q4_K"})));
  }
  constexpr int64_t kBlock = 256;
  for (const int64_t row : {shape.width, shape.feed_forward, shape.heads * shape.head_width}) {
    if (row % kBlock != 0) {
      Usage(fmt::format(
          "shape '{}' has rows of {} elements; Q4_K packs 256 at a time, take Q8_0 or F16",
          shape.name, row));
    }
  }
  return {GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, LLAMA_FTYPE_MOSTLY_Q4_K_S};
}

std::string ChooseTemplate(const GgufFile& vocabulary, const std::vector<std::string_view>& tokens,
                           const std::string& wanted) {
  if (!wanted.empty()) return wanted;
  if (const auto own = vocabulary.Text("tokenizer.chat_template")) return std::string(*own);
  const auto has = [&](std::string_view text) {
    return std::find(tokens.begin(), tokens.end(), text) != tokens.end();
  };
  if (has("<|start_header_id|>") && has("<|eot_id|>")) return std::string(kHeaderTemplate);
  if (has("<|im_start|>") && has("<|im_end|>")) return std::string(kChatMlTemplate);
  return std::string(kPlainTemplate);
}

std::optional<int64_t> ChooseEndToken(const GgufFile& vocabulary,
                                      const std::vector<std::string_view>& tokens,
                                      std::string_view chat_template) {
  for (const std::string_view end : kTurnEnds) {
    if (chat_template.find(end) == std::string_view::npos) continue;
    const auto found = std::find(tokens.begin(), tokens.end(), end);
    if (found != tokens.end()) return found - tokens.begin();
  }
  const std::optional<int64_t> own = vocabulary.Integer("tokenizer.ggml.eos_token_id");
  if (own && (*own < 0 || *own >= std::ssize(tokens))) {
    throw Error(ErrorCode::kModel, vocabulary.path() + ": the end token is not in the vocabulary");
  }
  return own;
}

VocabularyPlan PlanVocabulary(const GgufFile& vocabulary, const SynthOptions& options,
                              double end_row_scale) {
  const GgufValue* list = vocabulary.Find("tokenizer.ggml.tokens");
  const std::vector<std::string_view> tokens =
      list == nullptr ? std::vector<std::string_view>() : GgufStrings(*list);
  if (tokens.size() < kLeastVocabulary) {
    throw Error(ErrorCode::kModel, fmt::format("{}: {} tokens, at least {} are needed",
                                               vocabulary.path(), tokens.size(), kLeastVocabulary));
  }
  VocabularyPlan plan;
  plan.tokens = std::ssize(tokens);
  plan.chat_template = ChooseTemplate(vocabulary, tokens, options.chat_template);
  plan.end_token = ChooseEndToken(vocabulary, tokens, plan.chat_template);
  plan.row_scales.assign(tokens.size(), 1.0F);
  if (const GgufValue* types = vocabulary.Find("tokenizer.ggml.token_type")) {
    for (size_t i = 0; i < tokens.size(); ++i) {
      const int64_t type = GgufInteger(*types, i).value_or(kNormalToken);
      if (type != kNormalToken && type != kByteToken) plan.row_scales[i] = kQuietRowScale;
    }
  }
  if (plan.end_token) {
    plan.row_scales[static_cast<size_t>(*plan.end_token)] =
        end_row_scale > 0 ? static_cast<float>(end_row_scale) : kQuietRowScale;
  } else if (end_row_scale > 0) {
    Usage(
        fmt::format("{}: the vocabulary has no end token, so answers cannot be given a mean length",
                    vocabulary.path()));
  }
  return plan;
}

int64_t TokenCount(const GgufFile& vocabulary) {
  const GgufValue* list = vocabulary.Find("tokenizer.ggml.tokens");
  return list == nullptr ? 0 : static_cast<int64_t>(list->count);
}

// The norm before the output: equal in size, of random sign. Tied output rows would otherwise
// favour the token that was just read, whose embedding is still in the residual stream; the signs
// make that part of its logit cancel.
std::vector<float> OutputNorm(const SynthShape& shape, double logit_deviation, uint64_t seed) {
  const float size =
      static_cast<float>(logit_deviation / std::sqrt(static_cast<double>(shape.width)));
  const uint64_t key =
      SignatureBuilder().Add(static_cast<int64_t>(seed)).Add("output_norm").Finish().low;
  std::vector<float> values;
  for (int64_t i = 0; i < shape.width; ++i) {
    values.push_back(UniformDraw(key, static_cast<uint64_t>(i)) < 0.5 ? size : -size);
  }
  return values;
}

// All tensors, in the order of the file. Inputs of every matrix have deviation 1 thanks to the
// norms, so each matrix's deviation follows from what its output is meant to have.
class TensorPlan {
 public:
  TensorPlan(const SynthShape& shape, const FileTypes& types) : shape_(shape), types_(types) {}

  std::vector<WeightTensor> Build(const VocabularyPlan& vocabulary, double logit_deviation,
                                  uint64_t seed) {
    const bool tied = shape_.tied_embeddings;
    AddMatrix("token_embd.weight", shape_.width, vocabulary.tokens, 1,
              tied ? types_.output : types_.matrix);
    tensors_.back().row_scales = vocabulary.row_scales;
    AddVector("output_norm.weight", OutputNorm(shape_, logit_deviation, seed));
    if (!tied) {
      AddMatrix("output.weight", shape_.width, vocabulary.tokens, 1, types_.output);
      tensors_.back().row_scales = vocabulary.row_scales;
    }
    for (int64_t layer = 0; layer < shape_.layers; ++layer) AddLayer(layer);
    return std::move(tensors_);
  }

 private:
  void AddLayer(int64_t layer) {
    const auto name = [layer](const char* part) {
      return fmt::format("blk.{}.{}.weight", layer, part);
    };
    const int64_t query = shape_.heads * shape_.head_width;
    const int64_t key_value = shape_.kv_heads * shape_.head_width;
    const double by_width = 1 / std::sqrt(static_cast<double>(shape_.width));
    const bool normed_scores = shape_.architecture == "qwen3";
    // A score is the product of two vectors over sqrt(head width): its deviation is the product of
    // theirs.
    const double score = std::sqrt(kScoreDeviation);
    const double by_depth = 1 / std::sqrt(static_cast<double>(shape_.layers));
    const double projected = normed_scores ? 1.0 : score;
    AddVector(name("attn_norm"), Constant(shape_.width, 1));
    AddMatrix(name("attn_q"), shape_.width, query, projected * by_width, types_.matrix);
    AddMatrix(name("attn_k"), shape_.width, key_value, projected * by_width, types_.matrix);
    AddMatrix(name("attn_v"), shape_.width, key_value, by_width, types_.matrix);
    if (normed_scores) {
      AddVector(name("attn_q_norm"), Constant(shape_.head_width, score));
      AddVector(name("attn_k_norm"), Constant(shape_.head_width, score));
    }
    AddMatrix(
        name("attn_output"), query, shape_.width,
        kAttentionShare * by_depth / std::sqrt(kAveragedVariance * static_cast<double>(query)),
        types_.matrix);
    AddVector(name("ffn_norm"), Constant(shape_.width, 1));
    AddMatrix(name("ffn_gate"), shape_.width, shape_.feed_forward, by_width, types_.matrix);
    AddMatrix(name("ffn_up"), shape_.width, shape_.feed_forward, by_width, types_.matrix);
    AddMatrix(name("ffn_down"), shape_.feed_forward, shape_.width,
              kFeedForwardShare * by_depth /
                  std::sqrt(kGatedVariance * static_cast<double>(shape_.feed_forward)),
              types_.matrix);
  }

  static std::vector<float> Constant(int64_t count, double value) {
    return std::vector<float>(static_cast<size_t>(count), static_cast<float>(value));
  }

  void AddMatrix(std::string name, int64_t columns, int64_t rows, double deviation,
                 ggml_type type) {
    WeightTensor tensor;
    tensor.name = std::move(name);
    tensor.columns = columns;
    tensor.rows = rows;
    tensor.type = type;
    tensor.deviation = deviation;
    tensors_.push_back(std::move(tensor));
  }

  void AddVector(std::string name, std::vector<float> values) {
    WeightTensor tensor;
    tensor.name = std::move(name);
    tensor.columns = std::ssize(values);
    tensor.type = GGML_TYPE_F32;
    tensor.values = std::move(values);
    tensors_.push_back(std::move(tensor));
  }

  const SynthShape& shape_;
  const FileTypes& types_;
  std::vector<WeightTensor> tensors_;
};

void AddShapeKeys(GgufHeader& header, const SynthShape& shape, int64_t tokens) {
  const auto number = [&](const char* key, int64_t value) {
    header.AddUint32(shape.architecture + "." + key, static_cast<uint32_t>(value));
  };
  number("vocab_size", tokens);
  number("context_length", shape.context_tokens);
  number("embedding_length", shape.width);
  number("block_count", shape.layers);
  number("feed_forward_length", shape.feed_forward);
  number("attention.head_count", shape.heads);
  number("attention.head_count_kv", shape.kv_heads);
  number("attention.key_length", shape.head_width);
  number("attention.value_length", shape.head_width);
  number("rope.dimension_count", shape.head_width);
  header.AddFloat32(shape.architecture + ".rope.freq_base",
                    static_cast<float>(shape.rope_frequency_base));
  header.AddFloat32(shape.architecture + ".attention.layer_norm_rms_epsilon",
                    static_cast<float>(shape.norm_epsilon));
}

// Returns the header and sets the tensors' offsets.
std::string BuildHeader(const SynthOptions& options, const FileTypes& types,
                        const GgufFile& vocabulary, const VocabularyPlan& plan,
                        std::vector<WeightTensor>& tensors, uint64_t& file_bytes) {
  GgufHeader header;
  header.AddText("general.architecture", options.shape.architecture);
  header.AddText("general.type", "model");
  header.AddText("general.name", "halo-synth-" + options.shape.name);
  header.AddUint32("general.file_type", types.file_type);
  header.AddUint32("general.quantization_version", GGML_QNT_VERSION);
  header.AddText("halo.synth.seed", std::to_string(options.seed));
  header.AddText("halo.synth.mean_output_tokens", fmt::format("{:g}", options.mean_output_tokens));
  AddShapeKeys(header, options.shape, plan.tokens);
  constexpr std::string_view kEndKey = "tokenizer.ggml.eos_token_id";
  constexpr std::string_view kTemplateKey = "tokenizer.chat_template";
  for (const GgufValue& value : vocabulary.values()) {
    if (!value.key.starts_with("tokenizer.") || value.key == kEndKey ||
        value.key.starts_with(kTemplateKey))
      continue;
    header.AddCopy(value.key, value);
  }
  if (plan.end_token) header.AddUint32(kEndKey, static_cast<uint32_t>(*plan.end_token));
  header.AddText(kTemplateKey, plan.chat_template);
  for (WeightTensor& tensor : tensors) {
    const int64_t dims[] = {tensor.columns, tensor.rows};
    tensor.offset = header.AddTensor(tensor.name, std::span(dims, tensor.rows == 0 ? 1 : 2),
                                     tensor.type, WeightBytes(tensor));
  }
  std::string bytes = header.Finish();
  for (WeightTensor& tensor : tensors) tensor.offset += bytes.size();
  file_bytes = bytes.size() + header.data_bytes();
  return bytes;
}

uint64_t ParameterCount(const std::vector<WeightTensor>& tensors) {
  uint64_t count = 0;
  for (const WeightTensor& tensor : tensors) {
    count += static_cast<uint64_t>(tensor.columns * std::max<int64_t>(tensor.rows, 1));
  }
  return count;
}

// Measures the finished file and writes the output rows again with the end token's row corrected.
void CorrectEndToken(const SynthOptions& options, const VocabularyPlan& plan, const PartFile& file,
                     std::vector<WeightTensor> tensors) {
  const EndLogits measured = MeasureEndLogits(file.part(), *plan.end_token, plan.row_scales);
  const double factor = CorrectEndRow(measured, options.mean_output_tokens);
  std::erase_if(tensors, [](const WeightTensor& tensor) { return tensor.row_scales.empty(); });
  for (WeightTensor& tensor : tensors) {
    tensor.row_scales[static_cast<size_t>(*plan.end_token)] *= static_cast<float>(factor);
  }
  WriteWeights(file.descriptor(), options.output, tensors, options.seed);
}

}  // namespace

std::vector<SynthShape> NamedShapes() {
  return {Small("tiny", 4, 256, 4, 2, 768),
          Small("135m", 30, 576, 9, 3, 1536),
          Llama3("llama-3.2-1b", 16, 2048, 32, 64, 8192, true),
          Llama3("llama-3.2-3b", 28, 3072, 24, 128, 8192, true),
          Llama3("llama-3.1-8b", 32, 4096, 32, 128, 14336, false),
          Qwen3("qwen3-0.6b", 28, 1024, 16, 3072, true),
          Qwen3("qwen3-14b", 40, 5120, 40, 17408, false)};
}

SynthShape ShapeByName(const std::string& name) {
  std::vector<std::string> names;
  for (SynthShape& shape : NamedShapes()) {
    if (shape.name == name) return shape;
    names.push_back(shape.name);
  }
  Usage(fmt::format("no shape '{}'{}; there are {}", name, DidYouMean(name, names),
                    fmt::join(names, ", ")));
}

std::string VocabularyFile(const std::string& name, const std::string& vocabulary_folder) {
  namespace fs = std::filesystem;
  constexpr std::string_view kPrefix = "ggml-vocab-";
  std::error_code ignored;
  if (fs::is_regular_file(name, ignored)) return name;
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(vocabulary_folder, ignored)) {
    const std::string stem = entry.path().stem().string();
    if (entry.path().extension() != ".gguf" || !stem.starts_with(kPrefix)) continue;
    names.push_back(stem.substr(kPrefix.size()));
    if (names.back() == name) return entry.path().string();
  }
  std::sort(names.begin(), names.end());
  Usage(fmt::format("no vocabulary '{}'{}: neither a file nor one of those in '{}': {}", name,
                    DidYouMean(name, names), vocabulary_folder,
                    names.empty() ? "(none)" : fmt::format("{}", fmt::join(names, ", "))));
}

void SynthesizeModel(const SynthOptions& options) {
  CheckShape(options.shape);
  const FileTypes types = TypesByName(options.weight_type, options.shape);
  if (options.mean_output_tokens != 0 &&
      !(options.mean_output_tokens >= kLeastMeanOutput && options.mean_output_tokens <= 1e6)) {
    Usage(fmt::format("a mean output of {:g} tokens: 0, or {:g} to 1,000,000",
                      options.mean_output_tokens, kLeastMeanOutput));
  }
  const GgufFile vocabulary = GgufFile::Open(options.vocabulary_file);
  const LogitScale scale = ComputeLogitScale(
      std::max<int64_t>(TokenCount(vocabulary), kLeastVocabulary), options.mean_output_tokens);
  const VocabularyPlan plan = PlanVocabulary(vocabulary, options, scale.end_row_scale);
  std::vector<WeightTensor> tensors =
      TensorPlan(options.shape, types).Build(plan, scale.deviation, options.seed);
  uint64_t file_bytes = 0;
  const std::string header = BuildHeader(options, types, vocabulary, plan, tensors, file_bytes);
  PartFile file(options.output);
  file.WriteHeader(header, file_bytes);
  WriteWeights(file.descriptor(), options.output, tensors, options.seed);
  if (options.mean_output_tokens > 0 && ParameterCount(tensors) <= kMostMeasuredParameters) {
    CorrectEndToken(options, plan, file, std::move(tensors));
  }
  file.Keep();
}

}  // namespace halo
