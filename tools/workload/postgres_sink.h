#pragma once

#include <string>
#include <vector>

#include "workload/postgres_connection.h"
#include "workload/table.h"

namespace halo::workload {

/// Writes tables to a PostgreSQL database with COPY, all in one transaction: what was there is
/// replaced by Keep() or not at all.
class PostgresSink final : public TableSink {
 public:
  /// Throws Error(kIo) if the server cannot be reached.
  explicit PostgresSink(const std::string& url);

  void Begin(const Table& table) override;
  void Append(const std::vector<Cell>& row) override;
  void End() override;
  void Keep();

 private:
  void Send();

  PostgresConnection connection_;
  Table table_{};
  std::vector<std::string> written_;  // tables
  std::string buffer_;                // rows for COPY
};

}  // namespace halo::workload
