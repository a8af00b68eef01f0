#include "model/schema_validator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/schema_reference.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMaxSteps = 5'000'000;  // schemas looked at, and bytes of texts against patterns
constexpr int32_t kMaxDepth = 1200;       // of schemas inside schemas, references followed

/// A value as an error shows it.
std::string Shown(const Json& value) {
  constexpr size_t kMost = 60;
  if (value.is_structured()) return value.is_array() ? "the list" : "the object";
  std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > kMost) text = text.substr(0, kMost) + "...";
  return text;
}

int64_t CountCharacters(const std::string& text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

bool IsWhole(const Json& value) {
  return value.is_number_integer() ||
         (value.is_number() && std::trunc(value.get<double>()) == value.get<double>());
}

bool HasType(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "integer") return IsWhole(value);
  if (type == "number") return value.is_number();
  if (type == "boolean") return value.is_boolean();
  return type == "null" && value.is_null();
}

bool IsShape(const std::string& text, std::string_view shape) {
  // '0' is a digit, 'x' a hexadecimal one, all else itself.
  if (text.size() != shape.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    const bool fits = shape[i] == '0'   ? std::isdigit(c) != 0
                      : shape[i] == 'x' ? std::isxdigit(c) != 0
                                        : text[i] == shape[i];
    if (!fits) return false;
  }
  return true;
}

int Number(const std::string& text, size_t at, size_t digits) {
  return std::stoi(text.substr(at, digits));
}

bool IsDate(const std::string& text) {
  if (!IsShape(text, "0000-00-00")) return false;
  constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const int year = Number(text, 0, 4), month = Number(text, 5, 2), day = Number(text, 8, 2);
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  if (month < 1 || month > 12 || day < 1) return false;
  return day <= kDays[month - 1] + (month == 2 && leap ? 1 : 0);
}

bool IsClock(const std::string& text) {
  return IsShape(text, "00:00") && Number(text, 0, 2) < 24 && Number(text, 3, 2) < 60;
}

bool IsTime(const std::string& text) {
  constexpr size_t kSeconds = 8;  // hh:mm:ss
  if (text.size() <= kSeconds || !IsClock(text.substr(0, 5)) ||
      !IsShape(text.substr(5, 3), ":00") || Number(text, 6, 2) >= 60)
    return false;
  size_t at = kSeconds;
  if (text[at] == '.') {
    const size_t digits = ++at;
    while (at < text.size() && std::isdigit(static_cast<unsigned char>(text[at])) != 0) ++at;
    if (at == digits) return false;
  }
  const std::string zone = text.substr(at);
  return zone == "Z" || zone == "z" ||
         (!zone.empty() && (zone[0] == '+' || zone[0] == '-') && IsClock(zone.substr(1)));
}

bool HasFormat(const std::string& text, const std::string& format) {
  if (format == "date") return IsDate(text);
  if (format == "time") return IsTime(text);
  if (format == "uuid") return IsShape(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
  return text.size() > 11 && (text[10] == 'T' || text[10] == 't') && IsDate(text.substr(0, 10)) &&
         IsTime(text.substr(11));
}

}  // namespace

/// One value under one schema; faults are texts, the first one counts.
class SchemaValidator::Visit {
 public:
  /// `work`: what it may cost.
  Visit(const SchemaValidator& validator, int64_t work) : validator_(validator), work_(work) {}

  /// What it has cost.
  int64_t steps() const { return steps_; }

  std::string Check(const Json& schema, const Json& value, const std::string& place,
                    int32_t depth) {
    if (++steps_ > work_ || depth > kMaxDepth) {
      gave_up_ = true;
      return place + ": too much work to check it against the schema";
    }
    std::string fault = CheckCombinations(schema, value, place, depth);
    if (fault.empty()) fault = CheckValue(schema, value, place);
    if (fault.empty() && value.is_object()) fault = CheckObject(schema, value, place, depth);
    if (fault.empty() && value.is_array()) fault = CheckArray(schema, value, place, depth);
    if (fault.empty() && value.is_string()) fault = CheckString(schema, value, place);
    if (fault.empty() && value.is_number()) fault = CheckNumber(schema, value, place);
    return fault;
  }

 private:
  std::string CheckCombinations(const Json& schema, const Json& value, const std::string& place,
                                int32_t depth) {
    if (schema.contains("$ref")) {
      const auto reference = schema["$ref"].get<std::string>();
      std::string fault =
          Check(*FindReference(validator_.schema_, reference), value, place, depth + 1);
      if (!fault.empty()) return fault;
    }
    if (schema.contains("allOf")) {
      for (const Json& part : schema["allOf"]) {
        std::string fault = Check(part, value, place, depth + 1);
        if (!fault.empty()) return fault;
      }
    }
    for (const char* key : {"anyOf", "oneOf"}) {
      if (!schema.contains(key)) continue;
      size_t fits = 0;
      std::string last;
      for (const Json& part : schema[key]) {
        std::string fault = Check(part, value, place, depth + 1);
        if (gave_up_) return fault;
        fits += fault.empty() ? 1 : 0;
        if (!fault.empty()) last = std::move(fault);
      }
      if (fits == 0)
        return fmt::format("{}: it fits none of {}; the last says {}", place, key, last);
      if (fits > 1 && key == std::string_view("oneOf")) {
        return fmt::format("{}: it fits {} schemas of oneOf, and must fit one", place, fits);
      }
    }
    return "";
  }

  static std::string CheckValue(const Json& schema, const Json& value, const std::string& place) {
    if (schema.contains("type")) {
      const Json& type = schema["type"];
      const Json types = type.is_array() ? type : Json::array({type});
      const bool fits = std::any_of(types.begin(), types.end(), [&](const Json& each) {
        return HasType(value, each.get<std::string>());
      });
      if (!fits) return fmt::format("{}: {} is not of type {}", place, Shown(value), type.dump());
    }
    if (schema.contains("const") && value != schema["const"]) {
      return fmt::format("{}: {} is not {}", place, Shown(value), Shown(schema["const"]));
    }
    if (!schema.contains("enum")) return "";
    const Json& values = schema["enum"];
    if (std::find(values.begin(), values.end(), value) != values.end()) return "";
    return fmt::format("{}: {} is not in enum", place, Shown(value));
  }

  std::string CheckObject(const Json& schema, const Json& value, const std::string& place,
                          int32_t depth) {
    if (schema.contains("required")) {
      for (const Json& name : schema["required"]) {
        if (!value.contains(name.get<std::string>()))
          return fmt::format("{}: the property {} is missing", place, name.dump());
      }
    }
    const bool has_properties = schema.contains("properties");
    for (const auto& [name, member] : value.items()) {
      const std::string inner = place + "/" + EscapePointer(name);
      std::string fault;
      if (has_properties && schema["properties"].contains(name)) {
        fault = Check(schema["properties"][name], member, inner, depth + 1);
      } else if (schema.contains("additionalProperties")) {
        const Json& additional = schema["additionalProperties"];
        if (additional.is_boolean()) {
          if (!additional.get<bool>()) fault = inner + ": the schema has no such property";
        } else {
          fault = Check(additional, member, inner, depth + 1);
        }
      }
      if (!fault.empty()) return fault;
    }
    return "";
  }

  std::string CheckArray(const Json& schema, const Json& value, const std::string& place,
                         int32_t depth) {
    if (schema.contains("minItems") && value.size() < schema["minItems"].get<size_t>()) {
      return fmt::format("{}: {} items are fewer than {}", place, value.size(),
                         schema["minItems"].dump());
    }
    if (schema.contains("maxItems") && value.size() > schema["maxItems"].get<size_t>()) {
      return fmt::format("{}: {} items are more than {}", place, value.size(),
                         schema["maxItems"].dump());
    }
    for (const char* key : {"items", "prefixItems"}) {
      if (!schema.contains(key)) continue;
      const Json& items = schema[key];
      for (size_t i = 0; i < value.size(); ++i) {
        if (items.is_array() && i >= items.size()) break;
        std::string fault = Check(items.is_array() ? items[i] : items, value[i],
                                  place + "/" + std::to_string(i), depth + 1);
        if (!fault.empty()) return fault;
      }
    }
    return "";
  }

  std::string CheckString(const Json& schema, const Json& value, const std::string& place) {
    const auto& text = value.get_ref<const std::string&>();
    const int64_t length = CountCharacters(text);
    if (schema.contains("minLength") && length < schema["minLength"].get<int64_t>()) {
      return fmt::format("{}: {} characters are fewer than {}", place, length,
                         schema["minLength"].dump());
    }
    if (schema.contains("maxLength") && length > schema["maxLength"].get<int64_t>()) {
      return fmt::format("{}: {} characters are more than {}", place, length,
                         schema["maxLength"].dump());
    }
    if (schema.contains("format") && !HasFormat(text, schema["format"].get<std::string>())) {
      return fmt::format("{}: {} is no {}", place, Shown(value), schema["format"].dump());
    }
    if (!schema.contains("pattern")) return "";
    const auto pattern = schema["pattern"].get<std::string>();
    // The matcher's time grows with this product.
    steps_ += static_cast<int64_t>(text.size()) * static_cast<int64_t>(1 + pattern.size() / 16);
    if (steps_ > work_) {
      gave_up_ = true;
      return place + ": the text is too long to check its pattern";
    }
    if (validator_.patterns_.at(pattern).IsFoundIn(text)) return "";
    return fmt::format("{}: {} does not match {}", place, Shown(value), schema["pattern"].dump());
  }

  static std::string CheckNumber(const Json& schema, const Json& value, const std::string& place) {
    const auto fault = [&](const char* key, const char* relation) {
      return fmt::format("{}: {} is {} {}", place, Shown(value), relation, schema[key].dump());
    };
    if (schema.contains("minimum") && value < schema["minimum"])
      return fault("minimum", "less than the minimum");
    if (schema.contains("maximum") && value > schema["maximum"])
      return fault("maximum", "more than the maximum");
    if (schema.contains("exclusiveMinimum") && value <= schema["exclusiveMinimum"])
      return fault("exclusiveMinimum", "not more than");
    if (schema.contains("exclusiveMaximum") && value >= schema["exclusiveMaximum"])
      return fault("exclusiveMaximum", "not less than");
    return "";
  }

  const SchemaValidator& validator_;
  const int64_t work_;
  int64_t steps_ = 0;
  bool gave_up_ = false;
};

SchemaValidator::SchemaValidator(Json schema) : schema_(std::move(schema)) {
  FindPatterns(schema_);
}

/// Compiles whatever may be a pattern: a member of that name that is text.
void SchemaValidator::FindPatterns(const Json& node) {
  if (!node.is_structured()) return;
  for (const auto& [key, value] : node.items()) {
    if (key == "pattern" && value.is_string() && node.is_object()) {
      const auto pattern = value.get<std::string>();
      const bool is_kept_to =
          !patterns_.contains(pattern) && PatternToGrammar(pattern).fault.empty();
      if (is_kept_to) patterns_.emplace(pattern, PatternMatcher(pattern));
    }
    FindPatterns(value);
  }
}

std::string SchemaValidator::Check(const Json& value) const {
  return Visit(*this, kMaxSteps).Check(schema_, value, "#", 0);
}

bool SchemaValidator::Fits(const Json& value, const Json& part, int64_t& work) const {
  Visit visit(*this, work);
  const bool fits = visit.Check(part, value, "#", 0).empty();
  work -= std::min(work, visit.steps());
  return fits;
}

}  // namespace halo
