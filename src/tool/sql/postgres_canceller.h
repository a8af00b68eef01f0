#pragma once

#include <libpq-fe.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace halo {

/// Tells servers to stop statements. libpq 15 can only do that by a connection that it waits for,
/// so it has a thread of its own, which starts with the first request.
class PostgresCanceller {
 public:
  PostgresCanceller() = default;
  /// Sends what was asked for, then ends.
  ~PostgresCanceller();
  PostgresCanceller(const PostgresCanceller&) = delete;
  PostgresCanceller& operator=(const PostgresCanceller&) = delete;

  /// Takes over what PQgetCancel gave (null: nothing to do).
  void Send(PGcancel* cancel);

 private:
  struct Free {
    void operator()(PGcancel* cancel) const { PQfreeCancel(cancel); }
  };

  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::unique_ptr<PGcancel, Free>> waiting_;  // under mutex_
  bool ending_ = false;                                  // under mutex_
  std::thread thread_;
};

}  // namespace halo
