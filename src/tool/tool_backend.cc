#include "tool/tool_backend.h"

#include <chrono>
#include <utility>

namespace halo {

void ToolMailbox::Put(ToolCompletion completion) {
  {
    const std::lock_guard lock(mutex_);
    completions_.push_back(std::move(completion));
  }
  filled_.notify_one();
}

std::vector<ToolCompletion> ToolMailbox::Take(int64_t most_us) {
  std::unique_lock lock(mutex_);
  if (most_us > 0) {
    filled_.wait_for(lock, std::chrono::microseconds(most_us),
                     [this] { return !completions_.empty(); });
  }
  return std::exchange(completions_, {});
}

}  // namespace halo
