#pragma once

#include <string>

#include "base/error.h"

namespace halo {

/// A failure of a statement that would fail again.
Failure DuckFailure(const char* code, std::string message);

/// What DuckDB says, without its "LINE 1:" picture of the statement. `message` may be null.
std::string DuckMessage(const char* message);

}  // namespace halo
