#include "workflow/value_reader.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/text.h"

namespace halo {
namespace {

constexpr size_t kShownBytes = 60;

std::string Shorten(std::string_view text) {
  if (text.size() <= kShownBytes) return std::string(text);
  const std::string_view cut = text.substr(0, kShownBytes);
  return std::string(cut.substr(0, CompleteUtf8Length(cut))) + "...";
}

std::string_view WithoutPlus(std::string_view text) {
  return !text.empty() && text[0] == '+' ? text.substr(1) : text;
}

template <typename Number>
bool ParseAll(std::string_view text, Number& number) {
  const std::string_view digits = WithoutPlus(text);
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  return fault == std::errc() && end == digits.data() + digits.size();
}

bool IsDigits(std::string_view text) {
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool LooksWhole(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return IsDigits(text);
}

/// .inf, -.inf and .nan are numbers in YAML; they are refused later, as not finite.
bool LooksInfinite(std::string_view text) {
  if (!text.empty() && (text[0] == '-' || text[0] == '+')) text.remove_prefix(1);
  return text == ".inf" || text == ".Inf" || text == ".INF" || text == ".nan" || text == ".NaN" ||
         text == ".NAN";
}

bool LooksFraction(std::string_view text) {
  const std::string_view digits = WithoutPlus(text);
  if (digits.find_first_of("0123456789") == std::string_view::npos) return false;
  if (digits.find_first_not_of("0123456789.eE+-") != std::string_view::npos) return false;
  double ignored = 0;
  const auto [end, fault] = std::from_chars(digits.data(), digits.data() + digits.size(), ignored);
  // A number that no double can hold is a number nonetheless.
  return end == digits.data() + digits.size() && fault != std::errc::invalid_argument;
}

}  // namespace

PlainMeaning MeaningOf(const YamlNode& scalar) {
  const std::string& text = scalar.text;
  if (scalar.quoted) return PlainMeaning::kText;
  for (const char* word : {"true", "True", "TRUE", "false", "False", "FALSE"}) {
    if (text == word) return PlainMeaning::kBoolean;
  }
  if (LooksWhole(text)) return PlainMeaning::kWhole;
  if (LooksInfinite(text) || LooksFraction(text)) return PlainMeaning::kFraction;
  return PlainMeaning::kText;
}

nlohmann::ordered_json JsonOfYaml(const YamlNode& node) {
  using Json = nlohmann::ordered_json;
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kSequence: {
      Json list = Json::array();
      for (const YamlNode::Pointer& item : node.items) list.push_back(JsonOfYaml(*item));
      return list;
    }
    case YamlNode::Kind::kMapping: {
      Json mapping = Json::object();
      for (const auto& [key, value] : node.entries) mapping[key->text] = JsonOfYaml(*value);
      return mapping;
    }
    case YamlNode::Kind::kScalar:
      break;
  }
  const PlainMeaning meaning = MeaningOf(node);
  if (meaning == PlainMeaning::kText) return node.text;
  if (meaning == PlainMeaning::kBoolean) return node.text[0] == 't' || node.text[0] == 'T';
  Json number = Json::parse(node.text, nullptr, false);
  return number.is_number() ? number : Json(node.text);
}

std::string DescribeNode(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kSequence:
      return "a list";
    case YamlNode::Kind::kMapping:
      return "a mapping";
    case YamlNode::Kind::kScalar:
      break;
  }
  switch (MeaningOf(node)) {
    case PlainMeaning::kBoolean:
      return node.text;
    case PlainMeaning::kWhole:
    case PlainMeaning::kFraction:
      return "the number " + Shorten(node.text);
    case PlainMeaning::kText:
      break;
  }
  return "'" + Shorten(node.text) + "'";
}

void ValueReader::Mismatch(const YamlField& field, std::string_view expected) {
  std::string message = "expected " + std::string(expected) + ", got " + DescribeNode(*field.value);
  if (field.value->kind == YamlNode::Kind::kScalar && field.value->quoted) {
    YamlNode bare = *field.value;
    bare.quoted = false;
    if (MeaningOf(bare) != PlainMeaning::kText) message += " in quotes: take the quotes away";
  }
  Fault(field, message);
}

void ValueReader::Fault(const YamlField& field, std::string_view message) {
  // An absent value has no place of its own: yaml-cpp gives that of what follows.
  const YamlNode& place = field.value->kind == YamlNode::Kind::kNull ? *field.key : *field.value;
  diagnostics_.Add(place.line, place.column, field.name + ": " + std::string(message));
}

std::optional<std::string> ValueReader::Text(const YamlField& field) {
  if (field.value->kind == YamlNode::Kind::kNull) {
    Fault(field, "expected text, got nothing (write \"\" for an empty text)");
    return std::nullopt;
  }
  if (!field.value->IsText()) {
    Mismatch(field, "text");
    return std::nullopt;
  }
  if (MeaningOf(*field.value) != PlainMeaning::kText) {
    Fault(field, "expected text, got " + DescribeNode(*field.value) + " (put quotes around it)");
    return std::nullopt;
  }
  return field.value->text;
}

std::optional<std::string> ValueReader::Word(const YamlField& field) {
  std::optional<std::string> text = Text(field);
  if (text && text->find_first_not_of(" \t\r\n") == std::string::npos) {
    Fault(field, "expected text that is not empty");
    return std::nullopt;
  }
  return text;
}

std::optional<bool> ValueReader::Boolean(const YamlField& field) {
  if (!field.value->IsText() || MeaningOf(*field.value) != PlainMeaning::kBoolean) {
    Mismatch(field, "true or false");
    return std::nullopt;
  }
  return field.value->text[0] == 't' || field.value->text[0] == 'T';
}

std::optional<double> ValueReader::Number(const YamlField& field, const char* expected) {
  const bool is_scalar = field.value->IsText();
  const PlainMeaning meaning = is_scalar ? MeaningOf(*field.value) : PlainMeaning::kText;
  if (meaning != PlainMeaning::kWhole && meaning != PlainMeaning::kFraction) {
    Mismatch(field, expected);
    return std::nullopt;
  }
  double number = 0;
  if (LooksInfinite(field.value->text) || !ParseAll(field.value->text, number) ||
      !std::isfinite(number)) {
    Mismatch(field, expected);
    return std::nullopt;
  }
  return number;
}

std::optional<int64_t> ValueReader::Whole(const YamlField& field, WholeRange range) {
  constexpr int64_t kUnbounded = INT64_MAX;
  std::string expected = "a whole number";
  if (range.high == kUnbounded && range.low != INT64_MIN) {
    expected += " of at least " + std::to_string(range.low);
  } else if (range.high != kUnbounded) {
    expected += " from " + std::to_string(range.low) + " to " + std::to_string(range.high);
  }
  int64_t number = 0;
  if (!field.value->IsText() || MeaningOf(*field.value) != PlainMeaning::kWhole ||
      !ParseAll(field.value->text, number) || number < range.low || number > range.high) {
    Mismatch(field, expected);
    return std::nullopt;
  }
  return number;
}

std::optional<std::string> ValueReader::Choice(const YamlField& field,
                                               const std::vector<std::string>& choices) {
  std::string expected;
  for (const std::string& choice : choices) {
    if (!expected.empty()) expected += &choice == &choices.back() ? " or " : ", ";
    expected += choice;
  }
  const YamlNode& value = *field.value;
  if (!value.IsText()) {
    Mismatch(field, expected);
    return std::nullopt;
  }
  if (std::find(choices.begin(), choices.end(), value.text) != choices.end()) return value.text;
  Fault(field,
        "expected " + expected + ", got " + DescribeNode(value) + DidYouMean(value.text, choices));
  return std::nullopt;
}

std::optional<std::vector<const YamlNode*>> ValueReader::TextList(const YamlField& field,
                                                                  const char* what) {
  if (field.value->kind != YamlNode::Kind::kSequence) {
    Mismatch(field, "a list, such as [a, b]");
    return std::nullopt;
  }
  std::vector<const YamlNode*> texts;
  for (const YamlNode::Pointer& item : field.value->items) {
    if (item->IsText() && MeaningOf(*item) == PlainMeaning::kText) {
      texts.push_back(item.get());
      continue;
    }
    const YamlNode& place = item->kind == YamlNode::Kind::kNull ? *field.value : *item;
    diagnostics_.Add(place.line, place.column,
                     field.name + ": expected " + what + ", got " + DescribeNode(*item));
  }
  return texts;
}

}  // namespace halo
