#include "workload/wikitext.h"

#include <algorithm>

namespace halo::workload {
namespace {

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
  return text;
}

void AddOnce(std::vector<std::string>& list, std::string_view text) {
  if (!text.empty() && std::find(list.begin(), list.end(), text) == list.end())
    list.emplace_back(text);
}

/// "File", "Template", ... and codes of languages; a title such as "Dune: Part Two" is none of
/// them.
bool IsPrefix(std::string_view text) {
  static constexpr std::string_view kNamespaces[] = {"File",      "Image",  "Template", "Help",
                                                     "Wikipedia", "Portal", "Talk",     "User",
                                                     "Special",   "Media"};
  if (std::find(std::begin(kNamespaces), std::end(kNamespaces), text) != std::end(kNamespaces))
    return true;
  return (text.size() == 2 || text.size() == 3) &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= 'a' && c <= 'z'; });
}

}  // namespace

WikiLinks ReadWikiLinks(std::string_view wikitext) {
  WikiLinks links;
  for (size_t open = wikitext.find("[["); open != std::string_view::npos;
       open = wikitext.find("[[", open + 2)) {
    const size_t end = wikitext.find_first_of("]|#[\n", open + 2);
    if (end == std::string_view::npos) break;
    if (wikitext[end] == '[' || wikitext[end] == '\n') continue;
    const std::string_view target = Trimmed(wikitext.substr(open + 2, end - open - 2));
    const size_t colon = target.find(':');
    const std::string_view prefix = target.substr(0, colon == std::string_view::npos ? 0 : colon);
    if (prefix == "Category") {
      AddOnce(links.categories, Trimmed(target.substr(colon + 1)));
    } else if (!IsPrefix(prefix)) {
      AddOnce(links.articles, target);
    }
  }
  return links;
}

}  // namespace halo::workload
