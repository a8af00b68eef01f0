#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace halo::workload {

/// What the [[...]] of a wikitext point at, each once, in order: names of categories without
/// "Category:", and articles without section, label, files, other namespaces and other languages.
struct WikiLinks {
  std::vector<std::string> categories, articles;
};

WikiLinks ReadWikiLinks(std::string_view wikitext);

}  // namespace halo::workload
