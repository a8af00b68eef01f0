#include "demo_model/byte_pair_encoding.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "base/random.h"
#include "demo_model/chat_format.h"
#include "demo_model/corpus.h"
#include "demo_model/model_file.h"
#include "demo_model/trainer.h"
#include "model/chat_template.h"
#include "model/gguf_check.h"
#include "model/vocabulary.h"
#include "support/test_models.h"

namespace halo::demo {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SplitWords, CutsAsGpt2Does) {
  EXPECT_THAT(SplitWords("I'm here, it's 42."),
              ElementsAre("I", "'m", " here", ",", " it", "'s", " 42", "."));
  EXPECT_THAT(SplitWords("a  b\n\nc "), ElementsAre("a", " ", " b", "\n", "\n", "c", " "));
}

TEST(BytePairEncoding, MergesTheMostFrequentPairAndAmongEqualsTheLowest) {
  const BytePairEncoding encoding =
      BytePairEncoding::Train({"abab cdcd abab cdcd"}, 256 + 2 + 1, {"<|end|>"});
  EXPECT_THAT(encoding.merges(),
              ElementsAre(BytePairEncoding::Pair{'a', 'b'}, BytePairEncoding::Pair{'c', 'd'}));
  EXPECT_THAT(encoding.Encode("abcdx"), ElementsAre(256, 257, 'x'));
  EXPECT_EQ(encoding.ControlId(0), 258);
}

TEST(BytePairEncoding, RefusesWhatItCannotLearnFrom) {
  EXPECT_THROW(BytePairEncoding::Train({"ab"}, 300, {}), Error);
  EXPECT_THROW(BytePairEncoding::Train({"abab"}, 1'000'000, {}), Error);
  EXPECT_THROW(BytePairEncoding::Train({"caf\xC3\xA9"}, 256, {}), Error);
}

/// The vocabulary of a short training, and the same as llama.cpp reads it from a file.
class EncodingAndVocabulary : public ::testing::Test {
 protected:
  EncodingAndVocabulary()
      : folder_(test::FreshFolder("demo_encoding")), encoding_(TrainVocabulary(Options())) {
    const TrainingOptions options = Options();
    const std::vector<float> parameters = RandomParameters<float>(options.shape, 1);
    const std::string path = folder_ + "/m.gguf";
    WriteModelFile({&options.shape, &parameters, &encoding_, 1, WeightType::kQ8_0}, path);
    CheckGguf(path);
    vocabulary_ = Vocabulary::Load(path);
  }
  ~EncodingAndVocabulary() override { std::filesystem::remove_all(folder_); }

  static TrainingOptions Options() {
    TrainingOptions options;
    options.shape.layers = 1;
    options.vocabulary_conversations = 500;
    return options;
  }

  std::string folder_;
  BytePairEncoding encoding_;
  std::shared_ptr<const Vocabulary> vocabulary_;
};

TEST_F(EncodingAndVocabulary, IdsOfTheCorpusEqualLlamaCpps) {
  for (uint64_t i = 0; i < 200; ++i) {
    for (const Turn& turn : MakeConversation(Split::kFreeWording, 2, i).turns) {
      ASSERT_EQ(encoding_.Encode(turn.text),
                vocabulary_->TokenizePart({PromptSpan::Data(turn.text)}))
          << turn.text;
    }
  }
}

TEST_F(EncodingAndVocabulary, IdsOfHostileTextEqualLlamaCpps) {
  RandomStream random(9);
  // Every ASCII character, those that the rules are about more often.
  const std::string likely = "  \n\n\t\r'''stmdrevll09.,{}\"#<|>aeiou";
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    for (uint64_t left = random.Below(24); left > 0; --left) {
      text += random.Below(3) == 0 ? static_cast<char>(1 + random.Below(127))
                                   : likely[random.Below(likely.size())];
    }
    ASSERT_EQ(encoding_.Encode(text), vocabulary_->TokenizePart({PromptSpan::Data(text)}))
        << ::testing::PrintToString(text);
  }
}

TEST_F(EncodingAndVocabulary, ConversationsAreLaidOutAsTheChatTemplateDoes) {
  const ChatTemplate chat(vocabulary_->chat_template(), vocabulary_->bos_text(),
                          vocabulary_->eos_text(), "2026-01-01");
  const std::vector<Turn> turns = {{Turn::Role::kSystem, "Be kind."},
                                   {Turn::Role::kUser, "My <|end|> lamp."},
                                   {Turn::Role::kAssistant, "Yes."},
                                   {Turn::Role::kUser, "Again"}};
  std::vector<ChatMessage> messages;
  for (const Turn& turn : turns) {
    const char* role = turn.role == Turn::Role::kSystem ? "system"
                       : turn.role == Turn::Role::kUser ? "user"
                                                        : "assistant";
    messages.push_back({role, {PromptSpan::Data(turn.text)}});
  }
  EncodedConversation encoded = EncodeConversation(turns, encoding_, 0.1F);
  encoded.tokens.push_back(encoding_.ControlId(static_cast<size_t>(Turn::Role::kAssistant)));
  EXPECT_EQ(vocabulary_->TokenizePrompt(chat.Render(messages, true)), encoded.tokens);
  EXPECT_EQ(vocabulary_->end_token(), encoding_.ControlId(kEndOfTurn));
}

}  // namespace
}  // namespace halo::demo
