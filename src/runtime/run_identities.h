#pragma once

#include <string>

#include "runtime/executor.h"

namespace halo {

/// Which identity of contract 2 a finished run's counts break, in words; "" if they all hold. A run
/// that is `kFinished` has a result for each row that it opened.
std::string BrokenIdentity(const RunReport& report);

}  // namespace halo
