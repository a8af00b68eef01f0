#include "tool/sql/duckdb_values.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string_view>
#include <vector>

#include "base/text.h"
#include "tool/sql/sql_arguments.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kMostDigits = 38;  // of a DECIMAL
constexpr SqlArgumentWords kWords = {"text in UTF-8", "a decimal number of at most 38 digits",
                                     "a time such as 2026-01-31T12:30:00"};

/// Null for what is not UTF-8: DuckDB throws through its C interface there.
duckdb_value Text(const std::string& text) {
  if (FindInvalidUtf8(text) != std::string::npos) return nullptr;
  return duckdb_create_varchar_length(text.data(), text.size());
}

/// All digits at the front of `text` (`fewest` to `most`), taken off it.
std::optional<int32_t> TakeDigits(std::string_view& text, size_t most, size_t fewest = 1) {
  size_t length = 0;
  while (length < most && length < text.size() && text[length] >= '0' && text[length] <= '9')
    ++length;
  if (length < fewest) return std::nullopt;
  int32_t number = 0;
  std::from_chars(text.data(), text.data() + length, number);
  text.remove_prefix(length);
  return number;
}

bool TakeSign(std::string_view& text, char sign) {
  if (text.empty() || text.front() != sign) return false;
  text.remove_prefix(1);
  return true;
}

std::optional<duckdb_date_struct> TakeDate(std::string_view& text) {
  constexpr std::array<int32_t, 12> kDays = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
  const auto year = TakeDigits(text, 4, 4);  // "95" could be of any century
  if (!year || !TakeSign(text, '-')) return std::nullopt;
  const auto month = TakeDigits(text, 2);
  if (!month || !TakeSign(text, '-')) return std::nullopt;
  const auto day = TakeDigits(text, 2);
  if (!day || *month < 1 || *month > 12 || *day < 1) return std::nullopt;
  const bool leap = (*year % 4 == 0 && *year % 100 != 0) || *year % 400 == 0;
  const int32_t days = kDays[static_cast<size_t>(*month - 1)] + (*month == 2 && leap ? 1 : 0);
  if (*day > days) return std::nullopt;
  return duckdb_date_struct{*year, static_cast<int8_t>(*month), static_cast<int8_t>(*day)};
}

std::optional<duckdb_time_struct> TakeTime(std::string_view& text) {
  duckdb_time_struct time{};
  const auto hour = TakeDigits(text, 2);
  if (!hour || !TakeSign(text, ':')) return std::nullopt;
  const auto minute = TakeDigits(text, 2);
  if (!minute || *hour > 23 || *minute > 59) return std::nullopt;
  time.hour = static_cast<int8_t>(*hour);
  time.min = static_cast<int8_t>(*minute);
  if (!TakeSign(text, ':')) return time;
  const auto second = TakeDigits(text, 2);
  if (!second || *second > 59) return std::nullopt;
  time.sec = static_cast<int8_t>(*second);
  if (!TakeSign(text, '.')) return time;
  const size_t before = text.size();
  const auto fraction = TakeDigits(text, 6);
  if (!fraction) return std::nullopt;
  time.micros = *fraction;
  for (size_t digits = before - text.size(); digits < 6; ++digits) time.micros *= 10;
  return time;
}

duckdb_value DateValue(const Json& value) {
  const std::string text = ArgumentText(value);
  if (text == "infinity") return duckdb_create_date({INT32_MAX});
  if (text == "-infinity") return duckdb_create_date({-INT32_MAX});
  std::string_view rest = text;
  const auto date = TakeDate(rest);
  return date && rest.empty() ? duckdb_create_date(duckdb_to_date(*date)) : nullptr;
}

duckdb_value TimeValue(const Json& value) {
  const std::string text = ArgumentText(value);
  std::string_view rest = text;
  const auto time = TakeTime(rest);
  return time && rest.empty() ? duckdb_create_time(duckdb_to_time(*time)) : nullptr;
}

duckdb_value TimestampValue(const Json& value) {
  const std::string text = ArgumentText(value);
  if (text == "infinity") return duckdb_create_timestamp({INT64_MAX});
  if (text == "-infinity") return duckdb_create_timestamp({-INT64_MAX});
  std::string_view rest = text;
  const auto date = TakeDate(rest);
  if (!date) return nullptr;
  duckdb_timestamp_struct parts{*date, {}};
  if (!rest.empty()) {
    if (!TakeSign(rest, 'T') && !TakeSign(rest, ' ')) return nullptr;
    const auto time = TakeTime(rest);
    if (!time) return nullptr;
    parts.time = *time;
    TakeSign(rest, 'Z');  // times are in UTC here
  }
  return rest.empty() ? duckdb_create_timestamp(duckdb_to_timestamp(parts)) : nullptr;
}

duckdb_value UuidValue(const Json& value) {
  duckdb_uhugeint bits{0, 0};
  int digits = 0;
  for (const char c : ArgumentText(value)) {
    if (c == '-') continue;
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                             : -1;
    if (digit < 0 || ++digits > 32) return nullptr;
    bits.upper = (bits.upper << 4) | (bits.lower >> 60);
    bits.lower = (bits.lower << 4) | static_cast<uint64_t>(digit);
  }
  return digits == 32 ? duckdb_create_uuid(bits) : nullptr;
}

/// Up to 38 digits, as they are written.
std::optional<duckdb_decimal> ReadDecimal(const Json& value) {
  const std::string text = ArgumentText(value);
  std::string_view rest = text;
  const bool negative = TakeSign(rest, '-');
  if (!negative) TakeSign(rest, '+');
  unsigned __int128 magnitude = 0;
  int digits = 0, scale = 0;
  bool point = false;
  for (const char c : rest) {
    if (c == '.' && !point) {
      point = true;
      continue;
    }
    if (c < '0' || c > '9' || ++digits > kMostDigits) return std::nullopt;
    magnitude = magnitude * 10 + static_cast<unsigned>(c - '0');
    scale += point ? 1 : 0;
  }
  if (digits == 0) return std::nullopt;
  const __int128 number =
      negative ? -static_cast<__int128>(magnitude) : static_cast<__int128>(magnitude);
  duckdb_decimal decimal{};
  decimal.width = static_cast<uint8_t>(digits);
  decimal.scale = static_cast<uint8_t>(scale);
  decimal.value = {static_cast<uint64_t>(static_cast<unsigned __int128>(number)),
                   static_cast<int64_t>(number >> 64)};
  return decimal;
}

duckdb_value DecimalValue(const Json& value) {
  const auto decimal = ReadDecimal(value);
  return decimal ? duckdb_create_decimal(*decimal) : nullptr;
}

duckdb_value IntegerValue(const Json& value) {
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX))
    return duckdb_create_uint64(value.get<uint64_t>());
  if (value.is_number_integer()) return duckdb_create_int64(value.get<int64_t>());
  const std::string text = ArgumentText(value);
  const char* const last = text.data() + text.size();
  int64_t number = 0;
  const auto [end, fault] = std::from_chars(text.data(), last, number);
  if (fault == std::errc() && end == last) return duckdb_create_int64(number);
  uint64_t large = 0;
  const auto [large_end, large_fault] = std::from_chars(text.data(), last, large);
  const bool whole = large_fault == std::errc() && large_end == last;
  return whole ? duckdb_create_uint64(large) : nullptr;
}

duckdb_value DoubleValue(const Json& value) {
  if (value.is_number()) return duckdb_create_double(value.get<double>());
  const std::string text = ArgumentText(value);
  double number = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), number);
  const bool whole = fault == std::errc() && end == text.data() + text.size();
  return whole ? duckdb_create_double(number) : nullptr;
}

duckdb_value BooleanValue(const Json& value) {
  if (value.is_boolean()) return duckdb_create_bool(value.get<bool>());
  const std::string text = ArgumentText(value);
  if (text == "true" || text == "True") return duckdb_create_bool(true);
  return text == "false" || text == "False" ? duckdb_create_bool(false) : nullptr;
}

duckdb_value AnyValue(const Json& value) {
  if (value.is_boolean()) return duckdb_create_bool(value.get<bool>());
  if (value.is_number_integer()) return IntegerValue(value);
  if (value.is_number()) return duckdb_create_double(value.get<double>());
  return Text(ArgumentText(value));
}

/// A text is JSON already.
duckdb_value JsonValue(const Json& value) {
  const std::string text = ArgumentText(value);
  return Json::accept(text) ? Text(text) : nullptr;
}

duckdb_value ScalarValue(SqlParameterType type, const Json& value) {
  if (value.is_null()) return duckdb_create_null_value();
  switch (type) {
    case SqlParameterType::kAny:
      return AnyValue(value);
    case SqlParameterType::kText:
      return Text(ArgumentText(value));
    case SqlParameterType::kJson:
      return JsonValue(value);
    case SqlParameterType::kInteger:
      return IntegerValue(value);
    case SqlParameterType::kDouble:
      return DoubleValue(value);
    case SqlParameterType::kBoolean:
      return BooleanValue(value);
    case SqlParameterType::kDecimal:
      return DecimalValue(value);
    case SqlParameterType::kDate:
      return DateValue(value);
    case SqlParameterType::kTime:
      return TimeValue(value);
    case SqlParameterType::kTimestamp:
      return TimestampValue(value);
    case SqlParameterType::kUuid:
      return UuidValue(value);
  }
  return nullptr;
}

duckdb_type ElementType(SqlParameterType type) {
  switch (type) {
    case SqlParameterType::kInteger:
      return DUCKDB_TYPE_BIGINT;
    case SqlParameterType::kDouble:
      return DUCKDB_TYPE_DOUBLE;
    case SqlParameterType::kBoolean:
      return DUCKDB_TYPE_BOOLEAN;
    case SqlParameterType::kDate:
      return DUCKDB_TYPE_DATE;
    case SqlParameterType::kTime:
      return DUCKDB_TYPE_TIME;
    case SqlParameterType::kTimestamp:
      return DUCKDB_TYPE_TIMESTAMP;
    case SqlParameterType::kUuid:
      return DUCKDB_TYPE_UUID;
    default:
      return DUCKDB_TYPE_VARCHAR;
  }
}

/// The type of a list's elements; null where decimals have no type in common that loses no digit.
duckdb_logical_type ElementsType(const SqlArgument& argument) {
  if (argument.type != SqlParameterType::kDecimal)
    return duckdb_create_logical_type(ElementType(argument.type));
  int whole = 1, scale = 0;
  for (const Json& element : argument.value) {
    const auto decimal = element.is_null() ? std::nullopt : ReadDecimal(element);
    if (!decimal) continue;
    whole = std::max(whole, decimal->width - decimal->scale);
    scale = std::max<int>(scale, decimal->scale);
  }
  if (whole + scale > kMostDigits) return nullptr;
  return duckdb_create_decimal_type(static_cast<uint8_t>(whole + scale),
                                    static_cast<uint8_t>(scale));
}

duckdb_value ListValue(const SqlArgument& argument, std::string& fault) {
  if (!argument.value.is_array()) {
    fault = ArgumentRefusal("a list", argument.value);
    return nullptr;
  }
  std::vector<duckdb_value> elements;
  for (const Json& element : argument.value) {
    duckdb_value value = ScalarValue(argument.type, element);
    if (value == nullptr) {
      fault = ArgumentRefusal(ExpectedArgument(argument.type, kWords), element);
      break;
    }
    elements.push_back(value);
  }
  duckdb_value list = nullptr;
  if (fault.empty()) {
    const DuckType type(ElementsType(argument));
    duckdb_value none = nullptr;  // of an empty list DuckDB wants to be shown some place
    if (type.get() == nullptr) {
      fault = "the list's decimals need more than 38 digits together, before and behind the point";
    } else {
      list = duckdb_create_list_value(type.get(), elements.empty() ? &none : elements.data(),
                                      elements.size());
      if (list == nullptr) fault = "the list's values are not of one type";
    }
  }
  for (duckdb_value& element : elements) duckdb_destroy_value(&element);
  return list;
}

}  // namespace

duckdb_value MakeDuckValue(const SqlArgument& argument, std::string& fault) {
  if (argument.value.is_null()) return duckdb_create_null_value();
  if (argument.is_list) return ListValue(argument, fault);
  duckdb_value value = ScalarValue(argument.type, argument.value);
  if (value == nullptr)
    fault = ArgumentRefusal(ExpectedArgument(argument.type, kWords), argument.value);
  return value;
}

}  // namespace halo
