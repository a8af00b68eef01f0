#include "tool/sql/postgres_values.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/text.h"
#include "sql/json_row.h"
#include "tool/sql/sql_arguments.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

// Numbers of built-in types, from PostgreSQL's pg_type.dat.
constexpr PostgresType kBool = 16, kBytea = 17, kChar = 18, kName = 19, kInt8 = 20, kInt2 = 21,
                       kInt4 = 23, kText = 25, kOid = 26, kJson = 114, kFloat4 = 700, kFloat8 = 701,
                       kUnknown = 705, kBpchar = 1042, kVarchar = 1043, kDate = 1082, kTime = 1083,
                       kTimestamp = 1114, kTimestampTz = 1184, kInterval = 1186, kTimeTz = 1266,
                       kNumeric = 1700, kUuid = 2950, kJsonb = 3802;

struct ArrayOf {
  PostgresType array, element;
};
constexpr ArrayOf kArrays[] = {
    {199, kJson},    {1000, kBool},   {1001, kBytea},       {1002, kChar},     {1003, kName},
    {1005, kInt2},   {1007, kInt4},   {1009, kText},        {1014, kBpchar},   {1015, kVarchar},
    {1016, kInt8},   {1021, kFloat4}, {1022, kFloat8},      {1028, kOid},      {1115, kTimestamp},
    {1182, kDate},   {1183, kTime},   {1185, kTimestampTz}, {1187, kInterval}, {1231, kNumeric},
    {1270, kTimeTz}, {2951, kUuid},   {3807, kJsonb},
};
constexpr PostgresType kScalars[] = {
    kBool, kBytea,     kChar,        kName,     kInt8,    kInt2,    kInt4,    kText,
    kOid,  kJson,      kFloat4,      kFloat8,   kUnknown, kBpchar,  kVarchar, kDate,
    kTime, kTimestamp, kTimestampTz, kInterval, kTimeTz,  kNumeric, kUuid,    kJsonb,
};

PostgresType ArrayType(PostgresType element) {
  for (const ArrayOf& each : kArrays) {
    if (each.element == element) return each.array;
  }
  return 0;
}

/// 0 if it is no array.
PostgresType ElementType(PostgresType type, const PostgresArrays& arrays) {
  for (const ArrayOf& each : kArrays) {
    if (each.array == type) return each.element;
  }
  const auto found = arrays.find(type);
  return found == arrays.end() ? 0 : found->second;
}

// ---- reading texts

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

/// What is left of a text while it is read from the front.
class TextReader {
 public:
  explicit TextReader(std::string_view text) : rest_(text) {}

  bool AtEnd() const { return rest_.empty(); }
  char Next() const { return rest_.empty() ? '\0' : rest_.front(); }
  std::string_view rest() const { return rest_; }
  bool Take(std::string_view mark) {
    if (!rest_.starts_with(mark)) return false;
    rest_.remove_prefix(mark.size());
    return true;
  }
  /// At least `fewest`, at most `most` digits; "" without stepping if there are not that many.
  std::string_view Digits(size_t fewest, size_t most) {
    size_t count = 0;
    while (count < rest_.size() && count < most && IsDigit(rest_[count])) ++count;
    if (count < fewest) return "";
    const std::string_view digits = rest_.substr(0, count);
    rest_.remove_prefix(count);
    return digits;
  }
  /// A number of exactly two digits up to `most`.
  std::optional<int> TwoDigits(int most) {
    const std::string_view digits = Digits(2, 2);
    if (digits.empty()) return std::nullopt;
    const int number = (digits[0] - '0') * 10 + (digits[1] - '0');
    return number <= most ? std::optional(number) : std::nullopt;
  }

 private:
  std::string_view rest_;
};

int DaysOf(int month, int64_t year) {
  constexpr std::array<int, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
  return kDays[static_cast<size_t>(month - 1)] + (month == 2 && leap ? 1 : 0);
}

/// A date of ISO 8601, year 0 being 1 BC; years of more than four digits have a sign.
struct IsoDate {
  int64_t year = 0;
  int month = 0, day = 0;
};

std::optional<IsoDate> TakeIsoDate(TextReader& text) {
  constexpr size_t kMostYearDigits = 7;
  IsoDate date;
  const bool negative = text.Take("-");
  const bool has_sign = negative || text.Take("+");
  const std::string_view year = text.Digits(4, has_sign ? kMostYearDigits : 4);
  if (year.empty()) return std::nullopt;
  std::from_chars(year.data(), year.data() + year.size(), date.year);
  if (negative) date.year = -date.year;
  if (!text.Take("-")) return std::nullopt;
  const auto month = text.TwoDigits(12);
  if (!month || *month == 0 || !text.Take("-")) return std::nullopt;
  const auto day = text.TwoDigits(DaysOf(*month, date.year));
  if (!day || *day == 0) return std::nullopt;
  date.month = *month;
  date.day = *day;
  return date;
}

/// "0044-03-15 BC" is two parts to PostgreSQL, the era behind the time of day.
std::pair<std::string, std::string> DateAndEra(const IsoDate& date) {
  const bool before_christ = date.year <= 0;
  const int64_t year = before_christ ? 1 - date.year : date.year;
  return {fmt::format("{:04}-{:02}-{:02}", year, date.month, date.day), before_christ ? " BC" : ""};
}

/// 12:30, 12:30:00, 12:30:00.123456
bool TakeTimeOfDay(TextReader& text) {
  if (!text.TwoDigits(23) || !text.Take(":") || !text.TwoDigits(59)) return false;
  if (!text.Take(":")) return true;
  if (!text.TwoDigits(59)) return false;
  return !text.Take(".") || !text.Digits(1, 6).empty();
}

/// Z, +02, +02:00, +0200
bool TakeOffset(TextReader& text) {
  if (text.Take("Z")) return true;
  if (!text.Take("+") && !text.Take("-")) return false;
  if (!text.TwoDigits(15)) return false;
  const bool colon = text.Take(":");
  return (!colon && text.AtEnd()) || text.TwoDigits(59).has_value();
}

// ---- values to texts

constexpr SqlArgumentWords kWords = {"a text",
                                     "a decimal number, as text if it has more than 15 digits",
                                     "a time such as 2026-01-31T12:30:00 or 2026-01-31T12:30:00Z"};

using MaybeText = std::optional<std::string>;

MaybeText IntegerText(const Json& value) {
  constexpr double kMostExact = 9007199254740992.0;  // 2^53
  if (value.is_number_float()) {
    const auto number = value.get<double>();
    if (std::trunc(number) != number || std::abs(number) > kMostExact) return std::nullopt;
    return std::to_string(static_cast<int64_t>(number));
  }
  const std::string text = ArgumentText(value);
  if (!value.is_string() && !value.is_number()) return std::nullopt;
  const size_t sign = !text.empty() && text[0] == '+' ? 1 : 0;
  int64_t number = 0;
  const auto [end, fault] = std::from_chars(text.data() + sign, text.data() + text.size(), number);
  const bool whole = fault == std::errc() && end == text.data() + text.size();
  return whole ? MaybeText(std::to_string(number)) : std::nullopt;
}

MaybeText DoubleText(const Json& value) {
  if (value.is_number()) return ArgumentText(value);
  if (!value.is_string()) return std::nullopt;
  const std::string text = value.get<std::string>();
  double number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  return fault == std::errc() && end == text.data() + text.size() ? MaybeText(text) : std::nullopt;
}

MaybeText BooleanText(const Json& value) {
  const std::string text = ArgumentText(value);
  if (text == "true" || text == "True") return "true";
  if (text == "false" || text == "False") return "false";
  return std::nullopt;
}

/// A number with a fraction is taken as it is written, if a double keeps all digits of it.
MaybeText DecimalText(const Json& value) {
  constexpr size_t kExactDigits = 15;
  if (!value.is_number() && !value.is_string()) return std::nullopt;
  const std::string text = ArgumentText(value);
  if (text == "nan" || text == "inf" || text == "-inf") return text;
  TextReader reader(text);
  if (!reader.Take("-")) reader.Take("+");
  const std::string_view whole = reader.Digits(0, text.size());
  const std::string_view fraction = reader.Take(".") ? reader.Digits(0, text.size()) : "";
  if (whole.empty() && fraction.empty()) return std::nullopt;
  if (reader.Take("e") || reader.Take("E")) {
    if (!reader.Take("-")) reader.Take("+");
    if (reader.Digits(1, 4).empty()) return std::nullopt;
  }
  if (!reader.AtEnd()) return std::nullopt;
  const std::string digits = std::string(whole) + std::string(fraction);
  const size_t zeros = std::min(digits.find_first_not_of('0'), digits.size());
  const bool is_exact = !value.is_number_float() || digits.size() - zeros <= kExactDigits;
  return is_exact ? MaybeText(text) : std::nullopt;
}

MaybeText DateText(const Json& value) {
  const std::string text = ArgumentText(value);
  if (text == "infinity" || text == "-infinity") return text;
  TextReader reader(text);
  const auto date = TakeIsoDate(reader);
  if (!value.is_string() || !date || !reader.AtEnd()) return std::nullopt;
  const auto [day, era] = DateAndEra(*date);
  return day + era;
}

MaybeText TimeText(const Json& value) {
  const std::string text = ArgumentText(value);
  TextReader reader(text);
  const bool is_time = value.is_string() && TakeTimeOfDay(reader) && reader.AtEnd();
  return is_time ? MaybeText(text) : std::nullopt;
}

/// `zoned`: whether it has a zone.
MaybeText TimestampText(const Json& value, bool& zoned) {
  zoned = false;
  const std::string text = ArgumentText(value);
  if (text == "infinity" || text == "-infinity") return text;
  TextReader reader(text);
  const auto date = TakeIsoDate(reader);
  if (!value.is_string() || !date) return std::nullopt;
  const auto [day, era] = DateAndEra(*date);
  if (reader.AtEnd()) return day + " 00:00:00" + era;
  if (!reader.Take("T") && !reader.Take(" ")) return std::nullopt;
  const std::string time(reader.rest());
  if (!TakeTimeOfDay(reader)) return std::nullopt;
  if (!reader.AtEnd()) {
    zoned = true;
    if (!TakeOffset(reader) || !reader.AtEnd()) return std::nullopt;
  }
  return day + " " + time + era;
}

MaybeText UuidText(const Json& value) {
  const std::string text = ArgumentText(value);
  size_t digits = 0;
  for (const char c : text) {
    const bool hex = IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (!hex && c != '-') return std::nullopt;
    digits += hex ? 1 : 0;
  }
  return digits == 32 ? MaybeText(text) : std::nullopt;
}

/// A text must hold JSON and is sent as it is; everything else is JSON already.
MaybeText JsonText(const Json& value) {
  std::string text = ArgumentText(value);
  if (value.is_string() && !Json::accept(text)) return std::nullopt;
  return text;
}

MaybeText ScalarText(SqlParameterType type, const Json& value) {
  bool zoned = false;
  switch (type) {
    case SqlParameterType::kInteger:
      return IntegerText(value);
    case SqlParameterType::kDouble:
      return DoubleText(value);
    case SqlParameterType::kBoolean:
      return BooleanText(value);
    case SqlParameterType::kDecimal:
      return DecimalText(value);
    case SqlParameterType::kDate:
      return DateText(value);
    case SqlParameterType::kTime:
      return TimeText(value);
    case SqlParameterType::kTimestamp:
      return TimestampText(value, zoned);
    case SqlParameterType::kUuid:
      return UuidText(value);
    case SqlParameterType::kJson:
      return JsonText(value);
    case SqlParameterType::kAny:
    case SqlParameterType::kText:
      break;
  }
  return ArgumentText(value);
}

/// The text of one value that is not null.
std::string CheckedText(SqlParameterType type, const Json& value, std::string& fault) {
  MaybeText text = ScalarText(type, value);
  if (!text) fault = ArgumentRefusal(ExpectedArgument(type, kWords), value);
  if (text && text->find('\0') != std::string::npos)
    fault = "a text with a NUL character, which PostgreSQL cannot hold";
  return text.value_or("");
}

/// {"a","b \"c\"",NULL}: quoted, an element may hold anything.
std::string ArrayLiteral(const SqlArgument& argument, std::string& fault) {
  std::string literal = "{";
  for (const Json& element : argument.value) {
    if (literal.size() > 1) literal += ',';
    if (element.is_null()) {
      literal += "NULL";
      continue;
    }
    literal += '"';
    for (const char c : CheckedText(argument.type, element, fault)) {
      if (c == '"' || c == '\\') literal += '\\';
      literal += c;
    }
    literal += '"';
    if (!fault.empty()) return "";
  }
  return literal + "}";
}

bool IsZoned(const Json& value) {
  bool zoned = false;
  if (value.is_array())
    return std::any_of(value.begin(), value.end(), [](const Json& each) { return IsZoned(each); });
  if (value.is_string()) TimestampText(value, zoned);
  return zoned;
}

PostgresType ScalarType(const SqlArgument& argument) {
  switch (argument.type) {
    case SqlParameterType::kText:
      return kText;
    case SqlParameterType::kInteger:
      return kInt8;
    case SqlParameterType::kDouble:
      return kFloat8;
    case SqlParameterType::kBoolean:
      return kBool;
    case SqlParameterType::kDecimal:
      return kNumeric;
    case SqlParameterType::kDate:
      return kDate;
    case SqlParameterType::kTime:
      return kTime;
    case SqlParameterType::kTimestamp:
      return IsZoned(argument.value) ? kTimestampTz : kTimestamp;
    case SqlParameterType::kUuid:
      return kUuid;
    case SqlParameterType::kAny:
    case SqlParameterType::kJson:
      break;
  }
  return 0;
}

// ---- texts to values

Json WholeValue(std::string_view text, std::string& fault) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) fault = "not a whole number";
  return number;
}

/// nan, inf and -inf are texts, as JSON has no numbers for them.
Json SpecialNumber(std::string_view text) {
  if (text == "NaN") return "nan";
  if (text == "Infinity") return "inf";
  if (text == "-Infinity") return "-inf";
  return nullptr;
}

Json DoubleValue(std::string_view text, std::string& fault) {
  Json special = SpecialNumber(text);
  if (!special.is_null()) return special;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) fault = "not a number";
  return number;
}

/// PostgreSQL's date, which has the era at the end of the whole text, as ISO 8601's.
std::string IsoDateText(std::string_view text, bool before_christ) {
  const size_t dash = text.find('-');
  int64_t year = 0;
  std::from_chars(text.data(), text.data() + std::min(dash, text.size()), year);
  if (before_christ) year = 1 - year;
  const std::string_view rest = dash == std::string_view::npos ? "" : text.substr(dash);
  const bool is_plain = year >= 0 && year <= 9999;
  return (is_plain ? fmt::format("{:04}", year) : fmt::format("{:+07}", year)) + std::string(rest);
}

/// +00 is Z; +05:30 stays; +02 becomes +02:00.
std::string IsoOffset(std::string_view offset) {
  if (offset == "+00") return "Z";
  return std::string(offset) + (offset.size() == 3 ? ":00" : "");
}

Json TimestampValue(std::string_view text) {
  if (text == "infinity" || text == "-infinity") return text;
  const bool before_christ = text.ends_with(" BC");
  if (before_christ) text.remove_suffix(3);
  const size_t blank = text.find(' ');
  std::string value = IsoDateText(text.substr(0, blank), before_christ);
  if (blank == std::string_view::npos) return value;
  const std::string_view time = text.substr(blank + 1);
  const size_t offset = time.find_first_of("+-");
  value += "T" + std::string(time.substr(0, offset));
  if (offset != std::string_view::npos) value += IsoOffset(time.substr(offset));
  return value;
}

Json TimeWithZone(std::string_view text) {
  const size_t offset = text.find_first_of("+-");
  if (offset == std::string_view::npos) return text;
  std::string zone(text.substr(offset));
  if (zone.size() == 3) zone += ":00";
  return std::string(text.substr(0, offset)) + zone;
}

/// Text where it is not JSON of ours: nested too deep, one key twice.
Json JsonValue(std::string_view text) {
  JsonRow parsed = ParseJsonRow("{\"value\":" + std::string(text) + "}");
  const bool strict = parsed.faults.empty() && parsed.values.size() == 1;
  return strict ? std::move(parsed.values["value"]) : Json(text);
}

/// Reads an array's text: {1,NULL,"a \"b\"",{...}}, before it perhaps its bounds, [0:2]={...}.
class ArrayReader {
 public:
  ArrayReader(PostgresType element, const PostgresArrays& arrays, std::string& fault)
      : element_(element), arrays_(arrays), fault_(fault) {}

  Json Read(std::string_view text) {
    if (text.starts_with('[')) {
      const size_t equals = text.find('=');
      text.remove_prefix(equals == std::string_view::npos ? text.size() : equals + 1);
    }
    text_ = text;
    Json value = Array(1);
    if (offset_ != text_.size() && fault_.empty()) Fail();
    return value;
  }

 private:
  char Next() const { return offset_ < text_.size() ? text_[offset_] : '\0'; }
  void Fail() { fault_ = "an array that cannot be read"; }

  Json Array(int depth) {
    constexpr int kMostDimensions = 6;  // PostgreSQL's own limit
    Json array = Json::array();
    if (Next() != '{' || depth > kMostDimensions) {
      Fail();
      return array;
    }
    ++offset_;
    while (fault_.empty() && Next() != '}') {
      if (Next() == '{') {
        array.push_back(Array(depth + 1));
      } else {
        array.push_back(Element());
      }
      if (Next() == ',') {
        ++offset_;
      } else if (Next() != '}') {
        Fail();
      }
    }
    ++offset_;
    return array;
  }

  Json Element() {
    std::string value;
    const bool quoted = Next() == '"';
    if (quoted) ++offset_;
    while (offset_ < text_.size()) {
      const char c = text_[offset_];
      if (quoted ? c == '"' : c == ',' || c == '}') break;
      if (c == '\\') ++offset_;
      value += Next();
      ++offset_;
    }
    if (quoted && Next() != '"') Fail();
    if (quoted) ++offset_;
    if (!quoted && value == "NULL") return nullptr;
    return PostgresValue(element_, value, arrays_, fault_);
  }

  PostgresType element_;
  const PostgresArrays& arrays_;
  std::string& fault_;
  std::string_view text_;
  size_t offset_ = 0;
};

}  // namespace

PostgresType ParameterType(const SqlArgument& argument) {
  const PostgresType type = ScalarType(argument);
  return argument.is_list && type != 0 ? ArrayType(type) : type;
}

PostgresArguments TextsOfArguments(const std::vector<SqlArgument>& arguments, std::string& fault) {
  PostgresArguments texts;
  for (const SqlArgument& argument : arguments) {
    texts.types.push_back(ParameterType(argument));
    std::string why;
    if (argument.value.is_null()) {
      texts.texts.emplace_back();
    } else if (!argument.is_list) {
      texts.texts.emplace_back(CheckedText(argument.type, argument.value, why));
    } else if (argument.value.is_array()) {
      texts.texts.emplace_back(ArrayLiteral(argument, why));
    } else {
      why = ArgumentRefusal("a list", argument.value);
    }
    if (why.empty()) continue;
    fault = ArgumentFault(argument, texts.types.size() - 1, why);
    break;
  }
  return texts;
}

bool IsUnknownType(PostgresType type, const PostgresArrays& arrays) {
  const bool known =
      std::find(std::begin(kScalars), std::end(kScalars), type) != std::end(kScalars) ||
      ElementType(type, {}) != 0;
  return !known && !arrays.contains(type);
}

std::string WhyNotInRows(PostgresType type) {
  const bool is_bytea = type == kBytea || ElementType(type, {}) == kBytea;
  return is_bytea ? "is bytea, which has no form as text or JSON: select encode(..., 'base64')"
                  : "";
}

Json PostgresValue(PostgresType type, std::string_view text, const PostgresArrays& arrays,
                   std::string& fault) {
  if (FindInvalidUtf8(text) != std::string_view::npos) {
    fault = "not UTF-8";
    return nullptr;
  }
  if (const PostgresType element = ElementType(type, arrays); element != 0)
    return ArrayReader(element, arrays, fault).Read(text);
  switch (type) {
    case kBool:
      return text == "t";
    case kInt2:
    case kInt4:
    case kInt8:
    case kOid:
      return WholeValue(text, fault);
    case kFloat4:
    case kFloat8:
      return DoubleValue(text, fault);
    case kNumeric: {
      Json special = SpecialNumber(text);
      return special.is_null() ? Json(text) : special;
    }
    case kDate:
    case kTimestamp:
    case kTimestampTz:
      return TimestampValue(text);
    case kTimeTz:
      return TimeWithZone(text);
    case kJson:
    case kJsonb:
      return JsonValue(text);
    default:
      return text;
  }
}

}  // namespace halo
