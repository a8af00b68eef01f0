#include "demo_model/chat_format.h"

namespace halo::demo {

const std::vector<std::string>& ControlTokens() {
  static const std::vector<std::string> tokens = {"<|system|>", "<|user|>", "<|assistant|>",
                                                  "<|end|>"};
  return tokens;
}

std::string_view ChatTemplateText() {
  return "{% for message in messages %}"
         "{% if message['role'] == 'system' %}{{ '<|system|>' }}"
         "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
         "{% else %}{{ '<|user|>' }}{% endif %}"
         "{{ message['content'] + '<|end|>' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}";
}

EncodedConversation EncodeConversation(const std::vector<Turn>& turns,
                                       const BytePairEncoding& encoding, float prompt_weight) {
  EncodedConversation conversation;
  const auto add = [&](TokenId token, float weight) {
    conversation.tokens.push_back(token);
    conversation.weights.push_back(weight);
  };
  for (const Turn& turn : turns) {
    const bool answer = turn.role == Turn::Role::kAssistant;
    const float weight = !answer ? prompt_weight : turn.learned ? 1.0F : 0.0F;
    // Who speaks next is the caller's choice.
    add(encoding.ControlId(static_cast<size_t>(turn.role)), 0.0F);
    for (const TokenId token : encoding.Encode(turn.text)) add(token, weight);
    add(encoding.ControlId(kEndOfTurn), weight);
  }
  return conversation;
}

void AppendToBatch(const EncodedConversation& conversation, TokenBatch& batch) {
  if (batch.starts.empty()) batch.starts.push_back(0);
  for (size_t i = 0; i + 1 < conversation.tokens.size(); ++i) {
    batch.tokens.push_back(conversation.tokens[i]);
    batch.targets.push_back(conversation.tokens[i + 1]);
    batch.weights.push_back(conversation.weights[i + 1]);
  }
  batch.starts.push_back(static_cast<int32_t>(batch.tokens.size()));
}

}  // namespace halo::demo
