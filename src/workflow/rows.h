#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "halo/row_stream.h"

namespace halo {

/// One row of input. `id` is the row's `id` field as it was written (string or number), else its
/// index.
struct Row {
  int64_t index = 0;
  nlohmann::ordered_json id;
  nlohmann::ordered_json values;   ///< an object: column -> value
  std::optional<Failure> failure;  ///< a bad line of standard input: the row exists and has failed
  int32_t priority = 0;            ///< higher goes first
  int64_t timeout_us = 0;          ///< of this row, from its opening; 0: that of its source
};

struct RowOptions {
  std::string spec;  ///< path ending in .jsonl, .json, .csv or .parquet, "sql:SELECT ..." (DuckDB),
                     ///< or "-" (JSONL on standard input)
  std::vector<std::string> required_columns;
  int64_t limit = -1;         ///< rows to take from the front; -1: all
  std::string spool_folder;   ///< where rows that can be had only once (standard input, SQL) are
                              ///< kept; must exist for these
  int standard_input_fd = 0;  ///< what "-" reads; the caller keeps it open
  /// Rows in memory, in place of `spec`; kept as they are taken in `spool_folder`, if there is one.
  /// Null: none.
  std::shared_ptr<RowStream> stream;
  bool takes_stream = true;  ///< false: its rows are only looked at, and stay in it
  /// Sees the values of every row that the scan takes; may be null. Not those of standard input,
  /// which is not scanned.
  std::function<void(const nlohmann::ordered_json&)> on_scan;
};

/// Rows in order, one at a time, in bounded memory.
class RowSource {
 public:
  virtual ~RowSource() = default;
  /// The next row, or nothing at the end. Blocks where Ready is false.
  virtual std::optional<Row> Next() = 0;
  /// True if Next will not block. Waits for that at most `wait_us`. Only standard input and streams
  /// are ever not ready.
  virtual bool Ready(int64_t /*wait_us*/) { return true; }
  /// Indices of rows that somebody has cancelled since the last call, ended ones among them.
  virtual std::vector<int64_t> TakeCancelled() { return {}; }
  /// Readable when rows came or were cancelled since the last TakeCancelled; -1: nobody tells.
  virtual int ready_descriptor() const { return -1; }
  /// Rows in total, where that is known before reading them (-1: standard input and open
  /// streams).
  virtual int64_t total() const = 0;
  /// Names of all columns seen by the scan, in order of first appearance.
  virtual const std::vector<std::string>& columns() const = 0;
  /// A spec that opens the same rows once more; "" if they come only once. A query is not run
  /// again: this is what its rows were kept in.
  virtual std::string reread_spec() const { return ""; }
  /// Files that a query reads, which the spec does not show.
  virtual std::vector<std::string> files() const { return {}; }
};

/// Opens and scans a source (contract section 2): every malformed line, duplicate id and missing
/// required column is named with line and column (in Parquet and SQL: the number of the row) in one
/// Error(kRows) (at most 100 diagnostics, then a count). What a query may do:
/// workflow/sql_select.h; what its values become: sql/sql_values.h. Standard input is not
/// scanned ahead: a bad line there becomes a failed row with id "line:N".
std::unique_ptr<RowSource> OpenRows(const RowOptions& options);

/// Rows that are in memory already, for tests and embedding.
std::unique_ptr<RowSource> RowsFromValues(std::vector<nlohmann::ordered_json> values);

}  // namespace halo
