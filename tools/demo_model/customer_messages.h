#pragma once

#include <string>

#include "base/random.h"
#include "demo_model/corpus.h"

namespace halo::demo {

/// A customer's message and what it says.
struct CustomerMessage {
  std::string text;
  std::string product, problem;
  std::string sentiment;  ///< "negative", "neutral" or "positive"
  std::string urgency;    ///< "low", "medium" or "high"
  bool loyal = false;     ///< says that the customer has been one for years
  bool repeated = false;  ///< says that it has happened before
};

CustomerMessage DrawMessage(RandomStream& random, Split split);

/// Conversations about customer messages: extract, classify, summarize, reply, judge from a
/// viewpoint, merge judgements, or several of these in one conversation.
Conversation DrawMessageConversation(RandomStream& random, Split split);
/// The judgements of several viewpoints, merged.
Conversation DrawMerge(RandomStream& random, Split split);

/// Answers, each a function of what the message says.
std::string ExtractionAnswer(const CustomerMessage& message, const std::vector<std::string>& keys);
std::string SummaryAnswer(const CustomerMessage& message);
std::string ReplyAnswer(const CustomerMessage& message);
/// `view` is "support", "sales", "engineering" or "operations"; ends with "Verdict: escalate." or
/// "Verdict: wait.".
std::string ViewAnswer(const CustomerMessage& message, const std::string& view);
bool Escalates(const CustomerMessage& message, const std::string& view);

/// An instruction and what follows it, in one of the layouts of Halo's prompts: the instruction as
/// the system's turn and the context as the user's, or both in the user's with the context first.
std::vector<Turn> LayOut(RandomStream& random, std::string instruction, std::string context);

nlohmann::ordered_json FactsOf(const CustomerMessage& message);

}  // namespace halo::demo
