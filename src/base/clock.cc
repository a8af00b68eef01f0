#include "base/clock.h"

#include <chrono>
#include <ctime>
#include <thread>

#include "base/check.h"

namespace halo {

int64_t SteadyClock::NowUs() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

void SteadyClock::SleepUntil(int64_t time_us) {
  const int64_t left_us = time_us - NowUs();
  if (left_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(left_us));
}

int64_t ThreadCpuUs() {
  constexpr int64_t kUsPerS = 1'000'000, kNsPerUs = 1'000;
  timespec time{};
  const int fault = clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  HALO_CHECK(fault == 0, "a thread has a clock of its processor time");
  return int64_t{time.tv_sec} * kUsPerS + time.tv_nsec / kNsPerUs;
}

void VirtualClock::AdvanceTo(int64_t time_us) {
  HALO_CHECK(time_us >= now_us_, "virtual time never goes back");
  now_us_ = time_us;
}

}  // namespace halo
