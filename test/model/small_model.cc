#include "model/small_model.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>

#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "model/synth.h"

namespace halo::test {
namespace {

constexpr size_t kTokens = 600;
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;

template <typename T>
void Append(std::string& bytes, T value) {
  char raw[sizeof(T)];
  std::memcpy(raw, &value, sizeof(T));
  bytes.append(raw, sizeof(T));
}

std::string ListHead(GgufType type, size_t count) {
  std::string bytes;
  Append(bytes, static_cast<uint32_t>(GgufType::kArray));
  Append(bytes, static_cast<uint32_t>(type));
  Append(bytes, static_cast<uint64_t>(count));
  return bytes;
}

template <typename T>
std::string EncodeNumbers(GgufType type, const std::vector<T>& numbers) {
  std::string bytes = ListHead(type, numbers.size());
  for (const T number : numbers) Append(bytes, number);
  return bytes;
}

void AddEncoded(GgufHeader& header, std::string_view key, const std::string& encoded) {
  GgufValue value;
  value.encoded = std::span(reinterpret_cast<const uint8_t*>(encoded.data()), encoded.size());
  header.AddCopy(key, value);
}

// GPT-2 writes bytes that are no printable Latin-1 characters as characters from 256 on.
std::string ByteText(int byte, int& next_replacement) {
  const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  const int code = printable ? byte : 256 + next_replacement++;
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | (code >> 6)), static_cast<char>(0x80 | (code & 0x3F))};
}

// Two-letter texts, "aa" on, until there are `count` tokens.
void AddPairs(std::vector<std::string>& tokens, size_t count, std::vector<std::string>* merges) {
  for (char a = 'a'; a <= 'z'; ++a) {
    for (char b = 'a'; b <= 'z' && tokens.size() < count; ++b) {
      tokens.push_back({a, b});
      if (merges != nullptr) merges->push_back({a, ' ', b});
    }
  }
}

}  // namespace

std::string EncodeTexts(const std::vector<std::string>& texts) {
  std::string bytes = ListHead(GgufType::kString, texts.size());
  for (const std::string& text : texts) {
    Append(bytes, static_cast<uint64_t>(text.size()));
    bytes += text;
  }
  return bytes;
}

std::string EncodeInt32s(const std::vector<int32_t>& numbers) {
  return EncodeNumbers(GgufType::kInt32, numbers);
}
std::string EncodeUint32s(const std::vector<uint32_t>& numbers) {
  return EncodeNumbers(GgufType::kUint32, numbers);
}

std::string SmallVocabulary() {
  std::vector<std::string> tokens, merges;
  int next_replacement = 0;
  for (int byte = 0; byte < 256; ++byte) tokens.push_back(ByteText(byte, next_replacement));
  AddPairs(tokens, kTokens - 1, &merges);
  tokens.push_back("<|endoftext|>");
  std::vector<int32_t> types(kTokens, kNormal);
  types.back() = kControl;
  GgufHeader header;
  header.AddText("general.architecture", "gpt2");
  header.AddText("tokenizer.ggml.model", "gpt2");
  header.AddText("tokenizer.ggml.pre", "gpt-2");
  AddEncoded(header, "tokenizer.ggml.tokens", EncodeTexts(tokens));
  AddEncoded(header, "tokenizer.ggml.token_type", EncodeInt32s(types));
  AddEncoded(header, "tokenizer.ggml.merges", EncodeTexts(merges));
  header.AddUint32("tokenizer.ggml.bos_token_id", kTokens - 1);
  header.AddUint32("tokenizer.ggml.eos_token_id", kTokens - 1);
  return header.Finish();
}

std::string SmallSentencePieceVocabulary() {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {kUnknown, kControl, kControl};
  constexpr char kDigits[] = "0123456789ABCDEF";
  for (int byte = 0; byte < 256; ++byte) {
    tokens.push_back({'<', '0', 'x', kDigits[byte / 16], kDigits[byte % 16], '>'});
    types.push_back(kByte);
  }
  for (char a = 'a'; a <= 'z'; ++a) tokens.emplace_back(1, a);
  tokens.push_back("\xE2\x96\x81");  // SentencePiece's space
  AddPairs(tokens, kTokens, nullptr);
  types.resize(kTokens, kNormal);
  std::vector<float> scores;
  for (size_t i = 0; i < kTokens; ++i) scores.push_back(-static_cast<float>(i));
  GgufHeader header;
  header.AddText("general.architecture", "llama");
  header.AddText("tokenizer.ggml.model", "llama");
  header.AddText("tokenizer.ggml.pre", "default");
  AddEncoded(header, "tokenizer.ggml.tokens", EncodeTexts(tokens));
  AddEncoded(header, "tokenizer.ggml.scores", EncodeNumbers(GgufType::kFloat32, scores));
  AddEncoded(header, "tokenizer.ggml.token_type", EncodeInt32s(types));
  header.AddUint32("tokenizer.ggml.bos_token_id", 1);
  header.AddUint32("tokenizer.ggml.eos_token_id", 2);
  header.AddUint32("tokenizer.ggml.unknown_token_id", 0);
  return header.Finish();
}

std::string SmallModel(const std::string& folder, const std::string& architecture,
                       const std::string& vocabulary) {
  SynthOptions options;
  options.shape = {.name = "small",
                   .architecture = architecture,
                   .layers = 2,
                   .width = 64,
                   .heads = 4,
                   .kv_heads = 2,
                   .head_width = 16,
                   .feed_forward = 96,
                   .context_tokens = 256,
                   .tied_embeddings = architecture == "llama"};
  options.vocabulary_file = folder + "/small-vocabulary.gguf";
  options.output = folder + "/small-model.gguf";
  WriteFile(options.vocabulary_file, vocabulary);
  SynthesizeModel(options);
  std::string bytes = ReadFile(options.output);
  std::filesystem::remove(options.vocabulary_file);
  std::filesystem::remove(options.output);
  return bytes;
}

void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace halo::test
