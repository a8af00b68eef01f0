#include "demo_model/drawing.h"

#include <algorithm>

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

}  // namespace halo::demo
