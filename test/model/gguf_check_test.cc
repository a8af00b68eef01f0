#include "model/gguf_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <span>

#include "base/error.h"
#include "base/random.h"
#include "model/gguf_reader.h"
#include "model/gguf_writer.h"
#include "model/mutation.h"
#include "model/small_model.h"
#include "support/test_models.h"

namespace halo {
namespace {

using ::testing::HasSubstr;

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

const std::string& Small() {
  static const std::string bytes = test::SmallModel(test::FreshFolder("gguf_check"));
  return bytes;
}

// The refusal, "" if there is none.
std::string Refusal(const std::string& bytes) {
  try {
    CheckGgufBytes(Bytes(bytes), "file");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModel);
    return error.what();
  }
  return "";
}

// A file with the keys and tensors of `original`, one key replaced, added (before the others) or,
// with "", left out.
std::string WithKey(const std::string& original, const std::string& key,
                    const std::string& encoded) {
  const GgufFile file = GgufFile::Parse(Bytes(original), "original");
  GgufHeader header;
  const auto add = [&header](std::string_view name, std::span<const uint8_t> bytes) {
    GgufValue value;
    value.encoded = bytes;
    header.AddCopy(name, value);
  };
  if (!encoded.empty()) add(key, Bytes(encoded));
  for (const GgufValue& value : file.values()) {
    if (value.key != key) add(value.key, value.encoded);
  }
  std::string data;
  for (const GgufTensor& tensor : file.tensors()) {
    header.AddTensor(tensor.name, std::span(tensor.dims.data(), static_cast<size_t>(tensor.n_dims)),
                     tensor.type, tensor.bytes);
    data += original.substr(tensor.offset, tensor.bytes);
    data.resize(header.data_bytes());
  }
  return header.Finish() + data;
}

std::string Scalar(GgufType type, uint64_t number) {
  std::string bytes(4 + GgufTypeBytes(type), '\0');
  const auto code = static_cast<uint32_t>(type);
  std::memcpy(bytes.data(), &code, 4);
  std::memcpy(bytes.data() + 4, &number, GgufTypeBytes(type));
  return bytes;
}

std::string Number(uint32_t number) { return Scalar(GgufType::kUint32, number); }

std::string Text(const std::string& text) {
  std::string bytes(12, '\0');
  const auto code = static_cast<uint32_t>(GgufType::kString);
  const uint64_t length = text.size();
  std::memcpy(bytes.data(), &code, 4);
  std::memcpy(bytes.data() + 4, &length, 8);
  return bytes + text;
}

std::string WithTensors(const std::string& original,
                        const std::function<void(GgufTensor&)>& change) {
  const GgufFile file = GgufFile::Parse(Bytes(original), "original");
  GgufHeader header;
  for (const GgufValue& value : file.values()) header.AddCopy(value.key, value);
  for (GgufTensor tensor : file.tensors()) {
    change(tensor);
    header.AddTensor(tensor.name, std::span(tensor.dims.data(), static_cast<size_t>(tensor.n_dims)),
                     tensor.type, tensor.bytes);
  }
  return header.Finish() + std::string(header.data_bytes(), '\0');
}

TEST(GgufCheck, DescribesAModel) {
  const GgufSummary summary = CheckGgufBytes(Bytes(Small()), "small.gguf");
  EXPECT_EQ(summary.architecture, "llama");
  EXPECT_EQ(summary.weight_type, "Q8_0");
  EXPECT_EQ(summary.layers, 2);
  EXPECT_EQ(summary.width, 64);
  EXPECT_EQ(summary.heads, 4);
  EXPECT_EQ(summary.kv_heads, 2);
  EXPECT_EQ(summary.head_width, 16);
  EXPECT_EQ(summary.feed_forward, 96);
  EXPECT_EQ(summary.context_tokens, 256);
  EXPECT_EQ(summary.vocabulary, 600);
  EXPECT_EQ(summary.parameters,
            600U * 64 + 64 + 2 * (2 * 64 + 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96));
  EXPECT_TRUE(summary.has_weights);
  EXPECT_EQ(summary.scalars.at("llama.block_count"), "2");
  EXPECT_THAT(DescribeModel(summary), HasSubstr("2 layers, width 64, 4 heads of 16, 2 KV heads"));
}

TEST(GgufCheck, TakesVocabularyFiles) {
  for (const std::string& bytes : {test::SmallVocabulary(), test::SmallSentencePieceVocabulary()}) {
    const GgufSummary summary = CheckGgufBytes(Bytes(bytes), "vocabulary.gguf");
    EXPECT_FALSE(summary.has_weights);
    EXPECT_EQ(summary.vocabulary, 600);
    EXPECT_EQ(summary.weight_type, "");
  }
}

TEST(GgufCheck, RefusesWhatIsNoFileOfThisKind) {
  EXPECT_THAT(Refusal("GGML and more"), HasSubstr("not a GGUF file"));
  EXPECT_THAT(Refusal(""), HasSubstr("not a GGUF file"));
  EXPECT_THAT(Refusal(std::string("GGUF\1\0\0\0", 8)), HasSubstr("version 1"));
  EXPECT_THAT(Refusal(std::string("GGUF\4\0\0\0", 8)), HasSubstr("version 4"));
  EXPECT_THAT(Refusal(std::string("GGUF\0\0\0\3", 8)), HasSubstr("big-endian"));
  EXPECT_THROW(CheckGguf(test::FreshFolder("gguf_none") + "/none.gguf"), Error);
  EXPECT_THROW(CheckGguf(test::FreshFolder("gguf_folder")), Error);
  EXPECT_THROW(CheckGguf("/dev/zero"), Error);
}

TEST(GgufCheck, RefusesCountsThatCannotBe) {
  std::string bytes = Small();
  const auto with = [&](size_t at, uint64_t number) {
    std::string changed = bytes;
    std::memcpy(changed.data() + at, &number, 8);
    return Refusal(changed);
  };
  EXPECT_THAT(with(8, uint64_t{1} << 60), HasSubstr("tensors"));
  EXPECT_THAT(with(16, uint64_t{1} << 60), HasSubstr("keys"));
  EXPECT_THAT(with(24, uint64_t{1} << 60), HasSubstr("at byte 24"));
  EXPECT_THAT(with(8, 32000), HasSubstr("cannot fit"));
}

TEST(GgufCheck, RefusesEveryShorterFile) {
  const std::string& whole = Small();
  ASSERT_EQ(Refusal(whole), "");
  // The last tensor is Q8_0 and ends within the padding, if there is any.
  for (size_t length = 0; length + GgufHeader::kAlignment < whole.size(); length += 97) {
    EXPECT_NE(Refusal(whole.substr(0, length)), "") << length;
  }
}

TEST(GgufCheck, RefusesKeysThatWouldStopLlamaCpp) {
  struct Case {
    std::string key, encoded, message;
  };
  const Case cases[] = {
      {"general.architecture", "", "general.architecture is missing"},
      {"general.architecture", Text("../etc"), "not a name"},
      {"general.architecture", Text("bert"), "does not generate text"},
      {"general.alignment", Number(48), "power of two"},
      {"general.alignment", Number(0), "power of two"},
      {"split.count", Number(2), "several files"},
      {"llama.block_count", "", "llama.block_count is missing"},
      {"llama.block_count", Number(0), "from 1 to 512"},
      {"llama.block_count", Number(513), "from 1 to 512"},
      {"llama.block_count", Text("2"), "whole number"},
      {"llama.embedding_length", Number(0), "embedding_length"},
      {"llama.embedding_length", Number(128), "token_embd.weight is 64 x 600"},
      {"llama.context_length", Number(0), "context_length"},
      {"llama.context_length", "", "context_length is missing"},
      {"llama.attention.head_count", Number(0), "head_count"},
      {"llama.attention.head_count", "", "head_count is missing"},
      {"llama.attention.head_count", test::EncodeUint32s({4, 0}), "from 1 to"},
      {"llama.attention.head_count", test::EncodeUint32s({4}), "1 elements for 2 layers"},
      {"llama.attention.head_count_kv", Number(3), "do not divide"},
      {"llama.attention.head_count_kv", test::EncodeUint32s({2, 3}), "do not divide"},
      {"llama.attention.key_length", Number(32), "must be equal and even"},
      {"llama.attention.value_length", Number(8), "must be equal and even"},
      {"llama.rope.dimension_count", Number(8), "must be equal and even"},
      {"llama.rope.scaling.type", Text("sideways"), "rope.scaling.type"},
      {"llama.rope.freq_base", Scalar(GgufType::kFloat32, 0x7FC00000), "a number from 0"},
      {"llama.attention.layer_norm_rms_epsilon", Scalar(GgufType::kFloat32, 0xBF800000),
       "a number from 0"},
      {"llama.expert_count", Number(8), "expert_used_count"},
      {"llama.expert_used_count", Number(2), "expert_used_count"},
      {"llama.nextn_predict_layers", Number(1), "nextn_predict_layers"},
      {"llama.pooling_type", Number(17), "pooling_type"},
      {"tokenizer.ggml.model", Text("t5"), "of this kind"},
      {"tokenizer.ggml.model", "", "tokenizer.ggml.model is missing"},
      {"tokenizer.ggml.tokens", "", "tokenizer.ggml.tokens is missing"},
      {"tokenizer.ggml.tokens", test::EncodeTexts({"a", "b"}), "at least 128"},
      {"tokenizer.ggml.tokens", test::EncodeTexts(std::vector<std::string>(600, "same")),
       "text of another"},
      {"tokenizer.ggml.token_type", test::EncodeInt32s({1, 2, 3}), "3 elements for 600 tokens"},
      {"tokenizer.ggml.scores", Number(1), "list of numbers"},
      {"tokenizer.ggml.merges", Number(1), "list of texts"},
      {"tokenizer.ggml.eos_token_id", Number(600), "not an id"},
      {"tokenizer.ggml.bos_token_id", Text("x"), "not an id"},
      {"tokenizer.chat_template", Text("\xFF\xFE"), "UTF-8"},
  };
  for (const Case& one : cases) {
    EXPECT_THAT(Refusal(WithKey(Small(), one.key, one.encoded)), HasSubstr(one.message)) << one.key;
  }
}

TEST(GgufCheck, TakesListsForLayersAndAbsentSpecialTokens) {
  EXPECT_EQ(Refusal(WithKey(Small(), "llama.attention.head_count", test::EncodeUint32s({4, 4}))),
            "");
  EXPECT_EQ(Refusal(WithKey(Small(), "llama.feed_forward_length", test::EncodeInt32s({96, 96}))),
            "");
  EXPECT_EQ(Refusal(WithKey(Small(), "tokenizer.ggml.padding_token_id", Number(0xFFFFFFFF))), "");
  EXPECT_EQ(Refusal(WithKey(Small(), "tokenizer.ggml.eos_token_id", "")), "");
}

TEST(GgufCheck, RefusesTokensThatAreEqualForLlamaCpp) {
  const GgufFile file = GgufFile::Parse(Bytes(Small()), "small");
  std::vector<std::string> tokens;
  for (const std::string_view token : GgufStrings(*file.Find("tokenizer.ggml.tokens")))
    tokens.emplace_back(token);
  const auto refusal = [&] {
    return Refusal(WithKey(Small(), "tokenizer.ggml.tokens", test::EncodeTexts(tokens)));
  };
  EXPECT_EQ(refusal(), "");
  tokens[300] = tokens[301] + std::string("\0rest", 5);
  EXPECT_THAT(refusal(), HasSubstr("text of another"));
  tokens[300] = "";
  EXPECT_EQ(refusal(), "");
  tokens[301] = "[EMPTY_300]";
  EXPECT_THAT(refusal(), HasSubstr("token 301 has the text of another"));
}

TEST(GgufCheck, RefusesSentencePieceWithoutAByte) {
  std::string vocabulary = test::SmallSentencePieceVocabulary();
  const size_t at = vocabulary.find("<0x7F>");
  ASSERT_NE(at, std::string::npos);
  vocabulary[at + 4] = 'G';
  EXPECT_THAT(Refusal(vocabulary), HasSubstr("no token for the byte 0x7f"));
}

TEST(GgufCheck, RefusesTensors) {
  const auto changed = [](const std::string& name, const std::function<void(GgufTensor&)>& change) {
    return Refusal(WithTensors(Small(), [&](GgufTensor& tensor) {
      if (tensor.name == name) change(tensor);
    }));
  };
  constexpr int32_t kF32 = 0, kF16 = 1, kQ81 = 9, kI32 = 26, kRemoved = 4;
  EXPECT_EQ(changed("none", [](GgufTensor&) {}), "");
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.name = "output_norm.weight"; }),
              HasSubstr("twice"));
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.name = "other"; }),
              HasSubstr("is missing"));
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.dims[0] = 0; }),
              HasSubstr("dimension of 0"));
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.dims[1] = -1; }),
              HasSubstr("dimension of -1"));
  EXPECT_THAT(changed("token_embd.weight",
                      [](GgufTensor& t) {
                        t.dims = {1 << 30, 1 << 30, 1, 1};
                      }),
              HasSubstr("larger than the file"));
  EXPECT_THAT(changed("token_embd.weight",
                      [](GgufTensor& t) {
                        t.dims = {40, 60, 1, 1};
                      }),
              HasSubstr("no multiple"));
  EXPECT_THAT(changed("token_embd.weight",
                      [](GgufTensor& t) {
                        t.dims = {32, 1200, 1, 1};
                      }),
              HasSubstr("32 x 1200"));
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.type = kRemoved; }),
              HasSubstr("unknown type"));
  EXPECT_THAT(changed("token_embd.weight", [](GgufTensor& t) { t.type = 1000; }),
              HasSubstr("unknown type"));
  EXPECT_THAT(changed("blk.0.attn_q.weight",
                      [](GgufTensor& t) {
                        t = {t.name, kQ81, {32, 32, 1, 1}, 2, 0, 1152};
                      }),
              HasSubstr("cannot have"));
  EXPECT_THAT(changed("blk.0.attn_q.weight",
                      [](GgufTensor& t) {
                        t = {t.name, kI32, {8, 8, 1, 1}, 2, 0, 256};
                      }),
              HasSubstr("cannot have"));
  EXPECT_THAT(changed("output_norm.weight",
                      [](GgufTensor& t) {
                        t = {t.name, kF16, {64, 1, 1, 1}, 1, 0, 128};
                      }),
              HasSubstr("a vector cannot have"));
  // Data that overlap or leave a gap: the sizes in the header say otherwise than the offsets.
  EXPECT_THAT(changed("output_norm.weight", [](GgufTensor& t) { t.bytes -= 32; }),
              HasSubstr("expected at"));
  EXPECT_THAT(changed("output_norm.weight", [](GgufTensor& t) { t.bytes += 32; }),
              HasSubstr("expected at"));
  EXPECT_THAT(changed("output_norm.weight",
                      [](GgufTensor& t) {
                        t = {t.name, kF32, {64, 1, 1, 1}, 0, 0, 256};
                      }),
              HasSubstr("0 dimensions"));
}

TEST(GgufCheck, RefusesAKeyTwice) {
  GgufHeader header;
  header.AddText("general.architecture", "llama");
  header.AddText("general.architecture", "llama");
  EXPECT_THAT(Refusal(header.Finish()), HasSubstr("twice"));
}

TEST(GgufCheck, RefusesArraysOfArrays) {
  std::string nested = test::EncodeUint32s({9, 9});
  const auto array = static_cast<uint32_t>(GgufType::kArray);
  std::memcpy(nested.data() + 4, &array, 4);
  EXPECT_THAT(Refusal(WithKey(test::SmallVocabulary(), "x", nested)), HasSubstr("array of arrays"));
}

// Whatever the bytes, the check returns or throws Error; under sanitizers it also stays inside the
// file.
TEST(GgufCheck, SurvivesMutations) {
  constexpr int kMutations = 20000;
  const std::string originals[] = {Small(), test::SmallSentencePieceVocabulary()};
  RandomStream random(20261);
  int accepted = 0;
  for (int i = 0; i < kMutations; ++i) {
    // Copied to the heap at its exact size, so that a read past the end is seen.
    const std::string mutated = test::Mutated(originals[i % 2], random);
    const std::vector<uint8_t> exact(mutated.begin(), mutated.end());
    try {
      CheckGgufBytes(exact, "mutated");
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error.code(), ErrorCode::kModel);
      ASSERT_FALSE(std::string(error.what()).empty());
    }
  }
  RecordProperty("accepted", accepted);
  EXPECT_GT(accepted, kMutations / 100);
  EXPECT_LT(accepted, kMutations * 3 / 4);
}

}  // namespace
}  // namespace halo
