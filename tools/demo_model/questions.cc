#include "demo_model/questions.h"

#include <algorithm>
#include <array>

#include "demo_model/customer_messages.h"
#include "demo_model/drawing.h"
#include "demo_model/word_lists.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

// ---- Questions
// -----------------------------------------------------------------------------------

constexpr auto kThings = std::to_array<Text>(
    {"bread",        "a bicycle",      "a small town",     "the moon",        "a wooden bridge",
     "an old house", "the river",      "a school",         "the market",      "a dog",
     "a cat",        "the garden",     "a train",          "an electric car", "the library",
     "tea",          "cheese",         "a candle",         "a sailing boat",  "the wind",
     "snow",         "a museum",       "a stone wall",     "the kitchen",     "a company",
     "a team",       "a child",        "a glass of water", "the forest",      "an airplane",
     "a radio",      "the heating",    "a city",           "a village shop",  "music",
     "a long walk",  "a new language", "the night sky",    "a bus",           "public transport"});
constexpr auto kManyThings =
    std::to_array<Text>({"birds",    "leaves",  "people",  "bees",      "children",   "stars",
                         "trees",    "fish",    "bridges", "engines",   "neighbors",  "schools",
                         "cats",     "horses",  "clouds",  "mountains", "old clocks", "ships",
                         "students", "spiders", "flowers", "teachers",  "windows",    "farmers"});
constexpr auto kDeeds = std::to_array<Text>({"save energy",         "sleep longer",
                                             "change color",        "make a noise",
                                             "move faster",         "cost so much",
                                             "find the way home",   "stay warm in winter",
                                             "get wet in the rain", "last for a hundred years",
                                             "turn yellow",         "float on water",
                                             "grow in the shade",   "work at night",
                                             "open on Sundays",     "share one car",
                                             "buy local food",      "learn from mistakes",
                                             "travel by train",     "pay higher taxes",
                                             "repair old things",   "read more books",
                                             "keep a secret",       "lose weight",
                                             "cross the sea"});
constexpr auto kQualities = std::to_array<Text>(
    {"cold", "expensive", "healthy", "dangerous", "useful", "quiet", "round", "fair", "reliable",
     "popular", "heavy", "easy to learn", "better in summer", "good for children", "wise", "safe"});

/// The kinds of questions and the answers that are given to each.
enum class Kind : uint8_t { kYesNo, kChoice, kWhy, kHow, kWhat };

constexpr auto kTemplates = std::to_array<std::pair<Kind, Text>>(
    {{Kind::kYesNo, "Should {t} {d}?"},
     {Kind::kYesNo, "Should {m} {d}?"},
     {Kind::kYesNo, "Is it {q} to {d}?"},
     {Kind::kYesNo, "Can {t} {d}?"},
     {Kind::kYesNo, "Does {t} {d}?"},
     {Kind::kYesNo, "Is {t} {q}?"},
     {Kind::kYesNo, "Would {m} {d} if they could?"},
     {Kind::kYesNo, "Is {t} {q} for everyone?"},
     {Kind::kYesNo, "Would it be {q} for {m} to {d}?"},
     {Kind::kYesNo, "Are {m} {q}?"},
     {Kind::kChoice, "Is it better to {d} or to {d2}?"},
     {Kind::kChoice, "Is {t} or {t2} the better choice?"},
     {Kind::kChoice, "Which is more {q}: {t} or {t2}?"},
     {Kind::kChoice, "Should {m} {d} or {d2}?"},
     {Kind::kChoice, "Would you rather {d} or {d2}, and why?"},
     {Kind::kChoice, "Is {t} more {q} than {t2}, or less?"},
     {Kind::kWhy, "Why do {m} {d}?"},
     {Kind::kWhy, "Why does {t} {d}?"},
     {Kind::kWhy, "Why is {t} {q}?"},
     {Kind::kWhy, "Why are {m} {q}?"},
     {Kind::kWhy, "Why does {t} {d} faster than {t2}?"},
     {Kind::kWhy, "Why do {m} {d} when others do?"},
     {Kind::kHow, "How do {m} {d}?"},
     {Kind::kHow, "How can {t} {d}?"},
     {Kind::kHow, "How does {t} {d}?"},
     {Kind::kHow, "How can you tell whether {t} is {q}?"},
     {Kind::kHow, "How could {m} {d} without {t}?"},
     {Kind::kHow, "How many {m} {d} in a year?"},
     {Kind::kWhat, "What makes {t} {q}?"},
     {Kind::kWhat, "What would happen if {m} {d}?"},
     {Kind::kWhat, "What is the best way to {d}?"},
     {Kind::kWhat, "What do {m} need to {d}?"},
     {Kind::kWhat, "What would you check first if {t} does not {d}?"},
     {Kind::kWhat, "What is {t} good for?"}});

std::vector<Text> Sides(Kind kind) {
  switch (kind) {
    case Kind::kYesNo:
      return {"yes", "no"};
    case Kind::kChoice:
      return {"the first", "the second"};
    case Kind::kWhy:
      return {"heat", "habit", "pressure"};
    case Kind::kHow:
      return {"practice", "balance", "signals"};
    case Kind::kWhat:
      return {"patience", "care", "time"};
  }
  return {};
}

Text AskedFor(Kind kind) {
  switch (kind) {
    case Kind::kYesNo:
      return "for a yes or a no";
    case Kind::kChoice:
      return "for one of two";
    case Kind::kWhy:
      return "for a cause";
    case Kind::kHow:
      return "for a way";
    case Kind::kWhat:
      return "for a judgement";
  }
  return "";
}

struct Question {
  Kind kind = Kind::kYesNo;
  std::string text;
};

std::string Thing(RandomStream& random) {
  if (Chance(random, 25)) return "the " + MadeUpWord(random);
  return std::string(Pick(random, kThings));
}

Question DrawQuestion(RandomStream& random) {
  const auto& [kind, text] = kTemplates[random.Below(kTemplates.size())];
  const std::string thing = Thing(random), other = Thing(random);
  const std::string many =
      Chance(random, 25) ? MadeUpWord(random) + "s" : std::string(Pick(random, kManyThings));
  return {kind, Fill(text, {{"t", thing},
                            {"t2", other},
                            {"m", many},
                            {"d", Pick(random, kDeeds)},
                            {"d2", Pick(random, kDeeds)},
                            {"q", Pick(random, kQualities)}})};
}

// ---- Voices
// --------------------------------------------------------------------------------------

constexpr auto kReasons = std::to_array<Text>(
    {"it has worked in most cases", "it costs little", "the effect is easy to see",
     "people have tried it for long", "it is the simplest account", "few things can go wrong",
     "the numbers point that way", "experts mostly agree"});
constexpr auto kConditions =
    std::to_array<Text>({"the weather changes", "money is short", "children are involved",
                         "time runs out", "the place is small", "nobody helps"});
constexpr auto kPictures =
    std::to_array<Text>({"a pot on a stove", "a seesaw", "a crowded bus", "a garden in spring",
                         "a team sport", "a slow river"});

/// Someone who answers questions: name, instruction, and the form of the answer. {v} the side
/// taken, {w} another, {r} {r2} reasons, {c} a condition, {a} a picture, {k} what the question asks
/// for.
struct Voice {
  Text name, instruction, form;
};

constexpr auto kVoices = std::to_array<Voice>(
    {{"practical",
      "You judge by what works in daily life. Answer the question the way an experienced "
      "practitioner would, and mention the one circumstance that would change your advice.",
      "In daily life I would say: {v}. The reason is that {r}. I would change my advice only if "
      "{c}. "
      "Answer: {v}."},
     {"skeptical",
      "You doubt first answers. Name the most tempting wrong answer to the question, explain "
      "briefly why it misleads, and then give the answer that you would stand by.",
      "The tempting answer is: {w}. It misleads, because it forgets that {r}. Answer: {v}."},
     {"factual",
      "You keep to what can be checked. Answer the question with facts, figures and definitions "
      "only, and mark whatever you are not certain of.",
      "What can be checked: {r}. Not certain: whether {r2}. Answer: {v}."},
     {"creative",
      "You look at problems from an unusual angle. Answer the question by way of an analogy or an "
      "example from another field, and end with the answer in plain words.",
      "Think of {a}: there, too, {r}. In plain words. Answer: {v}."},
     {"teacher",
      "You are a teacher. Answer the question so that a curious twelve-year-old understands it, "
      "without leaving out what matters.",
      "Imagine {a}. You can see there that {r}. Answer: {v}."},
     {"engineer",
      "You are an engineer. Break the question into parts, work each part out with rough numbers "
      "where they help, and state the answer that follows.",
      "Part one: {r}. Part two: {r2}. Together they decide it. Answer: {v}."},
     {"historian",
      "You are a historian. Answer the question from what has been tried and observed before, and "
      "point out where the past is a poor guide.",
      "Looking back, {r}. The past is a poor guide if {c}. Answer: {v}."},
     {"critic",
      "You are a critic. Say what the question takes for granted, whether that is justified, and "
      "how you would answer it after that correction.",
      "The question takes for granted that {r}. That is mostly justified, unless {c}. Answer: "
      "{v}."},
     {"direct", "Answer the question straight away, then add the single most important reason.",
      "I say: {v}. Above all, {r}. Answer: {v}."},
     {"stepwise",
      "Work towards the answer in small numbered steps. Put the result on a line of its own at the "
      "end.",
      "1. Note that {r}.\n2. Note that {r2}.\n3. Both point the same way.\nAnswer: {v}."},
     {"contrarian",
      "Assume that the usual answer to this question is wrong. Say what would be right instead, "
      "and "
      "how sure you are.",
      "The usual answer is: {w}. If that is wrong, the reason is that {r}. I am fairly sure. "
      "Answer: "
      "{v}."},
     {"careful",
      "List what one has to know to answer the question, tell known from guessed, and answer only "
      "as far as that carries.",
      "Known: {r}. Guessed: {r2}. That carries so far. Answer: {v}."},
     {"concise", "Answer the question in one sentence of at most twenty words.",
      "I would say so, because {r}. Answer: {v}."},
     {"reasoner", "Please try to answer the question with multi-step Chain of Thought.",
      "1. It asks {k}.\n2. It matters that {r}.\n3. It also matters that {r2}.\nAnswer: "
      "{v}."},
     {"advocate",
      "Take a clear position on the user's question. State your answer in the first sentence, then "
      "give the two strongest reasons for it, each with a concrete example.",
      "My position is: {v}. First, {r}; think of {a}. Second, {r2}. Answer: {v}."},
     {"propose",
      "Answer the user's question and explain step by step how you got there. Number the steps, so "
      "that each of them can be discussed on its own.",
      "1. I begin with this: {r}.\n2. Then {r2}.\n3. It would be different if {c}.\nAnswer: "
      "{v}."}});

constexpr size_t kReasoner = 13, kAdvocate = 14, kPropose = 15;

std::string Speak(RandomStream& random, const Voice& voice, const Question& question, Text side) {
  std::vector<Text> others = Sides(question.kind);
  std::erase(others, side);
  const Text reason = Pick(random, kReasons);
  Text second = Pick(random, kReasons);
  while (second == reason) second = Pick(random, kReasons);
  return Fill(voice.form, {{"v", side},
                           {"w", Pick(random, others)},
                           {"r", reason},
                           {"r2", second},
                           {"c", Pick(random, kConditions)},
                           {"a", Pick(random, kPictures)},
                           {"k", AskedFor(question.kind)}});
}

Text DrawSide(RandomStream& random, const Question& question) {
  return Pick(random, Sides(question.kind));
}

Turn Said(std::string text) { return {Turn::Role::kAssistant, std::move(text)}; }
Turn Asked(Text text) { return {Turn::Role::kUser, std::string(text)}; }

// ---- Judges
// --------------------------------------------------------------------------------------

constexpr auto kJudges = std::to_array<Text>(
    {"Four advisers have answered the same question. Find out which answer most of them support, "
     "check it against the arguments given, and write down the final answer in one or two "
     "sentences, followed by the names of the advisers who agree with it.",
     "You receive four answers to one question. Reject those that contain an error, merge what the "
     "remaining ones agree on, and give the final answer in at most three sentences.",
     "Five people have answered a question without seeing each other's answers. Count which answer "
     "has most support, overrule the majority only if you can name its mistake, and report the "
     "winning answer with the count.",
     "Count the answers and report the one that most support.",
     "Several people have answered the question. Which answer wins, and who supports it?"});

/// Groups of voices as the shipped workflows have them: [first, end) of kVoices.
constexpr auto kPanels = std::to_array<std::pair<size_t, size_t>>({{0, 4}, {4, 8}, {8, 13}});

Conversation DrawJudge(RandomStream& random) {
  const Question question = DrawQuestion(random);
  const size_t panel = random.Below(kPanels.size());
  std::vector<size_t> voices;
  for (size_t i = kPanels[panel].first; i < kPanels[panel].second; ++i) voices.push_back(i);
  if (Chance(random, 25)) Shuffle(random, voices);
  if (Chance(random, 15)) voices.pop_back();
  std::string context = question.text;
  std::vector<std::pair<Text, std::vector<std::string>>> supporters;  // in order of appearance
  for (const size_t voice : voices) {
    const std::string name =
        Chance(random, 10) ? MadeUpWord(random) : std::string(kVoices[voice].name);
    const Text side = DrawSide(random, question);
    context += "\n\n### " + name + "\n" + Speak(random, kVoices[voice], question, side);
    auto found = std::find_if(supporters.begin(), supporters.end(),
                              [&](const auto& entry) { return entry.first == side; });
    if (found == supporters.end()) found = supporters.insert(found, {side, {}});
    found->second.push_back(name);
  }
  const auto winner = std::max_element(
      supporters.begin(), supporters.end(),
      [](const auto& a, const auto& b) { return a.second.size() < b.second.size(); });
  const Text instruction = Chance(random, 70) ? kJudges[panel] : Pick(random, kJudges);
  Conversation conversation{"judge", LayOut(random, std::string(instruction), context), {}};
  conversation.facts = {{"answer", winner->first},
                        {"votes", winner->second.size()},
                        {"voters", voices.size()},
                        {"supporters", winner->second}};
  conversation.turns.push_back(Said("The final answer is: " + std::string(winner->first) +
                                    ". It is supported by " + ListInWords(winner->second) + ", " +
                                    std::to_string(winner->second.size()) + " of " +
                                    std::to_string(voices.size()) + "."));
  return conversation;
}

// ---- Debates
// -------------------------------------------------------------------------------------

constexpr Text kAgain =
    "Please answer the question again based on the previous context and your own reasoning.";
constexpr Text kAttack =
    "Now change sides. Look for the weakest step in the argument above: a wrong fact, a hidden "
    "assumption, or a case where it fails. Describe the most serious flaw precisely. If you find "
    "none, say which claim deserves a check.";
constexpr Text kResolve =
    "Weigh the argument and the objection against each other. Keep what survives, drop what does "
    "not, and give your final answer to the original question in at most three sentences.";
constexpr Text kObject =
    "You review answers written by a colleague. Go through the numbered steps and name every one "
    "that is wrong, unsupported or missing, with a short reason. Do not write a new answer.";
constexpr Text kDefend =
    "You wrote the proposal, and a reviewer has objected to it. Accept the objections that are "
    "right and correct the steps concerned; answer the others with evidence. End with your revised "
    "answer.";
constexpr Text kPreside =
    "You preside over this debate. Decide which points were settled and which remain open, then "
    "state the answer that the evidence supports best in one short paragraph.";

Conversation DrawVoice(RandomStream& random) {
  const Question question = DrawQuestion(random);
  const Voice& voice = kVoices[random.Below(kVoices.size())];
  const std::string side(DrawSide(random, question));
  Conversation conversation{
      "voice", LayOut(random, std::string(voice.instruction), question.text), {}};
  conversation.turns.push_back(Said(Speak(random, voice, question, side)));
  return conversation;
}

Conversation DrawSecondThought(RandomStream& random) {
  const Question question = DrawQuestion(random);
  const Text side = DrawSide(random, question);
  const bool debate = Chance(random, 60);
  const Voice& voice = kVoices[debate ? kAdvocate : kReasoner];
  Conversation conversation{debate ? "debate" : "again",
                            LayOut(random, std::string(voice.instruction), question.text),
                            {}};
  std::vector<Turn>& turns = conversation.turns;
  turns.push_back(Said(Speak(random, voice, question, side)));
  const std::string answer = "Answer: " + std::string(side) + ".";
  if (!debate) {
    turns.push_back(Asked(kAgain));
    turns.push_back(Said("I went through the steps again and they hold. " + answer));
  } else {
    const bool serious = Chance(random, 40);
    turns.push_back(Asked(kAttack));
    turns.push_back(
        Said(Fill("The weakest step is the first reason. It fails if {c}. This flaw is {f}.",
                  {{"c", Pick(random, kConditions)}, {"f", serious ? "serious" : "small"}})));
    turns.push_back(Asked(kResolve));
    turns.push_back(Said(serious
                             ? "The flaw is serious, so the argument does not stand. Answer: open."
                             : "The flaw is small, so the argument stands. " + answer));
  }
  return conversation;
}

/// One of the three later calls of the debate between two models; each reads blocks.
Conversation DrawDebateStep(RandomStream& random) {
  const Question question = DrawQuestion(random);
  const Text side = DrawSide(random, question);
  const std::string step = std::to_string(1 + random.Below(2));
  const std::string objection =
      "Step " + step + " is unsupported: it is claimed without evidence. The other steps stand.";
  const std::string defense =
      "I accept the objection to step " + step +
      " and drop it. The other steps still carry the result. Answer: " + std::string(side) + ".";
  const std::string verdict = "Settled: the other steps. Open: step " + step +
                              ". The evidence supports this best. Answer: " + std::string(side) +
                              ".";
  std::string context =
      question.text + "\n\n### propose\n" + Speak(random, kVoices[kPropose], question, side);
  const uint64_t which = random.Below(3);
  if (which >= 1) context += "\n\n### object\n" + objection;
  if (which == 2) context += "\n\n### defend\n" + defense;
  const Text instruction = which == 0 ? kObject : which == 1 ? kDefend : kPreside;
  Conversation conversation{"debate", LayOut(random, std::string(instruction), context), {}};
  conversation.turns.push_back(Said(which == 0 ? objection : which == 1 ? defense : verdict));
  return conversation;
}

// ---- Advice
// --------------------------------------------------------------------------------------

constexpr auto kTopicStarts = std::to_array<Text>(
    {"learning", "planning", "building", "repairing", "painting", "cleaning", "buying", "selling",
     "growing", "moving", "training for", "saving for", "cooking", "organizing"});
constexpr auto kTopicThings = std::to_array<Text>(
    {"garden", "kitchen", "car",      "trip",      "party",    "house",   "cat",
     "dog",    "laptop",  "club",     "meal",      "speech",   "run",     "shelf",
     "wall",   "song",    "language", "bicycle",   "budget",   "wedding", "pond",
     "cellar", "balcony", "bread",    "interview", "neighbor", "compost"});
constexpr auto kTopicQualities = std::to_array<Text>(
    {"small", "old", "damp", "noisy", "first", "long", "cheap", "quiet", "shared", "rescued",
     "slow", "vegetable", "birthday", "reading", "weekly"});
constexpr auto kTopicEnds = std::to_array<Text>(
    {"with eight neighbors", "on a balcony", "in the mountains", "for thirty people",
     "in a shared flat", "for a child", "upstairs", "at a small company", "for a week",
     "in the winter", "with little money", "near the sea"});

std::string DrawTopic(RandomStream& random) {
  const auto word = [&](const auto& list) {
    return Chance(random, 35) ? MadeUpWord(random) : std::string(Pick(random, list));
  };
  std::string topic = Chance(random, 50) ? word(kTopicStarts) + " " : "";
  topic += Chance(random, 75) ? "a " : "the ";
  if (Chance(random, 60)) topic += word(kTopicQualities) + " ";
  topic += word(kTopicThings);
  if (Chance(random, 60)) topic += " " + std::string(Pick(random, kTopicEnds));
  return topic;
}

/// What someone asks, and the advice.
struct Advice {
  Text question, advice;
};

constexpr auto kFirstQuestions = std::to_array<Advice>(
    {{"Which {x} should I start with?", "begin with what is easy to get"},
     {"What should I check before I begin?", "check the basics first"},
     {"Why does {x} go wrong?", "look at the beginning, where most things go wrong"},
     {"How do we choose {x}?", "let everybody name one and then vote"},
     {"What can I try before I buy {x}?", "try what you already own"},
     {"How many {x} do I need?", "two or three are enough"},
     {"How long does it need?", "plan a few weeks"},
     {"Which {x} is the easiest?", "take the one that is nearest"},
     {"How do I avoid {x}?", "plan a day ahead"},
     {"What must never happen to {x}?", "keep away from everything wet"}});
constexpr auto kSecondQuestions = std::to_array<Advice>(
    {{"My {x} is too small. Does that change your choice?",
      "I would keep the plan, a little smaller"},
     {"The {x} is fifteen years old. What would you check?", "I would look at the old parts first"},
     {"I have time only once a week. How should I plan then?", "I would do less, but every week"},
     {"Two of us are slow. How much time should we plan?", "I would plan twice the time"},
     {"It still takes too long. What now?", "I would stop and begin again with one part"},
     {"The {x} hurts now. Should I go on?", "I would rest for some days"},
     {"It hides under the {x}. Is that normal?", "I think it is normal and needs patience"},
     {"The {x} may fail. How do I prepare for that?", "I would have a second plan ready"},
     {"We talked, and it was quiet for a week only. What is the next step?",
      "I would talk again, and write it down"}});
constexpr auto kLastQuestions = std::to_array<Advice>(
    {{"Please give me a short list that I can put on the refrigerator.",
      "1. Prepare. 2. Begin small. 3. Check after a week."},
     {"What is the one mistake that beginners make most often here?",
      "Most beginners start too big."},
     {"How will I notice that it is going well?", "You will notice it when it needs less effort."},
     {"If I have only one hour for all this, what should I do with it?",
      "Use the hour for the first step only."},
     {"What should I remember?", "Remember to take your time."}});
constexpr auto kIntroductions = std::to_array<Text>(
    {"I am thinking about {t}.", "I need some advice on {t}.",
     "This year I want to get serious about {t}.", "A friend has asked me to help with {t}.",
     "My question is about {t}.", "We plan {t}."});

constexpr Text kOpening =
    "You are a patient assistant. Reply to the user's message in at most four sentences, and say "
    "so "
    "plainly when you are not sure.";
constexpr Text kFollowUp =
    "Answer this new message. Build on what was said before instead of repeating it.";
constexpr Text kClosing =
    "Answer this last message, then close with one sentence that sums up the whole conversation.";

}  // namespace

Conversation DrawAdviceConversation(RandomStream& random, Split) {
  const std::string topic = DrawTopic(random);
  const Advice& first = kFirstQuestions[random.Below(kFirstQuestions.size())];
  const Advice& second = kSecondQuestions[random.Below(kSecondQuestions.size())];
  const Advice& last = kLastQuestions[random.Below(kLastQuestions.size())];
  const auto ask = [&](const Advice& advice) {
    const std::string thing =
        Chance(random, 30) ? MadeUpWord(random) : std::string(Pick(random, kTopicThings));
    return Fill(advice.question, {{"x", thing}});
  };
  Conversation conversation{"advice", {}, {{"topic", topic}}};
  const std::string asked = ask(first);
  const std::string introduction = Fill(Pick(random, kIntroductions), {{"t", topic}});
  conversation.turns = LayOut(random, std::string(kOpening), introduction + " " + asked);
  std::vector<Turn>& turns = conversation.turns;
  turns.push_back(Said("About " + topic + ": I would " + std::string(first.advice) +
                       ". I am not sure of every detail, so try it on a small scale first."));
  turns.push_back(Asked(ask(second) + "\n\n" + std::string(kFollowUp)));
  turns.push_back(Said("That matters. For " + topic + " " + std::string(second.advice) + "."));
  turns.push_back(Asked(ask(last) + "\n\n" + std::string(kClosing)));
  turns.push_back(Said(std::string(last.advice) + " To sum up, we talked about " + topic +
                       ": begin small and stay with it."));
  return conversation;
}

Conversation DrawQuestionConversation(RandomStream& random, Split) {
  const uint64_t share = random.Below(100);
  if (share < 40) return DrawJudge(random);
  if (share < 65) return DrawVoice(random);
  return share < 83 ? DrawSecondThought(random) : DrawDebateStep(random);
}

}  // namespace halo::demo
