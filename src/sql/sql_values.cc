#include "sql/sql_values.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <string_view>

#include "base/text.h"
#include "sql/duck_database.h"
#include "sql/json_row.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using Int128 = __int128;
using Uint128 = unsigned __int128;

const char* NameOf(duckdb_type id) {
  switch (id) {
    case DUCKDB_TYPE_BLOB:
      return "BLOB";
    case DUCKDB_TYPE_BIT:
      return "BIT";
    case DUCKDB_TYPE_UNION:
      return "UNION";
    case DUCKDB_TYPE_BIGNUM:
      return "BIGNUM";
    default:
      return "a type that rows do not know";
  }
}

bool IsScalar(duckdb_type id) {
  return (id >= DUCKDB_TYPE_BOOLEAN && id <= DUCKDB_TYPE_VARCHAR) || id == DUCKDB_TYPE_UHUGEINT ||
         id == DUCKDB_TYPE_TIMESTAMP_S || id == DUCKDB_TYPE_TIMESTAMP_MS ||
         id == DUCKDB_TYPE_TIMESTAMP_NS || id == DUCKDB_TYPE_UUID || id == DUCKDB_TYPE_TIME_TZ ||
         id == DUCKDB_TYPE_TIMESTAMP_TZ || id == DUCKDB_TYPE_TIME_NS || id == DUCKDB_TYPE_SQLNULL;
}

/// `depth`: levels of arrays and objects above this one.
SqlType ReadType(duckdb_logical_type type, size_t depth, std::string& fault) {
  SqlType read;
  read.id = duckdb_get_type_id(type);
  const auto add_name = [&](char* owned) {
    read.names.push_back(TakeDuckText(owned));
    if (FindInvalidUtf8(read.names.back()) != std::string::npos)
      fault = "has a field or a word that is not UTF-8";
  };
  const auto add_child = [&](duckdb_logical_type owned) {
    const DuckType child(owned);
    read.children.push_back(ReadType(child.get(), depth + 1, fault));
  };
  if (depth >= kMaxRowDepth) {
    fault = "is nested more than 64 levels deep";
  } else if (read.id == DUCKDB_TYPE_VARCHAR) {
    read.is_json = TakeDuckText(duckdb_logical_type_get_alias(type)) == "JSON";
  } else if (read.id == DUCKDB_TYPE_DECIMAL) {
    read.storage = duckdb_decimal_internal_type(type);
    read.scale = duckdb_decimal_scale(type);
  } else if (read.id == DUCKDB_TYPE_ENUM) {
    read.storage = duckdb_enum_internal_type(type);
    for (uint32_t i = 0; i < duckdb_enum_dictionary_size(type); ++i)
      add_name(duckdb_enum_dictionary_value(type, i));
  } else if (read.id == DUCKDB_TYPE_LIST) {
    add_child(duckdb_list_type_child_type(type));
  } else if (read.id == DUCKDB_TYPE_ARRAY) {
    read.array_size = duckdb_array_type_array_size(type);
    add_child(duckdb_array_type_child_type(type));
  } else if (read.id == DUCKDB_TYPE_STRUCT) {
    for (idx_t i = 0; i < duckdb_struct_type_child_count(type); ++i) {
      add_name(duckdb_struct_type_child_name(type, i));
      add_child(duckdb_struct_type_child_type(type, i));
    }
  } else if (read.id == DUCKDB_TYPE_MAP) {
    add_child(duckdb_map_type_key_type(type));
    add_child(duckdb_map_type_value_type(type));
    const SqlType& key = read.children.front();
    read.text_keys = (key.id == DUCKDB_TYPE_VARCHAR && !key.is_json) || key.id == DUCKDB_TYPE_ENUM;
  } else if (!IsScalar(read.id)) {
    fault = std::string("is ") + NameOf(read.id) + ", which has no form as text or JSON";
  }
  return read;
}

template <typename T>
T At(const SqlVector& vector, idx_t row) {
  return static_cast<const T*>(vector.data)[row];
}

/// All digits, with `scale` of them behind the point.
std::string Digits(Uint128 magnitude, bool negative, int scale) {
  std::string digits;
  do {
    digits.insert(digits.begin(), static_cast<char>('0' + static_cast<int>(magnitude % 10)));
    magnitude /= 10;
  } while (magnitude != 0 || static_cast<int>(digits.size()) <= scale);
  if (scale > 0) digits.insert(digits.size() - static_cast<size_t>(scale), ".");
  return (negative ? "-" : "") + digits;
}

std::string Digits(Int128 value, int scale) {
  const bool negative = value < 0;
  const auto bits = static_cast<Uint128>(value);
  return Digits(negative ? -bits : bits, negative, scale);
}

Int128 HugeAt(const SqlVector& vector, idx_t row) {
  const auto value = At<duckdb_hugeint>(vector, row);
  return static_cast<Int128>((static_cast<Uint128>(static_cast<uint64_t>(value.upper)) << 64) |
                             value.lower);
}

Json Whole(Int128 value) {
  if (value >= INT64_MIN && value <= INT64_MAX) return static_cast<int64_t>(value);
  if (value >= 0 && value <= UINT64_MAX) return static_cast<uint64_t>(value);
  return Digits(value, 0);
}

Json UnsignedWhole(const duckdb_uhugeint& value) {
  if (value.upper == 0 && value.lower <= static_cast<uint64_t>(INT64_MAX))
    return static_cast<int64_t>(value.lower);
  if (value.upper == 0) return value.lower;
  return Digits((static_cast<Uint128>(value.upper) << 64) | value.lower, false, 0);
}

Json Decimal(const SqlVector& vector, idx_t row) {
  Int128 value = 0;
  switch (vector.type->storage) {
    case DUCKDB_TYPE_SMALLINT:
      value = At<int16_t>(vector, row);
      break;
    case DUCKDB_TYPE_INTEGER:
      value = At<int32_t>(vector, row);
      break;
    case DUCKDB_TYPE_BIGINT:
      value = At<int64_t>(vector, row);
      break;
    default:
      value = HugeAt(vector, row);
  }
  return Digits(value, vector.type->scale);
}

Json Double(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

/// 0.1F is the number 0.1, not 0.10000000149011612.
Json Float(float value) {
  if (!std::isfinite(value)) return Double(value);
  std::array<char, 64> text{};
  const char* end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
  double nearest = 0;
  std::from_chars(text.data(), end, nearest);
  return nearest;
}

/// "" or the fraction of a second with its point, without zeros at the end.
std::string Fraction(int64_t amount, int digits) {
  if (amount == 0) return "";
  std::string fraction = fmt::format(".{:0{}}", amount, digits);
  fraction.erase(fraction.find_last_not_of('0') + 1);
  return fraction;
}

/// "12:30:00.5" from units since midnight.
std::string Clock(int64_t units, int64_t units_of_second, int digits) {
  const int64_t seconds = units / units_of_second;
  return fmt::format("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60) +
         Fraction(units % units_of_second, digits);
}

/// "2026-01-31"; ISO 8601 gives years outside 0 to 9999 a sign and more digits.
std::string Date(int32_t days) {
  const duckdb_date_struct date = duckdb_from_date({days});
  const bool common = date.year >= 0 && date.year <= 9999;
  const std::string year =
      common ? fmt::format("{:04}", date.year) : fmt::format("{:+07}", date.year);
  return year + fmt::format("-{:02}-{:02}", int{date.month}, int{date.day});
}

Json DateText(int32_t days) {
  if (!duckdb_is_finite_date({days})) return days > 0 ? "infinity" : "-infinity";
  return Date(days);
}

/// `units` since 1970, `units_of_second` of them a second.
Json TimestampText(int64_t units, int64_t units_of_second, int digits, const char* zone) {
  if (units == INT64_MAX) return "infinity";
  if (units == -INT64_MAX) return "-infinity";
  const int64_t units_of_day = units_of_second * 86'400;
  int64_t days = units / units_of_day;
  if (units % units_of_day < 0) --days;
  return Date(static_cast<int32_t>(days)) + "T" +
         Clock(units - days * units_of_day, units_of_second, digits) + zone;
}

std::string TimeWithZone(duckdb_time_tz time) {
  const duckdb_time_tz_struct parts = duckdb_from_time_tz(time);
  const int64_t seconds = parts.time.hour * 3600 + parts.time.min * 60 + parts.time.sec;
  const int offset = parts.offset < 0 ? -parts.offset : parts.offset;
  const std::string zone =
      fmt::format("{}{:02}:{:02}", parts.offset < 0 ? '-' : '+', offset / 3600, offset / 60 % 60);
  return Clock(seconds * 1'000'000 + parts.time.micros, 1'000'000, 6) + zone;
}

std::string Duration(const duckdb_interval& interval) {
  std::string text = "P";
  const auto add = [&](int64_t amount, char unit) {
    if (amount != 0) text += std::to_string(amount) + unit;
  };
  add(interval.months / 12, 'Y');
  add(interval.months % 12, 'M');
  add(interval.days, 'D');
  if (interval.micros != 0) {
    text += 'T';
    const int64_t seconds = interval.micros / 1'000'000;
    const int64_t micros = interval.micros % 1'000'000;
    add(seconds / 3600, 'H');
    add(seconds / 60 % 60, 'M');
    if (seconds % 60 != 0 || micros != 0) {
      const bool negative = interval.micros < 0;
      text += (negative ? "-" : "") + std::to_string(std::abs(seconds % 60)) +
              Fraction(std::abs(micros), 6) + 'S';
    }
  }
  return text == "P" ? "PT0S" : text;
}

std::string Uuid(const SqlVector& vector, idx_t row) {
  // DuckDB turns the highest bit, so that UUIDs sort as signed numbers do.
  const auto bits = static_cast<Uint128>(HugeAt(vector, row)) ^ (static_cast<Uint128>(1) << 127);
  std::string text;
  for (int digit = 31; digit >= 0; --digit) {
    text += "0123456789abcdef"[static_cast<size_t>(bits >> (4 * digit)) & 15];
    if (digit == 24 || digit == 20 || digit == 16 || digit == 12) text += '-';
  }
  return text;
}

Json Text(const SqlVector& vector, idx_t row, std::string& fault) {
  duckdb_string_t value = At<duckdb_string_t>(vector, row);
  std::string text(duckdb_string_t_data(&value), duckdb_string_t_length(value));
  if (FindInvalidUtf8(text) != std::string::npos) {
    fault = "not UTF-8";
    return nullptr;
  }
  if (!vector.type->is_json) return text;
  JsonRow parsed = ParseJsonRow("{\"value\":" + text + "}");
  const bool strict = parsed.faults.empty() && parsed.values.size() == 1;
  return strict ? std::move(parsed.values["value"]) : Json(std::move(text));
}

Json Enum(const SqlVector& vector, idx_t row, std::string& fault) {
  size_t index = 0;
  switch (vector.type->storage) {
    case DUCKDB_TYPE_UTINYINT:
      index = At<uint8_t>(vector, row);
      break;
    case DUCKDB_TYPE_USMALLINT:
      index = At<uint16_t>(vector, row);
      break;
    default:
      index = At<uint32_t>(vector, row);
  }
  if (index >= vector.type->names.size()) {
    fault = "a number that stands for no word of the ENUM";
    return nullptr;
  }
  return vector.type->names[index];
}

Json Elements(const SqlVector& elements, idx_t first, idx_t count, std::string& fault) {
  Json array = Json::array();
  for (idx_t i = 0; i < count; ++i) array.push_back(SqlValue(elements, first + i, fault));
  return array;
}

Json Struct(const SqlVector& vector, idx_t row, std::string& fault) {
  const std::vector<std::string>& names = vector.type->names;
  const bool named = !names.empty() && !names.front().empty();
  Json value = named ? Json::object() : Json::array();
  for (size_t i = 0; i < vector.children.size(); ++i) {
    Json field = SqlValue(vector.children[i], row, fault);
    if (named) {
      value[names[i]] = std::move(field);
    } else {
      value.push_back(std::move(field));
    }
  }
  return value;
}

Json Map(const SqlVector& vector, idx_t row, std::string& fault) {
  const auto entries = At<duckdb_list_entry>(vector, row);
  const SqlVector& keys = vector.children[0];
  const SqlVector& values = vector.children[1];
  Json map = vector.type->text_keys ? Json::object() : Json::array();
  for (idx_t i = entries.offset; i < entries.offset + entries.length; ++i) {
    Json key = SqlValue(keys, i, fault);
    if (!vector.type->text_keys) {
      map.push_back({{"key", std::move(key)}, {"value", SqlValue(values, i, fault)}});
    } else if (!key.is_string()) {
      if (fault.empty()) fault = "a MAP has a key that is NULL";
    } else if (!map.emplace(key.get<std::string>(), SqlValue(values, i, fault)).second) {
      fault = "a MAP has the key '" + key.get<std::string>() + "' twice";
    }
  }
  return map;
}

Json ScalarValue(const SqlVector& vector, idx_t row, std::string& fault) {
  switch (vector.type->id) {
    case DUCKDB_TYPE_BOOLEAN:
      return At<uint8_t>(vector, row) != 0;
    case DUCKDB_TYPE_TINYINT:
      return At<int8_t>(vector, row);
    case DUCKDB_TYPE_SMALLINT:
      return At<int16_t>(vector, row);
    case DUCKDB_TYPE_INTEGER:
      return At<int32_t>(vector, row);
    case DUCKDB_TYPE_BIGINT:
      return At<int64_t>(vector, row);
    case DUCKDB_TYPE_UTINYINT:
      return int64_t{At<uint8_t>(vector, row)};
    case DUCKDB_TYPE_USMALLINT:
      return int64_t{At<uint16_t>(vector, row)};
    case DUCKDB_TYPE_UINTEGER:
      return int64_t{At<uint32_t>(vector, row)};
    case DUCKDB_TYPE_UBIGINT:
      return UnsignedWhole({At<uint64_t>(vector, row), 0});
    case DUCKDB_TYPE_HUGEINT:
      return Whole(HugeAt(vector, row));
    case DUCKDB_TYPE_UHUGEINT:
      return UnsignedWhole(At<duckdb_uhugeint>(vector, row));
    case DUCKDB_TYPE_FLOAT:
      return Float(At<float>(vector, row));
    case DUCKDB_TYPE_DOUBLE:
      return Double(At<double>(vector, row));
    case DUCKDB_TYPE_DECIMAL:
      return Decimal(vector, row);
    case DUCKDB_TYPE_UUID:
      return Uuid(vector, row);
    case DUCKDB_TYPE_ENUM:
      return Enum(vector, row, fault);
    default:
      return Text(vector, row, fault);
  }
}

}  // namespace

SqlType ReadSqlType(duckdb_logical_type type, std::string& fault) {
  return ReadType(type, 1, fault);  // the row itself is the first level
}

SqlVector::SqlVector(const SqlType& sql_type, duckdb_vector vector)
    : type(&sql_type),
      data(duckdb_vector_get_data(vector)),
      validity(duckdb_vector_get_validity(vector)) {
  if (type->id == DUCKDB_TYPE_LIST) {
    children.emplace_back(type->children[0], duckdb_list_vector_get_child(vector));
  } else if (type->id == DUCKDB_TYPE_ARRAY) {
    children.emplace_back(type->children[0], duckdb_array_vector_get_child(vector));
  } else if (type->id == DUCKDB_TYPE_STRUCT) {
    for (size_t i = 0; i < type->children.size(); ++i)
      children.emplace_back(type->children[i], duckdb_struct_vector_get_child(vector, i));
  } else if (type->id == DUCKDB_TYPE_MAP) {  // a list of structs of key and value
    const duckdb_vector entries = duckdb_list_vector_get_child(vector);
    children.emplace_back(type->children[0], duckdb_struct_vector_get_child(entries, 0));
    children.emplace_back(type->children[1], duckdb_struct_vector_get_child(entries, 1));
  }
}

Json SqlValue(const SqlVector& vector, idx_t row, std::string& fault) {
  const bool valid = vector.validity == nullptr || ((vector.validity[row / 64] >> (row % 64)) & 1);
  if (!valid) return nullptr;
  switch (vector.type->id) {
    case DUCKDB_TYPE_SQLNULL:
      return nullptr;
    case DUCKDB_TYPE_DATE:
      return DateText(At<int32_t>(vector, row));
    case DUCKDB_TYPE_TIME:
      return Clock(At<int64_t>(vector, row), 1'000'000, 6);
    case DUCKDB_TYPE_TIME_NS:
      return Clock(At<int64_t>(vector, row), 1'000'000'000, 9);
    case DUCKDB_TYPE_TIME_TZ:
      return TimeWithZone(At<duckdb_time_tz>(vector, row));
    case DUCKDB_TYPE_TIMESTAMP_S:
      return TimestampText(At<int64_t>(vector, row), 1, 0, "");
    case DUCKDB_TYPE_TIMESTAMP_MS:
      return TimestampText(At<int64_t>(vector, row), 1'000, 3, "");
    case DUCKDB_TYPE_TIMESTAMP:
      return TimestampText(At<int64_t>(vector, row), 1'000'000, 6, "");
    case DUCKDB_TYPE_TIMESTAMP_NS:
      return TimestampText(At<int64_t>(vector, row), 1'000'000'000, 9, "");
    case DUCKDB_TYPE_TIMESTAMP_TZ:
      return TimestampText(At<int64_t>(vector, row), 1'000'000, 6, "Z");
    case DUCKDB_TYPE_INTERVAL:
      return Duration(At<duckdb_interval>(vector, row));
    case DUCKDB_TYPE_LIST: {
      const auto entry = At<duckdb_list_entry>(vector, row);
      return Elements(vector.children[0], entry.offset, entry.length, fault);
    }
    case DUCKDB_TYPE_ARRAY: {
      const idx_t size = vector.type->array_size;
      return Elements(vector.children[0], row * size, size, fault);
    }
    case DUCKDB_TYPE_STRUCT:
      return Struct(vector, row, fault);
    case DUCKDB_TYPE_MAP:
      return Map(vector, row, fault);
    default:
      return ScalarValue(vector, row, fault);
  }
}

}  // namespace halo
