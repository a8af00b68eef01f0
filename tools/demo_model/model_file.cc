#include "demo_model/model_file.h"

// house-allow(include): the weights' types are ggml's, and so is the way to them
#include <ggml.h>

#include <algorithm>
#include <span>
#include <string_view>

#include "base/check.h"
#include "demo_model/chat_format.h"
#include "model/gguf_writer.h"
#include "model/part_file.h"

namespace halo::demo {
namespace {

// tokenizer.ggml.token_type
constexpr int32_t kNormalToken = 1;
constexpr int32_t kControlToken = 3;

// general.file_type
constexpr uint32_t kAllF32 = 0, kMostlyF16 = 1, kMostlyQ8_0 = 7;

/// The characters that byte-level vocabularies write bytes with (GPT-2's table): printable
/// characters of Latin-1 stand for themselves, the other bytes for characters from U+0100 on.
std::vector<std::string> ByteCharacters() {
  std::vector<std::string> characters;
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    const int code = printable ? byte : next++;
    if (code < 0x80) {
      characters.emplace_back(1, static_cast<char>(code));
    } else {
      characters.push_back(
          {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))});
    }
  }
  return characters;
}

void AddVocabulary(GgufHeader& header, const BytePairEncoding& encoding) {
  const std::vector<std::string> characters = ByteCharacters();
  const auto written = [&](TokenId token) {
    std::string text;
    for (const char byte : encoding.BytesOf(token))
      text += characters[static_cast<unsigned char>(byte)];
    return text;
  };
  std::vector<std::string> tokens, merges;
  const TokenId first_control = encoding.ControlId(0);
  for (TokenId token = 0; token < first_control; ++token) tokens.push_back(written(token));
  tokens.insert(tokens.end(), encoding.controls().begin(), encoding.controls().end());
  for (const auto& [left, right] : encoding.merges())
    merges.push_back(written(left) + " " + written(right));
  std::vector<int32_t> types(tokens.size(), kControlToken);
  std::fill_n(types.begin(), first_control, kNormalToken);

  header.AddText("tokenizer.ggml.model", "gpt2");
  header.AddText("tokenizer.ggml.pre", "gpt-2");
  header.AddTexts("tokenizer.ggml.tokens", tokens);
  header.AddInt32s("tokenizer.ggml.token_type", types);
  header.AddTexts("tokenizer.ggml.merges", merges);
  // Conversations begin with a role's token, not with one of their own.
  const auto end = static_cast<uint32_t>(encoding.ControlId(kEndOfTurn));
  header.AddUint32("tokenizer.ggml.bos_token_id", end);
  header.AddUint32("tokenizer.ggml.eos_token_id", end);
  header.AddBool("tokenizer.ggml.add_bos_token", false);
  header.AddText("tokenizer.chat_template", ChatTemplateText());
}

void AddShape(GgufHeader& header, const TransformerShape& shape) {
  const auto number = [&](std::string_view key, int64_t value) {
    header.AddUint32("llama." + std::string(key), static_cast<uint32_t>(value));
  };
  number("vocab_size", shape.vocabulary);
  number("context_length", shape.context_tokens);
  number("embedding_length", shape.width);
  number("block_count", shape.layers);
  number("feed_forward_length", shape.feed_forward);
  number("attention.head_count", shape.heads);
  number("attention.head_count_kv", shape.kv_heads);
  number("attention.key_length", shape.head_width);
  number("attention.value_length", shape.head_width);
  number("rope.dimension_count", shape.head_width);
  header.AddFloat32("llama.rope.freq_base", static_cast<float>(shape.rope_base));
  header.AddFloat32("llama.attention.layer_norm_rms_epsilon",
                    static_cast<float>(shape.norm_epsilon));
}

struct TypePair {
  ggml_type matrix = GGML_TYPE_F32;
  uint32_t file_type = kAllF32;
};

TypePair TypesOf(WeightType type) {
  if (type == WeightType::kF16) return {GGML_TYPE_F16, kMostlyF16};
  if (type == WeightType::kQ8_0) return {GGML_TYPE_Q8_0, kMostlyQ8_0};
  return {};
}

/// The tensor's data as the file has them.
std::string EncodeTensor(const ParameterTensor& tensor, const std::vector<float>& parameters,
                         ggml_type type) {
  const float* values = parameters.data() + tensor.offset;
  const int64_t rows = std::max<int64_t>(tensor.rows, 1);
  std::string bytes(ggml_row_size(type, tensor.columns) * static_cast<size_t>(rows), '\0');
  const size_t written =
      ggml_quantize_chunk(type, values, bytes.data(), 0, rows, tensor.columns, nullptr);
  HALO_CHECK(written == bytes.size(), "ggml fills the whole tensor");
  return bytes;
}

}  // namespace

void WriteModelFile(const ModelFile& model, const std::string& path) {
  const TypePair types = TypesOf(model.type);
  GgufHeader header;
  header.AddText("general.architecture", "llama");
  header.AddText("general.type", "model");
  header.AddText("general.name", "halo-demo");
  header.AddUint32("general.file_type", types.file_type);
  header.AddUint32("general.quantization_version", GGML_QNT_VERSION);
  header.AddText("halo.demo.seed", std::to_string(model.seed));
  AddShape(header, *model.shape);
  AddVocabulary(header, *model.encoding);
  std::string data;
  for (const ParameterTensor& tensor : ParameterTensors(*model.shape)) {
    const ggml_type type = tensor.rows == 0 ? GGML_TYPE_F32 : types.matrix;
    const std::string bytes = EncodeTensor(tensor, *model.parameters, type);
    const int64_t dims[] = {tensor.columns, tensor.rows};
    const uint64_t offset = header.AddTensor(tensor.name, std::span(dims, tensor.rows == 0 ? 1 : 2),
                                             type, bytes.size());
    data.resize(static_cast<size_t>(offset), '\0');
    data += bytes;
  }
  data.resize(static_cast<size_t>(header.data_bytes()), '\0');
  const std::string whole = header.Finish() + data;
  PartFile file(path);
  file.WriteHeader(whole, whole.size());
  file.Keep();
}

}  // namespace halo::demo
