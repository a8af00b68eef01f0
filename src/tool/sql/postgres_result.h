#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tool/sql/postgres_values.h"

namespace halo {

/// A call's result while its rows come in: converted one by one, held to the call's limits.
class PostgresResult {
 public:
  explicit PostgresResult(const SqlCall& call)
      : most_rows_(call.most_rows), most_bytes_(call.most_bytes) {}

  /// Takes the rows of a reply, or what a command says that it changed. A failure is the end of
  /// the result: it is too large, or a value cannot be in a row.
  std::optional<Failure> Add(const PGresult* reply, const PostgresArrays& arrays);

  /// Types of columns that the catalogue has to be asked for before Take.
  const std::vector<PostgresType>& unknown_types() const { return unknown_types_; }
  /// {"rows": [{column: value}], "rowcount": n}. Values of unknown types are read again, now that
  /// `arrays` has them.
  std::optional<Failure> Take(const PostgresArrays& arrays, nlohmann::ordered_json& value);

 private:
  struct Column {
    std::string name;
    PostgresType type = 0;
    bool is_unknown = false;  // its values are texts until Take
  };

  std::optional<Failure> ReadColumns(const PGresult* reply, const PostgresArrays& arrays);
  std::optional<Failure> AddRow(const PGresult* reply, int row, const PostgresArrays& arrays);
  Failure InvalidValue(const Column& column, int64_t row, const std::string& fault) const;

  int64_t most_rows_, most_bytes_;
  std::vector<Column> columns_;
  std::vector<PostgresType> unknown_types_;
  nlohmann::ordered_json rows_ = nlohmann::ordered_json::array();
  int64_t bytes_ = 0;
  int64_t changed_ = 0;
};

}  // namespace halo
