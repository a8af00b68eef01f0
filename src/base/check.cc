#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace halo {

void CheckFailed(const char* expression, const char* file, int line, const char* why) {
  // house-allow(banned): the process ends here and this is the only word about why.
  std::fprintf(stderr, "%s:%d: broken invariant: %s (%s)\n", file, line, expression, why);
  std::abort();
}

}  // namespace halo
