#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "base/descriptor.h"
#include "tool/tool.h"

namespace halo {

/// Where the threads of tools put what has finished, and where the scheduler takes it.
class ToolMailbox {
 public:
  /// Throws Error(kConfig) where the system gives no more descriptors.
  ToolMailbox();
  /// From any thread.
  void Put(ToolCompletion completion);
  /// What is there; waits for the first for `most_us` at most (0: not at all).
  std::vector<ToolCompletion> Take(int64_t most_us);
  /// Told by backends of threads that begin (1) or end (-1) to compute on this machine's cores,
  /// from those threads. Set before there are backends.
  std::function<void(int32_t)> on_threads;

  /// Readable while something is there.
  int ready_descriptor() const { return ready_.get(); }

 private:
  Descriptor ready_;  // eventfd: not 0 while there are completions
  std::mutex mutex_;
  std::condition_variable filled_;
  std::vector<ToolCompletion> completions_;  // under mutex_
};

/// One kind of tool (DuckDB, PostgreSQL, HTTP, functions), with threads of its own. Completions go
/// to the mailbox that it was made with, which outlives it. Its destructor cancels what runs and
/// joins every thread; nothing is put into the mailbox after that.
class ToolBackend {
 public:
  virtual ~ToolBackend() = default;
  /// Never blocks on the call itself. One caller thread.
  virtual void Submit(ToolCall call) = 0;
  virtual void Cancel(ToolCallId id) = 0;
  /// ToolRunner::held_back
  virtual int64_t held_back() const { return 0; }
};

}  // namespace halo
