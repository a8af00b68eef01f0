#include "workload/postgres_sink.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/check.h"

namespace halo::workload {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 20;

/// A value in COPY's text format.
void AppendCopyText(const std::string& text, std::string& buffer) {
  for (const char c : text) {
    switch (c) {
      case '\t':
        buffer += "\\t";
        break;
      case '\n':
        buffer += "\\n";
        break;
      case '\r':
        buffer += "\\r";
        break;
      case '\\':
        buffer += "\\\\";
        break;
      default:
        buffer += c;
    }
  }
}

}  // namespace

PostgresSink::PostgresSink(const std::string& url) : connection_(url) {
  connection_.Execute("BEGIN");
}

void PostgresSink::Begin(const Table& table) {
  std::vector<std::string> columns;
  for (const Column& column : table.columns)
    columns.push_back(fmt::format("{} {}", column.name, SqlTypeName(column.type)));
  connection_.Execute(fmt::format("DROP TABLE IF EXISTS {}", table.name));
  connection_.Execute(fmt::format("CREATE TABLE {} ({})", table.name, fmt::join(columns, ", ")));
  connection_.Execute(fmt::format("COPY {} FROM STDIN", table.name));
  table_ = table;
}

void PostgresSink::Append(const std::vector<Cell>& row) {
  HALO_CHECK(row.size() == table_.columns.size(), "a row has a value for each column");
  for (size_t i = 0; i < row.size(); ++i) {
    if (i > 0) buffer_ += '\t';
    if (std::holds_alternative<std::monostate>(row[i])) {
      buffer_ += "\\N";
    } else {
      AppendCopyText(CellText(row[i], table_.columns[i].type), buffer_);
    }
  }
  buffer_ += '\n';
  if (buffer_.size() >= kBufferBytes) Send();
}

void PostgresSink::Send() {
  if (PQputCopyData(connection_.get(), buffer_.data(), static_cast<int>(buffer_.size())) != 1)
    connection_.Fail();
  buffer_.clear();
}

void PostgresSink::End() {
  if (!buffer_.empty()) Send();
  if (PQputCopyEnd(connection_.get(), nullptr) != 1) connection_.Fail();
  const PostgresResult result(PQgetResult(connection_.get()));
  if (PQresultStatus(result.get()) != PGRES_COMMAND_OK) connection_.Fail();
  while (const PostgresResult more{PQgetResult(connection_.get())}) {
  }
  connection_.Execute(fmt::format("ALTER TABLE {} ADD PRIMARY KEY ({})", table_.name,
                                  fmt::join(table_.primary_key, ", ")));
  for (const char* column : table_.indexes)
    connection_.Execute(fmt::format("CREATE INDEX {0}_{1} ON {0} ({1})", table_.name, column));
  written_.emplace_back(table_.name);
}

void PostgresSink::Keep() {
  connection_.Execute("COMMIT");
  for (const std::string& table : written_) connection_.Execute("ANALYZE " + table);
}

}  // namespace halo::workload
