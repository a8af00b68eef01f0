#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace halo {

using TokenId = int32_t;

/// One part of a prompt (contract section 4). Where a part came from decides how it is tokenized:
/// control and user-defined tokens are recognized in template spans only, token spans keep their
/// ids.
struct PromptSpan {
  enum class Kind : uint8_t {
    kTemplate,  ///< written by the workflow's author or the model's chat template
    kData,      ///< came from a row, a tool or a model: never special, never rendered again
    kTokens,    ///< ids of this vocabulary, passed through as they are; `text` is what they say
    kSlot       ///< a hole of a skeleton, filled per row: `slot` names it
  };

  Kind kind = Kind::kTemplate;
  int32_t slot = -1;
  std::string text;
  std::vector<TokenId> tokens;

  static PromptSpan Template(std::string text) {
    return {Kind::kTemplate, -1, std::move(text), {}};
  }
  static PromptSpan Data(std::string text) { return {Kind::kData, -1, std::move(text), {}}; }
  static PromptSpan Tokens(std::vector<TokenId> ids, std::string text) {
    return {Kind::kTokens, -1, std::move(text), std::move(ids)};
  }
  static PromptSpan Slot(int32_t slot) { return {Kind::kSlot, slot, {}, {}}; }

  friend bool operator==(const PromptSpan&, const PromptSpan&) = default;
};

/// One turn of a conversation.
struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::vector<PromptSpan> content;
};

/// True if any span has a text; slots have none.
bool HaveText(const std::vector<PromptSpan>& spans);

/// The text of all spans; slots count as nothing.
std::string SpansText(const std::vector<PromptSpan>& spans);

}  // namespace halo
