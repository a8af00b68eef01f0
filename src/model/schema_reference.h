#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace halo {

/// The part of `root` that "#/a/b" names, or null. No escapes: '~' and '%' are refused before.
const nlohmann::ordered_json* FindReference(const nlohmann::ordered_json& root,
                                            const std::string& reference);

/// A key as a step of a JSON pointer.
std::string EscapePointer(const std::string& key);

}  // namespace halo
