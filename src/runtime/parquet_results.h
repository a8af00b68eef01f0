#pragma once

#include <string>
#include <vector>

namespace halo {

/// Throws Error(kUsage) if outputs of these names cannot be columns beside the fixed ones: Parquet
/// readers look names up without regard to case.
void CheckParquetColumns(const std::string& path, const std::vector<std::string>& output_names);

/// Turns a file of result rows as JSON lines (RowResult::ToJson) into a Parquet file, rows in
/// their order. Columns:
///
///   id             BIGINT where every id is a whole number of 64 bits, else VARCHAR
///   status         VARCHAR: ok, failed
///   one an output  VARCHAR: text as it is, other values as compact JSON, NULL without one
///   skipped        VARCHAR[]: operators
///   error_operator, error_code, error_message   VARCHAR, NULL without an error
///   prompt_tokens, output_tokens                BIGINT
///
/// Memory: one row group, of about 64 MiB of JSON at most, and DuckDB's own within its limit.
/// Parquet has its directory at the end, so that a file which is still being written can be read by
/// nobody: that is why rows are kept as lines until all are there. Throws Error(kIo).
void WriteParquetResults(const std::string& lines_path,
                         const std::vector<std::string>& output_names,
                         const std::string& parquet_path);

}  // namespace halo
