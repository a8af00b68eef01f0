#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tool/tool.h"

namespace halo {

/// A local function that comes with Halo.
///
///     regex_param_extractor   fields of a text by patterns, with defaults and normalization
///     json_pick               parts of a value by paths
///     template                a Jinja template over the inputs
///     join, concat            texts of the inputs as one
///     top_k                   the k greatest (or least) elements of a list
///     majority_vote           the most frequent value, ties to the first
///     compare                 two values, as numbers (to the last digit) where both are, else as
///     texts exec                    a declared program (tool/function/exec_backend.h)
struct LocalFunction {
  std::string_view name;
  /// What is wrong with a `config`, one message each.
  std::vector<std::string> (*check)(const nlohmann::ordered_json& config);
  /// The value of a call whose config was checked. Throws Failure. Null for exec, which is no
  /// function of this process.
  nlohmann::ordered_json (*run)(const FunctionCall& call);
};

/// Null if there is none.
const LocalFunction* FindLocalFunction(std::string_view name);
std::vector<std::string> LocalFunctionNames();

/// Levels of arrays and objects in JSON that comes from outside: what goes through a value needs a
/// stack as deep as it is.
inline constexpr int kMostJsonDepth = 64;

/// The JSON that a text is in full, of at most kMostJsonDepth levels; nothing if it is none.
std::optional<nlohmann::ordered_json> ReadJson(std::string_view text);

/// What a dotted path leads to ("choices.0.message"): keys of objects, indices of lists. Null
/// pointer if it leads nowhere. "" is the value itself.
const nlohmann::ordered_json* FindPath(const nlohmann::ordered_json& value, std::string_view path);

/// The regex_param_extractor (see regex_extractor.cc for its config).
std::vector<std::string> CheckRegexConfig(const nlohmann::ordered_json& config);
nlohmann::ordered_json ExtractByRegex(const FunctionCall& call);

}  // namespace halo
