#include "model/gguf_check.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "base/text.h"
#include "model/gguf_reader.h"
#include "model/gguf_tokenizer_check.h"

namespace halo {
namespace {

// Far above any model that exists, far below what would overflow llama.cpp's 32-bit arithmetic. The
// first two are the sizes of its arrays.
constexpr int64_t kMostLayers = 512;
constexpr int64_t kMostExperts = 1024;
constexpr int64_t kMostWidth = 1 << 20;
constexpr int64_t kMostHeads = 1 << 14;
constexpr int64_t kMostContext = int64_t{1} << 28;
constexpr int64_t kMostPooling = 4;

// Decoders whose every layer has attention over whole rotated heads; llama.cpp asserts as much when
// it builds a graph.
constexpr std::array<std::string_view, 16> kPlainDecoders = {
    "llama",    "llama4",   "qwen2",      "qwen2moe",  "qwen3",     "qwen3moe",
    "mistral3", "granite",  "granitemoe", "olmo2",     "internlm2", "smollm3",
    "seed_oss", "ernie4_5", "exaone",     "starcoder2"};

// Architectures that do not continue a text.
constexpr std::array<std::string_view, 14> kNoDecoders = {"bert",
                                                          "modern-bert",
                                                          "nomic-bert",
                                                          "nomic-bert-moe",
                                                          "neo-bert",
                                                          "jina-bert-v2",
                                                          "jina-bert-v3",
                                                          "eurobert",
                                                          "t5",
                                                          "t5encoder",
                                                          "clip",
                                                          "wavtokenizer-dec",
                                                          "gemma-embedding",
                                                          "llama-embed"};

template <typename List>
bool Contains(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string Upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  return text;
}

// Types that llama.cpp multiplies matrices of. Others exist for activations and tables, and abort
// it there.
bool IsWeightType(int32_t type) {
  switch (type) {
    case GGML_TYPE_Q8_1:
    case GGML_TYPE_Q8_K:
    case GGML_TYPE_I8:
    case GGML_TYPE_I16:
    case GGML_TYPE_I32:
    case GGML_TYPE_I64:
    case GGML_TYPE_F64:
      return false;
    default:
      return true;  // the reader knows no type that llama.cpp does not
  }
}

// The checks of one file, in the order in which later ones rely on earlier ones.
class Checker {
 public:
  explicit Checker(const GgufFile& file) : file_(file) {}

  GgufSummary Check() {
    summary_.path = file_.path();
    summary_.file_bytes = file_.file_bytes();
    summary_.has_weights = !file_.tensors().empty();
    ReadNames();
    ReadScalars();
    summary_.vocabulary = CheckTokenizer(file_);
    if (!summary_.has_weights) {
      ReadShapeOfVocabularyFile();
      return std::move(summary_);
    }
    if (summary_.vocabulary == 0) {
      file_.Refuse(
          0, "tokenizer.ggml.tokens is missing: a model without a vocabulary cannot run here");
    }
    ReadShape();
    CheckHeads();
    CheckRotation();
    CheckExperts();
    CheckNumbers();
    ReadTensors();
    CheckEmbedding();
    return std::move(summary_);
  }

 private:
  std::string Key(std::string_view name) const {
    return fmt::format("{}.{}", summary_.architecture, name);
  }

  [[noreturn]] void RefuseKey(const std::string& key, const std::string& what) const {
    const GgufValue* value = file_.Find(key);
    file_.Refuse(value == nullptr ? 0 : value->offset, key + ": " + what);
  }

  void ReadNames() {
    const auto architecture = file_.Text("general.architecture");
    if (!architecture || architecture->empty())
      file_.Refuse(0, "general.architecture is missing: not a model");
    const bool plain = std::all_of(architecture->begin(), architecture->end(), [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    });
    if (!plain) RefuseKey("general.architecture", "not a name");
    summary_.architecture = std::string(*architecture);
    if (summary_.has_weights && Contains(kNoDecoders, summary_.architecture)) {
      RefuseKey("general.architecture",
                fmt::format("a {} model does not generate text", summary_.architecture));
    }
    plain_decoder_ = Contains(kPlainDecoders, summary_.architecture);
    summary_.name = ReplaceInvalidUtf8(file_.Text("general.name").value_or(""));
    summary_.chat_template = std::string(file_.Text("tokenizer.chat_template").value_or(""));
    if (FindInvalidUtf8(summary_.chat_template) != std::string::npos) {
      RefuseKey("tokenizer.chat_template", "not UTF-8");
    }
    if (file_.Integer("split.count").value_or(1) > 1) {
      RefuseKey("split.count",
                "a model in several files; join it first (llama-gguf-split --merge)");
    }
  }

  void ReadScalars() {
    constexpr size_t kLongestText = 120;
    for (const GgufValue& value : file_.values()) {
      if (value.is_array) continue;
      std::string text;
      if (value.type == GgufType::kString) {
        const std::string_view whole = GgufStrings(value).front();
        text = std::string(whole.substr(0, kLongestText));
        text = ReplaceInvalidUtf8(text.substr(0, CompleteUtf8Length(text)));
        if (whole.size() > kLongestText) text += "...";
      } else if (value.type == GgufType::kBool) {
        text = value.data.front() != 0 ? "true" : "false";
      } else if (const auto integer = GgufInteger(value, 0)) {
        text = std::to_string(*integer);
      } else if (const auto number = GgufFloat(value, 0)) {
        text = fmt::format("{:g}", *number);
      } else {
        text = "(beyond 63 bits)";
      }
      summary_.scalars.emplace(ReplaceInvalidUtf8(value.key), std::move(text));
    }
  }

  // Nothing is computed from these; a vocabulary file is not refused for them.
  void ReadShapeOfVocabularyFile() {
    const auto number = [this](const char* name) {
      return std::max<int64_t>(0, file_.Integer(Key(name)).value_or(0));
    };
    summary_.layers = number("block_count");
    summary_.width = number("embedding_length");
    summary_.heads = number("attention.head_count");
    summary_.kv_heads = number("attention.head_count_kv");
    summary_.feed_forward = number("feed_forward_length");
    summary_.context_tokens = number("context_length");
    summary_.head_width = number("attention.key_length");
  }

  // A whole number in [least, most]; `missing` if the key is not there.
  int64_t Scalar(const char* name, int64_t least, int64_t most,
                 std::optional<int64_t> missing) const {
    const std::string key = Key(name);
    const GgufValue* value = file_.Find(key);
    if (value == nullptr) {
      if (!missing) file_.Refuse(0, key + " is missing");
      return *missing;
    }
    const auto number = file_.Integer(key);
    if (!number || *number < least || *number > most) {
      RefuseKey(key, fmt::format("a whole number from {} to {} is expected", least, most));
    }
    return *number;
  }

  // One number for each layer: a list of that length, or a scalar for all. Lists of architectures
  // with layers that lack the part may hold zeros.
  std::vector<int64_t> PerLayer(const char* name, int64_t most,
                                std::optional<int64_t> missing) const {
    const std::string key = Key(name);
    const GgufValue* value = file_.Find(key);
    const size_t layers = static_cast<size_t>(summary_.layers);
    if (value == nullptr || !value->is_array)
      return std::vector<int64_t>(layers, Scalar(name, 1, most, missing));
    if (value->count != layers) {
      RefuseKey(key, fmt::format("{} elements for {} layers", value->count, summary_.layers));
    }
    const int64_t least = plain_decoder_ ? 1 : 0;
    std::vector<int64_t> numbers;
    for (size_t i = 0; i < layers; ++i) {
      const auto number = GgufInteger(*value, i);
      if (!number || *number < least || *number > most) {
        RefuseKey(key, fmt::format("whole numbers from {} to {} are expected", least, most));
      }
      numbers.push_back(*number);
    }
    return numbers;
  }

  static int64_t Largest(const std::vector<int64_t>& numbers) {
    return *std::max_element(numbers.begin(), numbers.end());
  }

  void ReadShape() {
    summary_.layers = Scalar("block_count", 1, kMostLayers, std::nullopt);
    summary_.width = Scalar("embedding_length", 1, kMostWidth, std::nullopt);
    summary_.context_tokens = Scalar("context_length", 1, kMostContext, std::nullopt);
    // Layers of the kind that predicts further tokens count among all and must leave others.
    Scalar("nextn_predict_layers", 0, plain_decoder_ ? 0 : summary_.layers - 1, 0);
    const std::optional<int64_t> optional_feed_forward =
        plain_decoder_ ? std::nullopt : std::optional<int64_t>(0);
    summary_.feed_forward =
        Largest(PerLayer("feed_forward_length", kMostWidth * 4, optional_feed_forward));
  }

  void CheckHeads() {
    const std::vector<int64_t> heads = PerLayer("attention.head_count", kMostHeads, std::nullopt);
    std::vector<int64_t> kv_heads = heads;
    if (file_.Find(Key("attention.head_count_kv")) != nullptr) {
      kv_heads = PerLayer("attention.head_count_kv", kMostHeads, std::nullopt);
    }
    for (size_t i = 0; i < heads.size(); ++i) {
      if (kv_heads[i] != 0 && heads[i] % kv_heads[i] != 0) {
        RefuseKey(Key("attention.head_count_kv"),
                  fmt::format("{} KV heads do not divide {} heads", kv_heads[i], heads[i]));
      }
    }
    summary_.heads = Largest(heads);
    summary_.kv_heads = Largest(kv_heads);
    if (summary_.heads == 0) RefuseKey(Key("attention.head_count"), "no layer has a head");
  }

  // Widths of a head as llama.cpp derives them, from the first layer's heads.
  void CheckRotation() {
    const GgufValue* heads = file_.Find(Key("attention.head_count"));
    const int64_t first_heads = GgufInteger(*heads, 0).value_or(0);
    if (first_heads == 0) return;
    const bool given = file_.Find(Key("attention.key_length")) != nullptr;
    if (!given && plain_decoder_ && summary_.width % first_heads != 0) {
      RefuseKey(Key("embedding_length"),
                fmt::format("{} is not a multiple of {} heads", summary_.width, first_heads));
    }
    const int64_t derived = std::max<int64_t>(1, summary_.width / first_heads);
    const int64_t key_width = Scalar("attention.key_length", 1, kMostWidth, derived);
    const int64_t value_width = Scalar("attention.value_length", 1, kMostWidth, derived);
    const int64_t rotated =
        Scalar("rope.dimension_count", plain_decoder_ ? 1 : 0, kMostWidth, key_width);
    summary_.head_width = key_width;
    if (plain_decoder_ &&
        (value_width != key_width || rotated != key_width || key_width % 2 != 0)) {
      RefuseKey(Key("rope.dimension_count"),
                fmt::format("heads of {} for keys and {} for values of which {} are rotated; all "
                            "must be equal and even",
                            key_width, value_width, rotated));
    }
    const auto scaling = file_.Text(Key("rope.scaling.type"));
    constexpr std::array<std::string_view, 4> kScalings = {"none", "linear", "yarn", "longrope"};
    if (scaling && !Contains(kScalings, *scaling)) {
      RefuseKey(Key("rope.scaling.type"), fmt::format("{} are known", fmt::join(kScalings, ", ")));
    }
  }

  void CheckExperts() {
    const int64_t experts = Scalar("expert_count", 0, kMostExperts, 0);
    int64_t used = 0;
    if (const GgufValue* value = file_.Find(Key("expert_used_count"));
        value != nullptr && value->is_array) {
      used = Largest(PerLayer("expert_used_count", kMostExperts, std::nullopt));
    } else {
      used = Scalar("expert_used_count", 0, kMostExperts, 0);
    }
    const int64_t groups = Scalar("expert_group_count", 0, kMostExperts, 0);
    const int64_t groups_used = Scalar("expert_group_used_count", 0, kMostExperts, 0);
    if (used > experts || (experts > 0) != (used > 0)) {
      RefuseKey(Key("expert_used_count"), fmt::format("{} of {} experts are used", used, experts));
    }
    const bool grouped = groups > 1;
    if ((groups > 0 && groups >= experts) ||
        (grouped && (experts % groups != 0 || groups_used < 1 || groups_used >= groups))) {
      RefuseKey(Key("expert_group_count"),
                fmt::format("{} of {} groups for {} experts", groups_used, groups, experts));
    }
  }

  void CheckNumbers() {
    for (const char* name : {"attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon",
                             "rope.freq_base", "rope.scaling.factor", "rope.scale_linear"}) {
      const GgufValue* value = file_.Find(Key(name));
      if (value == nullptr) continue;
      const auto number = value->is_array ? std::nullopt : GgufFloat(*value, 0);
      // Also refuses what is not a number.
      if (!number || !(*number >= 0.0 && *number <= 1e12)) {
        RefuseKey(Key(name), "a number from 0 to 1e12 is expected");
      }
    }
    Scalar("pooling_type", 0, kMostPooling, 0);
  }

  void ReadTensors() {
    std::map<int32_t, uint64_t> bytes_by_type;
    for (const GgufTensor& tensor : file_.tensors()) {
      CheckTensorType(tensor);
      uint64_t elements = 1;
      for (const int64_t dim : tensor.dims) elements *= static_cast<uint64_t>(dim);
      summary_.parameters += elements;
      bytes_by_type[tensor.type] += tensor.bytes;
    }
    const auto most =
        std::max_element(bytes_by_type.begin(), bytes_by_type.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    // llama.cpp writes "q4_K"; people and file names write "Q4_K".
    summary_.weight_type = Upper(ggml_type_name(static_cast<ggml_type>(most->first)));
  }

  // A vector is a norm, a bias or a scale and meets 32-bit activations element by element, for
  // which llama.cpp aborts on most other types.
  void CheckTensorType(const GgufTensor& tensor) const {
    const bool is_vector = tensor.dims[1] == 1 && tensor.dims[2] == 1 && tensor.dims[3] == 1;
    const bool is_table = !plain_decoder_ && tensor.type == GGML_TYPE_I32;
    if ((is_vector ? tensor.type == GGML_TYPE_F32 : IsWeightType(tensor.type)) || is_table) return;
    file_.Refuse(tensor.offset, fmt::format("tensor '{}' is of the type {}, which a {} cannot have",
                                            ReplaceInvalidUtf8(tensor.name),
                                            ggml_type_name(static_cast<ggml_type>(tensor.type)),
                                            is_vector ? "vector" : "matrix"));
  }

  void CheckEmbedding() {
    const GgufTensor* embedding = file_.FindTensor("token_embd.weight");
    if (embedding == nullptr) file_.Refuse(0, "tensor token_embd.weight is missing");
    if (embedding->dims[0] != summary_.width || embedding->dims[1] != summary_.vocabulary) {
      file_.Refuse(
          embedding->offset,
          fmt::format("token_embd.weight is {} x {}, the keys say width {} and {} tokens",
                      embedding->dims[0], embedding->dims[1], summary_.width, summary_.vocabulary));
    }
  }

  const GgufFile& file_;
  GgufSummary summary_;
  bool plain_decoder_ = false;
};

}  // namespace

int64_t KvTokenBytes(const GgufSummary& summary) {
  constexpr int64_t kHalfPrecisionBytes = 2;
  const int64_t head = summary.head_width > 0 || summary.heads == 0 ? summary.head_width
                                                                    : summary.width / summary.heads;
  return 2 * summary.layers * summary.kv_heads * head * kHalfPrecisionBytes;
}

GgufSummary CheckGguf(const std::string& path) { return Checker(GgufFile::Open(path)).Check(); }

GgufSummary CheckGgufBytes(std::span<const uint8_t> bytes, const std::string& name) {
  return Checker(GgufFile::Parse(bytes, name)).Check();
}

std::string DescribeModel(const GgufSummary& summary) {
  constexpr double kMillion = 1e6;
  const bool weights = summary.has_weights;
  std::string text = summary.path + "\n";
  const auto line = [&](std::string_view label, const std::string& value) {
    text += fmt::format("  {:<14}{}\n", label, value);
  };
  line("name", summary.name.empty() ? "(none)" : summary.name);
  line("architecture", summary.architecture);
  line("weights", weights ? summary.weight_type : "(none: a vocabulary only)");
  if (weights)
    line("parameters", fmt::format("{:.1f} M", static_cast<double>(summary.parameters) / kMillion));
  line("size", fmt::format("{:.1f} MB", static_cast<double>(summary.file_bytes) / kMillion));
  if (weights) {
    line("shape", fmt::format("{} layers, width {}, {} heads of {}, {} KV heads, feed-forward {}",
                              summary.layers, summary.width, summary.heads, summary.head_width,
                              summary.kv_heads, summary.feed_forward));
    line("context", fmt::format("{} tokens", summary.context_tokens));
  }
  line("vocabulary", fmt::format("{} tokens", summary.vocabulary));
  line("chat template", summary.chat_template.empty()
                            ? "(none: ChatML is used)"
                            : fmt::format("{} bytes", summary.chat_template.size()));
  return text;
}

}  // namespace halo
