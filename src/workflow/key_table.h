#pragma once

#include <algorithm>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "workflow/value_reader.h"

namespace halo {

/// What the readers of single keys need.
struct KeyContext {
  ValueReader& reader;
  std::string_view text;  ///< the file
  /// Of the embedding program. Null: it has none.
  const std::set<std::string>* host_functions = nullptr;
};

/// How one key is read.
template <typename Target>
struct KeySpec {
  const char* name;
  void (*read)(KeyContext&, const YamlField&, Target&);
};

template <typename Target>
std::vector<std::string> NamesOf(std::span<const KeySpec<Target>> specs) {
  std::vector<std::string> names;
  for (const KeySpec<Target>& spec : specs) names.emplace_back(spec.name);
  return names;
}

/// Reads the entries of a mapping by a table; `where` ends the message about an unknown key.
/// Returns the keys that were there, with those that an unknown key probably meant.
template <typename Target>
std::set<std::string> ReadMapping(KeyContext& context, const YamlNode& mapping,
                                  std::span<const KeySpec<Target>> specs, const std::string& where,
                                  Target& target) {
  std::set<std::string> seen;
  std::set<std::string> given;
  DiagnosticList& diagnostics = context.reader.diagnostics();
  for (const auto& [key, value] : mapping.entries) {
    const bool merge_key = key->text == "<<" && !key->quoted;
    if (!key->IsText() || merge_key) continue;  // ParseYaml has reported it
    const auto spec =
        std::find_if(specs.begin(), specs.end(),
                     [&name = key->text](const auto& each) { return name == each.name; });
    if (spec == specs.end()) {
      const std::vector<std::string> names = NamesOf(specs);
      diagnostics.Add(key->line, key->column,
                      "unknown key '" + key->text + "' " + where + DidYouMean(key->text, names));
      given.insert(NearestWord(key->text, names));
      continue;
    }
    if (!seen.insert(key->text).second) continue;  // a duplicate: the first one counts
    given.insert(key->text);
    spec->read(context, {spec->name, key.get(), value.get()}, target);
  }
  return given;
}

}  // namespace halo
