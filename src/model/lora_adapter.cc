#include "model/lora_adapter.h"

#include <fmt/format.h>
#include <ggml.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "model/part_file.h"
#include "model/synth_weights.h"

namespace halo {
namespace {

constexpr std::string_view kFirst = ".lora_a";
constexpr std::string_view kSecond = ".lora_b";
constexpr int64_t kMostRank = 4096;
constexpr int64_t kMostSynthRank = 512;

/// The two factors of one change, as far as they were found.
struct Factors {
  const GgufTensor* a = nullptr;
  const GgufTensor* b = nullptr;
};

class LoraChecker {
 public:
  LoraChecker(const GgufFile& adapter, const GgufFile& model) : adapter_(adapter), model_(model) {}

  LoraSummary Check() {
    ReadKeys();
    std::map<std::string_view, Factors> changes;
    for (const GgufTensor& tensor : adapter_.tensors()) {
      const bool first = tensor.name.ends_with(kFirst);
      if (!first && !tensor.name.ends_with(kSecond)) {
        Refuse(
            fmt::format("tensor '{}' is no factor of a matrix (.lora_a or .lora_b): only "
                        "changes of matrices can be applied",
                        tensor.name));
      }
      const std::string_view matrix = tensor.name.substr(0, tensor.name.size() - kFirst.size());
      Factors& factors = changes[matrix];
      (first ? factors.a : factors.b) = &tensor;
    }
    if (changes.empty()) Refuse("it has no tensors");
    for (const auto& [matrix, factors] : changes) CheckFactors(std::string(matrix), factors);
    summary_.matrices = static_cast<int64_t>(changes.size());
    return summary_;
  }

 private:
  [[noreturn]] void Refuse(const std::string& what) const {
    throw Error(ErrorCode::kModel, fmt::format("{}: {}", adapter_.path(), what));
  }

  void RequireText(std::string_view key, std::string_view expected, const std::string& hint) const {
    const std::optional<std::string_view> text = adapter_.Text(key);
    if (text == expected) return;
    Refuse(fmt::format("{} is {}, expected '{}': {}", key,
                       text ? fmt::format("'{}'", *text) : "missing or no text", expected, hint));
  }

  void ReadKeys() {
    RequireText("general.type", "adapter", "this is no adapter");
    RequireText("adapter.type", "lora", "this is no LoRA adapter");
    summary_.architecture = model_.Text("general.architecture").value_or("?");
    RequireText("general.architecture", summary_.architecture,
                fmt::format("it was made for another model than {}", model_.path()));
    if (adapter_.Find("adapter.alora.invocation_tokens") != nullptr)
      Refuse("it is an activated LoRA (aLoRA), which cannot be applied here");
    if (const GgufValue* alpha = adapter_.Find("adapter.lora.alpha")) {
      const auto value = alpha->is_array ? std::nullopt : GgufFloat(*alpha, 0);
      if (alpha->type != GgufType::kFloat32 || !value || !std::isfinite(*value))
        adapter_.Refuse(alpha->offset, "adapter.lora.alpha: expected a finite number of 32 bits");
      summary_.alpha = *value;
    }
  }

  void CheckFactors(const std::string& matrix, const Factors& factors) {
    if (factors.a == nullptr || factors.b == nullptr) {
      Refuse(fmt::format("'{}' has one factor only, {} is missing", matrix,
                         factors.a == nullptr ? kFirst : kSecond));
    }
    const GgufTensor* target = model_.FindTensor(matrix);
    if (target == nullptr) {
      Refuse(fmt::format("it changes '{}', which {} does not have: it was made for another model",
                         matrix, model_.path()));
    }
    if (matrix == "token_embd.weight") Refuse("it changes token embeddings, which cannot be done");
    constexpr int32_t kMatrix = 2;
    if (target->n_dims != kMatrix || !matrix.ends_with(".weight"))
      Refuse(fmt::format("it changes '{}', which is no matrix of one layer", matrix));
    for (const GgufTensor* factor : {factors.a, factors.b}) {
      // What converters of adapters write; llama.cpp aborts on some of the other types.
      constexpr std::array kTypes = {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q8_0};
      const auto type = static_cast<ggml_type>(factor->type);
      if (std::find(kTypes.begin(), kTypes.end(), type) == kTypes.end()) {
        Refuse(fmt::format("'{}' is of type {}: F32, F16, BF16 and Q8_0 can be applied",
                           factor->name, ggml_type_name(type)));
      }
    }
    const int64_t rank = factors.a->dims[1];
    const bool fits = factors.a->n_dims <= kMatrix && factors.b->n_dims <= kMatrix &&
                      factors.a->dims[0] == target->dims[0] &&
                      factors.b->dims[1] == target->dims[1] && factors.b->dims[0] == rank;
    if (!fits || rank < 1 || rank > kMostRank) {
      Refuse(
          fmt::format("the factors of '{}' are {} x {} and {} x {}, for a matrix of {} x {}: it "
                      "was made for another model",
                      matrix, factors.a->dims[0], rank, factors.b->dims[0], factors.b->dims[1],
                      target->dims[0], target->dims[1]));
    }
    if (summary_.weight_type.empty()) {
      summary_.weight_type = ggml_type_name(static_cast<ggml_type>(factors.a->type));
      std::transform(summary_.weight_type.begin(), summary_.weight_type.end(),
                     summary_.weight_type.begin(),
                     [](char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c; });
    }
    summary_.rank = std::max(summary_.rank, rank);
  }

  const GgufFile& adapter_;
  const GgufFile& model_;
  LoraSummary summary_;
};

/// Both factors of each matrix inside a layer. Inputs of matrices have a deviation of 1 thanks to
/// the norms, so A x has too, and B A x half of it.
std::vector<WeightTensor> FactorsFor(const GgufFile& model, int64_t rank, int32_t type) {
  std::vector<WeightTensor> tensors;
  for (const GgufTensor& matrix : model.tensors()) {
    constexpr int32_t kMatrix = 2;
    if (matrix.n_dims != kMatrix || !matrix.name.starts_with("blk.")) continue;
    const double columns = static_cast<double>(matrix.dims[0]);
    constexpr double kShare = 0.5;
    WeightTensor a;
    a.name = fmt::format("{}{}", matrix.name, kFirst);
    a.columns = matrix.dims[0];
    a.rows = rank;
    a.type = type;
    a.deviation = 1.0 / std::sqrt(columns);
    WeightTensor b;
    b.name = fmt::format("{}{}", matrix.name, kSecond);
    b.columns = rank;
    b.rows = matrix.dims[1];
    b.type = type;
    b.deviation = kShare / std::sqrt(static_cast<double>(rank));
    tensors.push_back(std::move(a));
    tensors.push_back(std::move(b));
  }
  return tensors;
}

}  // namespace

LoraSummary CheckLoraAdapter(const std::string& path, const std::string& model_path) {
  const GgufFile adapter = GgufFile::Open(path);
  const GgufFile model = GgufFile::Open(model_path);
  return LoraChecker(adapter, model).Check();
}

void SynthesizeAdapter(const SynthAdapterOptions& options) {
  if (options.rank < 1 || options.rank > kMostSynthRank) {
    throw Error(ErrorCode::kUsage,
                fmt::format("a rank of {}: expected 1 to {}", options.rank, kMostSynthRank));
  }
  if (options.weight_type != "F16" && options.weight_type != "F32") {
    throw Error(ErrorCode::kUsage,
                fmt::format("weight type '{}': an adapter is F16 or F32", options.weight_type));
  }
  const GgufFile model = GgufFile::Open(options.model_path);
  std::vector<WeightTensor> tensors =
      FactorsFor(model, options.rank, options.weight_type == "F16" ? GGML_TYPE_F16 : GGML_TYPE_F32);
  if (tensors.empty())
    throw Error(ErrorCode::kModel, options.model_path + ": it has no matrices to adapt");
  GgufHeader header;
  header.AddText("general.architecture", model.Text("general.architecture").value_or(""));
  header.AddText("general.type", "adapter");
  header.AddText("adapter.type", "lora");
  header.AddFloat32("adapter.lora.alpha", static_cast<float>(options.rank));
  header.AddText("halo.synth.seed", std::to_string(options.seed));
  for (WeightTensor& tensor : tensors) {
    const int64_t dims[] = {tensor.columns, tensor.rows};
    tensor.offset = header.AddTensor(tensor.name, dims, tensor.type, WeightBytes(tensor));
  }
  const std::string bytes = header.Finish();
  for (WeightTensor& tensor : tensors) tensor.offset += bytes.size();
  PartFile file(options.output);
  file.WriteHeader(bytes, bytes.size() + header.data_bytes());
  WriteWeights(file.descriptor(), options.output, tensors, options.seed);
  file.Keep();
}

}  // namespace halo
