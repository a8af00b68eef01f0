#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "tool/tool.h"

namespace halo {

// What binding values has in common, whichever database they go to.

/// A text as it is, everything else as compact JSON.
std::string ArgumentText(const nlohmann::ordered_json& value);

/// How a database calls the values that not every database takes alike.
struct SqlArgumentWords {
  const char* text;
  const char* decimal;
  const char* timestamp;
};

/// What a value of the type looks like: "a date such as 2026-01-31".
const char* ExpectedArgument(SqlParameterType type, const SqlArgumentWords& words);

/// "parameter 'since': WHY", or "parameter 2: WHY" of one without a name; `place` from 0.
std::string ArgumentFault(const SqlArgument& argument, size_t place, const std::string& why);

/// "expected WHAT, got ...": well-formed UTF-8, of a long value its beginning.
std::string ArgumentRefusal(const char* expected, const nlohmann::ordered_json& value);

}  // namespace halo
