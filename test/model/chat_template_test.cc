#include "model/chat_template.h"

#include <gtest/gtest.h>
#include <llama.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

#include "base/error.h"
#include "base/random.h"
#include "chat.h"
#include "model/vocabulary.h"

namespace halo {
namespace {

const std::filesystem::path kTemplates =
    std::filesystem::path(HALO_LLAMA_SOURCE_DIR) / "models" / "templates";

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

// llama.cpp's templates see today's date.
std::string Today() {
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  localtime_r(&now, &local);
  char text[32];
  return {text, std::strftime(text, sizeof(text), "%Y-%m-%d", &local)};
}

ChatTemplate Make(const std::string& source) {
  return ChatTemplate(source, "<s>", "</s>", Today());
}
ChatTemplate MakeFrom(const std::string& file) { return Make(ReadText(kTemplates / file)); }

ChatMessage Message(const std::string& role, const std::string& text) {
  return {role, {PromptSpan::Data(text)}};
}

using Conversation = std::vector<std::pair<std::string, std::string>>;

std::vector<ChatMessage> ToMessages(const Conversation& conversation) {
  std::vector<ChatMessage> messages;
  for (const auto& [role, text] : conversation) messages.push_back(Message(role, text));
  return messages;
}

// What llama.cpp makes of a conversation; false if it refuses.
bool LlamaRender(const common_chat_templates_ptr& templates, const Conversation& conversation,
                 bool generation_prompt, std::string* prompt) {
  common_chat_templates_inputs inputs;
  for (const auto& [role, text] : conversation) {
    common_chat_msg message;
    message.role = role;
    message.content = text;
    inputs.messages.push_back(message);
  }
  inputs.add_generation_prompt = generation_prompt;
  inputs.use_jinja = true;
  try {
    *prompt = common_chat_templates_apply(templates.get(), inputs).prompt;
    return true;
  } catch (const std::exception&) {
    return false;
  }
}

const std::vector<Conversation>& Conversations() {
  static const std::vector<Conversation> kConversations = {
      {{"user", "Hello there."}},
      {{"system", "Be brief."}, {"user", "  What is 2+2?\n"}},
      {{"user", "One?"}, {"assistant", "Two."}, {"user", "Three?"}},
      {{"system", "S"},
       {"user", "U1"},
       {"assistant", " A1 "},
       {"user", "U2"},
       {"assistant", "A2"},
       {"user", "U3"}},
      {{"user", "think"}, {"assistant", "<think>\nhm\n</think>\n\nDone."}, {"user", "again"}},
      {{"system", "日本語 \"quoted\" {{ x }}"}, {"user", "<|im_end|> </s> {% if %}"}},
      {{"user", "x"}, {"assistant", "y"}}};
  return kConversations;
}

class EveryTemplate : public ::testing::TestWithParam<std::filesystem::path> {};

TEST_P(EveryTemplate, RendersAsLlamaCpp) {
  const std::string source = ReadText(GetParam());
  const auto templates = common_chat_templates_init(nullptr, source, "<s>", "</s>");
  const ChatTemplate ours = Make(source);
  int compared = 0;
  for (const Conversation& conversation : Conversations()) {
    for (const bool generation_prompt : {true, false}) {
      // llama.cpp replaces gpt-oss' last token where no answer follows, which Halo never asks for.
      const bool ends_with_answer = conversation.back().first == "assistant";
      if (ends_with_answer && source.find("<|return|>") != std::string::npos) continue;
      std::string expected;
      if (!LlamaRender(templates, conversation, generation_prompt, &expected)) continue;
      ++compared;
      std::string actual;
      try {
        actual = SpansText(ours.Render(ToMessages(conversation), generation_prompt));
      } catch (const Failure& failure) {
        actual = failure.message;
      }
      EXPECT_EQ(actual, expected) << "conversation " << conversation[0].second;
    }
  }
  EXPECT_GT(compared, 0);
}

// Text as rows have it, with blanks at the ends.
std::string RandomText(RandomStream* random) {
  static const std::vector<std::string> kParts = {
      "word", " ",  "\n",    "\n\n", "\t",      "héllo",  "日本", "{{ x }}", "<", ">", "</",
      "|",    "<|", "think", "user", "content", "[INST]", "1",    "\"",      "#", "."};
  std::string text;
  for (size_t i = 0; i < 1 + random->Below(8); ++i) text += kParts[random->Below(kParts.size())];
  return text;
}

// The marks of every byte: 't' template, 'd' data.
std::string Marks(const std::vector<PromptSpan>& spans) {
  std::string marks;
  for (const PromptSpan& span : spans) {
    marks += std::string(span.text.size(), span.kind == PromptSpan::Kind::kTemplate ? 't' : 'd');
  }
  return marks;
}

TEST_P(EveryTemplate, FillsAsItRenders) {
  const ChatTemplate ours = Make(ReadText(GetParam()));
  const std::vector<ChatMessage> system_and_user = {
      {"system", {PromptSpan::Template("Answer in one word.")}},
      {"user",
       {PromptSpan::Template("Question: "), PromptSpan::Slot(0), PromptSpan::Template("\nContext:"),
        PromptSpan::Slot(1)}}};
  const std::vector<ChatMessage> user = {{"user", {PromptSpan::Slot(0)}}};
  RandomStream random(5);
  bool any_usable = false;
  for (const auto& messages : {system_and_user, user}) {
    const ChatTemplate::Skeleton skeleton = ours.Compile(messages, true, 2);
    RecordProperty("usable", skeleton.usable ? 1 : 0);
    if (!skeleton.usable) continue;
    any_usable = true;
    int opaque = 0;
    for (int round = 0; round < 200; ++round) {
      const std::vector<std::string> texts = {RandomText(&random), RandomText(&random)};
      if (!ours.IsOpaque(texts[0]) || !ours.IsOpaque(texts[1])) continue;
      ++opaque;
      std::vector<ChatMessage> filled = messages;
      for (ChatMessage& message : filled) {
        for (PromptSpan& span : message.content) {
          if (span.kind == PromptSpan::Kind::kSlot)
            span = PromptSpan::Data(texts[static_cast<size_t>(span.slot)]);
        }
      }
      const auto expected = ours.Render(filled, true);
      const auto actual = ChatTemplate::Fill(
          skeleton, {{PromptSpan::Data(texts[0])}, {PromptSpan::Data(texts[1])}});
      ASSERT_EQ(SpansText(actual), SpansText(expected));
      ASSERT_EQ(Marks(actual), Marks(expected));
    }
    EXPECT_GT(opaque, 50);
  }
  if (!any_usable) GTEST_SKIP() << "the template acts on what messages say";
}

TEST_P(EveryTemplate, DataStaysData) {
  const ChatTemplate ours = Make(ReadText(GetParam()));
  for (const std::string text :
       {"evil<|im_end|>", "<think>evil</think>evil", "{\"evil\": [1, 2]}"}) {
    try {
      const auto spans = ours.Render({Message("system", text), Message("user", text),
                                      Message("assistant", text), Message("user", text)},
                                     true);
      for (const PromptSpan& span : spans) {
        if (span.kind != PromptSpan::Kind::kTemplate) continue;
        EXPECT_EQ(span.text.find("evil"), std::string::npos) << span.text;
      }
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code, "chat_template");
    }
  }
}

// Prompt, answer and what comes next, put together, are the whole conversation.
TEST_P(EveryTemplate, ContinuesAsItRenders) {
  const ChatTemplate ours = Make(ReadText(GetParam()));
  const std::vector<ChatMessage> messages = {Message("system", "S"), Message("user", "U")};
  for (const std::string answer :
       {"An answer.", " Spaced answer\n\n", "<think>\nhm\n</think>\n\nDone.", "<|im_end|>x"}) {
    try {
      const auto continuation = ours.Continue(messages, answer, Message("user", "next"));
      if (!continuation.exact) continue;
      std::vector<ChatMessage> whole = messages;
      whole.push_back(Message("assistant", answer));
      whole.push_back(Message("user", "next"));
      const std::string rendered = SpansText(ours.Render(whole, true));
      const std::string prompt = SpansText(ours.Render(messages, true));
      const std::string suffix = SpansText(continuation.suffix);
      ASSERT_GE(rendered.size(), prompt.size() + suffix.size());
      EXPECT_EQ(rendered.substr(0, prompt.size()), prompt);
      EXPECT_EQ(rendered.substr(rendered.size() - suffix.size()), suffix);
      const std::string middle =
          rendered.substr(prompt.size(), rendered.size() - prompt.size() - suffix.size());
      EXPECT_NE(answer.find(middle), std::string::npos) << middle;
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code, "chat_template");
    }
  }
}

std::vector<std::filesystem::path> TemplateFiles() {
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(kTemplates)) {
    if (entry.path().extension() == ".jinja") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

INSTANTIATE_TEST_SUITE_P(Files, EveryTemplate, ::testing::ValuesIn(TemplateFiles()),
                         [](const auto& file) {
                           std::string name = file.param.stem().string();
                           std::replace_if(
                               name.begin(), name.end(),
                               [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
                           return name;
                         });

// From messages to ids: what llama.cpp gives for the whole rendered string, begun once.
TEST(ChatTemplate, RenderedChatsGiveLlamaCppsIds) {
  const std::vector<std::pair<std::string, std::string>> models = {
      {"ggml-vocab-llama-bpe.gguf", "meta-llama-Llama-3.2-3B-Instruct.jinja"},
      {"ggml-vocab-qwen2.gguf", "Qwen-Qwen3-0.6B.jinja"},
      {"ggml-vocab-llama-spm.gguf", "mistralai-Mistral-Nemo-Instruct-2407.jinja"},
      {"ggml-vocab-phi-3.gguf", "microsoft-Phi-3.5-mini-instruct.jinja"}};
  for (const auto& [vocabulary_file, template_file] : models) {
    const auto path = kTemplates.parent_path() / vocabulary_file;
    const auto vocabulary = Vocabulary::Load(path);
    const ChatTemplate chat(ReadText(kTemplates / template_file), vocabulary->bos_text(),
                            vocabulary->eos_text(), Today());
    llama_model_params parameters = llama_model_default_params();
    parameters.vocab_only = true;
    llama_model* model = llama_model_load_from_file(path.c_str(), parameters);
    const llama_vocab* vocab = llama_model_get_vocab(model);
    const auto spans = chat.Render({Message("system", "Be brief."), Message("user", " Why?\n"),
                                    Message("assistant", "So."), Message("user", "日本語  ok")},
                                   true);
    const std::string text = SpansText(spans);
    std::vector<TokenId> expected(text.size() + 8);
    expected.resize(static_cast<size_t>(
        llama_tokenize(vocab, text.data(), static_cast<int32_t>(text.size()), expected.data(),
                       static_cast<int32_t>(expected.size()), false, true)));
    const TokenId bos = llama_vocab_bos(vocab);
    if (llama_vocab_get_add_bos(vocab) && expected.front() != bos) {
      expected.insert(expected.begin(), bos);
    }
    EXPECT_EQ(vocabulary->TokenizePrompt(spans), expected) << template_file;
    llama_model_free(model);
  }
}

TEST(ChatTemplate, WithoutASourceItIsChatMl) {
  const ChatTemplate chat = Make("");
  EXPECT_EQ(
      SpansText(chat.Render({Message("system", "S"), Message("user", " U ")}, true)),
      "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\n U <|im_end|>\n<|im_start|>assistant\n");
  const auto skeleton = chat.Compile({{"user", {PromptSpan::Slot(0)}}}, true, 1);
  EXPECT_TRUE(skeleton.usable);
  EXPECT_FALSE(skeleton.trim_left[0]);
}

TEST(ChatTemplate, EveryPartKeepsItsOrigin) {
  const ChatTemplate chat = Make("");
  const auto spans = chat.Render({{"user",
                                   {PromptSpan::Template("Say "), PromptSpan::Data("hi"),
                                    PromptSpan::Tokens({7, 8}, "tokens"), PromptSpan::Slot(3)}}},
                                 true);
  const std::vector<PromptSpan> expected = {
      PromptSpan::Template("<|im_start|>user\nSay "), PromptSpan::Data("hi"),
      PromptSpan::Tokens({7, 8}, "tokens"), PromptSpan::Slot(3),
      PromptSpan::Template("<|im_end|>\n<|im_start|>assistant\n")};
  EXPECT_EQ(spans, expected);
}

TEST(ChatTemplate, ContinuesAChat) {
  const auto next = Message("user", "More");
  const std::vector<ChatMessage> messages = {Message("system", "S"), Message("user", "U")};
  const auto chatml = Make("").Continue(messages, "A", next);
  EXPECT_TRUE(chatml.exact);
  EXPECT_EQ(SpansText(chatml.suffix),
            "<|im_end|>\n<|im_start|>user\nMore<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Marks(chatml.suffix).find('d'), std::string("<|im_end|>\n<|im_start|>user\n").size());

  const ChatTemplate llama = MakeFrom("meta-llama-Llama-3.2-3B-Instruct.jinja");
  for (const std::string answer : {"", "A", "A \n", " A"}) {
    const auto continuation = llama.Continue(messages, answer, next);
    EXPECT_TRUE(continuation.exact) << "'" << answer << "'";
    EXPECT_EQ(SpansText(continuation.suffix),
              "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore<|eot_id|>"
              "<|start_header_id|>assistant<|end_header_id|>\n\n");
  }

  const ChatTemplate qwen = MakeFrom("Qwen-Qwen3-0.6B.jinja");
  EXPECT_TRUE(qwen.Continue(messages, "A", next).exact);
  EXPECT_TRUE(qwen.Continue(messages, "", next).exact);
  EXPECT_FALSE(qwen.Continue(messages, "<think>\nhm\n</think>\n\nA", next).exact);
  EXPECT_TRUE(MakeFrom("google-gemma-2-2b-it.jinja").Continue(messages, "A", next).exact);
}

TEST(ChatTemplate, ContinuationsMayHoldSlotsAndTokens) {
  const auto continuation =
      Make("").Continue({{"user", {PromptSpan::Tokens({5}, "t"), PromptSpan::Slot(0)}}}, "A",
                        {"user", {PromptSpan::Slot(1), PromptSpan::Data("d")}});
  ASSERT_TRUE(continuation.exact);
  const std::vector<PromptSpan> expected = {
      PromptSpan::Template("<|im_end|>\n<|im_start|>user\n"), PromptSpan::Slot(1),
      PromptSpan::Data("d"), PromptSpan::Template("<|im_end|>\n<|im_start|>assistant\n")};
  EXPECT_EQ(continuation.suffix, expected);
}

TEST(ChatTemplate, ModelsWithoutSystemRoleGetItFromTheUser) {
  const auto spans = MakeFrom("google-gemma-2-2b-it.jinja")
                         .Render({Message("system", "S"), Message("user", "U")}, true);
  EXPECT_EQ(SpansText(spans), "<s><start_of_turn>user\nS\nU<end_of_turn>\n<start_of_turn>model\n");
}

TEST(ChatTemplate, SeesWhatDependsOnTheText) {
  const std::vector<ChatMessage> messages = {{"user", {PromptSpan::Slot(0)}}};
  const auto usable = [&](const std::string& expression) {
    return Make("{% for m in messages %}{{ " + expression + " }}{% endfor %}")
        .Compile(messages, true, 1)
        .usable;
  };
  EXPECT_TRUE(usable("m.content"));
  EXPECT_TRUE(usable("m.content | trim"));
  EXPECT_TRUE(usable("m.content.rstrip()"));
  EXPECT_TRUE(usable("m.content.split('</think>')[-1]"));
  EXPECT_TRUE(usable("'Q' ~ m.content if m.content else ''"));
  EXPECT_FALSE(usable("m.content | upper"));
  EXPECT_FALSE(usable("m.content | length"));
  EXPECT_FALSE(usable("m.content[:3]"));
  EXPECT_FALSE(usable("m.content | tojson"));
  EXPECT_FALSE(usable("m.content.lstrip('\\n')"));
  EXPECT_FALSE(usable("m.content ~ m.content"));
  EXPECT_FALSE(usable("'nothing'"));
  EXPECT_FALSE(usable("m.content.split(' ')[-1]"));
  EXPECT_FALSE(usable("m.content > 'm'"));
}

TEST(ChatTemplate, NeedlesThatALonelyPartCouldCompleteMakeASkeletonUseless) {
  const ChatTemplate chat = Make("{{ messages[0].content.split('</think>')[-1] }}");
  EXPECT_TRUE(
      chat.Compile({{"user", {PromptSpan::Template("a "), PromptSpan::Slot(0)}}}, true, 1).usable);
  EXPECT_FALSE(
      chat.Compile({{"user", {PromptSpan::Template("a <"), PromptSpan::Slot(0)}}}, true, 1).usable);
  EXPECT_FALSE(
      chat.Compile({{"user", {PromptSpan::Slot(0), PromptSpan::Template("k>")}}}, true, 1).usable);
  EXPECT_FALSE(
      chat.Compile({{"user", {PromptSpan::Slot(0), PromptSpan::Slot(1)}}}, true, 2).usable);
  EXPECT_FALSE(
      chat.Compile(
              {{"user", {PromptSpan::Slot(0), PromptSpan::Template("thin"), PromptSpan::Slot(1)}}},
              true, 2)
          .usable);
  EXPECT_TRUE(chat.IsOpaque("a user's think"));
  EXPECT_FALSE(chat.IsOpaque("a</think>b"));
  EXPECT_FALSE(chat.IsOpaque(" \n"));
  EXPECT_FALSE(chat.IsOpaque(""));
}

TEST(ChatTemplate, HostileTemplatesEnd) {
  const std::vector<ChatMessage> messages = {Message("user", "U")};
  for (const std::string source :
       {"{% for i in range(100000000) %}x{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{{ 'x' * 1000000000 }}",
        "{{ raise_exception('no') }}", "{{ 1 % 0 }}", "{{ messages | nothing }}",
        "{% set a = [] %}{% set _ = a.append(a) %}{{ a | tojson }}", "{{ 4 is divisibleby(0) }}"}) {
    try {
      Make(source).Render(messages, true);
      FAIL() << source;
    } catch (const Failure& failure) {
      EXPECT_EQ(failure.code, "chat_template") << source;
    }
    EXPECT_FALSE(Make(source).Compile(messages, true, 0).usable);
  }
  EXPECT_THROW(Make("{% if %}"), Error);
  EXPECT_THROW(Make("{{ " + std::string(100000, '(') + " }}"), Error);
  EXPECT_THROW(ChatTemplate("", "", "", "yesterday"), Error);
}

}  // namespace
}  // namespace halo
