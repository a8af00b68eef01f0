#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tool/tool.h"

namespace halo {

/// A type's number in PostgreSQL's catalogue; 0: the server is to find out. Those of built-in types
/// never change.
using PostgresType = uint32_t;

/// A call's values as the protocol takes them: [parameter] its type, and its text or null.
struct PostgresArguments {
  std::vector<PostgresType> types;
  std::vector<std::optional<std::string>> texts;
};

/// The type that a parameter is declared with. Any and JSON are left to the server, which finds
/// json, jsonb or whatever else stands there. A timestamp depends on the value: with a zone or an
/// offset it is a timestamptz.
PostgresType ParameterType(const SqlArgument& argument);

/// Values as texts: every one is checked to be what its type says before anything is sent. `fault`
/// says which is not ("parameter 2: expected a date such as 2026-01-31, got ..."). Lists become
/// array literals whose elements are all quoted.
PostgresArguments TextsOfArguments(const std::vector<SqlArgument>& arguments, std::string& fault);

/// What the catalogue says of types that are not built in, or are too rare to be listed here: the
/// element's type of those that are arrays, 0 for all others.
using PostgresArrays = std::map<PostgresType, PostgresType>;

/// True if only the catalogue knows whether values of this type are arrays.
bool IsUnknownType(PostgresType type, const PostgresArrays& arrays);

/// "" or why values of this type cannot be in a row ("is bytea, ...").
std::string WhyNotInRows(PostgresType type);

/// A value, as the server writes it with DateStyle ISO, IntervalStyle iso_8601 and TimeZone UTC, as
/// JSON: the same that sql/sql_values.h makes of DuckDB's. Arrays become arrays, of arrays if they
/// have several dimensions. Types that are not known become text. `fault` gets what is wrong with
/// it, if anything is.
nlohmann::ordered_json PostgresValue(PostgresType type, std::string_view text,
                                     const PostgresArrays& arrays, std::string& fault);

}  // namespace halo
