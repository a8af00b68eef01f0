#pragma once

#include <cstdint>
#include <memory>

#include "base/clock.h"
#include "tool/tool_backend.h"

namespace halo {

struct ExecOptions {
  std::string folder;     ///< working folder of the programs; "": the process's own
  int32_t processes = 2;  ///< of one program at once, where its config says no other
  int64_t memory_bytes = int64_t{1} << 30;  ///< of each, where its config says no other
  int64_t most_bytes = int64_t{8} << 20;    ///< of an answer, where its config says no other
  int64_t default_timeout_us = 60'000'000;  ///< of a call without a deadline
};

/// The function `exec`: declared programs of this machine, run without a shell.
///
///     config: {command: [python3, score.py], processes: 2, memory_mb: 512, most_bytes: 65536}
///
/// A program lives as long as the run and answers line by line: a call is one line of JSON on its
/// standard input, {"id": n, "inputs": {name: value}}, and its answer one line on its standard
/// output, which is the call's value ({"error": "..."} fails the call). Each process has one call
/// at a time. One that crashes, answers garbage, says too much or too late is killed, its call
/// fails
/// ("exec_crashed", "exec_garbage", "result_too_large", "deadline" or "timeout"), and the next call
/// starts another. Standard error is kept for messages, its last 2,000 bytes.
///
/// Nothing but its order tells which call a line answers: a program that now and then says a line
/// too much answers the next call with it. One that has already said it when the next call comes is
/// given up.
///
/// A program gets an environment of PATH, HOME and LANG only, none of our descriptors, a process
/// group of its own, and ends with the backend. What it starts ends with it, unless that makes
/// itself a group of its own.
class ExecBackend final : public ToolBackend {
 public:
  /// `environment`: NAME=VALUE of what programs get. `mailbox` and `clock` outlive it.
  ExecBackend(ExecOptions options, std::vector<std::string> environment, ToolMailbox& mailbox,
              Clock& clock);
  ~ExecBackend() override;

  void Submit(ToolCall call) override;  ///< a FunctionCall of `exec`
  void Cancel(ToolCallId id) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
