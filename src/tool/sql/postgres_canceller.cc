#include "tool/sql/postgres_canceller.h"

#include <array>

namespace halo {

PostgresCanceller::~PostgresCanceller() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void PostgresCanceller::Send(PGcancel* cancel) {
  if (cancel == nullptr) return;
  {
    const std::lock_guard lock(mutex_);
    waiting_.emplace_back(cancel);
  }
  if (!thread_.joinable()) thread_ = std::thread([this] { Work(); });
  changed_.notify_all();
}

void PostgresCanceller::Work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const std::unique_ptr<PGcancel, Free> cancel = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    // A request that does not arrive is nothing to report: the statement's own limits end it.
    std::array<char, 256> why{};
    PQcancel(cancel.get(), why.data(), static_cast<int>(why.size()));
    lock.lock();
  }
}

}  // namespace halo
