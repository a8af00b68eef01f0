#include "bench/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

namespace halo::bench {
namespace {

constexpr int kCouldNotExecute = 127;

/// Forks and executes; the child's outputs are the two descriptors.
pid_t Start(const std::vector<std::string>& arguments, int out, int err) {
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  const pid_t pid = fork();
  if (pid < 0) throw std::runtime_error(arguments[0] + ": cannot fork: " + std::strerror(errno));
  if (pid > 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = open("/dev/null", O_RDONLY);
  dup2(null, STDIN_FILENO);
  dup2(out, STDOUT_FILENO);
  dup2(err, STDERR_FILENO);
  execv(argv[0], argv.data());
  _exit(kCouldNotExecute);
}

std::string ReadAll(int descriptor) {
  std::string text;
  char buffer[1 << 14];
  for (;;) {
    const ssize_t got = read(descriptor, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return text;
    text.append(buffer, static_cast<size_t>(got));
  }
}

std::string Tail(const std::string& text) {
  constexpr size_t kShown = 600;
  return text.substr(text.size() - std::min(text.size(), kShown));
}

}  // namespace

std::string RunProgram(const std::vector<std::string>& arguments, const std::vector<int>& good) {
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipe can be made");
  std::FILE* err = std::tmpfile();
  if (err == nullptr) throw std::runtime_error("no temporary file can be made");
  const pid_t pid = Start(arguments, out[1], fileno(err));
  close(out[1]);
  std::string text = ReadAll(out[0]);
  close(out[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  std::rewind(err);
  const std::string errors = ReadAll(fileno(err));
  std::fclose(err);
  if (WIFEXITED(status) && std::count(good.begin(), good.end(), WEXITSTATUS(status)) > 0)
    return text;
  if (WIFEXITED(status) && WEXITSTATUS(status) == kCouldNotExecute) {
    throw std::runtime_error(arguments[0] + ": cannot be executed");
  }
  throw std::runtime_error(arguments[0] + " failed:\n" + Tail(errors.empty() ? text : errors));
}

BackgroundProgram::BackgroundProgram(const std::vector<std::string>& arguments,
                                     const std::string& log_path) {
  const int log = open(log_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (log < 0) throw std::runtime_error(log_path + ": cannot be written");
  pid_ = Start(arguments, log, log);
  close(log);
}

BackgroundProgram::~BackgroundProgram() { Stop(); }

bool BackgroundProgram::running() {
  if (pid_ > 0 && waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
  return pid_ > 0;
}

void BackgroundProgram::Stop() {
  if (!running()) return;
  kill(pid_, SIGTERM);
  constexpr int kPolls = 500;
  for (int i = 0; i < kPolls; ++i) {
    if (!running()) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = -1;
}

}  // namespace halo::bench
