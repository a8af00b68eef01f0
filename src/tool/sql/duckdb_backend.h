#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "sql/statement.h"
#include "tool/sql/duckdb_catalogue.h"
#include "tool/sql/query_costs.h"
#include "tool/tool_backend.h"

namespace halo {

/// One `connections` entry of a workflow that is a DuckDB database.
struct DuckDbConnection {
  std::string name;  ///< what SqlCall::connection says
  std::string path;  ///< of the database file; "": a database in memory, empty at first
  /// Tables that are CSV, JSON or Parquet files: the only other files that can be opened.
  std::vector<std::pair<std::string, std::string>> files;
  bool may_write = false;  ///< a statement of the run writes; else the file is opened to read
  int64_t memory_bytes = int64_t{1} << 30;
  int64_t statement_timeout_us = 30'000'000;  ///< of a statement without an earlier deadline
  std::string spill_folder;                   ///< for what does not fit in memory; "": none
  /// Whose costs are asked for while it is opened: a setting has to be changed for it, which cannot
  /// be done later.
  std::vector<QueryToCost> queries;
};

/// Statements on embedded DuckDB databases, by threads of its own, one statement on each. A
/// database uses no threads beside them, so that the engine keeps its cores.
///
/// Trust (contract 6): extensions, settings, other files and the network are out of reach, and only
/// functions that make rows from their arguments may stand for tables (enable_logging() and its
/// like write files whatever the settings say).
class DuckDbBackend final : public ToolBackend {
 public:
  /// Opens every database. Throws Error(kConfig) naming the connection that cannot be opened.
  /// `mailbox` and `clock` outlive it.
  DuckDbBackend(std::vector<DuckDbConnection> connections, int32_t threads, ToolMailbox& mailbox,
                Clock& clock);
  ~DuckDbBackend() override;

  void Submit(ToolCall call) override;  ///< a SqlCall
  void Cancel(ToolCallId id) override;

  /// Lets a database prepare a statement without executing it: "" or what is wrong with it, tables
  /// that are not there included. Before the first Submit.
  std::string Check(const std::string& connection, const SqlStatement& statement, bool writes);
  const DuckDbCatalogue& Ask(const std::string& connection) const;
  /// What DuckDbConnection::queries are expected to cost.
  const QueryCosts& Costs(const std::string& connection) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
