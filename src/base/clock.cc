#include "base/clock.h"

#include <chrono>

#include "base/check.h"

namespace halo {

int64_t SteadyClock::NowUs() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void VirtualClock::AdvanceTo(int64_t time_us) {
  HALO_CHECK(time_us >= now_us_, "virtual time never goes back");
  now_us_ = time_us;
}

}  // namespace halo
