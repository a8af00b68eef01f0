#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halo/row_stream.h"
#include "sql/duck_database.h"
#include "sql/json_row.h"
#include "sql/sql_values.h"

namespace halo {

/// The rows of one query by DuckDB, in order, as they are computed: memory is bounded by DuckDB's
/// limit and a chunk of 2,048 rows. It can open the files that the query names and no others.
class SqlReader {
 public:
  static constexpr size_t kMaxColumns = 16'384;

  /// Reads the Parquet file that `fd` is open for, which the caller keeps open; `path` is what
  /// errors name. By its descriptor: a path could be a pattern to DuckDB, or another file by now.
  /// Throws Error(kRows).
  static std::unique_ptr<SqlReader> OpenParquet(int fd, const std::string& path);
  /// Runs a SELECT (see CheckSelect). What does not fit in memory goes to `spill_folder`. Throws
  /// Error(kRows).
  static std::unique_ptr<SqlReader> OpenQuery(const std::string& sql,
                                              const std::string& spill_folder);

  /// Reads a table of the Arrow C data interface, in the order of its batches. The caller releases
  /// it, after this reader. Throws Error(kRows).
  static std::unique_ptr<SqlReader> OpenArrow(ArrowArrayStream* table);

  /// The next row, with its faults; nothing at the end. Throws Error(kRows) if the rest cannot be
  /// read.
  std::optional<JsonRow> Next();

  /// As many as a row has values; names may repeat.
  const std::vector<std::string>& columns() const { return columns_; }
  /// Paths that the query reads.
  const std::vector<std::string>& files() const { return files_; }

 private:
  SqlReader(std::string name, const DuckLimits& limits);
  void Start(const std::string& sql);
  void ReadColumns();
  bool NextChunk();
  std::string WhyNot(const std::string& error) const;
  [[noreturn]] void Fail(std::string message, bool out_of_memory) const;

  const std::string name_;  ///< what errors name: a path, or "sql"
  std::string real_name_;   ///< what DuckDB calls the file
  const int64_t memory_bytes_;
  DuckDatabase database_;
  DuckStatement statement_;
  DuckResult result_;
  std::vector<std::string> columns_;
  std::vector<std::string> files_;
  std::vector<SqlType> types_;
  std::unique_ptr<DuckChunk> chunk_;
  std::vector<SqlVector> vectors_;
  idx_t next_ = 0;
  idx_t chunk_rows_ = 0;
  int64_t rows_ = 0;
};

}  // namespace halo
