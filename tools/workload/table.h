#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace halo::workload {

/// Types of columns, as both DuckDB and PostgreSQL spell them (SqlTypeName).
enum class ColumnType : uint8_t {
  kInteger,
  kBigint,
  kMoney,   ///< DECIMAL(15,2)
  kRating,  ///< DECIMAL(3,1)
  kText,
  kDate,
  kTimestamp,
  kBoolean
};

const char* SqlTypeName(ColumnType type);

/// Days since 1970-01-01.
struct Date {
  int32_t days = 0;
  friend auto operator<=>(const Date&, const Date&) = default;
};

/// Microseconds since 1970-01-01T00:00:00 UTC.
struct Timestamp {
  int64_t us = 0;
};

/// A value of a column; std::monostate is NULL. Decimals are whole numbers of their last digit
/// (cents of kMoney, tenths of kRating).
using Cell = std::variant<std::monostate, bool, int64_t, Date, Timestamp, std::string>;

Date MakeDate(int32_t year, int32_t month, int32_t day);
int32_t YearOf(Date date);
/// "1995-03-15"
std::string DateText(Date date);
/// "1995-03-15 12:30:00"
std::string TimestampText(Timestamp timestamp);

struct Column {
  const char* name;
  ColumnType type;
};

struct Table {
  const char* name;
  std::vector<Column> columns;
  std::vector<const char*> primary_key;  ///< columns
  std::vector<const char*> indexes;      ///< columns, each with an index of its own
  /// In DuckDB too, which keeps an index in memory for it: for tables of moderate size.
  bool key_in_duckdb = false;
};

/// The value as PostgreSQL's COPY and DuckDB's casts read it. Not for NULL.
std::string CellText(const Cell& cell, ColumnType type);

/// Where a generator puts its rows: a database, or what a test makes of them.
class TableSink {
 public:
  virtual ~TableSink() = default;
  /// Makes a table, replacing what has its name. Rows follow until End().
  virtual void Begin(const Table& table) = 0;
  /// One value a column.
  virtual void Append(const std::vector<Cell>& row) = 0;
  /// Keys and indexes are made once all rows are there.
  virtual void End() = 0;
};

}  // namespace halo::workload
