#include "tool/tool_backend.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <string>
#include <utility>

#include "base/check.h"
#include "base/error.h"

namespace halo {

ToolMailbox::ToolMailbox() : ready_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!ready_)
    throw Error(ErrorCode::kConfig,
                std::string("no descriptor for tools: ") + std::strerror(errno));
}

void ToolMailbox::Put(ToolCompletion completion) {
  {
    const std::lock_guard lock(mutex_);
    completions_.push_back(std::move(completion));
    if (completions_.size() == 1) {
      const int fault = eventfd_write(ready_.get(), 1);
      HALO_CHECK(fault == 0, "an empty mailbox has an event of 0");
    }
  }
  filled_.notify_one();
}

std::vector<ToolCompletion> ToolMailbox::Take(int64_t most_us) {
  std::unique_lock lock(mutex_);
  if (most_us > 0) {
    filled_.wait_for(lock, std::chrono::microseconds(most_us),
                     [this] { return !completions_.empty(); });
  }
  if (!completions_.empty()) {
    eventfd_t count = 0;
    const int fault = eventfd_read(ready_.get(), &count);
    HALO_CHECK(fault == 0, "a mailbox with something in it has an event");
  }
  return std::exchange(completions_, {});
}

}  // namespace halo
