#include "tool/function/exec_backend.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <filesystem>
#include <list>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/text.h"
#include "tool/function/local_function.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kKeptErrorBytes = 2000;
constexpr size_t kMostErrorBytes = 2000;  // of what a program gives as its error
constexpr int kStartFailed = 127;
constexpr unsigned kFirstOther = 3;  // descriptor behind the standard ones
constexpr int kReadsOfTurn = 16;     // of one pipe, so that none holds the others up

Failure Fault(const char* code, std::string message, bool retriable = false) {
  return {"", code, std::move(message), retriable};
}

Failure Late() { return Fault("deadline", "the call took longer than its deadline allows"); }

/// The first bytes of what a program said, as text.
std::string Beginning(std::string text, size_t most) {
  if (text.size() > most) {
    text.resize(most);
    text.resize(CompleteUtf8Length(text));
    text += "...";
  }
  return ReplaceInvalidUtf8(text);
}

struct Pipe {
  Descriptor read, write;
};

/// Beyond the standard descriptors, also where this process has closed its own: what a program gets
/// as its standard input must not be there already, with the flag that closes it.
Descriptor MovedUp(int fd) {
  constexpr int kFirst = 3;
  Descriptor owned(fd);
  return fd >= kFirst ? std::move(owned) : Descriptor(fcntl(fd, F_DUPFD_CLOEXEC, kFirst));
}

std::optional<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
  Pipe pipe{MovedUp(ends[0]), MovedUp(ends[1])};
  if (pipe.read.get() < 0 || pipe.write.get() < 0) return std::nullopt;
  return pipe;
}

void SetNonBlocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

/// How a program is started and bounded.
struct Program {
  std::vector<std::string> command;
  std::string file;  // of the program; "": there is none
  int64_t memory_bytes = 0;
  int64_t most_bytes = 0;
  int32_t processes = 0;
};

/// A child with its pipes. Killed and reaped with its owner.
class Process {
 public:
  ~Process() { Kill(); }

  pid_t pid = -1;
  Descriptor in, out, error;
  std::string outgoing;    // of the call, not yet written
  std::string incoming;    // up to the end of a line
  std::string complaints;  // standard error, its end
  std::optional<ToolCall> call;
  int64_t started_us = 0, deadline_us = 0;
  bool own_deadline = false;  // the default limit, not the call's

  void Kill() {
    if (pid <= 0) return;
    kill(-pid, SIGKILL);  // its group: what it has started too
    kill(pid, SIGKILL);
    while (waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    pid = -1;
  }
};

/// The file of a program: a name without a slash is looked for in the PATH that it is given, not in
/// that of this process.
std::string FileOf(const std::string& program, const std::string& folder,
                   const std::vector<std::string>& environment) {
  if (program.find('/') != std::string::npos) return program;  // relative to the working folder
  std::string path = "/usr/bin:/bin";
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) path = variable.substr(5);
  }
  for (size_t at = 0; at <= path.size();) {
    const size_t end = std::min(path.find(':', at), path.size());
    std::error_code ignored;
    const std::filesystem::path file =
        std::filesystem::absolute(folder, ignored) / path.substr(at, end - at) / program;
    if (std::filesystem::is_regular_file(file, ignored) && access(file.c_str(), X_OK) == 0)
      return file.string();
    at = end + 1;
  }
  return "";
}

/// Starts a program; `fault` says why not. Everything between fork and exec is safe after a fork of
/// a process with threads.
std::unique_ptr<Process> Start(const Program& program, const std::string& folder,
                               const std::vector<std::string>& environment, std::string& fault) {
  if (program.file.empty()) {
    fault = std::strerror(ENOENT);
    return nullptr;
  }
  auto in = MakePipe(), out = MakePipe(), error = MakePipe(), status = MakePipe();
  if (!in || !out || !error || !status) {
    fault = std::strerror(errno);
    return nullptr;
  }
  std::vector<char*> arguments, variables;
  for (const std::string& word : program.command)
    arguments.push_back(const_cast<char*>(word.c_str()));
  for (const std::string& each : environment) variables.push_back(const_cast<char*>(each.c_str()));
  arguments.push_back(nullptr);
  variables.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) {
    fault = std::strerror(errno);
    return nullptr;
  }
  if (child == 0) {
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(kStartFailed);
    const rlimit memory{static_cast<rlim_t>(program.memory_bytes),
                        static_cast<rlim_t>(program.memory_bytes)};
    setrlimit(RLIMIT_AS, &memory);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const bool placed = dup2(in->read.get(), 0) >= 0 && dup2(out->write.get(), 1) >= 0 &&
                        dup2(error->write.get(), 2) >= 0 &&
                        (folder.empty() || chdir(folder.c_str()) == 0);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    // What libraries have open without that flag. Older kernels do not know the call.
    close_range(kFirstOther, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    if (placed) execve(program.file.c_str(), arguments.data(), variables.data());
    const int why = errno;
    (void)!write(status->write.get(), &why, sizeof why);
    _exit(kStartFailed);
  }
  auto process = std::make_unique<Process>();
  process->pid = child;
  setpgid(child, child);  // whichever of the two comes first
  status->write.Close();
  int why = 0;
  ssize_t got = 0;
  while ((got = read(status->read.get(), &why, sizeof why)) < 0 && errno == EINTR) {
  }
  if (got > 0) {
    fault = std::strerror(why);
    return nullptr;
  }
  process->in = std::move(in->write);
  process->out = std::move(out->read);
  process->error = std::move(error->read);
  for (const int fd : {process->in.get(), process->out.get(), process->error.get()})
    SetNonBlocking(fd);
  return process;
}

Program ProgramOf(const Json& config, const ExecOptions& options,
                  const std::vector<std::string>& environment) {
  Program program;
  for (const Json& word : config.at("command")) program.command.push_back(word.get<std::string>());
  program.file = FileOf(program.command[0], options.folder, environment);
  constexpr int64_t kMiB = int64_t{1} << 20;
  program.memory_bytes = config.contains("memory_mb") ? config["memory_mb"].get<int64_t>() * kMiB
                                                      : options.memory_bytes;
  program.most_bytes = config.value("most_bytes", options.most_bytes);
  program.processes = config.value("processes", options.processes);
  return program;
}

}  // namespace

/// One thread polls the pipes of all processes. A pool is a program with its processes and the
/// calls that wait for one of them.
struct ExecBackend::Impl {
  struct Order {
    bool operator()(const ToolCall& a, const ToolCall& b) const {
      return std::tie(a.order, a.id) < std::tie(b.order, b.id);
    }
  };
  struct Pool {
    Program program;
    std::list<std::unique_ptr<Process>> processes;
    std::multiset<ToolCall, Order> waiting;
  };

  const ExecOptions options;
  const std::vector<std::string> environment;
  ToolMailbox& mailbox;
  Clock& clock;
  std::map<std::string, Pool> pools;  // by the config's text; the thread's own
  Pipe wake;
  std::mutex mutex;
  std::vector<ToolCall> submitted;    // under mutex
  std::vector<ToolCallId> cancelled;  // under mutex
  bool ending = false;                // under mutex
  std::thread thread;

  Impl(ExecOptions o, std::vector<std::string> e, ToolMailbox& m, Clock& c)
      : options(std::move(o)), environment(std::move(e)), mailbox(m), clock(c) {}

  void Loop();
  bool TakeOrders();
  void Cancel(ToolCallId id);
  void StartCalls();
  void EndLate(Pool& pool);
  static Process* FindIdle(Pool& pool);
  void Give(Process& process, ToolCall call);
  void WaitForWork();
  void Serve(Pool& pool);
  bool Write(Process& process);
  bool Read(Pool& pool, Process& process);
  void ReadComplaints(Process& process);
  void Answer(Process& process, const std::string& line);
  void Complete(Process& process, std::optional<Failure> failure, Json value);
  void FailCall(const ToolCall& call, Failure failure);
  Failure Crash(Process& process);
  Failure TooSlow() const;
  int PollTimeout() const;
  void Wake() {
    const char byte = 1;
    (void)!write(wake.write.get(), &byte, 1);  // a full pipe wakes as well
  }
};

void ExecBackend::Impl::Loop() {
  while (TakeOrders()) {
    StartCalls();
    WaitForWork();
    for (auto& [key, pool] : pools) Serve(pool);
  }
  pools.clear();  // kills and reaps every process
}

/// What the caller's thread has left; false when all is over.
bool ExecBackend::Impl::TakeOrders() {
  std::vector<ToolCall> calls;
  std::vector<ToolCallId> ids;
  {
    const std::lock_guard lock(mutex);
    if (ending) return false;
    calls.swap(submitted);
    ids.swap(cancelled);
  }
  for (ToolCall& call : calls) {
    const Json& config = std::get<FunctionCall>(call.what).config;
    Pool& pool = pools[config.dump()];
    if (pool.program.command.empty()) pool.program = ProgramOf(config, options, environment);
    pool.waiting.insert(std::move(call));
  }
  for (const ToolCallId id : ids) Cancel(id);
  return true;
}

void ExecBackend::Impl::Cancel(ToolCallId id) {
  for (auto& [key, pool] : pools) {
    for (auto it = pool.waiting.begin(); it != pool.waiting.end(); ++it) {
      if (it->id != id) continue;
      FailCall(*it, Fault("cancelled", "the call was cancelled"));
      pool.waiting.erase(it);
      return;
    }
    for (auto it = pool.processes.begin(); it != pool.processes.end(); ++it) {
      if (!(*it)->call || (*it)->call->id != id) continue;
      // Its answer would be taken for that of the next call.
      Complete(**it, Fault("cancelled", "the call was cancelled"), {});
      pool.processes.erase(it);
      return;
    }
  }
}

void ExecBackend::Impl::StartCalls() {
  for (auto& [key, pool] : pools) {
    EndLate(pool);
    while (!pool.waiting.empty()) {
      Process* idle = FindIdle(pool);
      if (idle == nullptr) {
        if (static_cast<int32_t>(pool.processes.size()) >= pool.program.processes) break;
        std::string fault;
        auto process = Start(pool.program, options.folder, environment, fault);
        if (process == nullptr) {
          FailCall(*pool.waiting.begin(),
                   Fault("exec_not_started",
                         "cannot start '" + pool.program.command[0] + "': " + fault));
          pool.waiting.erase(pool.waiting.begin());
          continue;
        }
        pool.processes.push_back(std::move(process));
        idle = pool.processes.back().get();
      }
      Give(*idle, std::move(pool.waiting.extract(pool.waiting.begin()).value()));
    }
  }
}

/// Calls whose deadline passed while they waited are not made.
void ExecBackend::Impl::EndLate(Pool& pool) {
  const int64_t now_us = clock.NowUs();
  for (auto it = pool.waiting.begin(); it != pool.waiting.end();) {
    if (it->deadline_us == 0 || now_us < it->deadline_us) {
      ++it;
      continue;
    }
    FailCall(*it, Late());
    it = pool.waiting.erase(it);
  }
}

/// A process without a call; null if there is none. One that has ended, or has said something that
/// nobody asked for, is given up: its words would be taken for the answer.
Process* ExecBackend::Impl::FindIdle(Pool& pool) {
  for (auto it = pool.processes.begin(); it != pool.processes.end();) {
    pollfd out = {(*it)->out.get(), POLLIN, 0};
    if ((*it)->call) {
      ++it;
    } else if (poll(&out, 1, 0) == 0) {
      return it->get();
    } else {
      it = pool.processes.erase(it);
    }
  }
  return nullptr;
}

void ExecBackend::Impl::Give(Process& process, ToolCall call) {
  process.started_us = clock.NowUs();
  process.own_deadline = call.deadline_us == 0;
  process.deadline_us =
      process.own_deadline ? process.started_us + options.default_timeout_us : call.deadline_us;
  const Json line = {{"id", call.id}, {"inputs", std::get<FunctionCall>(call.what).inputs}};
  process.outgoing = line.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  process.incoming.clear();
  process.call = std::move(call);
}

int ExecBackend::Impl::PollTimeout() const {
  int64_t next_us = -1;
  const auto wake_at = [&](int64_t time_us) {
    if (next_us < 0 || time_us < next_us) next_us = time_us;
  };
  for (const auto& [key, pool] : pools) {
    for (const auto& process : pool.processes) {
      if (process->call) wake_at(process->deadline_us);
    }
    for (const ToolCall& call : pool.waiting) {
      if (call.deadline_us > 0) wake_at(call.deadline_us);
    }
  }
  if (next_us < 0) return -1;
  constexpr int64_t kUsPerMs = 1000, kMostMs = 60'000;
  const int64_t wait_us = std::max<int64_t>(0, next_us - clock.NowUs());
  return static_cast<int>(std::min(kMostMs, wait_us / kUsPerMs + 1));
}

void ExecBackend::Impl::WaitForWork() {
  std::vector<pollfd> waited = {{wake.read.get(), POLLIN, 0}};
  for (const auto& [key, pool] : pools) {
    for (const auto& process : pool.processes) {
      waited.push_back({process->out.get(), POLLIN, 0});
      // One that has closed it would be ready for ever.
      if (process->error.get() >= 0) waited.push_back({process->error.get(), POLLIN, 0});
      if (!process->outgoing.empty()) waited.push_back({process->in.get(), POLLOUT, 0});
    }
  }
  poll(waited.data(), waited.size(), PollTimeout());
  char drained[256];
  while (read(wake.read.get(), drained, sizeof drained) > 0) {
  }
}

Failure ExecBackend::Impl::TooSlow() const {
  constexpr double kUsPerS = 1e6;
  return Fault("timeout",
               "the program took longer than " +
                   Json(static_cast<double>(options.default_timeout_us) / kUsPerS).dump() +
                   " s: give the call timeout_s",
               true);
}

void ExecBackend::Impl::Serve(Pool& pool) {
  for (auto it = pool.processes.begin(); it != pool.processes.end();) {
    Process& process = **it;
    ReadComplaints(process);
    bool alive = Write(process) && Read(pool, process);
    if (alive && process.call && clock.NowUs() >= process.deadline_us) {
      Complete(process, process.own_deadline ? TooSlow() : Late(), {});
      alive = false;
    }
    it = alive ? std::next(it) : pool.processes.erase(it);
  }
}

/// Writes what the pipe takes; false where the process is gone.
bool ExecBackend::Impl::Write(Process& process) {
  while (!process.outgoing.empty()) {
    const ssize_t sent = write(process.in.get(), process.outgoing.data(), process.outgoing.size());
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && errno == EAGAIN) return true;
    if (sent < 0) {
      Complete(process, Crash(process), {});
      return false;
    }
    process.outgoing.erase(0, static_cast<size_t>(sent));
  }
  return true;
}

/// Reads what is there; false where the process is to be given up.
bool ExecBackend::Impl::Read(Pool& pool, Process& process) {
  char buffer[1 << 16];
  for (int reads = 0; reads < kReadsOfTurn; ++reads) {
    const ssize_t got = read(process.out.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) {
      if (process.call) Complete(process, Crash(process), {});
      return false;
    }
    if (!process.call) return false;  // it speaks without being asked
    const size_t known = process.incoming.size();
    process.incoming.append(buffer, static_cast<size_t>(got));
    const size_t end = process.incoming.find('\n', known);
    const size_t length = std::min(end, process.incoming.size());
    if (static_cast<int64_t>(length) > pool.program.most_bytes) {
      Complete(process,
               Fault("result_too_large", "the program's answer has more than " +
                                             std::to_string(pool.program.most_bytes) +
                                             " bytes: raise most_bytes in its config"),
               {});
      return false;
    }
    if (end == std::string::npos) continue;
    const bool one_line = end + 1 == process.incoming.size() && process.outgoing.empty();
    if (!one_line) {
      Complete(process,
               Fault("exec_garbage",
                     "the program answered more than one line, or before it had "
                     "read its call"),
               {});
      return false;
    }
    process.incoming.pop_back();
    Answer(process, process.incoming);
    return true;
  }
  return true;
}

void ExecBackend::Impl::ReadComplaints(Process& process) {
  char buffer[4096];
  for (int reads = 0; reads < kReadsOfTurn && process.error.get() >= 0; ++reads) {
    const ssize_t got = read(process.error.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) return process.error.Close();
    process.complaints.append(buffer, static_cast<size_t>(got));
    if (process.complaints.size() > kKeptErrorBytes)
      process.complaints.erase(0, process.complaints.size() - kKeptErrorBytes);
  }
}

void ExecBackend::Impl::Answer(Process& process, const std::string& line) {
  std::optional<Json> value = ReadJson(line);
  if (!value) {
    constexpr size_t kShown = 120;
    return Complete(process,
                    Fault("exec_garbage",
                          "the program's answer is not a line of JSON: " + Beginning(line, kShown)),
                    {});
  }
  if (value->is_object() && value->size() == 1 && value->contains("error")) {
    const Json& error = (*value)["error"];
    return Complete(
        process,
        Fault("exec_error", Beginning(error.is_string() ? error.get<std::string>() : error.dump(),
                                      kMostErrorBytes)),
        {});
  }
  Complete(process, std::nullopt, std::move(*value));
}

/// Why a process that has gone is gone.
Failure ExecBackend::Impl::Crash(Process& process) {
  ReadComplaints(process);
  std::string how = "the program closed its output";
  // One that ends closes its output a little before it can be reaped. It is looked at and not yet
  // reaped: until then nobody else can get the number of its group, which is killed.
  constexpr int kLooks = 50;
  constexpr useconds_t kBetweenLooksUs = 2000;
  siginfo_t ended{};
  for (int i = 0; i < kLooks && ended.si_pid == 0; ++i) {
    if (i > 0) usleep(kBetweenLooksUs);
    waitid(P_PID, static_cast<id_t>(process.pid), &ended, WEXITED | WNOHANG | WNOWAIT);
  }
  if (ended.si_pid == process.pid) {
    process.Kill();
    how = ended.si_code == CLD_EXITED
              ? "the program ended with " + std::to_string(ended.si_status) + " before it answered"
              : "the program was ended by signal " + std::to_string(ended.si_status);
  }
  std::string said = ReplaceInvalidUtf8(process.complaints);
  while (!said.empty() && (said.back() == '\n' || said.back() == ' ')) said.pop_back();
  return Fault("exec_crashed", how + (said.empty() ? "" : ": " + said), true);
}

void ExecBackend::Impl::Complete(Process& process, std::optional<Failure> failure, Json value) {
  if (!process.call) return;
  ToolCompletion completion;
  completion.id = process.call->id;
  completion.failure = std::move(failure);
  completion.value = std::move(value);
  completion.started_us = process.started_us;
  completion.finished_us = clock.NowUs();
  process.call.reset();
  process.incoming.clear();
  mailbox.Put(std::move(completion));
}

void ExecBackend::Impl::FailCall(const ToolCall& call, Failure failure) {
  ToolCompletion completion;
  completion.id = call.id;
  completion.failure = std::move(failure);
  completion.finished_us = clock.NowUs();
  mailbox.Put(std::move(completion));
}

ExecBackend::ExecBackend(ExecOptions options, std::vector<std::string> environment,
                         ToolMailbox& mailbox, Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), std::move(environment), mailbox, clock)) {
  auto wake = MakePipe();
  if (!wake) throw Error(ErrorCode::kConfig, std::string("exec: no pipe: ") + std::strerror(errno));
  impl_->wake = std::move(*wake);
  SetNonBlocking(impl_->wake.read.get());
  SetNonBlocking(impl_->wake.write.get());
  impl_->thread = std::thread([this] {
    // A program that has gone makes writing to it fail, not end the process.
    sigset_t pipe_signal;
    sigemptyset(&pipe_signal);
    sigaddset(&pipe_signal, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_signal, nullptr);
    impl_->Loop();
  });
}

ExecBackend::~ExecBackend() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
  }
  impl_->Wake();
  impl_->thread.join();
}

void ExecBackend::Submit(ToolCall call) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->submitted.push_back(std::move(call));
  }
  impl_->Wake();
}

void ExecBackend::Cancel(ToolCallId id) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->cancelled.push_back(id);
  }
  impl_->Wake();
}

}  // namespace halo
