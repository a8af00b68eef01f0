#include "demo_model/message_wording.h"

#include <array>

#include "demo_model/drawing.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

// {p} is the product, {a} the same with its article, {d} with a determiner and what tells it from
// others, {x} the problem with what may follow it, {when} a time.

constexpr auto kDeterminers = std::to_array<Text>(
    {"the", "my", "our", "this", "your", "his", "their", "the new", "my old", "the same",
     "my second", "our only", "my wife's", "the other", "the first", "your cheapest"});

constexpr auto kAfterProduct = std::to_array<Text>(
    {" from your shop", " I bought {when}", " that you sent me", ", bought {when},", " in the hall",
     " on the balcony", " we got {when}", ", delivered {when},", " at the office",
     " you delivered {when}", " of my brother", " (order {n})", ", which I got {when},",
     " from the sale", " upstairs", " that came {when}", ", a present,", " number {n}"});

constexpr auto kAfterProblem = std::to_array<Text>({" again",
                                                    " all the time",
                                                    ", which is a pity",
                                                    ", although it is new",
                                                    " and I do not know why",
                                                    "; please tell me what to do",
                                                    " when it rains",
                                                    " every morning",
                                                    " when I use it",
                                                    ", so I cannot use it",
                                                    " after ten minutes",
                                                    " in the evening",
                                                    ", as you can see in the picture",
                                                    " and my wife is worried",
                                                    ", and nobody knows why",
                                                    " since {when}",
                                                    " as soon as I touch it",
                                                    ", I am afraid",
                                                    " for no reason",
                                                    " at night",
                                                    ", even with a new plug",
                                                    " while the children sleep"});

/// Whole sentences of which the product is the subject.
constexpr auto kSubject = std::to_array<Text>(
    {"{D} {x}.", "{D} {x}.", "{D} {x}.", "I think {d} {x}.", "I noticed {when} that {d} {x}.",
     "Is it normal that {d} {x}?", "Why is it that {d} {x}?", "Everybody here sees that {d} {x}.",
     "My neighbor says that {d} {x}.", "It is a shame that {d} {x}.", "Now {d} {x}.",
     "What do you do when {d} {x}?", "My son tells me that {d} {x}.",
     "{When} {d} was fine, now it {x}.", "We bought a lot, but {d} {x}.",
     "I did what you said, but {d} {x}.", "I like the color, but {d} {x}.",
     "You said it was good, but {d} {x}."});

/// Sentences that name the product, and how the problem follows.
constexpr auto kFirst = std::to_array<Text>({"I ordered {a} {when}",
                                             "I bought this {p} {when}",
                                             "There is something wrong with {d}",
                                             "I have a question about {d}",
                                             "We own {a}",
                                             "We use {d} every day",
                                             "It is about {d}",
                                             "{A} came {when}",
                                             "Look at {d}",
                                             "My sister gave me {a} {when}",
                                             "One thing about {d}",
                                             "I am writing about {d}",
                                             "About {d}",
                                             "You sent me {a}",
                                             "I have had {a} for years",
                                             "There is a problem with {d}",
                                             "I complain about {d}",
                                             "In the box was {a}",
                                             "What is going on with {d}",
                                             "Here is the story of {d}",
                                             "I paid a lot for {d}",
                                             "{D}, order {n}",
                                             "Number {n}, {a}",
                                             "They say your {p} is good",
                                             "I opened the box of {d}",
                                             "My report: {p}",
                                             "Item: {p}",
                                             "{D}"});
constexpr auto kThen = std::to_array<Text>(
    {". It {x}.", ": it {x}.", " and it {x}.", ", but it {x}.", ", and now it {x}.",
     ". Sadly it {x}.", "; it {x}.", ". When I tried it, it {x}.", ". Now it {x}.", " - it {x}.",
     ". At first it was fine, then it {x}.", ". My problem is that it {x}.", ", but mine {x}.",
     "; I saw that it {x}.", ". In short: it {x}.", "? It {x}."});

constexpr auto kClauses = std::to_array<Text>(
    {"I have {a} that {x}.", "We own {a} which {x}.", "You sold me {a} that {x}.",
     "Nobody wants {a} that {x}.", "What can I do with {a} that {x}?",
     "I came home to {a} that {x}.", "It {x}: I mean {d}.", "It {x}, and I mean {d}.",
     "This is how it is: {d} {x}.", "I sent you a picture of {d} that {x}."});

constexpr auto kBefore = std::to_array<Text>({"Hello, {m}",
                                              "Dear team, {m}",
                                              "Hi! {M}",
                                              "Good morning. {M}",
                                              "Unfortunately, {m}",
                                              "I am writing because {m}",
                                              "Please help: {m}",
                                              "Can you help me? {M}",
                                              "Since Monday, {m}",
                                              "After two weeks, {m}",
                                              "Sadly, {m}",
                                              "To be short: {m}",
                                              "I have to tell you that {m}",
                                              "You should know that {m}",
                                              "As I said on the phone, {m}",
                                              "It seems that {m}",
                                              "My problem is this: {m}",
                                              "Listen: {m}",
                                              "I have read the manual, but {m}",
                                              "It is only a month old. {M}",
                                              "For some reason, {m}",
                                              "In the office, {m}",
                                              "At home, {m}"});

constexpr auto kFreeReports = std::to_array<Text>(
    {"Just to let you know, that {p} of yours {x}, which surprised us.",
     "Regarding the {p}: honestly, it {x}, and nobody here can explain it.",
     "What can be done about {a} when it {x}?",
     "Somebody in my office told me yesterday that his {p} {x}.",
     "Yesterday's parcel contained {a}; on first use we saw that it {x}.",
     "I did everything as the manual says, and still the {p} {x}.", "Trouble with {a}: it {x}.",
     "To whom it may concern: one {p}, paid in full, {x}.",
     "You promised quality. Instead the {p} {x}.",
     "The thing is, her {p} {x} whenever guests arrive.", "As for the {p} in the kitchen, it {x}.",
     "Would you believe that a brand new {p} {x}?", "I like your shop, yet the {p} {x}.",
     "Order 5521, {p}: it {x}.", "Not sure who to ask, but the {p} from your catalogue {x}."});

constexpr auto kWhen = std::to_array<Text>({"last week", "yesterday", "a month ago", "in May",
                                            "last year", "on Monday", "two weeks ago", "in spring",
                                            "three days ago", "at Christmas"});

/// `text` begins a sentence or goes on with one.
std::string StartOfClause(const std::string& text, bool sentence) {
  if (sentence) return Capitalized(text);
  if (text.starts_with("I ")) return text;
  std::string lower = text;
  if (lower[0] >= 'A' && lower[0] <= 'Z') lower[0] = static_cast<char>(lower[0] - 'A' + 'a');
  return lower;
}

/// The text without commas that other signs follow: what is put together may end with one.
std::string WithoutIdleCommas(const std::string& text) {
  constexpr Text kSigns = ",.;:?";
  std::string kept;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool idle =
        text[i] == ',' && i + 1 < text.size() && kSigns.find(text[i + 1]) != Text::npos;
    if (!idle) kept += text[i];
  }
  return kept;
}

std::string DrawFrame(RandomStream& random) {
  const uint64_t kind = random.Below(100);
  if (kind < 45) return std::string(Pick(random, kSubject));
  if (kind < 85) {
    const std::string first(Pick(random, kFirst));
    return first + std::string(Pick(random, kThen));
  }
  return std::string(Pick(random, kClauses));
}

std::string FillReport(RandomStream& random, std::string_view frame,
                       const ProductAndProblem& pair) {
  const std::string number = std::to_string(100 + random.Below(9000));
  const std::string when(Pick(random, kWhen));
  const auto details = [&](std::string_view text) {
    return Fill(text, {{"when", when}, {"n", number}});
  };
  const std::string with_article = WithArticle(pair.product);
  std::string determined = std::string(Pick(random, kDeterminers)) + " " + pair.product;
  if (Chance(random, 35)) determined += details(Pick(random, kAfterProduct));
  std::string problem = pair.problem;
  if (Chance(random, 30)) problem += details(Pick(random, kAfterProblem));
  return WithoutIdleCommas(Fill(frame, {{"p", pair.product},
                                        {"a", with_article},
                                        {"A", Capitalized(with_article)},
                                        {"d", determined},
                                        {"D", Capitalized(determined)},
                                        {"x", problem},
                                        {"when", when},
                                        {"When", Capitalized(when)},
                                        {"n", number}}));
}

}  // namespace

std::string DrawReport(RandomStream& random, Split split, const ProductAndProblem& pair) {
  if (split == Split::kFreeWording) {
    return Fill(Pick(random, kFreeReports),
                {{"p", pair.product}, {"a", WithArticle(pair.product)}, {"x", pair.problem}});
  }
  const std::string text = FillReport(random, DrawFrame(random), pair);
  if (Chance(random, 60)) return text;
  return Fill(Pick(random, kBefore),
              {{"m", StartOfClause(text, false)}, {"M", StartOfClause(text, true)}});
}

}  // namespace halo::demo
