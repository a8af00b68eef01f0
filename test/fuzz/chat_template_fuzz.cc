// Any bytes, taken for a model's chat template and a message (cut at 0xFF): it is refused, fails
// within its limits, or renders; and where a skeleton may be used, filling it gives what rendering
// gives, byte for byte with the same origins.

#include <vector>

#include "fuzz/property.h"
#include "model/chat_template.h"

namespace {

using halo::ChatMessage;
using halo::ChatTemplate;
using halo::PromptSpan;
using halo::fuzz::Require;

std::vector<ChatMessage> Conversation(const PromptSpan& content) {
  return {{"system", {PromptSpan::Template("Answer in one word.")}},
          {"user", {PromptSpan::Template("Question: "), content}}};
}

// Whether each byte is the template's ('t') or a message's ('d').
std::string Origins(const std::vector<PromptSpan>& spans) {
  std::string origins;
  for (const PromptSpan& span : spans) {
    origins += std::string(span.text.size(), span.kind == PromptSpan::Kind::kTemplate ? 't' : 'd');
  }
  return origins;
}

void CheckFill(const ChatTemplate& chat, const std::string& text) {
  const ChatTemplate::Skeleton skeleton = chat.Compile(Conversation(PromptSpan::Slot(0)), true, 1);
  if (!skeleton.usable || !chat.IsOpaque(text)) return;
  const auto filled = ChatTemplate::Fill(skeleton, {{PromptSpan::Data(text)}});
  const auto rendered = chat.Render(Conversation(PromptSpan::Data(text)), true);
  Require(SpansText(filled) == SpansText(rendered), "a filled skeleton says what rendering says");
  Require(Origins(filled) == Origins(rendered), "a filled skeleton has the origins of rendering");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto [source, text] = halo::fuzz::TwoTexts(data, size);
  try {
    const ChatTemplate chat(source, "<s>", "</s>", "2026-01-31");
    try {
      chat.Render(Conversation(PromptSpan::Data(text)), true);
      CheckFill(chat, text);
      chat.Continue(Conversation(PromptSpan::Data("Why?")), text,
                    {"user", {PromptSpan::Template("And now?")}});
    } catch (const halo::Failure& failure) {
      Require(failure.code == "chat_template", "a chat template fails as such");
      Require(!failure.message.empty(), "a failure has a message");
    }
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, false);
  }
  return 0;
}
