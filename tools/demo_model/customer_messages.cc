#include "demo_model/customer_messages.h"

#include <algorithm>
#include <array>

#include "demo_model/drawing.h"
#include "demo_model/message_wording.h"
#include "demo_model/word_lists.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

constexpr auto kNegative = std::to_array<Text>(
    {"I am very angry about this.", "This is a big disappointment.", "I am really annoyed.",
     "I hate it.", "What a waste of money.", "I am not happy at all.", "This is unacceptable.",
     "I am fed up.", "Never again.", "It ruined my week."});
constexpr auto kPositive = std::to_array<Text>(
    {"Otherwise I love it.", "Your service has been great so far.", "I still like it a lot.",
     "Apart from that I am very happy.", "You have always been kind to me.",
     "It is a lovely thing.", "I enjoy it every day.", "Thank you for the wonderful support.",
     "The rest is perfect.", "I am a big fan of yours."});
constexpr auto kNeutral = std::to_array<Text>(
    {"I would like to know what to do.", "Please tell me the next step.", "What do you suggest?",
     "I only want to report it.", "Let me know how this works.", "Is this normal?",
     "I can send a picture.", "Here is my report."});

constexpr auto kHigh = std::to_array<Text>(
    {"I need it by tomorrow.", "It is urgent.", "Please answer today.", "This cannot wait.",
     "I need help at once.", "We depend on it tonight.", "Call me immediately."});
constexpr auto kMedium = std::to_array<Text>(
    {"Please answer within the week.", "Some day this week would be fine.", "I need it next week.",
     "Please look at it in the next days.", "By Friday would be good."});
constexpr auto kLow = std::to_array<Text>({"There is no hurry.", "Take your time.", "It can wait.",
                                           "Whenever you find the time.",
                                           "Next month is early enough.", "I am in no rush."});

constexpr auto kLoyal = std::to_array<Text>(
    {"I have been a customer for {n} years.", "We have bought from you for {n} years.",
     "This is my order number {n} at your shop.", "I have trusted you for {n} years."});
constexpr auto kRepeated =
    std::to_array<Text>({"This is the {n} time.", "It has happened before.",
                         "It is the same fault again.", "You have repaired it once already."});
constexpr auto kFillers =
    std::to_array<Text>({"The parcel came on time.", "I have the receipt.", "The color is fine.",
                         "My neighbor has the same one.", "I live in the old town.",
                         "It stands in the hall.", "The box was open.", "I paid by card.",
                         "The weather was bad that day.", "My daughter uses it too."});

template <typename Low, typename Middle, typename High>
std::string DrawLevel(RandomStream& random, std::string& level, std::array<Text, 3> names,
                      const Low& low, const Middle& middle, const High& high) {
  const uint64_t which = random.Below(3);
  level = std::string(names[which]);
  if (which == 0) return std::string(Pick(random, low));
  return std::string(which == 1 ? Pick(random, middle) : Pick(random, high));
}

}  // namespace

CustomerMessage DrawMessage(RandomStream& random, Split split) {
  CustomerMessage message;
  const ProductAndProblem pair = DrawPair(random, split);
  message.product = pair.product;
  message.problem = pair.problem;
  std::vector<std::string> rest;
  rest.push_back(DrawLevel(random, message.sentiment, {"negative", "neutral", "positive"},
                           kNegative, kNeutral, kPositive));
  if (Chance(random, 85)) {
    rest.push_back(
        DrawLevel(random, message.urgency, {"low", "medium", "high"}, kLow, kMedium, kHigh));
  } else {
    message.urgency = "medium";
  }
  message.loyal = Chance(random, 40);
  if (message.loyal) {
    const std::string years = std::to_string(3 + random.Below(20));
    rest.push_back(Fill(Pick(random, kLoyal), {{"n", years}}));
  }
  message.repeated = Chance(random, 40);
  if (message.repeated) {
    const Text time = Pick(random, {"second", "third", "fourth"});
    rest.push_back(Fill(Pick(random, kRepeated), {{"n", time}}));
  }
  if (Chance(random, 40)) rest.emplace_back(Pick(random, kFillers));
  Shuffle(random, rest);
  const std::string report = DrawReport(random, split, pair);
  const size_t place = Chance(random, 70) ? 0 : random.Below(rest.size() + 1);
  rest.insert(rest.begin() + static_cast<ptrdiff_t>(place), report);
  for (const std::string& sentence : rest)
    message.text += (message.text.empty() ? "" : " ") + sentence;
  return message;
}

nlohmann::ordered_json FactsOf(const CustomerMessage& message) {
  return {{"product", message.product},
          {"problem", message.problem},
          {"sentiment", message.sentiment},
          {"urgency", message.urgency}};
}

std::string ExtractionAnswer(const CustomerMessage& message, const std::vector<std::string>& keys) {
  const nlohmann::ordered_json facts = FactsOf(message);
  std::string answer = "{";
  for (const std::string& key : keys) {
    if (answer.size() > 1) answer += ", ";
    answer += "\"" + key + "\": " + facts.at(key).dump();
  }
  return answer + "}";
}

std::string SummaryAnswer(const CustomerMessage& message) {
  return "A customer reports that the " + message.product + " " + message.problem + ".";
}

std::string ReplyAnswer(const CustomerMessage& message) {
  const std::string what = "your " + message.product + " " + message.problem;
  const std::string start = message.sentiment == "negative" ? "We are very sorry that "
                            : message.sentiment == "positive"
                                ? "Thank you for your kind words; it is a pity that "
                                : "Thank you for telling us that ";
  const std::string end = message.urgency == "high"     ? "we will call you today."
                          : message.urgency == "medium" ? "we will answer within the week."
                                                        : "we will come back to you soon.";
  return start + what + ", and " + end;
}

bool Escalates(const CustomerMessage& message, const std::string& view) {
  if (view == "support") return message.sentiment == "negative";
  if (view == "sales") return message.loyal;
  if (view == "engineering") return message.repeated;
  return message.urgency == "high";
}

std::string ViewAnswer(const CustomerMessage& message, const std::string& view) {
  const bool yes = Escalates(message, view);
  std::string reason;
  if (view == "support") reason = yes ? "The customer is upset." : "The customer is calm.";
  if (view == "sales")
    reason = yes ? "This customer is loyal." : "Nothing is said of other orders.";
  if (view == "engineering") reason = yes ? "The fault has come back." : "The fault was seen once.";
  if (view == "operations") reason = yes ? "It is urgent." : "It can wait.";
  return "The " + message.product + " " + message.problem + ". " + reason +
         (yes ? " Verdict: escalate." : " Verdict: wait.");
}

}  // namespace halo::demo
