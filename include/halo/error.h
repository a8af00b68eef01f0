#pragma once

#include <cstdint>
#include <exception>
#include <string>
#include <vector>

namespace halo {

/// What kind of thing went wrong before execution; decides the exit code (contract section 1).
enum class ErrorCode {
  kUsage,       ///< a flag or an option
  kWorkflow,    ///< a workflow file
  kRows,        ///< a file of rows
  kModel,       ///< a model name or a model file
  kConfig,      ///< a setting or a resource that cannot be had
  kIo,          ///< reading or writing
  kUnsupported  ///< valid, but not built yet
};

/// Where in a file. Lines and columns count from 1; 0 means "not known".
struct SourceLocation {
  std::string file;
  int32_t line = 0;
  int32_t column = 0;
};

/// One thing wrong at one place: what is wrong, what was expected, what to change.
struct Diagnostic {
  SourceLocation location;
  std::string message;

  /// `FILE:LINE:COL: message`, leaving out what is not known.
  std::string ToString() const;
};

/// Thrown for everything that is found before execution; caught once, in Session or by the front
/// end. Carries every diagnostic that was found, not only the first.
class Error : public std::exception {
 public:
  Error(ErrorCode code, std::string message);
  Error(ErrorCode code, std::vector<Diagnostic> diagnostics);

  ErrorCode code() const { return code_; }
  const std::vector<Diagnostic>& diagnostics() const { return diagnostics_; }
  /// All diagnostics, one a line.
  const char* what() const noexcept override { return text_.c_str(); }

 private:
  ErrorCode code_;
  std::vector<Diagnostic> diagnostics_;
  std::string text_;
};

}  // namespace halo
