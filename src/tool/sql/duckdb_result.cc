#include "tool/sql/duckdb_result.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/text.h"
#include "sql/duck_database.h"
#include "sql/sql_values.h"
#include "tool/sql/duckdb_failure.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;
using DuckPending = DuckHandle<duckdb_pending_result, duckdb_destroy_pending>;

/// What a result's columns are called: later ones of a name get a number.
std::vector<std::string> ColumnNames(duckdb_result* result) {
  std::vector<std::string> names;
  for (idx_t i = 0; i < duckdb_column_count(result); ++i) {
    const std::string name = ReplaceInvalidUtf8(duckdb_column_name(result, i));
    std::string unique = name;
    for (int n = 2; std::find(names.begin(), names.end(), unique) != names.end(); ++n)
      unique = name + "_" + std::to_string(n);
    names.push_back(std::move(unique));
  }
  return names;
}

/// What a value takes as JSON at the least, found without making it (JSON itself as it is written);
/// beyond `most` any number.
int64_t LeastBytes(const SqlVector& vector, idx_t row, int64_t most) {
  const bool valid = vector.validity == nullptr || ((vector.validity[row / 64] >> (row % 64)) & 1);
  if (!valid) return 1;
  idx_t first = row, count = 1;
  switch (vector.type->id) {
    case DUCKDB_TYPE_VARCHAR:
      return static_cast<int64_t>(
          duckdb_string_t_length(static_cast<const duckdb_string_t*>(vector.data)[row]));
    case DUCKDB_TYPE_LIST:
    case DUCKDB_TYPE_MAP: {
      const auto entry = static_cast<const duckdb_list_entry*>(vector.data)[row];
      first = entry.offset;
      count = entry.length;
      break;
    }
    case DUCKDB_TYPE_ARRAY:
      first = row * vector.type->array_size;
      count = vector.type->array_size;
      break;
    default:
      break;
  }
  int64_t bytes = static_cast<int64_t>(count);  // a comma each
  for (const SqlVector& child : vector.children) {
    for (idx_t i = first; i < first + count && bytes <= most; ++i)
      bytes += LeastBytes(child, i, most - bytes);
  }
  return bytes;
}

/// Reads a result row by row, within a call's limits.
class ResultReader {
 public:
  ResultReader(duckdb_result* result, const SqlCall& call) : result_(result), call_(call) {
    names_ = ColumnNames(result);
    for (size_t i = 0; i < names_.size(); ++i) {
      const DuckType type(duckdb_column_logical_type(result, i));
      std::string fault;
      types_.push_back(ReadSqlType(type.get(), fault));
      if (!fault.empty()) {
        throw DuckFailure("bad_column", "column '" + names_[i] + "' " + fault +
                                            ": leave it out or convert it in the SELECT");
      }
    }
  }

  Json Rows() {
    Json rows = Json::array();
    while (true) {
      const DuckChunk chunk(duckdb_fetch_chunk(*result_));
      if (chunk.get() == nullptr) break;
      std::vector<SqlVector> vectors;
      for (size_t i = 0; i < types_.size(); ++i)
        vectors.emplace_back(types_[i], duckdb_data_chunk_get_vector(chunk.get(), i));
      for (idx_t row = 0; row < duckdb_data_chunk_get_size(chunk.get()); ++row)
        rows.push_back(Row(vectors, row));
    }
    const char* fault = duckdb_result_error(result_);
    if (fault != nullptr && *fault != '\0') throw DuckFailure("sql_error", DuckMessage(fault));
    return rows;
  }

 private:
  Json Row(const std::vector<SqlVector>& vectors, idx_t row) {
    if (++rows_ > call_.most_rows) {
      throw DuckFailure("result_too_large", "the result has more than " +
                                                std::to_string(call_.most_rows) +
                                                " rows: add a LIMIT, or raise most_rows");
    }
    Json object = Json::object();
    for (size_t i = 0; i < vectors.size(); ++i) {
      std::string fault;
      if (LeastBytes(vectors[i], row, call_.most_bytes) > call_.most_bytes) throw TooLarge();
      Json value = SqlValue(vectors[i], row, fault);
      if (!fault.empty())
        throw DuckFailure("invalid_value", "column '" + names_[i] + "', row " +
                                               std::to_string(rows_) + ": " + fault);
      constexpr int64_t kBytesAround = 4;
      bytes_ += kBytesAround + static_cast<int64_t>(names_[i].size());
      bytes_ += value.is_string() ? static_cast<int64_t>(value.get_ref<const std::string&>().size())
                : value.is_structured() ? static_cast<int64_t>(value.dump().size())
                                        : 8;
      object[names_[i]] = std::move(value);
    }
    if (bytes_ > call_.most_bytes) throw TooLarge();
    return object;
  }

  Failure TooLarge() const {
    return DuckFailure("result_too_large",
                       "the result has more than " + std::to_string(call_.most_bytes) +
                           " bytes: choose fewer columns or rows, or raise most_bytes");
  }

  duckdb_result* result_;
  const SqlCall& call_;
  std::vector<std::string> names_;
  std::vector<SqlType> types_;
  int64_t rows_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace

Json ExecuteDuckDb(duckdb_prepared_statement statement, const SqlCall& call) {
  // Streaming, so that a result which is too large is never held: see workflow/sql_reader.cc.
  DuckPending pending;
  if (duckdb_pending_prepared_streaming(statement, pending.out()) != DuckDBSuccess)
    throw DuckFailure("sql_error", DuckMessage(duckdb_pending_error(pending.get())));
  DuckResult result;
  if (duckdb_execute_pending(pending.get(), result.out()) != DuckDBSuccess)
    throw DuckFailure("sql_error", DuckMessage(duckdb_result_error(result.out())));
  const bool is_count = duckdb_result_return_type(*result.out()) == DUCKDB_RESULT_TYPE_CHANGED_ROWS;
  Json rows = ResultReader(result.out(), call).Rows();
  const auto count = static_cast<int64_t>(rows.size());
  if (!is_count) return {{"rows", std::move(rows)}, {"rowcount", count}};
  const Json changed_rows = rows.empty() ? Json(0) : rows.front().begin().value();
  return {{"rows", Json::array()}, {"rowcount", changed_rows}};
}

}  // namespace halo
