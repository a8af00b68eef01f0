#include "workload/duck_sink.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <filesystem>
#include <optional>
#include <system_error>

#include "base/check.h"
#include "base/error.h"
#include "sql/duck_database.h"

namespace halo::workload {
namespace {

/// What an appender says when it is destroyed it has said before, when it was closed.
void DestroyAppender(duckdb_appender* appender) { duckdb_appender_destroy(appender); }
using DuckAppender = DuckHandle<duckdb_appender, DestroyAppender>;
using DuckDatabaseHandle = DuckHandle<duckdb_database, duckdb_close>;
using DuckConnection = DuckHandle<duckdb_connection, duckdb_disconnect>;

duckdb_logical_type MakeType(ColumnType type) {
  constexpr uint8_t kMoneyDigits = 15, kRatingDigits = 3;
  switch (type) {
    case ColumnType::kInteger:
      return duckdb_create_logical_type(DUCKDB_TYPE_INTEGER);
    case ColumnType::kBigint:
      return duckdb_create_logical_type(DUCKDB_TYPE_BIGINT);
    case ColumnType::kMoney:
      return duckdb_create_decimal_type(kMoneyDigits, 2);
    case ColumnType::kRating:
      return duckdb_create_decimal_type(kRatingDigits, 1);
    case ColumnType::kText:
      return duckdb_create_logical_type(DUCKDB_TYPE_VARCHAR);
    case ColumnType::kDate:
      return duckdb_create_logical_type(DUCKDB_TYPE_DATE);
    case ColumnType::kTimestamp:
      return duckdb_create_logical_type(DUCKDB_TYPE_TIMESTAMP);
    case ColumnType::kBoolean:
      return duckdb_create_logical_type(DUCKDB_TYPE_BOOLEAN);
  }
  return nullptr;
}

template <typename T>
void Store(duckdb_vector vector, idx_t row, T value) {
  static_cast<T*>(duckdb_vector_get_data(vector))[row] = value;
}

/// DuckDB keeps decimals of up to 4 digits in 16 bits, up to 18 in 64.
void StoreCell(duckdb_vector vector, idx_t row, const Cell& cell, ColumnType type) {
  if (std::holds_alternative<std::monostate>(cell)) {
    duckdb_vector_ensure_validity_writable(vector);
    duckdb_validity_set_row_invalid(duckdb_vector_get_validity(vector), row);
    return;
  }
  switch (type) {
    case ColumnType::kInteger:
      return Store(vector, row, static_cast<int32_t>(std::get<int64_t>(cell)));
    case ColumnType::kBigint:
    case ColumnType::kMoney:
      return Store(vector, row, std::get<int64_t>(cell));
    case ColumnType::kRating:
      return Store(vector, row, static_cast<int16_t>(std::get<int64_t>(cell)));
    case ColumnType::kText: {
      const std::string& text = std::get<std::string>(cell);
      return duckdb_vector_assign_string_element_len(vector, row, text.data(), text.size());
    }
    case ColumnType::kDate:
      return Store(vector, row, std::get<Date>(cell).days);
    case ColumnType::kTimestamp:
      return Store(vector, row, std::get<Timestamp>(cell).us);
    case ColumnType::kBoolean:
      return Store(vector, row, std::get<bool>(cell));
  }
}

}  // namespace

struct DuckSink::Impl {
  explicit Impl(const std::string& file) : path(file), part(file + ".part") {}

  [[noreturn]] void Fail(const std::string& why) const {
    throw Error(ErrorCode::kIo, "cannot write " + path + ": " + why);
  }

  void Execute(const std::string& sql) const {
    DuckResult result;
    if (duckdb_query(connection->get(), sql.c_str(), result.out()) != DuckDBSuccess)
      Fail(duckdb_result_error(result.out()));
  }

  void RemovePart() const {
    std::error_code ignored;  // what is not there need not be removed
    std::filesystem::remove(part, ignored);
    std::filesystem::remove(part + ".wal", ignored);
  }

  void Check(duckdb_state state) const {
    if (state != DuckDBSuccess) Fail(duckdb_appender_error(appender->get()));
  }

  /// Hands the rows of `chunk` to DuckDB.
  void Flush() {
    if (rows == 0) return;
    duckdb_data_chunk_set_size(chunk->get(), rows);
    Check(duckdb_append_data_chunk(appender->get(), chunk->get()));
    duckdb_data_chunk_reset(chunk->get());
    rows = 0;
  }

  std::string path, part;
  std::optional<DuckDatabaseHandle> database;
  std::optional<DuckConnection> connection;
  std::optional<Table> table;
  std::optional<DuckAppender> appender;
  std::optional<DuckChunk> chunk;
  idx_t rows = 0;  // in `chunk`
  bool kept = false;
};

DuckSink::DuckSink(const std::string& path) : impl_(std::make_unique<Impl>(path)) {
  impl_->RemovePart();
  char* fault = nullptr;
  impl_->database.emplace();
  if (duckdb_open_ext(impl_->part.c_str(), impl_->database->out(), nullptr, &fault) !=
      DuckDBSuccess)
    impl_->Fail(TakeDuckText(fault));
  impl_->connection.emplace();
  if (duckdb_connect(impl_->database->get(), impl_->connection->out()) != DuckDBSuccess)
    impl_->Fail("no connection");
}

DuckSink::~DuckSink() {
  if (impl_->kept) return;
  impl_->chunk.reset();
  impl_->appender.reset();
  impl_->connection.reset();
  impl_->database.reset();
  impl_->RemovePart();
}

void DuckSink::Begin(const Table& table) {
  std::vector<std::string> columns;
  for (const Column& column : table.columns)
    columns.push_back(fmt::format("{} {}", column.name, SqlTypeName(column.type)));
  if (table.key_in_duckdb)
    columns.push_back(fmt::format("PRIMARY KEY ({})", fmt::join(table.primary_key, ", ")));
  impl_->Execute(fmt::format("CREATE TABLE {} ({})", table.name, fmt::join(columns, ", ")));
  impl_->table = table;
  impl_->appender.emplace();
  if (duckdb_appender_create(impl_->connection->get(), nullptr, table.name,
                             impl_->appender->out()) != DuckDBSuccess)
    impl_->Fail(duckdb_appender_error(impl_->appender->get()));
  std::vector<duckdb_logical_type> types;
  for (const Column& column : table.columns) types.push_back(MakeType(column.type));
  impl_->chunk.emplace(duckdb_create_data_chunk(types.data(), types.size()));
  for (duckdb_logical_type& type : types) duckdb_destroy_logical_type(&type);
}

void DuckSink::Append(const std::vector<Cell>& row) {
  const std::vector<Column>& columns = impl_->table->columns;
  HALO_CHECK(row.size() == columns.size(), "a row has a value for each column");
  for (size_t i = 0; i < row.size(); ++i) {
    StoreCell(duckdb_data_chunk_get_vector(impl_->chunk->get(), i), impl_->rows, row[i],
              columns[i].type);
  }
  if (++impl_->rows == duckdb_vector_size()) impl_->Flush();
}

void DuckSink::End() {
  impl_->Flush();
  impl_->Check(duckdb_appender_close(impl_->appender->get()));
  impl_->chunk.reset();
  impl_->appender.reset();
  const Table& table = *impl_->table;
  for (const char* column : table.indexes) {
    impl_->Execute(fmt::format("CREATE INDEX {0}_{1} ON {0} ({1})", table.name, column));
  }
  impl_->table.reset();
}

void DuckSink::Keep() {
  impl_->Execute("CHECKPOINT");
  impl_->connection.reset();
  impl_->database.reset();
  std::error_code error;
  std::filesystem::rename(impl_->part, impl_->path, error);
  if (error) impl_->Fail(error.message());
  impl_->kept = true;
}

}  // namespace halo::workload
