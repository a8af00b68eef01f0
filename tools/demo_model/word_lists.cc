#include "demo_model/word_lists.h"

#include <algorithm>
#include <array>

#include "base/hash.h"
#include "demo_model/drawing.h"

namespace halo::demo {
namespace {

using Text = std::string_view;

constexpr auto kNouns = std::to_array<Text>({"kettle",
                                             "toaster",
                                             "blender",
                                             "lamp",
                                             "drill",
                                             "backpack",
                                             "vacuum cleaner",
                                             "keyboard",
                                             "bicycle",
                                             "espresso machine",
                                             "jacket",
                                             "speaker",
                                             "chair",
                                             "pan",
                                             "monitor",
                                             "hose",
                                             "watch",
                                             "camera",
                                             "printer",
                                             "router",
                                             "phone",
                                             "tablet",
                                             "laptop",
                                             "mouse",
                                             "headset",
                                             "microphone",
                                             "charger",
                                             "battery",
                                             "fan",
                                             "heater",
                                             "oven",
                                             "fridge",
                                             "freezer",
                                             "dishwasher",
                                             "dryer",
                                             "iron",
                                             "mixer",
                                             "grill",
                                             "scale",
                                             "clock",
                                             "radio",
                                             "television",
                                             "projector",
                                             "remote",
                                             "thermostat",
                                             "doorbell",
                                             "lock",
                                             "alarm",
                                             "torch",
                                             "saw",
                                             "hammer",
                                             "ladder",
                                             "mower",
                                             "pump",
                                             "tent",
                                             "sleeping bag",
                                             "helmet",
                                             "scooter",
                                             "stroller",
                                             "car seat",
                                             "bottle",
                                             "mug",
                                             "knife",
                                             "pot",
                                             "tray",
                                             "shelf",
                                             "desk",
                                             "table",
                                             "sofa",
                                             "mattress",
                                             "pillow",
                                             "blanket",
                                             "curtain",
                                             "rug",
                                             "mirror",
                                             "wardrobe",
                                             "bed",
                                             "bench",
                                             "umbrella",
                                             "suitcase",
                                             "wallet",
                                             "belt",
                                             "shoe",
                                             "boot",
                                             "glove",
                                             "scarf",
                                             "hat",
                                             "coat",
                                             "shirt",
                                             "guitar",
                                             "piano",
                                             "drum",
                                             "violin",
                                             "razor",
                                             "toothbrush",
                                             "hair dryer",
                                             "humidifier",
                                             "air purifier",
                                             "coffee grinder",
                                             "rice cooker",
                                             "juicer",
                                             "waffle iron",
                                             "sewing machine",
                                             "washing machine",
                                             "garden chair",
                                             "lawn trimmer",
                                             "pressure washer",
                                             "screwdriver",
                                             "toolbox",
                                             "wheelbarrow",
                                             "watering can",
                                             "bird feeder",
                                             "aquarium",
                                             "telescope",
                                             "calculator",
                                             "roof rack",
                                             "bike lock",
                                             "pair of hiking boots",
                                             "baby monitor",
                                             "fitness watch",
                                             "treadmill",
                                             "rowing machine",
                                             "yoga mat"});

constexpr auto kModifiers = std::to_array<Text>(
    {"electric", "cordless",  "portable",   "folding",   "travel",  "desk",   "garden",
     "kitchen",  "robot",     "mechanical", "cast-iron", "rain",    "office", "wireless",
     "digital",  "smart",     "compact",    "heavy",     "small",   "large",  "red",
     "blue",     "green",     "black",      "white",     "silver",  "wooden", "steel",
     "glass",    "plastic",   "leather",    "cotton",    "camping", "hiking", "winter",
     "summer",   "kids",      "outdoor",    "indoor",    "ceramic", "solar",  "gas",
     "manual",   "automatic", "classic",    "modern",    "vintage", "slim",   "double",
     "mini"});

constexpr auto kUnseenNouns = std::to_array<Text>(
    {"samovar",    "lantern",   "hammock",   "accordion", "easel",     "kayak",        "paddle",
     "typewriter", "loom",      "anvil",     "trombone",  "cradle",    "dehumidifier", "birdcage",
     "dartboard",  "snowboard", "surfboard", "unicycle",  "barometer", "compass",      "chandelier",
     "corkscrew",  "teapot",    "cushion",   "trolley",   "gazebo",    "trampoline",   "harmonica",
     "sledge",     "whisk",     "stapler",   "shredder",  "scanner",   "webcam",       "joystick",
     "turntable",  "amplifier", "bandsaw",   "chisel",    "plunger"});

constexpr auto kUnseenModifiers = std::to_array<Text>(
    {"inflatable", "copper", "velvet", "marble", "nautical", "purple", "crimson", "bamboo",
     "woollen", "rustic", "pocket", "jumbo", "hybrid", "magnetic", "titanium"});

constexpr auto kVerbs = std::to_array<Text>({"charge",        "start",         "turn on",
                                             "turn off",      "close",         "open",
                                             "heat up",       "cool down",     "connect",
                                             "respond",       "spin",          "lock",
                                             "print",         "play",          "record",
                                             "ring",          "move",          "fold",
                                             "stop",          "update",        "work",
                                             "fit",           "reset",         "light up",
                                             "hold air",      "keep warm",     "drain",
                                             "switch modes",  "hold water",    "stay upright",
                                             "save settings", "pair",          "reach full speed",
                                             "cut straight",  "show the time", "steam"});

constexpr auto kGerunds = std::to_array<Text>({"overheating",
                                               "freezing",
                                               "leaking",
                                               "beeping",
                                               "rattling",
                                               "slipping",
                                               "crashing",
                                               "blinking",
                                               "shaking",
                                               "restarting",
                                               "jamming",
                                               "dripping",
                                               "tripping the fuse",
                                               "losing its connection",
                                               "losing power",
                                               "falling over",
                                               "turning itself off",
                                               "making noise",
                                               "skipping",
                                               "sticking",
                                               "smoking",
                                               "stopping",
                                               "peeling",
                                               "wobbling",
                                               "humming"});

constexpr auto kParts = std::to_array<Text>(
    {"lid",     "handle", "cable", "plug",    "button",  "screen", "hinge", "wheel",
     "battery", "switch", "cover", "filter",  "motor",   "strap",  "zip",   "buckle",
     "seam",    "leg",    "foot",  "display", "lens",    "nozzle", "valve", "spring",
     "knob",    "base",   "door",  "drawer",  "blade",   "belt",   "tank",  "charger",
     "sole",    "frame",  "pedal", "chain",   "bracket", "seal",   "fan",   "speaker"});

constexpr auto kStates = std::to_array<Text>(
    {"cracked", "loose",   "broken", "bent",  "rusty", "torn",   "scratched", "stuck",   "dented",
     "worn",    "missing", "faulty", "dead",  "wet",   "dirty",  "melted",    "crooked", "faded",
     "stiff",   "swollen", "burnt",  "split", "noisy", "sticky", "warped"});

constexpr auto kNoises =
    std::to_array<Text>({"grinding", "clicking", "loud", "strange", "whistling", "buzzing",
                         "squeaking", "scraping", "popping"});
constexpr auto kSmells = std::to_array<Text>(
    {"plastic", "smoke", "oil", "glue", "rubber", "paint", "gas", "dust", "metal"});

constexpr auto kUnseenVerbs =
    std::to_array<Text>({"inflate", "swivel", "dim", "tilt", "whistle", "foam", "rewind", "brew",
                         "hover", "click shut", "glow", "vibrate", "stack", "recline", "defrost"});
constexpr auto kUnseenGerunds =
    std::to_array<Text>({"sparking", "drifting", "hissing", "tilting", "fogging", "squealing",
                         "flickering", "shrinking", "buckling", "unravelling"});
constexpr auto kUnseenParts = std::to_array<Text>({"spout", "antenna", "gasket", "latch", "pulley",
                                                   "axle", "gauge", "trigger", "caster", "rivet",
                                                   "piston", "gear", "flange", "clamp", "visor"});
constexpr auto kUnseenStates = std::to_array<Text>(
    {"shattered", "frayed", "tarnished", "punctured", "corroded", "clogged", "jagged", "mouldy",
     "chipped", "discolored", "snapped", "stained", "brittle", "lopsided", "wobbly"});

/// Whether one of the texts, which may be of several words, has the word.
bool HasWord(std::span<const Text> texts, Text word) {
  return std::any_of(texts.begin(), texts.end(), [&](Text text) {
    return (" " + std::string(text) + " ").find(" " + std::string(word) + " ") != std::string::npos;
  });
}

std::string Syllables(RandomStream& random) {
  static constexpr auto kOnsets = std::to_array<std::string_view>(
      {"b",  "c",  "d",  "f",  "g",  "h",  "j",  "k",  "l",  "m",  "n",  "p",  "qu", "r",  "s",
       "t",  "v",  "w",  "y",  "z",  "bl", "br", "ch", "cl", "cr", "dr", "fl", "fr", "gl", "gr",
       "pl", "pr", "sc", "sh", "sk", "sl", "sm", "sn", "sp", "st", "sw", "th", "tr", ""});
  static constexpr auto kVowels =
      std::to_array<std::string_view>({"a", "e", "i", "o", "u", "a", "e", "i", "o", "u", "ai", "ea",
                                       "ee", "ie", "oa", "oo", "ou", "y"});
  static constexpr auto kCodas = std::to_array<std::string_view>(
      {"",   "",   "",   "",   "n",  "r",  "l",  "s",  "t",  "m",  "d", "k",  "p", "ck",
       "ll", "nd", "nk", "nt", "rd", "rn", "rt", "sh", "ss", "st", "x", "ng", "b", "g"});
  const uint64_t syllables = Chance(random, 20) ? 1 : Chance(random, 70) ? 2 : 3;
  std::string word;
  for (uint64_t i = 0; i < syllables; ++i) {
    word += Pick(random, kOnsets);
    word += Pick(random, kVowels);
    if (Chance(random, i + 1 == syllables ? 70 : 30)) word += Pick(random, kCodas);
  }
  return word;
}

bool IsTraining(Split split) { return split == Split::kTraining; }

/// A word of a list, or in training sometimes one that is made up.
std::string Word(RandomStream& random, Split split, std::span<const Text> list) {
  if (IsTraining(split) && Chance(random, 40)) return MadeUpWord(random);
  return std::string(Pick(random, list));
}

/// What problems are made of.
struct ProblemWords {
  std::span<const Text> verbs, gerunds, parts, states;
};

constexpr ProblemWords kKnownProblemWords{kVerbs, kGerunds, kParts, kStates};
constexpr ProblemWords kUnseenProblemWords{kUnseenVerbs, kUnseenGerunds, kUnseenParts,
                                           kUnseenStates};

}  // namespace

bool IsUnseenWord(std::string_view word) {
  return HasWord(kUnseenNouns, word) || HasWord(kUnseenModifiers, word) ||
         HasWord(kUnseenVerbs, word) || HasWord(kUnseenGerunds, word) ||
         HasWord(kUnseenParts, word) || HasWord(kUnseenStates, word);
}

std::string MadeUpWord(RandomStream& random) {
  for (;;) {
    std::string word = Syllables(random);
    if (!IsUnseenWord(word)) return word;
  }
}

std::string DrawProduct(RandomStream& random, Split split) {
  const bool unseen = split == Split::kUnseenProducts;
  const std::span<const Text> nouns =
      unseen ? std::span<const Text>(kUnseenNouns) : std::span<const Text>(kNouns);
  const std::span<const Text> modifiers =
      unseen ? std::span<const Text>(kUnseenModifiers) : std::span<const Text>(kModifiers);
  std::string product = Word(random, split, nouns);
  const uint64_t words_before = Chance(random, 25) ? 0 : Chance(random, 75) ? 1 : 2;
  for (uint64_t i = 0; i < words_before; ++i)
    product.insert(0, Word(random, split, modifiers) + " ");
  return product;
}

std::string DrawProblem(RandomStream& random, Split split) {
  const ProblemWords& words =
      split == Split::kUnseenProblems ? kUnseenProblemWords : kKnownProblemWords;
  const auto word = [&](std::span<const Text> list) { return Word(random, split, list); };
  const auto part_in_a_state = [&] {
    const std::string part = word(words.parts);
    return WithArticle(word(words.states) + " " + part);
  };
  switch (random.Below(10)) {
    case 0:
      return "does not " + word(words.verbs);
    case 1:
      return "will not " + word(words.verbs);
    case 2:
      return "keeps " + word(words.gerunds);
    case 3:
      return "has " + part_in_a_state();
    case 4:
      return "came with " + part_in_a_state();
    case 5:
      return "leaks from the " + word(words.parts);
    case 6:
      return "arrived without its " + word(words.parts);
    case 7:
      return "started " + word(words.gerunds);
    case 8:
      return split == Split::kUnseenProblems ? "lost its " + word(words.parts)
                                             : "makes a " + word(kNoises) + " noise";
    default:
      return split == Split::kUnseenProblems ? "stopped " + word(words.gerunds)
                                             : "smells of " + word(kSmells);
  }
}

bool IsHeldOut(const ProductAndProblem& pair) {
  return Hash64(pair.product + "|" + pair.problem) % 16 == 0;
}

ProductAndProblem DrawPair(RandomStream& random, Split split) {
  for (;;) {
    ProductAndProblem pair{DrawProduct(random, split), DrawProblem(random, split)};
    if (IsHeldOut(pair) != IsTraining(split)) return pair;
  }
}

}  // namespace halo::demo
