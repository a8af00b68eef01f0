#include "model/gguf_check.h"

#include <ggml.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include <fmt/format.h>

#include "base/text.h"
#include "model/gguf_reader.h"

namespace halo {
namespace {

// Far above any model that exists, far below what would overflow or exhaust memory in llama.cpp's arithmetic.
constexpr int64_t kMostLayers = 512;  // llama.cpp has arrays of this size
constexpr int64_t kMostWidth = 1 << 20;
constexpr int64_t kMostHeads = 1 << 14;
constexpr int64_t kMostContext = int64_t{1} << 28;

/// The checks of one file: what is read, and what llama.cpp would divide by, index with or allocate from.
class Checker {
 public:
  explicit Checker(const std::string& path) : file_(GgufFile::Open(path)) {}

  GgufSummary Check() {
    summary_.path = file_.path();
    summary_.file_bytes = file_.file_bytes();
    summary_.has_weights = !file_.tensors().empty();
    ReadNames();
    ReadScalars();
    ReadShape();
    ReadVocabulary();
    if (summary_.has_weights) ReadTensors();
    return std::move(summary_);
  }

 private:
  std::string Key(const char* name) const { return summary_.architecture + "." + name; }

  [[noreturn]] void RefuseKey(const std::string& key, const std::string& what) const {
    const GgufValue* value = file_.Find(key);
    file_.Refuse(value == nullptr ? 0 : value->offset, key + ": " + what);
  }

  void ReadNames() {
    const auto architecture = file_.Text("general.architecture");
    if (!architecture || architecture->empty()) file_.Refuse(0, "general.architecture is missing: not a model");
    summary_.architecture = std::string(*architecture);
    summary_.name = std::string(file_.Text("general.name").value_or(""));
    summary_.chat_template = std::string(file_.Text("tokenizer.chat_template").value_or(""));
    if (FindInvalidUtf8(summary_.chat_template) != std::string::npos) {
      RefuseKey("tokenizer.chat_template", "not UTF-8");
    }
    if (file_.Integer("split.count").value_or(1) > 1) {
      RefuseKey("split.count", "a model in several files; join it first (llama-gguf-split --merge)");
    }
  }

  void ReadScalars() {
    constexpr size_t kLongestText = 120;
    for (const GgufValue& value : file_.values()) {
      if (value.is_array) continue;
      std::string text;
      if (value.type == GgufType::kString) {
        text = ReplaceInvalidUtf8(std::string(GgufStrings(value).at(0)).substr(0, kLongestText));
        text.resize(CompleteUtf8Length(text));
      } else if (const auto integer = GgufInteger(value, 0)) {
        text = std::to_string(*integer);
      } else if (const auto number = GgufFloat(value, 0)) {
        text = fmt::format("{:g}", *number);
      } else if (value.type == GgufType::kBool && !value.data.empty()) {
        text = value.data[0] != 0 ? "true" : "false";
      }
      summary_.scalars.emplace(ReplaceInvalidUtf8(value.key), std::move(text));
    }
  }

  /// A number that must be there in a model with weights; an array's elements must each be in range.
  int64_t Positive(const char* name, int64_t most, bool required) const {
    const std::string key = Key(name);
    const GgufValue* value = file_.Find(key);
    if (value == nullptr) {
      if (required && summary_.has_weights) file_.Refuse(0, key + " is missing");
      return 0;
    }
    int64_t largest = 0;
    for (uint64_t i = 0; i < value->count; ++i) {
      const auto number = GgufInteger(*value, i);
      if (!number) RefuseKey(key, "expected a whole number");
      // Single layers without attention have zero heads in some architectures; a scalar must be positive.
      const bool in_range = *number >= (value->is_array ? 0 : 1) && *number <= most;
      if (!in_range) RefuseKey(key, fmt::format("{} is not between 1 and {}", *number, most));
      largest = std::max(largest, *number);
    }
    if (value->is_array && value->count > static_cast<uint64_t>(kMostLayers)) RefuseKey(key, "too many elements");
    if (largest == 0) RefuseKey(key, "is zero");
    return largest;
  }

  void CheckArrayLength(const char* name) const {
    const GgufValue* value = file_.Find(Key(name));
    if (value != nullptr && value->is_array && value->count < static_cast<uint64_t>(summary_.layers)) {
      RefuseKey(Key(name), fmt::format("has {} elements for {} layers", value->count, summary_.layers));
    }
  }

  void ReadShape() {
    summary_.layers = Positive("block_count", kMostLayers, true);
    summary_.width = Positive("embedding_length", kMostWidth, true);
    summary_.heads = Positive("attention.head_count", kMostHeads, true);
    summary_.kv_heads = Positive("attention.head_count_kv", kMostHeads, false);
    if (summary_.kv_heads == 0) summary_.kv_heads = summary_.heads;
    summary_.feed_forward = Positive("feed_forward_length", kMostWidth * 4, false);
    summary_.context_tokens = Positive("context_length", kMostContext, true);
    summary_.head_width = Positive("attention.key_length", kMostWidth, false);
    Positive("attention.value_length", kMostWidth, false);
    Positive("rope.dimension_count", kMostWidth, false);
    CheckArrayLength("attention.head_count");
    CheckArrayLength("attention.head_count_kv");
    CheckArrayLength("feed_forward_length");
    if (summary_.heads == 0) return;
    if (summary_.heads % summary_.kv_heads != 0) {
      RefuseKey(Key("attention.head_count_kv"),
                fmt::format("{} KV heads do not divide {} heads", summary_.kv_heads, summary_.heads));
    }
    if (summary_.head_width == 0) {
      if (summary_.width % summary_.heads != 0) {
        RefuseKey(Key("embedding_length"), fmt::format("{} is not a multiple of {} heads", summary_.width, summary_.heads));
      }
      summary_.head_width = summary_.width / summary_.heads;
    }
    const int64_t rope = file_.Integer(Key("rope.dimension_count")).value_or(0);
    if (rope > summary_.head_width || rope % 2 != 0) {
      RefuseKey(Key("rope.dimension_count"), fmt::format("{} for heads of {}", rope, summary_.head_width));
    }
    for (const char* name : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon", "rope.freq_base"}) {
      const GgufValue* value = file_.Find(Key(name));
      if (value == nullptr) continue;
      const auto number = GgufFloat(*value, 0);
      if (!number || !(*number >= 0.0) || *number > 1e12) RefuseKey(Key(name), "expected a number that is not negative");
    }
  }

  void ReadVocabulary() {
    const GgufValue* tokens = file_.Find("tokenizer.ggml.tokens");
    if (tokens == nullptr) {
      if (file_.Text("tokenizer.ggml.model").value_or("") == "none" || !summary_.has_weights) return;
      file_.Refuse(0, "tokenizer.ggml.tokens is missing: a model without a vocabulary cannot run here");
    }
    if (!tokens->is_array || tokens->type != GgufType::kString || tokens->count == 0) {
      RefuseKey("tokenizer.ggml.tokens", "expected a list of texts");
    }
    summary_.vocabulary = static_cast<int64_t>(tokens->count);
    CheckParallel("tokenizer.ggml.scores", GgufType::kFloat32);
    CheckParallel("tokenizer.ggml.token_type", GgufType::kInt32);
    if (const GgufValue* merges = file_.Find("tokenizer.ggml.merges");
        merges != nullptr && (!merges->is_array || merges->type != GgufType::kString)) {
      RefuseKey("tokenizer.ggml.merges", "expected a list of texts");
    }
    for (const GgufValue& value : file_.values()) {
      const bool is_id = value.key.starts_with("tokenizer.ggml.") && value.key.ends_with("_token_id");
      if (!is_id || value.is_array) continue;
      const auto id = GgufInteger(value, 0);
      // The largest unsigned number means "none" in files made by older converters.
      constexpr int64_t kNone = 0xFFFFFFFFLL;
      if (!id || (*id != kNone && (*id < -1 || *id >= summary_.vocabulary))) {
        RefuseKey(std::string(value.key), fmt::format("not an id of a vocabulary of {}", summary_.vocabulary));
      }
    }
  }

  void CheckParallel(const char* key, GgufType type) const {
    const GgufValue* value = file_.Find(key);
    if (value == nullptr) return;
    if (!value->is_array || value->type != type || value->count != static_cast<uint64_t>(summary_.vocabulary)) {
      RefuseKey(key, fmt::format("expected {} elements, one a token", summary_.vocabulary));
    }
  }

  void ReadTensors() {
    std::map<int32_t, uint64_t> bytes_by_type;
    for (const GgufTensor& tensor : file_.tensors()) {
      uint64_t elements = 1;
      for (const int64_t dim : tensor.dims) elements *= static_cast<uint64_t>(dim);
      summary_.parameters += elements;
      if (tensor.n_dims > 1) bytes_by_type[tensor.type] += tensor.bytes;
    }
    if (!bytes_by_type.empty()) {
      const auto most = std::max_element(bytes_by_type.begin(), bytes_by_type.end(),
                                         [](const auto& a, const auto& b) { return a.second < b.second; });
      std::string name = ggml_type_name(static_cast<ggml_type>(most->first));
      // llama.cpp writes "q4_K"; people and file names write "Q4_K".
      std::transform(name.begin(), name.end(), name.begin(), [](char c) { return c >= 'a' && c <= 'z' ? c - 32 : c; });
      summary_.weight_type = name;
    }
    const GgufTensor* embedding = file_.FindTensor("token_embd.weight");
    if (embedding == nullptr) file_.Refuse(0, "tensor token_embd.weight is missing");
    if (embedding->dims[0] != summary_.width || embedding->dims[1] != summary_.vocabulary) {
      file_.Refuse(embedding->offset,
                   fmt::format("token_embd.weight is {} x {}, the keys say width {} and {} tokens", embedding->dims[0],
                               embedding->dims[1], summary_.width, summary_.vocabulary));
    }
  }

  GgufFile file_;
  GgufSummary summary_;
};

}  // namespace

GgufSummary CheckGguf(const std::string& path) { return Checker(path).Check(); }

std::string DescribeModel(const GgufSummary& summary) {
  std::string text = fmt::format("{}\n  name          {}\n  architecture  {}\n  weights       {}\n  parameters    {:.1f} M\n",
                                 summary.path, summary.name.empty() ? "(none)" : summary.name, summary.architecture,
                                 summary.has_weights ? summary.weight_type : "(none: a vocabulary only)",
                                 static_cast<double>(summary.parameters) * 1e-6);
  text += fmt::format("  size          {:.1f} MB\n  shape         {} layers, width {}, {} heads of {}, {} KV heads, feed-forward {}\n",
                      static_cast<double>(summary.file_bytes) * 1e-6, summary.layers, summary.width, summary.heads,
                      summary.head_width, summary.kv_heads, summary.feed_forward);
  text += fmt::format("  context       {} tokens\n  vocabulary    {} tokens\n  chat template {}\n", summary.context_tokens,
                      summary.vocabulary,
                      summary.chat_template.empty() ? "(none: ChatML is used)"
                                                    : fmt::format("{} bytes", summary.chat_template.size()));
  return text;
}

}  // namespace halo
