#include "tool/sql/postgres_result.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/text.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

/// Quotes, colon and comma of a value in its row.
constexpr int64_t kBytesAround = 6;

Failure TooLarge(int64_t most, const char* what, const char* remedy) {
  return {"", "result_too_large",
          fmt::format("the result has more than {} {}: {}", most, what, remedy), false};
}

}  // namespace

std::optional<Failure> PostgresResult::ReadColumns(const PGresult* reply,
                                                   const PostgresArrays& arrays) {
  const int count = PQnfields(reply);
  for (int i = 0; i < count; ++i) {
    const std::string given = PQfname(reply, i);
    if (FindInvalidUtf8(given) != std::string::npos) {
      return Failure{
          "", "bad_column",
          fmt::format("the name of column {} is not UTF-8: give it another with AS", i + 1), false};
    }
    Column column{given, PQftype(reply, i), false};
    const auto is_taken = [&](const Column& other) { return other.name == column.name; };
    for (int n = 2; std::any_of(columns_.begin(), columns_.end(), is_taken); ++n)
      column.name = fmt::format("{}_{}", given, n);
    if (const std::string why = WhyNotInRows(column.type); !why.empty())
      return Failure{"", "bad_column", fmt::format("column '{}' {}", column.name, why), false};
    column.is_unknown = IsUnknownType(column.type, arrays);
    if (column.is_unknown) unknown_types_.push_back(column.type);
    columns_.push_back(std::move(column));
  }
  return std::nullopt;
}

Failure PostgresResult::InvalidValue(const Column& column, int64_t row,
                                     const std::string& fault) const {
  return {"", "invalid_value", fmt::format("column '{}', row {}: {}", column.name, row, fault),
          false};
}

std::optional<Failure> PostgresResult::AddRow(const PGresult* reply, int row,
                                              const PostgresArrays& arrays) {
  if (static_cast<int64_t>(rows_.size()) >= most_rows_)
    return TooLarge(most_rows_, "rows", "add a LIMIT, or raise most_rows");
  Json values = Json::object();
  for (size_t i = 0; i < columns_.size(); ++i) {
    const Column& column = columns_[i];
    const int field = static_cast<int>(i);
    bytes_ += kBytesAround + static_cast<int64_t>(column.name.size());
    if (PQgetisnull(reply, row, field) != 0) {
      values[column.name] = nullptr;
      continue;
    }
    const std::string_view text(PQgetvalue(reply, row, field),
                                static_cast<size_t>(PQgetlength(reply, row, field)));
    bytes_ += static_cast<int64_t>(text.size());
    if (bytes_ > most_bytes_)
      return TooLarge(most_bytes_, "bytes", "choose fewer columns or rows, or raise most_bytes");
    std::string fault;
    Json value = PostgresValue(column.is_unknown ? 0 : column.type, text, arrays, fault);
    if (!fault.empty()) return InvalidValue(column, static_cast<int64_t>(rows_.size()) + 1, fault);
    values[column.name] = std::move(value);
  }
  rows_.push_back(std::move(values));
  return std::nullopt;
}

std::optional<Failure> PostgresResult::Add(const PGresult* reply, const PostgresArrays& arrays) {
  if (columns_.empty() && PQnfields(reply) > 0) {
    if (auto failure = ReadColumns(reply, arrays)) return failure;
  }
  for (int row = 0; row < PQntuples(reply); ++row) {
    if (auto failure = AddRow(reply, row, arrays)) return failure;
  }
  if (PQresultStatus(reply) == PGRES_COMMAND_OK) {
    const char* count = PQcmdTuples(const_cast<PGresult*>(reply));  // it changes nothing
    std::from_chars(count, count + std::strlen(count), changed_);
  }
  return std::nullopt;
}

std::optional<Failure> PostgresResult::Take(const PostgresArrays& arrays, Json& value) {
  for (const Column& column : columns_) {
    if (!column.is_unknown || IsUnknownType(column.type, arrays)) continue;
    int64_t number = 0;
    for (Json& row : rows_) {
      ++number;
      Json& text = row[column.name];
      if (!text.is_string()) continue;
      std::string fault;
      text = PostgresValue(column.type, text.get<std::string>(), arrays, fault);
      if (!fault.empty()) return InvalidValue(column, number, fault);
    }
  }
  const int64_t count = columns_.empty() ? changed_ : static_cast<int64_t>(rows_.size());
  value = {{"rows", std::move(rows_)}, {"rowcount", count}};
  return std::nullopt;
}

}  // namespace halo
