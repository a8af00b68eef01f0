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
///  - Render() runs the template over the messages as they are: always right, ~90 us for
///  Llama 3.2's.
///  - Compile() runs it once over messages with slots; Fill() then puts a row's text into the
///  holes. Right as long
///    as the template treats a message's content as an opaque text that it may trim. That is probed
///    at compile time, and IsOpaque() refuses texts on which a template could act: empty ones and
///    those that contain a string constant of the template ("</think>"). Callers fall back to
///    Render() for these.
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
                                      const std::vector<std::vector<PromptSpan>>& values);
  /// True if a template can only copy or trim this text.
  bool IsOpaque(std::string_view text) const;

  /// What the template adds after the assistant's answer when one more user turn follows: the
  /// conversation `messages` + assistant(answer) + `next_user`, rendered with the generation
  /// prompt, minus the part that is the parent's prompt (`messages` rendered with the generation
  /// prompt) and the answer. Begins with the template's own end-of-turn text. `answer_text` may be
  /// "" with `answer_opaque` true to ask for the constant part with a placeholder answer. Returns
  /// an empty optional-like result (`exact == false`) where the rendered parent part differs in
  /// more than trimmed white space (reasoning removed, for example).
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
