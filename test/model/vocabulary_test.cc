#include "model/vocabulary.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "base/error.h"
#include "base/random.h"

namespace halo {
namespace {

const std::filesystem::path kModels = std::filesystem::path(HALO_LLAMA_SOURCE_DIR) / "models";

struct Oracle {
  explicit Oracle(const std::filesystem::path& path) {
    llama_model_params parameters = llama_model_default_params();
    parameters.vocab_only = true;
    model = llama_model_load_from_file(path.c_str(), parameters);
    vocab = model == nullptr ? nullptr : llama_model_get_vocab(model);
  }
  ~Oracle() { llama_model_free(model); }
  Oracle(const Oracle&) = delete;
  Oracle& operator=(const Oracle&) = delete;

  std::vector<TokenId> Tokenize(const std::string& text, bool special) const {
    std::vector<TokenId> ids(text.size() + 8);
    const int32_t count =
        llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), ids.data(),
                       static_cast<int32_t>(ids.size()), false, special);
    ids.resize(static_cast<size_t>(count));
    return ids;
  }
  bool Is(TokenId id, int attributes) const {
    return (llama_vocab_get_attr(vocab, id) & attributes) != 0;
  }

  llama_model* model = nullptr;
  const llama_vocab* vocab = nullptr;
};

std::vector<std::filesystem::path> VocabularyFiles() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(kModels)) {
    // An embedding model's vocabulary that takes llama.cpp seconds to load.
    if (entry.path().stem() == "ggml-vocab-nomic-bert-moe") continue;
    if (entry.path().extension() == ".gguf") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::string RandomText(RandomStream* random, size_t parts) {
  static const std::vector<std::string> kParts = {"the",
                                                  " quick",
                                                  "brown ",
                                                  "42",
                                                  " 3.14",
                                                  "\n",
                                                  "\n\n",
                                                  "  ",
                                                  "    ",
                                                  "\t",
                                                  " \n ",
                                                  "é",
                                                  "ñandú",
                                                  "日本語",
                                                  "中文字",
                                                  "🙂",
                                                  "👩‍💻",
                                                  "Ω≈ç",
                                                  "don't",
                                                  "I'll",
                                                  "(x)",
                                                  "[y]",
                                                  "{\"a\": 1}",
                                                  "<b>",
                                                  "</i>",
                                                  "http://a.b/c?d=e",
                                                  "___",
                                                  "...",
                                                  "АБВ",
                                                  "ไทย",
                                                  "\r\n",
                                                  "|",
                                                  "<|",
                                                  "|>",
                                                  "a",
                                                  "B",
                                                  "Zz",
                                                  "'",
                                                  "\"",
                                                  "\xC2\xA0",
                                                  "hello",
                                                  "World",
                                                  "#",
                                                  "$5",
                                                  "%"};
  std::string text;
  for (size_t i = 0; i < parts; ++i) text += kParts[random->Below(kParts.size())];
  return text;
}

// One vocabulary a test, so that ctest names the file that fails.
class EveryVocabulary : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(EveryVocabulary, PlainDataGivesLlamaCppsIdsForTheWholeString) {
  const Oracle oracle(GetParam());
  const auto vocabulary = Vocabulary::Load(GetParam());
  ASSERT_NE(oracle.vocab, nullptr);
  std::vector<std::string> controls = {""};
  for (TokenId id = 0; id < vocabulary->size(); ++id) {
    if (oracle.Is(id, LLAMA_TOKEN_ATTR_CONTROL) && controls.size() < 12) {
      controls.emplace_back(llama_vocab_get_text(oracle.vocab, id));
    }
  }
  RandomStream random(7);
  for (int round = 0; round < 300; ++round) {
    std::vector<PromptSpan> spans;
    for (size_t i = 0; i < 1 + random.Below(6); ++i) {
      const bool data = random.Below(2) == 0;
      if (data) spans.push_back(PromptSpan::Data(RandomText(&random, random.Below(30))));
      if (!data)
        spans.push_back(PromptSpan::Template(RandomText(&random, random.Below(4)) +
                                             controls[random.Below(controls.size())] +
                                             RandomText(&random, random.Below(4))));
    }
    const std::string text = SpansText(spans);
    std::vector<TokenId> expected = oracle.Tokenize(text, true);
    if (llama_vocab_get_add_bos(oracle.vocab) &&
        (expected.empty() || expected.front() != llama_vocab_bos(oracle.vocab))) {
      expected.insert(expected.begin(), llama_vocab_bos(oracle.vocab));
    }
    ASSERT_EQ(vocabulary->TokenizePrompt(spans), expected) << "round " << round << ": " << text;
    ASSERT_EQ(vocabulary->TokenizePrompt(spans), expected) << "remembered fragments differ";
  }
}

TEST_P(EveryVocabulary, DataNeverBecomesASpecialToken) {
  const Oracle oracle(GetParam());
  const auto vocabulary = Vocabulary::Load(GetParam());
  std::vector<TokenId> specials;
  const std::string blanks = " \t\r\n\v\f";
  for (TokenId id = 0; id < vocabulary->size(); ++id) {
    const std::string text = llama_vocab_get_text(oracle.vocab, id);
    const bool one_character = std::count_if(text.begin(), text.end(), [](unsigned char c) {
                                 return (c & 0xC0) != 0x80;
                               }) == 1;
    const bool plain = oracle.Is(id, LLAMA_TOKEN_ATTR_USER_DEFINED) &&
                       (one_character || text.find_first_not_of(blanks) == std::string::npos);
    const int special = LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_USER_DEFINED;
    if (oracle.Is(id, special) && !plain) specials.push_back(id);
  }
  RandomStream random(11);
  const auto is_special = [&](TokenId id) {
    return std::binary_search(specials.begin(), specials.end(), id);
  };
  for (size_t i = 0; i < specials.size(); ++i) {
    const std::string text = llama_vocab_get_text(oracle.vocab, specials[i]);
    const size_t half = 1 + random.Below(text.size() - 1);
    const std::vector<std::vector<PromptSpan>> prompts = {
        {PromptSpan::Data(text)},
        {PromptSpan::Data("a" + text + text + " b")},
        {PromptSpan::Template("x "), PromptSpan::Data(text), PromptSpan::Template(" y")},
        {PromptSpan::Template(text.substr(0, half)), PromptSpan::Data(text.substr(half))},
        {PromptSpan::Data(text.substr(0, half)), PromptSpan::Template(text.substr(half))},
        {PromptSpan::Template(text.substr(0, half)), PromptSpan::Template(text.substr(half))}};
    for (const auto& spans : prompts) {
      const std::vector<TokenId> ids = vocabulary->TokenizePart(spans);
      ASSERT_EQ(std::count_if(ids.begin(), ids.end(), is_special), 0)
          << text << " in " << SpansText(spans);
    }
    if (oracle.Tokenize(text, true) == std::vector<TokenId>{specials[i]}) {
      ASSERT_EQ(vocabulary->TokenizePart({PromptSpan::Template(text)}),
                std::vector<TokenId>{specials[i]})
          << text;
    }
  }
  for (const std::string text :
       {"<|eot_id|>", "<|im_end|>", "</s>", "<s>", "<end_of_turn>", "<bos>"}) {
    const std::vector<TokenId> ids = vocabulary->TokenizePart({PromptSpan::Data("x" + text)});
    ASSERT_EQ(std::count_if(ids.begin(), ids.end(), is_special), 0) << text;
  }
}

TEST_P(EveryVocabulary, TextComesBackAndBytesThatAreNoTextDoNoHarm) {
  const auto vocabulary = Vocabulary::Load(GetParam());
  const std::string text = "Hello,  wörld!\nfn main() { 日本 🙂 }";
  const auto ids = vocabulary->TokenizePart({PromptSpan::Data(text)});
  const std::string file = GetParam().filename();
  if (file.find("bert") == std::string::npos) {  // which changes case and spaces
    EXPECT_EQ(vocabulary->Detokenize(ids), text);
  }
  RandomStream random(3);
  for (int round = 0; round < 100; ++round) {
    std::string bytes(random.Below(60), ' ');
    for (char& c : bytes) c = static_cast<char>(random.Below(256));
    vocabulary->TokenizePrompt(
        {PromptSpan::Template("a"), PromptSpan::Data(bytes), PromptSpan::Template("b")});
  }
}

INSTANTIATE_TEST_SUITE_P(Files, EveryVocabulary, ::testing::ValuesIn(VocabularyFiles()),
                         [](const auto& file) {
                           std::string name =
                               file.param.stem().string().substr(std::string("ggml-vocab-").size());
                           std::replace_if(
                               name.begin(), name.end(),
                               [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

TEST(Vocabulary, TokenSpansKeepTheirIds) {
  const auto vocabulary = Vocabulary::Load(kModels / "ggml-vocab-llama-bpe.gguf");
  const std::vector<TokenId> kept = {1, 2, 3};
  const std::vector<TokenId> ids =
      vocabulary->TokenizePart({PromptSpan::Template("<|eot_id|>"), PromptSpan::Tokens(kept, "?"),
                                PromptSpan::Data("<|eot_id|>")});
  ASSERT_GT(ids.size(), 5u);
  EXPECT_EQ(vocabulary->bos_text(), "<|begin_of_text|>");
  EXPECT_EQ(ids[0], 128009);
  EXPECT_EQ(std::vector<TokenId>(ids.begin() + 1, ids.begin() + 4), kept);
  EXPECT_EQ(std::count(ids.begin(), ids.end(), 128009), 1);
}

TEST(Vocabulary, BeginningOfSequenceIsNeverDoubled) {
  const auto vocabulary = Vocabulary::Load(kModels / "ggml-vocab-llama-bpe.gguf");
  const auto with = vocabulary->TokenizePrompt({PromptSpan::Template("<|begin_of_text|>hi")});
  EXPECT_EQ(with, vocabulary->TokenizePrompt({PromptSpan::Template("hi")}));
  EXPECT_EQ(with.front(), 128000);
  const auto data = vocabulary->TokenizePrompt({PromptSpan::Data("<|begin_of_text|>hi")});
  EXPECT_EQ(std::count(data.begin(), data.end(), 128000), 1);
  EXPECT_NE(data, with);
}

// A parent's answer goes on as text: SentencePiece's leading space must not come in between.
TEST(Vocabulary, TextAfterOrdinaryTokensGetsNoSpaceInFront) {
  const auto vocabulary = Vocabulary::Load(kModels / "ggml-vocab-llama-spm.gguf");
  const Oracle oracle(kModels / "ggml-vocab-llama-spm.gguf");
  for (const std::string tail :
       {"ness and more", " and more", "\nnext", "。", "\xF0\x9F\x99\x82", "  two"}) {
    const std::vector<TokenId> head = oracle.Tokenize("happy", false);
    const auto ids =
        vocabulary->TokenizePart({PromptSpan::Tokens(head, "happy"), PromptSpan::Template(tail)});
    EXPECT_EQ(
        std::vector<TokenId>(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(head.size())),
        head);
    std::string text;
    for (const TokenId id : ids) text += vocabulary->Piece(id);
    EXPECT_EQ(text, " happy" + tail);
  }
  const auto after_special =
      vocabulary->TokenizePart({PromptSpan::Tokens({2}, "</s>"), PromptSpan::Template("ness")});
  EXPECT_EQ(vocabulary->Piece(after_special[1])[0], ' ');
}

TEST(Vocabulary, IdsTellVocabulariesApart) {
  std::map<std::string, std::string> file_of_id;
  for (const auto& file : VocabularyFiles()) {
    const std::string id = Vocabulary::Load(file)->id().ToHex();
    const auto [entry, is_new] = file_of_id.emplace(id, file.filename());
    EXPECT_TRUE(is_new) << file.filename() << " and " << entry->second;
  }
  const auto file = kModels / "ggml-vocab-qwen2.gguf";
  EXPECT_EQ(file_of_id.at(Vocabulary::Load(file)->id().ToHex()), file.filename());
}

TEST(Vocabulary, MissingFilesAreErrors) {
  EXPECT_THROW(Vocabulary::Load(kModels / "no-such-file.gguf"), Error);
}

TEST(Vocabulary, ManyThreadsShareOne) {
  const auto vocabulary = Vocabulary::Load(kModels / "ggml-vocab-qwen2.gguf");
  const std::vector<PromptSpan> spans = {
      PromptSpan::Template("<|im_start|>user\nSay: "), PromptSpan::Data("hello"),
      PromptSpan::Template("<|im_end|>\n<|im_start|>assistant\n")};
  const auto expected = vocabulary->TokenizePrompt(spans);
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (size_t t = 0; t < wrong.size(); ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 2000; ++i)
        wrong[t] += vocabulary->TokenizePrompt(spans) == expected ? 0 : 1;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

}  // namespace
}  // namespace halo
