#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace halo::bench {

/// Runs a program to its end and returns what it wrote to standard output. Standard error is shown
/// in the exception only. Throws std::runtime_error if it cannot be started or ends in another way
/// than with one of the exit statuses `good`.
std::string RunProgram(const std::vector<std::string>& arguments,
                       const std::vector<int>& good = {0});

/// A program in the background, its output in a file. It is ended with this object, and by the
/// kernel if this process dies before that.
class BackgroundProgram {
 public:
  BackgroundProgram(const std::vector<std::string>& arguments, const std::string& log_path);
  ~BackgroundProgram();
  BackgroundProgram(const BackgroundProgram&) = delete;
  BackgroundProgram& operator=(const BackgroundProgram&) = delete;

  bool running();
  /// SIGTERM, then SIGKILL after a few seconds.
  void Stop();

 private:
  pid_t pid_ = -1;
};

}  // namespace halo::bench
