#pragma once

#include <duckdb.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halo {

/// A type of DuckDB's and what is needed to read its values.
struct SqlType {
  duckdb_type id = DUCKDB_TYPE_INVALID;
  duckdb_type storage = DUCKDB_TYPE_INVALID;  ///< of DECIMAL and ENUM
  int scale = 0;                              ///< of DECIMAL: digits behind the point
  idx_t array_size = 0;                       ///< of ARRAY
  bool is_json = false;                       ///< VARCHAR that holds JSON
  bool text_keys = false;                     ///< MAP: becomes an object
  std::vector<std::string> names;             ///< fields of STRUCT, words of ENUM
  std::vector<SqlType> children;  ///< fields of STRUCT, element of LIST and ARRAY, entry of MAP
};

/// Reads a type. `fault` says what is wrong with one whose values cannot be in a row (BLOB, ...).
SqlType ReadSqlType(duckdb_logical_type type, std::string& fault);

/// One vector of a chunk, its children found once. Valid as long as the chunk.
struct SqlVector {
  SqlVector(const SqlType& sql_type, duckdb_vector vector);

  const SqlType* type;
  const void* data;
  const uint64_t* validity;         ///< null: every value is valid
  std::vector<SqlVector> children;  ///< as in the type
};

/// Value `row` of a vector as JSON:
///
///   whole numbers, BOOLEAN        number, bool; of more than 64 bits: text of all digits
///   FLOAT, DOUBLE                 number (a FLOAT's shortest form); nan, inf, -inf: that text
///   DECIMAL                       text of all digits, "12.50": a JSON number could lose some
///   VARCHAR, ENUM, UUID           text
///   JSON                          the value; text where it is not strict JSON of at most 64 levels
///   DATE, TIME, TIMESTAMP         ISO 8601 text: 2026-01-31, 12:30:00.5, 2026-01-31T12:30:00
///   TIMESTAMP WITH TIME ZONE      the same in UTC, with Z; infinities: "infinity", "-infinity"
///   INTERVAL                      ISO 8601 duration: P1Y2M3DT4H5M6.5S
///   LIST, ARRAY, STRUCT           array, array, object (array where fields have no names)
///   MAP                           object if its keys are text, else [{"key": ..., "value": ...}]
///   NULL                          null
///
/// `fault` gets what is wrong with a value, if anything is (text that is not UTF-8).
nlohmann::ordered_json SqlValue(const SqlVector& vector, idx_t row, std::string& fault);

}  // namespace halo
