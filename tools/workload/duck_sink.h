#pragma once

#include <memory>
#include <string>

#include "workload/table.h"

namespace halo::workload {

/// Writes tables into a DuckDB file by its appender. The file appears under its name only once it
/// is whole, and replaces what was there.
class DuckSink final : public TableSink {
 public:
  /// Throws Error(kIo) naming the file.
  explicit DuckSink(const std::string& path);
  ~DuckSink() override;

  void Begin(const Table& table) override;
  void Append(const std::vector<Cell>& row) override;
  void End() override;
  /// Closes the database and gives the file its name.
  void Keep();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo::workload
