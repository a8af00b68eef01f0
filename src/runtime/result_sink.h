#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace halo {

/// What came of one row (contract section 2).
struct RowResult {
  int64_t index = 0;
  nlohmann::ordered_json id;
  std::vector<std::pair<std::string, nlohmann::ordered_json>> outputs;
  std::vector<std::string> skipped;
  std::optional<Failure> failure;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  /// From the run's start: when the row's first operator could begin, and when its last had ended.
  /// No part of what is written, which depends on no schedule.
  int64_t opened_us = 0, ended_us = 0;

  /// {"id","status","outputs","skipped"?,"error","usage"} as the contract orders them.
  nlohmann::ordered_json ToJson() const;
};

/// Where finished rows go. Called by one thread.
class ResultSink {
 public:
  virtual ~ResultSink() = default;
  virtual void Write(const RowResult& row) = 0;  ///< throws Error(kIo)
  /// All rows are written: makes the output appear. Without it only OUT.part is left.
  virtual void Finish() = 0;  ///< throws Error(kIo)
  /// Pushes what is written to the operating system.
  virtual void Flush() = 0;
};

/// `spec`: path ending in .jsonl, .csv or .parquet, or "-" for JSONL on `standard_output_fd`.
/// Files are written to SPEC.part and renamed by Finish(). CSV columns: id, status, one per output
/// name, error_operator, error_code, error_message, prompt_tokens, output_tokens; non-text values
/// as compact JSON (RFC 4180 quoting). Parquet has the same and `skipped`, see
/// runtime/parquet_results.h; its SPEC.part is JSONL until Finish(). `output_names` fixes the
/// columns. Throws Error(kUsage) for an unknown ending or names that cannot be columns, Error(kIo).
std::unique_ptr<ResultSink> OpenResultSink(const std::string& spec,
                                           const std::vector<std::string>& output_names,
                                           int standard_output_fd);

/// Keeps nothing.
std::unique_ptr<ResultSink> DiscardResults();

}  // namespace halo
