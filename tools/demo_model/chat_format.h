#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "demo_model/byte_pair_encoding.h"
#include "demo_model/transformer.h"

namespace halo::demo {

/// One turn of a training conversation.
struct Turn {
  enum class Role : uint8_t { kSystem, kUser, kAssistant };
  Role role = Role::kUser;
  std::string text;
  /// False for an assistant's turn that is there to be read, not to be learned (it may be wrong).
  bool learned = true;
};

/// The control tokens in the order of their ids: one that begins each role's turn, by Turn::Role,
/// and the one that ends every turn.
const std::vector<std::string>& ControlTokens();
constexpr size_t kEndOfTurn = 3;  ///< index into ControlTokens()

/// The chat template of the model file, which lays conversations out as EncodeConversation does.
std::string_view ChatTemplateText();

/// A conversation as tokens; `answer_weights` are losses' weights by token: 1 for what the
/// assistant says and the token that ends it, `prompt_weight` for all else.
struct EncodedConversation {
  std::vector<TokenId> tokens;
  std::vector<float> weights;
};
EncodedConversation EncodeConversation(const std::vector<Turn>& turns,
                                       const BytePairEncoding& encoding, float prompt_weight);

/// Lays conversations end to end; each token's target is the next one of its conversation.
void AppendToBatch(const EncodedConversation& conversation, TokenBatch& batch);

}  // namespace halo::demo
