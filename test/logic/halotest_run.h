#pragma once

#include "logic/halotest_file.h"

namespace halo::test {

/// Runs one file and reports every difference as a failure of the current test, at the file's line.
/// With `update`, the `expect` section is rewritten instead of compared.
void RunHalotest(const HalotestFile& file, bool update);

}  // namespace halo::test
