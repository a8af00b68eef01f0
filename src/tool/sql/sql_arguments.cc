#include "tool/sql/sql_arguments.h"

#include <fmt/format.h>

#include "base/text.h"

namespace halo {

using Json = nlohmann::ordered_json;

std::string ArgumentText(const Json& value) {
  return value.is_string() ? value.get<std::string>()
                           : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string ArgumentFault(const SqlArgument& argument, size_t place, const std::string& why) {
  return argument.name.empty() ? fmt::format("parameter {}: {}", place + 1, why)
                               : fmt::format("parameter '{}': {}", argument.name, why);
}

const char* ExpectedArgument(SqlParameterType type, const SqlArgumentWords& words) {
  switch (type) {
    case SqlParameterType::kInteger:
      return "a whole number of at most 64 bits";
    case SqlParameterType::kDouble:
      return "a number";
    case SqlParameterType::kBoolean:
      return "true or false";
    case SqlParameterType::kDecimal:
      return words.decimal;
    case SqlParameterType::kDate:
      return "a date such as 2026-01-31";
    case SqlParameterType::kTime:
      return "a time such as 12:30:00";
    case SqlParameterType::kTimestamp:
      return words.timestamp;
    case SqlParameterType::kUuid:
      return "a UUID";
    case SqlParameterType::kJson:
      return "JSON";
    case SqlParameterType::kAny:
    case SqlParameterType::kText:
      break;
  }
  return words.text;
}

std::string ArgumentRefusal(const char* expected, const Json& value) {
  constexpr size_t kShownBytes = 80;
  std::string shown = ArgumentText(value);
  if (shown.size() > kShownBytes) {
    shown.resize(kShownBytes);
    shown.resize(CompleteUtf8Length(shown));
    shown += "...";
  }
  return std::string("expected ") + expected + ", got " + ReplaceInvalidUtf8(shown);
}

}  // namespace halo
