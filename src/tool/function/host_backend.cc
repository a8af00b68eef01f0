#include "tool/function/host_backend.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "base/bounded_json.h"
#include "base/text.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kMostBytes = int64_t{8} << 20;  // of a value, as for other tools
constexpr size_t kMostFaultBytes = 2000;

Failure Fault(const char* code, std::string message) {
  return {"", code, std::move(message), false};
}

/// What the function sees of a call.
std::string TextOf(const FunctionCall& call) {
  const Json seen = {{"inputs", call.inputs}, {"config", call.config}, {"outputs", call.outputs}};
  return seen.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string Beginning(std::string text) {
  if (text.size() > kMostFaultBytes) {
    text.resize(kMostFaultBytes);
    text.resize(CompleteUtf8Length(text));
    text += "...";
  }
  return ReplaceInvalidUtf8(text);
}

/// Calls the function; what goes wrong is in the completion.
void Run(const HostFunction& function, const FunctionCall& call, ToolCompletion& completion) {
  std::string text;
  try {
    text = function.run(TextOf(call));
  } catch (const std::exception& error) {
    completion.failure = Fault("function_failed", call.function + ": " + Beginning(error.what()));
    return;
  }
  if (static_cast<int64_t>(text.size()) > kMostBytes) {
    completion.failure =
        Fault("result_too_large", call.function + ": its value has more than 8 MiB as JSON");
    return;
  }
  std::string fault;
  completion.value = ParseBoundedJson(text, fault);
  if (completion.value.is_discarded()) {
    completion.value = nullptr;
    completion.failure =
        Fault("function_failed", call.function + ": its value is no JSON: " + fault);
  }
}

}  // namespace

/// One thread a call that may run, and one that ends calls at their deadlines. Threads of functions
/// are made as calls come.
struct HostBackend::Impl {
  struct Order {
    bool operator()(const ToolCall& a, const ToolCall& b) const {
      return std::tie(a.order, a.id) < std::tie(b.order, b.id);
    }
  };
  struct Pool {
    HostFunction function;
    std::multiset<ToolCall, Order> waiting;
    int32_t threads = 0, idle = 0;
    std::condition_variable filled;
  };
  /// A call that has no answer yet.
  struct OpenCall {
    Pool* pool = nullptr;
    int64_t deadline_us = 0, started_us = 0;  // 0: none; not yet
  };

  ToolMailbox& mailbox;
  Clock& clock;
  std::mutex mutex;
  // Under mutex:
  std::map<std::string, Pool> pools;  // by function
  std::map<ToolCallId, OpenCall> open;
  std::condition_variable deadlines_changed;
  bool ending = false;
  std::vector<std::thread> threads;  // the caller's thread alone

  Impl(ToolMailbox& m, Clock& c) : mailbox(m), clock(c) {}

  void Serve(Pool& pool);
  void Begin(const ToolCall& call);
  void WatchDeadlines();
  void Answer(ToolCallId id, ToolCompletion completion);
  int64_t EndLateCalls();
};

/// Gives the one answer to a call, unless it has had one. Under the mutex.
void HostBackend::Impl::Answer(ToolCallId id, ToolCompletion completion) {
  const auto found = open.find(id);
  if (found == open.end()) return;
  const int64_t now_us = clock.NowUs();
  completion.id = id;
  completion.started_us = found->second.started_us > 0 ? found->second.started_us : now_us;
  completion.finished_us = now_us;
  // One that has not begun never will.
  std::erase_if(found->second.pool->waiting, [id](const ToolCall& call) { return call.id == id; });
  open.erase(found);
  mailbox.Put(std::move(completion));
}

/// Under the mutex. The limit of an attempt begins with it: what waits behind a slow function is
/// not late for that.
void HostBackend::Impl::Begin(const ToolCall& call) {
  OpenCall& begun = open.at(call.id);
  begun.started_us = clock.NowUs();
  if (call.timeout_us <= 0) return;
  const int64_t until_us = begun.started_us + call.timeout_us;
  begun.deadline_us = begun.deadline_us > 0 ? std::min(begun.deadline_us, until_us) : until_us;
  deadlines_changed.notify_all();
}

/// A thread of one function.
void HostBackend::Impl::Serve(Pool& pool) {
  std::unique_lock lock(mutex);
  while (true) {
    ++pool.idle;
    pool.filled.wait(lock, [&] { return ending || !pool.waiting.empty(); });
    --pool.idle;
    if (ending) return;
    const ToolCall call = std::move(pool.waiting.extract(pool.waiting.begin()).value());
    Begin(call);
    lock.unlock();
    ToolCompletion completion;
    Run(pool.function, std::get<FunctionCall>(call.what), completion);
    lock.lock();
    Answer(call.id, std::move(completion));
  }
}

/// Returns the next deadline, 0 if there is none. Under the mutex.
int64_t HostBackend::Impl::EndLateCalls() {
  const int64_t now_us = clock.NowUs();
  std::vector<ToolCallId> late;
  int64_t next_us = 0;
  for (const auto& [id, call] : open) {
    if (call.deadline_us == 0) continue;
    if (call.deadline_us <= now_us) {
      late.push_back(id);
    } else if (next_us == 0 || call.deadline_us < next_us) {
      next_us = call.deadline_us;
    }
  }
  for (const ToolCallId id : late) {
    ToolCompletion completion;
    completion.failure = Fault("deadline", "the call took longer than its deadline allows");
    Answer(id, std::move(completion));
  }
  return next_us;
}

void HostBackend::Impl::WatchDeadlines() {
  std::unique_lock lock(mutex);
  while (!ending) {
    const int64_t next_us = EndLateCalls();
    if (next_us == 0) {
      deadlines_changed.wait(lock);
    } else {
      deadlines_changed.wait_for(lock, std::chrono::microseconds(next_us - clock.NowUs()));
    }
  }
}

HostBackend::HostBackend(std::map<std::string, HostFunction> functions, ToolMailbox& mailbox,
                         Clock& clock)
    : impl_(std::make_unique<Impl>(mailbox, clock)) {
  for (auto& [name, function] : functions) impl_->pools[name].function = std::move(function);
  impl_->threads.emplace_back([this] { impl_->WatchDeadlines(); });
}

HostBackend::~HostBackend() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
    impl_->open.clear();  // nobody takes answers any more
    for (auto& [name, pool] : impl_->pools) pool.filled.notify_all();
    impl_->deadlines_changed.notify_all();
  }
  for (std::thread& thread : impl_->threads) thread.join();
}

void HostBackend::Submit(ToolCall call) {
  const std::lock_guard lock(impl_->mutex);
  Impl::Pool& pool = impl_->pools.at(std::get<FunctionCall>(call.what).function);
  impl_->open.emplace(call.id, Impl::OpenCall{&pool, call.deadline_us, 0});
  if (call.deadline_us > 0) impl_->deadlines_changed.notify_all();
  pool.waiting.insert(std::move(call));
  if (pool.idle < static_cast<int32_t>(pool.waiting.size()) &&
      pool.threads < std::max(1, pool.function.at_once)) {
    ++pool.threads;
    impl_->threads.emplace_back([this, &pool] { impl_->Serve(pool); });
  }
  pool.filled.notify_one();
}

void HostBackend::Cancel(ToolCallId id) {
  const std::lock_guard lock(impl_->mutex);
  ToolCompletion completion;
  completion.failure = Fault("cancelled", "the call was cancelled");
  impl_->Answer(id, std::move(completion));
}

}  // namespace halo
