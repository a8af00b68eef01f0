#pragma once

#include <string>

#include "halo/error.h"  // ErrorCode, SourceLocation, Diagnostic, Error: what a caller of the library sees

namespace halo {

/// A failure during execution: a value, never thrown. `code` is a short stable word such as
/// `prompt_too_long`; `operator_id` is empty when no operator is to blame.
struct Failure {
  std::string operator_id;
  std::string code;
  std::string message;
  bool retriable = false;

  friend bool operator==(const Failure&, const Failure&) = default;
};

}  // namespace halo
