#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/span.h"

namespace halo {

/// A model's chat template (hostile input: step and size limits apply) with what it reads beside
/// the messages.
///
/// Two ways to the same spans:
///  - Render() runs the template over the messages as they are: always right, 13 us for
///  Llama 3.2's.
///  - Compile() runs it over messages with slots; Fill() then puts a row's text into the holes (0.7
///  us). While it
///    runs, everything the template asks about a slot's text is noted: a skeleton is usable only if
///    that was nothing but "is it empty", "does it contain this constant", "is it this constant",
///    and trimming. IsOpaque() says that a text gives the same answers as the slot did. Callers
///    fall back to Render() for other texts and skeletons. All 70 templates of llama.cpp's
///    models/templates compile; the first design, which only compared outputs of a few probes,
///    could not have told a template that acts on "</think>" from one that does not.
///
/// What the template is given, and how abilities such as a system role are found out, is as in
/// llama.cpp's common/chat.cpp, without its two patches of template sources (gpt-oss, Mistral) that
/// keep a template from refusing certain texts. No tools are offered, thinking is enabled.
class ChatTemplate {
 public:
  /// `date` is "YYYY-MM-DD": what strftime_now and date_string say, fixed per run.
  /// An empty `source` means the vocabulary has no template: ChatML is used. Throws Error(kModel).
  ChatTemplate(std::string source, std::string bos_text, std::string eos_text, std::string date);
  ~ChatTemplate();

  /// Spans of the conversation, neighbouring spans of one kind joined; token spans stay whole and
  /// in place (the template sees a placeholder for them and for slots). Throws Failure (code
  /// "chat_template").
  std::vector<PromptSpan> Render(const std::vector<ChatMessage>& messages,
                                 bool add_generation_prompt) const;

  /// A conversation rendered once, with holes.
  struct Skeleton {
    std::vector<PromptSpan> spans;  // slots remain
    std::vector<bool> trim_left;    // [slot] the template strips white space there
    std::vector<bool> trim_right;   // [slot]
    bool usable = false;  // false: the probe found content-dependent behaviour; use Render
  };
  Skeleton Compile(const std::vector<ChatMessage>& messages, bool add_generation_prompt,
                   int32_t slots) const;
  /// The skeleton with slot k replaced by `values[k]` (kData or kTokens spans; several are allowed
  /// a slot).
  static std::vector<PromptSpan> Fill(const Skeleton& skeleton,
                                      std::vector<std::vector<PromptSpan>> values);
  /// True if a template can only copy or trim this text.
  bool IsOpaque(std::string_view text) const;

  /// What the template adds after the assistant's answer when one more user turn follows: the
  /// conversation `messages` + assistant(answer) + `next_user`, rendered with the generation
  /// prompt, minus the part that is the parent's prompt (`messages` rendered with the generation
  /// prompt) and the answer. Begins with the template's own end-of-turn text. An empty
  /// `answer_text` asks for the constant part, with a placeholder answer: good for every answer
  /// that IsOpaque. Otherwise the template sees the real answer. `exact` is false where the
  /// rendered parent part differs in more than white space that the template trims off the answer
  /// (reasoning removed, for example). Throws Failure where the template refuses the conversation.
  struct Continuation {
    bool exact = false;
    std::vector<PromptSpan> suffix;
  };
  Continuation Continue(const std::vector<ChatMessage>& messages, const std::string& answer_text,
                        const ChatMessage& next_user) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
