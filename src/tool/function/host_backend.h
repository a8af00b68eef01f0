#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/clock.h"
#include "halo/host_function.h"
#include "tool/tool_backend.h"

namespace halo {

/// Functions of the embedding program, each with threads of its own, as many as may run side by
/// side, so that a slow one holds up neither the scheduler nor another.
///
/// Nobody can end a function from outside: a call that is cancelled or late is answered at once
/// ("cancelled", "deadline"), and its thread is free again when the function returns. What it gives
/// then is dropped. So the backend's end waits for every function that runs.
class HostBackend final : public ToolBackend {
 public:
  /// `mailbox` and `clock` outlive it. Every function has a `run`.
  HostBackend(std::map<std::string, HostFunction> functions, ToolMailbox& mailbox, Clock& clock);
  ~HostBackend() override;

  void Submit(ToolCall call) override;  ///< a FunctionCall of one of the functions
  void Cancel(ToolCallId id) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
