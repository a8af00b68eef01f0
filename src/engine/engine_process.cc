#include "engine/engine_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

constexpr int kStartFailed = 127;
constexpr size_t kKeptErrorBytes = 2000;

[[noreturn]] void CannotStart(const std::string& path, int why) {
  throw Error(ErrorCode::kConfig,
              "cannot start " + path + " to host an engine: " + std::strerror(why));
}

/// Beyond the places of what is inherited, so that putting one there overwrites no other.
Descriptor MovedUp(int fd, int first) { return Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, first)); }

struct Pipe {
  Descriptor read, write;
};

Pipe MakePipe(int first, const std::string& path) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) CannotStart(path, errno);
  const Descriptor low_read(ends[0]), low_write(ends[1]);
  Pipe pipe{MovedUp(low_read.get(), first), MovedUp(low_write.get(), first)};
  if (!pipe.read || !pipe.write) CannotStart(path, errno);
  return pipe;
}

/// What is said last, without the empty space around it, on one line.
std::string LastWords(const std::string& said) {
  std::string words;
  for (const char c : ReplaceInvalidUtf8(said)) {
    const bool is_break = c == '\n' || c == '\r';
    if (!is_break) {
      words += c;
    } else if (!words.empty() && !words.ends_with(" | ")) {
      words += " | ";
    }
  }
  while (words.ends_with(" ") || words.ends_with("|")) words.pop_back();
  return words;
}

std::string Describe(int status) {
  if (WIFSIGNALED(status)) {
    const int number = WTERMSIG(status);
    return "killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
  }
  return "exit code " + std::to_string(WEXITSTATUS(status));
}

/// True once the process has ended, whoever waits for it; waits for `most_us`.
bool HasEnded(pid_t pid, int64_t most_us) {
  const Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  const SteadyClock clock;
  const int64_t until_us = clock.NowUs() + most_us;
  constexpr int64_t kUsPerMs = 1000, kSliceMs = 1;
  while (true) {
    siginfo_t info{};
    // Without reaping it, so that its number stays its own.
    if (waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) return true;
    if (info.si_pid != 0) return true;
    const int64_t left_us = until_us - clock.NowUs();
    if (left_us <= 0) return false;
    // A kernel that does not know such descriptors is asked again and again.
    pollfd waited{process.get(), POLLIN, 0};
    const int64_t left_ms = left_us / kUsPerMs + 1;
    poll(&waited, process ? 1 : 0, static_cast<int>(process ? left_ms : kSliceMs));
  }
}

/// What the child needs between fork and exec, made before the fork: nothing is allocated there.
struct Plan {
  const char* path = nullptr;
  std::vector<char*> arguments, variables;
  std::vector<Descriptor> inherited;  // above their places
  Descriptor nothing, errors, status;
  pid_t parent = -1;
};

/// The child until it is the program. Everything here is safe after a fork of a process with
/// threads.
[[noreturn]] void BecomeProgram(const Plan& plan) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != plan.parent) _exit(kStartFailed);  // it ended before that was asked for
  // Where files may not grow any more, writing fails (KvDisk), which ends no engine.
  for (const int ignored : {SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGXFSZ}) signal(ignored, SIG_IGN);
  signal(SIGPIPE, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  bool placed = dup2(plan.nothing.get(), STDIN_FILENO) >= 0 &&
                dup2(plan.nothing.get(), STDOUT_FILENO) >= 0 &&
                dup2(plan.errors.get(), STDERR_FILENO) >= 0;
  int place = kFirstInherited;
  for (const Descriptor& each : plan.inherited) placed = placed && dup2(each.get(), place++) >= 0;
  // What libraries have open without that flag. Older kernels do not know the call.
  close_range(static_cast<unsigned>(place), UINT_MAX, CLOSE_RANGE_CLOEXEC);
  if (placed) execve(plan.path, plan.arguments.data(), plan.variables.data());
  const int why = errno;
  (void)!write(plan.status.get(), &why, sizeof why);
  _exit(kStartFailed);
}

std::vector<char*> Pointers(const std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  for (const std::string& text : texts) pointers.push_back(const_cast<char*>(text.c_str()));
  pointers.push_back(nullptr);
  return pointers;
}

/// This process's environment as it is passed on, with variables beside or instead of its own.
std::vector<std::string> EnvironmentWith(const std::vector<std::string>& variables) {
  std::vector<std::string> all = variables;
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string_view name_value = *each;
    const std::string_view name = name_value.substr(0, name_value.find('=') + 1);
    const bool is_replaced =
        std::any_of(variables.begin(), variables.end(),
                    [&](const std::string& variable) { return variable.starts_with(name); });
    if (!is_replaced) all.emplace_back(name_value);
  }
  return all;
}

}  // namespace

EngineProcess::EngineProcess(EngineProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)),
      errors_(std::move(other.errors_)),
      said_(std::move(other.said_)) {}

void EngineProcess::ReadErrors() {
  char bytes[4096];
  ssize_t count = 0;
  constexpr int kReadsOfTurn = 64;  // it may talk faster than this reads
  for (int turn = 0; turn < kReadsOfTurn; ++turn) {
    count = read(errors_.get(), bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return;
    said_.append(bytes, static_cast<size_t>(count));
    if (said_.size() > kKeptErrorBytes) said_.erase(0, said_.size() - kKeptErrorBytes);
  }
}

std::string EngineProcess::End(int64_t patience_us) {
  if (pid_ < 0) return "it has ended";
  if (!HasEnded(pid_, patience_us)) kill(pid_, SIGKILL);
  int status = 0;
  pid_t reaped = -1;
  do {
    reaped = waitpid(pid_, &status, 0);
  } while (reaped < 0 && errno == EINTR);
  // A program that ignores SIGCHLD has its children reaped by the kernel.
  std::string how = reaped == pid_ ? Describe(status) : "it ended in a way that is not known";
  pid_ = -1;
  ReadErrors();
  const std::string words = LastWords(said_);
  return words.empty() ? how : how + "; it said: " + words;
}

EngineLauncher ProgramLauncher(std::string path, std::vector<std::string> arguments,
                               std::vector<std::string> variables) {
  return [path = std::move(path), arguments = std::move(arguments),
          variables = std::move(variables)](std::span<const int> inherited) {
    const int first = kFirstInherited + static_cast<int>(inherited.size());
    const std::vector<std::string> environment = EnvironmentWith(variables);
    Pipe errors = MakePipe(first, path), status = MakePipe(first, path);
    // Neither end waits for the other: a child that says much must not stand still for it.
    for (const int fd : {errors.read.get(), errors.write.get()})
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    Plan plan;
    plan.path = path.c_str();
    plan.arguments = Pointers(arguments);
    plan.variables = Pointers(environment);
    for (const int fd : inherited) plan.inherited.push_back(MovedUp(fd, first));
    const Descriptor nothing(open("/dev/null", O_RDWR | O_CLOEXEC));
    plan.nothing = MovedUp(nothing.get(), first);
    plan.errors = std::move(errors.write);
    plan.status = std::move(status.write);
    plan.parent = getpid();
    const pid_t child = fork();
    if (child < 0) CannotStart(path, errno);
    if (child == 0) BecomeProgram(plan);
    EngineProcess process(child, std::move(errors.read));
    plan = Plan();  // our ends of what is the child's now
    int why = 0;
    ssize_t got = 0;
    while ((got = read(status.read.get(), &why, sizeof why)) < 0 && errno == EINTR) {
    }
    if (got > 0) CannotStart(path, why);
    return process;
  };
}

}  // namespace halo
