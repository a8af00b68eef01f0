#pragma once

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "model/chat_template.h"
#include "model/vocabulary.h"
#include "plan/logical_plan.h"

namespace halo {

/// What prompts of one model are made with. Immutable, shared by its operators.
struct PromptModel {
  /// shared with the engine. Null for engines that take text.
  std::shared_ptr<const Vocabulary> vocabulary;
  /// shared by the operators of the model. Null: prompts without a chat template.
  std::shared_ptr<const ChatTemplate> chat;
};

/// A prompt as an engine takes it, and what a continuation of it needs to know.
struct Prompt {
  std::vector<TokenId> tokens;       ///< with a vocabulary
  std::string text;                  ///< without one; with one only what Conversation needs
  int32_t static_prefix_tokens = 0;  ///< leading tokens that do not depend on the row
};

/// A conversation up to and including an answer: what a child continues (contract 4).
struct Conversation {
  std::vector<ChatMessage> messages;  ///< without the answer
  Prompt prompt;
  std::vector<TokenId> answer_tokens;  ///< sampled ids, the end token included
  std::string answer_text;
  /// What the output is where it is no text: what JSON under a schema says, or a list of samples.
  std::optional<nlohmann::ordered_json> answer_value;
  bool answer_cut = false;    ///< a stop string was cut off
  bool answer_ended = false;  ///< the last sampled id is an end token
  Signature vocabulary;
  const ChatTemplate* chat =
      nullptr;  ///< which template made the prompt, to compare only; null: none
};

/// What the prompt of one instance is made of.
struct PromptInputs {
  const nlohmann::ordered_json& row;
  /// PromptForm::kRowPrompt: one for each input, in `input_ops` order; null: it has no answer.
  std::vector<const Conversation*> parents;
  std::map<std::string, nlohmann::ordered_json> values;  ///< names that templates may read
  std::map<std::string, const Conversation*> answers;    ///< the same, where it is an answer's text
};

/// Makes the prompts of one operator from a row and its parents' conversations. Pure; the constant
/// part of the chat template is rendered once. Throws Failure where a template or a value is at
/// fault.
class PromptBuilder {
 public:
  PromptBuilder(const LogicalPlan& plan, OperatorIndex op, const PromptModel& model,
                std::string prompt_column);
  ~PromptBuilder();
  PromptBuilder(PromptBuilder&&) noexcept;

  /// The result holds the prompt, and the messages if a consumer takes the conversation up; its
  /// answer is still empty.
  Conversation Build(const PromptInputs& inputs) const;

  /// What is asked after an answer that does not fit the operator's schema: the conversation goes
  /// on with the answer, which `refused` holds, and with what the validator said of it. For
  /// operators with `repair`.
  Conversation Repair(const Conversation& refused, const std::string& fault) const;

  /// max_tokens or min_tokens of a row: a whole number in range. Throws Failure naming the key.
  int32_t RowLimit(const RowNumber& number, const nlohmann::ordered_json& row,
                   const char* key) const;

  /// True if this operator's prompt needs its parents' messages (they are kept only then).
  bool needs_messages() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
