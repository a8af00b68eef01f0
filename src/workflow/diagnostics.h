#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace halo {

/// Collects what is wrong with one file, so that all of it is reported at once and in file order.
class DiagnosticList {
 public:
  /// `file` is the name that every diagnostic carries.
  explicit DiagnosticList(std::string file) : file_(std::move(file)) {}

  /// Lines and columns count from 1 (columns in bytes, as compilers do); 0: not known.
  void Add(int32_t line, int32_t column, std::string message);
  void Add(Diagnostic diagnostic) { diagnostics_.push_back(std::move(diagnostic)); }

  size_t size() const { return diagnostics_.size(); }
  bool empty() const { return diagnostics_.empty(); }
  const std::string& file() const { return file_; }

  /// Throws Error(code) with everything that was added, sorted by position, without repetitions.
  /// Does nothing if there is nothing.
  void ThrowIfAny(ErrorCode code);

 private:
  std::string file_;
  std::vector<Diagnostic> diagnostics_;
};

}  // namespace halo
