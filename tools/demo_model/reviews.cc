#include "demo_model/reviews.h"

#include <algorithm>
#include <array>

#include "demo_model/customer_messages.h"
#include "demo_model/drawing.h"
#include "demo_model/word_lists.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

struct Duration {
  Text text;
  int64_t months;
};

constexpr auto kDurations = std::to_array<Duration>({{"three weeks", 1},
                                                     {"five weeks", 1},
                                                     {"two months", 2},
                                                     {"three months", 3},
                                                     {"about four months", 4},
                                                     {"five months", 5},
                                                     {"half a year", 6},
                                                     {"eight months", 8},
                                                     {"nine months", 9},
                                                     {"ten months", 10},
                                                     {"a year", 12},
                                                     {"a little over a year", 13},
                                                     {"almost two years", 23},
                                                     {"two years", 24},
                                                     {"three years", 36}});

constexpr auto kOpenings = std::to_array<Text>(
    {"I bought this {p} after my old one gave up, and I have used it nearly every day for {d}.",
     "We needed {a} at short notice, and this was the only one in stock; that was {d} ago.",
     "For {d} this {p} has been part of my morning, and it has had to put up with a lot.",
     "My sister recommended this {p} to me, so I ordered it {d} ago without reading much about it.",
     "I compared six models before I chose this {p}, and {d} later I still remember why.",
     "I did not expect much from {a} at this price, but {d} of use have taught me better.",
     "After {d} with this {p} I think I can say what it is worth.",
     "This {p} was a present, and it took me {d} to form an opinion.",
     "I have had this {p} for {d} now.", "Bought the {p} {d} ago.",
     "The {p} has been with us for {d}.", "My review of the {p} after {d}."});
constexpr auto kOpeningsWithoutTime = std::to_array<Text>(
    {"This is my review of the {p}.", "I would like to say a few words about the {p}.",
     "The {p} arrived quickly.", "Here is what I think of this {p}."});

/// A sentence and what it says of the product.
struct Remark {
  Text sentence, property;
};

constexpr auto kPraise = std::to_array<Remark>(
    {{"Nothing about it feels flimsy, and the markings are still as clear as on the first day.",
      "sturdy build"},
     {"It heats up quickly and evenly, and cleaning it takes less than a minute.", "quick heat"},
     {"It has stayed dry in two heavy storms, and the seams look like new.", "stays dry"},
     {"It fits better than any other brand I have tried, without any pressure points.", "good fit"},
     {"The surface does not show fingerprints, and everything can be set with one hand.",
      "easy to set"},
     {"It took five minutes to assemble, and the instructions were a pleasure to read.",
      "easy assembly"},
     {"It has plenty of power for everything I do around the house.", "plenty of power"},
     {"The grip is rubbered and never slips, even with wet gloves.", "safe grip"},
     {"It gets on with everything else in the house without any fuss.", "works with everything"},
     {"Setting it up was easy, and it has found its way around ever since.", "easy setup"},
     {"The handle stays cool and sits well even in a small hand.", "cool handle"},
     {"It is quieter than anything I owned before, so nobody wakes up any more.", "quiet"},
     {"The zips and buckles run smoothly even with cold fingers.", "smooth zips"},
     {"The sound is clear at low volume, and the buttons are where you look for them.",
      "clear sound"},
     {"The battery lasts longer than promised, at least in my flat.", "long battery life"},
     {"It survived a fall from the ladder without a scratch worth mentioning.", "survives falls"},
     {"It looks modest on the desk, which is exactly what I wanted.", "modest look"},
     {"My back and wrists feel noticeably better in the evening.", "comfort"},
     {"The connection fits tightly, and I have not seen a single drop leaking.",
      "tight connection"},
     {"It is light enough that I forget about it on long days.", "low weight"}});

constexpr auto kCriticism = std::to_array<Remark>(
    {{"What annoys me is the cable, which is far too short for our socket.", "short cable"},
     {"Less pleasing is the smell of plastic, which took almost two weeks to go away.",
      "smell of plastic"},
     {"The display, on the other hand, is so bright at night that I cover it with a cloth.",
      "bright display"},
     {"Sadly, one of the small feet came off after a month, and a spare part cost me eight euros.",
      "loose foot"},
     {"The manual leaves out the one thing that I had to look up three times.",
      "incomplete manual"},
     {"It is heavier than the description says, and you notice that on the stairs.", "high weight"},
     {"The customer service answered my question only after nine days, and then with a form "
      "letter.",
      "slow customer service"},
     {"The color differs from the picture: what was called sand is closer to orange.",
      "wrong color"}});

constexpr auto kFillers = std::to_array<Text>(
    {"It replaced two other things in my cupboard, and I do not miss either of them.",
     "Delivery was a day early, and the box contained no plastic at all.",
     "The warranty runs for three years, although I have not had to use it.",
     "I paid fifty-nine euros, which seems fair for what you get.",
     "My neighbor has the larger version and says that the difference is not worth the money.",
     "Children can use it as well, provided that somebody shows them once.",
     "Compared with the model before it, the improvement is small but noticeable.",
     "A firmware update in spring mended the only fault that really bothered me."});

constexpr auto kAgain = std::to_array<Remark>(
    {{"I would buy it again without thinking twice.", "yes"},
     {"I have already ordered a second one for my parents.", "yes"},
     {"I would buy it again.", "yes"},
     {"I would not buy it again, but I am not sending it back either.", "no"},
     {"I would not buy it again.", "no"},
     {"Next time I will take another brand.", "no"},
     {"I remain undecided, and would try one in a shop first.", ""},
     {"Next time I would wait for a discount, since it seems to come every autumn.", ""},
     {"All in all it is a good choice for people with little space.", ""},
     {"For the price I can recommend it; for more money I would expect more.", ""},
     {"If they fixed that one flaw, I would give it full marks.", ""}});

// Of any part: composed, so that properties have to be copied.
constexpr auto kParts =
    std::to_array<Text>({"lid", "handle", "cable", "screen", "hinge", "wheel", "switch", "cover",
                         "filter", "motor", "strap", "frame", "base", "door", "pedal", "lens"});
constexpr auto kGood = std::to_array<Text>(
    {"solid", "smooth", "strong", "bright", "precise", "soft", "neat", "quick"});
constexpr auto kBad =
    std::to_array<Text>({"weak", "loose", "thin", "rough", "noisy", "stiff", "cheap", "slow"});

void AddRemark(RandomStream& random, Split split, bool good, std::vector<std::string>& sentences,
               std::vector<std::string>& properties) {
  if (Chance(random, 65)) {
    const Remark& remark =
        good ? kPraise[random.Below(kPraise.size())] : kCriticism[random.Below(kCriticism.size())];
    const std::string property(remark.property);
    if (std::find(properties.begin(), properties.end(), property) != properties.end()) return;
    sentences.emplace_back(remark.sentence);
    properties.push_back(property);
    return;
  }
  const bool made_up = split == Split::kTraining && Chance(random, 40);
  const std::string part = made_up ? MadeUpWord(random) : std::string(Pick(random, kParts));
  const std::string quality(good ? Pick(random, kGood) : Pick(random, kBad));
  const Text sentence =
      good ? Pick(random, {"The {t} is {q}.", "I like the {t}, which is {q}.", "It has a {q} {t}."})
           : Pick(random,
                  {"The {t} is {q}.", "A pity that the {t} is {q}.", "However, it has a {q} {t}."});
  sentences.push_back(Fill(sentence, {{"t", part}, {"q", quality}}));
  properties.push_back(quality + " " + part);
}

std::string OrNotStated(const std::string& text) { return text.empty() ? "not stated" : text; }

constexpr Text kListInstruction =
    "Read the product review. List, one a line: the product, how long the reviewer has used it, "
    "every praised property, every criticized property, and whether the reviewer would buy it "
    "again. Write \"not stated\" where the review does not say.";
constexpr Text kCheckInstruction =
    "Compare each line of your list with the review, word by word. Name the lines that the review "
    "does not support and the points of the review that the list lacks. Write \"no changes\" if "
    "there are none.";
constexpr Text kRecordInstruction =
    "Write the corrected result as one line of JSON with the keys product, months_used, praised, "
    "criticized and buys_again. Use lists for praised and criticized, and null for what is not "
    "stated. Write nothing else.";

std::string ListAnswer(const Review& review) {
  std::string list = "product: " + review.product + "\nused for: " + OrNotStated(review.used);
  for (const std::string& property : review.praised) list += "\npraised: " + property;
  if (review.praised.empty()) list += "\npraised: not stated";
  for (const std::string& property : review.criticized) list += "\ncriticized: " + property;
  if (review.criticized.empty()) list += "\ncriticized: not stated";
  return list + "\nwould buy again: " + OrNotStated(review.buys_again);
}

/// Makes one line of the list wrong or drops one, and says what a check of it finds.
std::string Corrupt(RandomStream& random, Review& list) {
  if (!list.criticized.empty() && Chance(random, 50)) {
    const std::string lost = list.criticized.back();
    list.criticized.pop_back();
    return "missing: criticized: " + lost;
  }
  if (!list.praised.empty()) {
    const std::string lost = list.praised.back();
    list.praised.pop_back();
    return "missing: praised: " + lost;
  }
  const std::string right = list.used;
  list.used = "ten years";
  return "not supported: used for: ten years\nmissing: used for: " + OrNotStated(right);
}

}  // namespace

Review DrawReview(RandomStream& random, Split split) {
  Review review;
  review.product = DrawPair(random, split).product;
  std::vector<std::string> sentences;
  std::string opening;
  if (Chance(random, 85)) {
    const Duration& duration = kDurations[random.Below(kDurations.size())];
    review.used = std::string(duration.text);
    review.months = duration.months;
    opening = Fill(Pick(random, kOpenings),
                   {{"p", review.product}, {"d", review.used}, {"a", WithArticle(review.product)}});
  } else {
    opening = Fill(Pick(random, kOpeningsWithoutTime), {{"p", review.product}});
  }
  for (uint64_t left = random.Below(10) == 0 ? 0 : 1 + random.Below(3); left > 0; --left)
    AddRemark(random, split, true, sentences, review.praised);
  for (uint64_t left = random.Below(10) < 2 ? 0 : 1 + random.Below(2); left > 0; --left)
    AddRemark(random, split, false, sentences, review.criticized);
  for (uint64_t left = random.Below(3); left > 0; --left)
    sentences.emplace_back(Pick(random, kFillers));
  review.text = opening;
  for (const std::string& sentence : sentences) review.text += " " + sentence;
  if (Chance(random, 85)) {
    const Remark& again = kAgain[random.Below(kAgain.size())];
    review.buys_again = std::string(again.property);
    review.text += " " + std::string(again.sentence);
  }
  return review;
}

std::string RecordAnswer(const Review& review) {
  nlohmann::ordered_json record;
  record["product"] = review.product;
  record["months_used"] = nullptr;
  if (!review.used.empty()) record["months_used"] = review.months;
  record["praised"] = review.praised;
  record["criticized"] = review.criticized;
  record["buys_again"] = nullptr;
  if (!review.buys_again.empty()) record["buys_again"] = review.buys_again == "yes";
  // Written like the other answers, with a blank behind commas and colons.
  std::string text = "{";
  for (const auto& [key, value] : record.items()) {
    if (text.size() > 1) text += ", ";
    text += "\"" + key + "\": ";
    if (!value.is_array()) {
      text += value.dump();
      continue;
    }
    text += "[";
    for (size_t i = 0; i < value.size(); ++i) text += (i == 0 ? "" : ", ") + value[i].dump();
    text += "]";
  }
  return text + "}";
}

Conversation DrawReviewConversation(RandomStream& random, Split split) {
  const Review review = DrawReview(random, split);
  Review listed = review;
  const bool faulty = split == Split::kTraining && Chance(random, 20);
  const std::string found = faulty ? Corrupt(random, listed) : "no changes";
  Conversation conversation{
      "review", LayOut(random, std::string(kListInstruction), review.text), {}};
  conversation.facts = {{"record", RecordAnswer(review)}};
  std::vector<Turn>& turns = conversation.turns;
  turns.push_back({Turn::Role::kAssistant, ListAnswer(listed), !faulty});
  turns.push_back({Turn::Role::kUser, std::string(kCheckInstruction)});
  turns.push_back({Turn::Role::kAssistant, found});
  turns.push_back({Turn::Role::kUser, std::string(kRecordInstruction)});
  turns.push_back({Turn::Role::kAssistant, RecordAnswer(review)});
  return conversation;
}

}  // namespace halo::demo
