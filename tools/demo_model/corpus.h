#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "demo_model/chat_format.h"

namespace halo::demo {

/// Which texts a conversation may be made of. Training shares none with the others, in the sense
/// that each says.
enum class Split : uint8_t {
  kTraining,
  kHeldOutCombinations,  ///< known products and problems, in pairs that training never has
  kUnseenProducts,       ///< products of nouns and modifiers that training never has
  kUnseenProblems,       ///< problems of verbs, parts and properties that training never has
  kFreeWording           ///< held-out pairs in sentences that training never has
};

std::string_view SplitName(Split split);

/// All splits but the training's, in the order of reports.
inline constexpr std::array kMeasuredSplits = {Split::kHeldOutCombinations, Split::kUnseenProducts,
                                               Split::kUnseenProblems, Split::kFreeWording};

/// A conversation to learn or to ask, and what is true in it.
struct Conversation {
  std::string task;              ///< "extract", "reply", "review", "vote", ...
  std::vector<Turn> turns;       ///< the last one is the assistant's
  nlohmann::ordered_json facts;  ///< what the answers must agree with, by names of the task
};

/// Conversation `index` of a split: a pure function of its arguments. Tasks come in fixed shares.
Conversation MakeConversation(Split split, uint64_t seed, uint64_t index);

/// A customer message with the instruction to extract product, problem and sentiment as JSON, and
/// one with the instruction to reply; facts: product, problem, sentiment, urgency.
Conversation MakeExtraction(Split split, uint64_t seed, uint64_t index);
Conversation MakeReply(Split split, uint64_t seed, uint64_t index);

/// A customer message as a row of a workflow: {"id", "prompt", "expected": {"product", "problem",
/// "sentiment", "urgency", "escalated_by"}}; `escalated_by` lists the viewpoints (of support,
/// sales, engineering, operations) that escalate it.
nlohmann::ordered_json MakeMessageRow(Split split, uint64_t seed, uint64_t index);

}  // namespace halo::demo
