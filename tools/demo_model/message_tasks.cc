// Instructions about customer messages, and conversations of them.
#include <array>

#include "demo_model/customer_messages.h"
#include "demo_model/drawing.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

constexpr auto kExtract =
    std::to_array<Text>({"Extract {keys} from the customer's message as JSON.",
                         "Return a JSON object with the keys {keys}.",
                         "Read the message and write one line of JSON with {keys}.",
                         "Extract {keys}. Answer with JSON only.",
                         "You read customer messages. Give {keys} as JSON and write nothing else.",
                         "Which {keys} does the message name? Answer in JSON.",
                         "Turn the message into a JSON object with {keys}.",
                         "Extract the {keys} as a JSON object. Write nothing else."});
constexpr auto kUrgency =
    std::to_array<Text>({"How urgent is this message? Answer low, medium or high.",
                         "Classify the urgency of the message as low, medium or high.",
                         "State the urgency in one word: low, medium or high.",
                         "Classify urgency. Answer with one word: low, medium or high."});
constexpr auto kSentiment =
    std::to_array<Text>({"Is the message negative, neutral or positive? Answer in one word.",
                         "Classify the sentiment as negative, neutral or positive.",
                         "State the sentiment in one word: negative, neutral or positive."});
constexpr auto kSummary = std::to_array<Text>(
    {"Summarize the message in one line.", "Summarize the customer's message in one sentence.",
     "Say in one line what the customer reports.", "Write a summary of one line."});
constexpr auto kReply = std::to_array<Text>(
    {"Write a reply to the customer in one sentence.", "Reply to the customer in one sentence.",
     "Answer the customer politely in one sentence.",
     "Write one friendly sentence as a reply. Name the product and the problem.",
     "You work for the support team. Reply in a sentence."});
constexpr auto kView = std::to_array<Text>(
    {"You speak for {view}. Decide whether this message must be escalated.",
     "Judge the message from the viewpoint of {view}: escalate or wait?",
     "You are responsible for {view}. Say what you see, then give your verdict: escalate or wait.",
     "As {view}, decide: escalate or wait."});
constexpr auto kMerge = std::to_array<Text>(
    {"Merge the judgements: count the verdicts, and name who agrees.",
     "Several colleagues have judged this message. Count their verdicts and state the result.",
     "Give the final verdict of the colleagues, with the count.",
     "Decide by majority; escalate if it is a tie."});

constexpr auto kViewpoints = std::to_array<Text>({"support", "sales", "engineering", "operations"});

std::string DrawExtractInstruction(RandomStream& random, std::vector<std::string>& keys) {
  keys = {"product", "problem"};
  const uint64_t more = random.Below(4);
  if (more & 1) keys.emplace_back("sentiment");
  if (more & 2) keys.emplace_back("urgency");
  if (Chance(random, 30)) Shuffle(random, keys);
  return Fill(Pick(random, kExtract), {{"keys", ListInWords(keys)}});
}

struct Asked {
  std::string task, instruction, answer;
};

Asked DrawAsked(RandomStream& random, const CustomerMessage& message) {
  const uint64_t which = random.Below(100);
  if (which < 30) {
    std::vector<std::string> keys;
    std::string instruction = DrawExtractInstruction(random, keys);
    return {"extract", std::move(instruction), ExtractionAnswer(message, keys)};
  }
  if (which < 38) return {"urgency", std::string(Pick(random, kUrgency)), message.urgency};
  if (which < 44) return {"sentiment", std::string(Pick(random, kSentiment)), message.sentiment};
  if (which < 55) return {"summary", std::string(Pick(random, kSummary)), SummaryAnswer(message)};
  if (which < 80) return {"reply", std::string(Pick(random, kReply)), ReplyAnswer(message)};
  const std::string view(Pick(random, kViewpoints));
  return {"view", Fill(Pick(random, kView), {{"view", view}}), ViewAnswer(message, view)};
}

std::string Block(const std::string& name, const std::string& text) {
  return "\n\n### " + name + "\n" + text;
}

Conversation Ask(RandomStream& random, const CustomerMessage& message, const Asked& asked,
                 const std::string& context) {
  Conversation conversation{asked.task, LayOut(random, asked.instruction, context),
                            FactsOf(message)};
  conversation.turns.push_back({Turn::Role::kAssistant, asked.answer});
  return conversation;
}

}  // namespace

std::vector<Turn> LayOut(RandomStream& random, std::string instruction, std::string context) {
  if (Chance(random, 25)) return {{Turn::Role::kUser, context + "\n\n" + instruction}};
  return {{Turn::Role::kSystem, std::move(instruction)}, {Turn::Role::kUser, std::move(context)}};
}

Conversation DrawMerge(RandomStream& random, Split split) {
  const CustomerMessage message = DrawMessage(random, split);
  std::vector<std::string> views(kViewpoints.begin(), kViewpoints.end());
  Shuffle(random, views);
  if (Chance(random, 40)) views.pop_back();
  std::string context = message.text;
  std::vector<std::string> escalating, waiting;
  for (const std::string& view : views) {
    (Escalates(message, view) ? escalating : waiting).push_back(view);
    context += Block(view, ViewAnswer(message, view));
  }
  const bool escalate = escalating.size() >= waiting.size();
  const std::vector<std::string>& winners = escalate ? escalating : waiting;
  const std::string answer = "The " + message.product + ": " + (escalate ? "escalate" : "wait") +
                             ", by " + std::to_string(winners.size()) + " of " +
                             std::to_string(views.size()) + " votes (" + ListInWords(winners) +
                             ").";
  return Ask(random, message, {"merge", std::string(Pick(random, kMerge)), answer}, context);
}

Conversation DrawMessageConversation(RandomStream& random, Split split) {
  const CustomerMessage message = DrawMessage(random, split);
  const Asked first = DrawAsked(random, message);
  std::string context = message.text;
  // What other calls said about the message may stand under it.
  if (Chance(random, 20)) {
    const Asked earlier = DrawAsked(random, message);
    context += Block(earlier.task, earlier.answer);
  }
  Conversation conversation = Ask(random, message, first, context);
  for (uint64_t more = Chance(random, 45) ? 1 + random.Below(2) : 0; more > 0; --more) {
    const Asked next = DrawAsked(random, message);
    conversation.turns.push_back({Turn::Role::kUser, next.instruction});
    conversation.turns.push_back({Turn::Role::kAssistant, next.answer});
  }
  return conversation;
}

namespace {

RandomStream StreamOf(Split split, uint64_t seed, uint64_t index) {
  // Splits draw from streams of their own.
  return RandomStream(seed * 0x9E3779B97F4A7C15ULL + (index << 3) + static_cast<uint64_t>(split));
}

}  // namespace

Conversation MakeExtraction(Split split, uint64_t seed, uint64_t index) {
  RandomStream random = StreamOf(split, seed, index);
  const CustomerMessage message = DrawMessage(random, split);
  const std::vector<std::string> keys = {"product", "problem", "sentiment"};
  return Ask(random, message,
             {"extract", Fill(Pick(random, kExtract), {{"keys", ListInWords(keys)}}),
              ExtractionAnswer(message, keys)},
             message.text);
}

Conversation MakeReply(Split split, uint64_t seed, uint64_t index) {
  RandomStream random = StreamOf(split, seed, index);
  const CustomerMessage message = DrawMessage(random, split);
  return Ask(random, message, {"reply", std::string(Pick(random, kReply)), ReplyAnswer(message)},
             message.text);
}

nlohmann::ordered_json MakeMessageRow(Split split, uint64_t seed, uint64_t index) {
  RandomStream random = StreamOf(split, seed, index);
  const CustomerMessage message = DrawMessage(random, split);
  nlohmann::ordered_json expected = FactsOf(message);
  expected["escalated_by"] = nlohmann::ordered_json::array();
  for (const Text view : kViewpoints) {
    if (Escalates(message, std::string(view))) expected["escalated_by"].push_back(view);
  }
  return {
      {"id", "m" + std::to_string(index + 1)}, {"prompt", message.text}, {"expected", expected}};
}

}  // namespace halo::demo
