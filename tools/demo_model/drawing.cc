#include "demo_model/drawing.h"

#include <algorithm>
#include <array>

#include "base/check.h"

namespace halo::demo {

std::string Fill(std::string_view text, std::initializer_list<Filling> fillings) {
  std::string filled;
  while (!text.empty()) {
    const size_t open = std::min(text.find('{'), text.size());
    filled += text.substr(0, open);
    text.remove_prefix(open);
    if (text.empty()) break;
    const size_t close = text.find('}');
    HALO_CHECK(close != std::string_view::npos, "every brace of a text is closed");
    const std::string_view name = text.substr(1, close - 1);
    const auto filling = std::find_if(fillings.begin(), fillings.end(),
                                      [&](const Filling& f) { return f.name == name; });
    HALO_CHECK(filling != fillings.end(), "every hole of a text has a filling");
    filled += filling->text;
    text.remove_prefix(close + 1);
  }
  return filled;
}

std::string ListInWords(std::span<const std::string> words) {
  std::string list;
  for (size_t i = 0; i < words.size(); ++i) {
    if (i > 0) list += i + 1 == words.size() ? " and " : ", ";
    list += words[i];
  }
  return list;
}

std::string Capitalized(std::string_view text) {
  std::string capitalized(text);
  if (!capitalized.empty() && capitalized[0] >= 'a' && capitalized[0] <= 'z')
    capitalized[0] = static_cast<char>(capitalized[0] - 'a' + 'A');
  return capitalized;
}

std::string WithArticle(std::string_view words) {
  const bool vowel = std::string_view("aeiou").find(words[0]) != std::string_view::npos;
  return (vowel ? "an " : "a ") + std::string(words);
}

std::string MadeUpWord(RandomStream& random) {
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

}  // namespace halo::demo
