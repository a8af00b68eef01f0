#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/descriptor.h"

namespace halo {

/// A child process that hosts an engine. It ends with this object, by force where it has to.
class EngineProcess {
 public:
  /// `errors`: the end from which its standard error is read, which does not block.
  EngineProcess(pid_t pid, Descriptor errors) : pid_(pid), errors_(std::move(errors)) {}
  ~EngineProcess() { End(0); }
  EngineProcess(EngineProcess&& other) noexcept;
  EngineProcess& operator=(EngineProcess&&) = delete;

  pid_t pid() const { return pid_; }
  /// Takes what it has said on its standard error; the end of that is remembered. To be called now
  /// and then: a full pipe loses what is said.
  void ReadErrors();
  /// Waits for its end, for `patience_us` at most before it is killed, and says how it ended:
  /// "killed by signal 6 (Aborted); it said: ...".
  std::string End(int64_t patience_us);

 private:
  pid_t pid_ = -1;  // -1: it has ended and was reaped
  Descriptor errors_;
  std::string said_;
};

/// Starts a child that finds `inherited` as its descriptors from kFirstInherited on. Throws
/// Error(kConfig) if it cannot be started.
using EngineLauncher = std::function<EngineProcess(std::span<const int> inherited)>;
inline constexpr int kFirstInherited = 3;

/// A launcher of a program, which is given as the path of its file and all of its arguments. Of
/// this process the child has the environment, with `variables` ("NAME=VALUE") beside it, and the
/// inherited descriptors, and nothing else. It is killed when the thread that launched it ends. It
/// stays in the process group, so that a terminal stops and continues it with this process, but
/// ignores what a terminal sends to end both: how a run ends is decided here.
EngineLauncher ProgramLauncher(std::string path, std::vector<std::string> arguments,
                               std::vector<std::string> variables = {});

}  // namespace halo
