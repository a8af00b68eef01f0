#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// Levels of arrays and objects in a row, the row itself counted.
inline constexpr size_t kMaxRowDepth = 64;

/// Something wrong at a byte of a JSON text.
struct JsonFault {
  size_t offset = 0;
  std::string message;
};

/// A row read from JSON. With faults, `values` may be anything.
struct JsonRow {
  nlohmann::ordered_json values;
  size_t offset = 0;        ///< of the row's first byte
  size_t id_offset = 0;     ///< of the key `id`; `offset` without one
  bool id_is_exact = true;  ///< false for a whole number that no 64 bits can hold
  std::vector<JsonFault> faults;
};

/// Reads one object: UTF-8, strict JSON, no duplicate keys, at most kMaxRowDepth levels. A whole
/// number that no 64 bits can hold is the text of its digits, as in sql/sql_values.h.
JsonRow ParseJsonRow(std::string_view text);

}  // namespace halo
