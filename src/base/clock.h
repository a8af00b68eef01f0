#pragma once

#include <cstdint>

namespace halo {

/// Time as an injected seam, so that the real scheduler can run under virtual time.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Microseconds since an arbitrary, fixed origin; never goes back.
  virtual int64_t NowUs() const = 0;
  /// Returns when it is `time_us`, at once if that has passed.
  virtual void SleepUntil(int64_t time_us) = 0;
};

/// The machine's monotonic clock.
class SteadyClock final : public Clock {
 public:
  int64_t NowUs() const override;
  void SleepUntil(int64_t time_us) override;
};

/// Processor time that the calling thread has used, in microseconds.
int64_t ThreadCpuUs();

/// A clock that moves only when told; used by the simulated engine.
class VirtualClock final : public Clock {
 public:
  int64_t NowUs() const override { return now_us_; }
  /// Moves to `time_us`; a time in the past is a broken invariant.
  void AdvanceTo(int64_t time_us);
  void SleepUntil(int64_t time_us) override {
    if (time_us > now_us_) AdvanceTo(time_us);
  }

 private:
  int64_t now_us_ = 0;
};

}  // namespace halo
