#include "tool/sql/postgres_backend.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <unordered_map>
#include <utility>

#include "base/check.h"
#include "tool/sql/postgres_canceller.h"
#include "tool/sql/postgres_session.h"

namespace halo {
namespace {

/// How much longer than its statement may take an answer is waited for: the server ends statements
/// itself, so that this is for servers that are gone without a word.
constexpr int64_t kGraceUs = 2'000'000;
/// How soon one more session is asked for after the server had no more.
constexpr int64_t kAskAgainUs = 200'000;
/// How long the server may have none at all before calls fail: a session that was just closed is
/// counted by the server a little longer.
constexpr int64_t kPatienceUs = 2'000'000;

Failure Cancelled() { return {"", "cancelled", "the call was cancelled", false}; }
Failure PastDeadline() {
  return {"", "deadline", "the call took longer than its deadline allows", false};
}

std::string Seconds(int64_t us) { return fmt::format("{:g} s", static_cast<double>(us) / 1e6); }

}  // namespace

struct PostgresBackend::Impl {
  /// Lower order first, then who came first.
  using Place = std::pair<int64_t, uint64_t>;
  using Queue = std::map<Place, std::unique_ptr<PostgresWork>>;

  /// A connection of the workflow's: its waiting calls and its sessions.
  struct Pool {
    PostgresConnection spec;
    PostgresArrays arrays;
    Queue reads, writes;
    std::vector<std::unique_ptr<PostgresSession>> sessions;
    /// Fewer than spec.sessions while the server has no more to give; asked again at that time.
    size_t most_now = 0;
    int64_t ask_again_us = 0;
    int64_t without_any_us = 0;  // since when it has been refused even one; 0: it has not
  };
  struct Waiting {
    Pool* pool;
    bool writes;
    Place place;
    int64_t deadline_us;
  };

  ToolMailbox& mailbox;
  Clock& clock;
  std::map<std::string, Pool> pools;
  int wake = -1;

  std::mutex mutex;
  std::vector<ToolCall> submitted;  // under mutex, as the next two
  std::vector<ToolCallId> to_cancel;
  bool ending = false;

  // The rest belongs to the thread.
  std::unordered_map<ToolCallId, Waiting> waiting;
  std::set<std::pair<int64_t, ToolCallId>> deadlines;  // of those that wait
  uint64_t arrivals = 0;
  PostgresCanceller canceller;
  std::thread thread;

  Impl(ToolMailbox& m, Clock& c) : mailbox(m), clock(c) {}

  void Wake() const;
  void Run();
  bool TakeOrders();
  void Accept(ToolCall call);
  void Enqueue(Pool& pool, std::unique_ptr<PostgresWork> work);
  std::unique_ptr<PostgresWork> TakeWaiting(ToolCallId id);
  std::unique_ptr<PostgresWork> TakeFirst(Queue& queue);
  void CancelCall(ToolCallId id);
  void SendCancel(PostgresSession& session);
  void CheckTimes();
  void CheckSession(PostgresSession& session, int64_t now_us);
  void Pump(Pool& pool);
  bool ServeFirst(Pool& pool, bool writes);
  PostgresSession* FindIdle(Pool& pool, bool writes);
  bool MakeRoom(Pool& pool, bool writes);
  void Start(PostgresSession& session, std::unique_ptr<PostgresWork> work);
  void AwaitSockets();
  int64_t NextTime() const;
  void Collect(Pool& pool);
  void OnLoss(Pool& pool, const PostgresSession& lost);
  void EndWork(Pool& pool, std::unique_ptr<PostgresWork> work);
  void Finish(PostgresWork& work, std::optional<Failure> failure, nlohmann::ordered_json value);
  void End();
};

// ---- from the caller's thread

PostgresBackend::PostgresBackend(std::vector<PostgresConnection> connections, ToolMailbox& mailbox,
                                 Clock& clock)
    : impl_(std::make_unique<Impl>(mailbox, clock)) {
  for (PostgresConnection& connection : connections) {
    if (const std::string fault = UrlFault(connection); !fault.empty())
      throw Error(ErrorCode::kConfig, fault);
    if (connection.sessions < 1)
      throw Error(ErrorCode::kConfig,
                  "connection '" + connection.name + "': it needs at least one session");
    Impl::Pool& pool = impl_->pools[connection.name];
    pool.spec = std::move(connection);
    pool.most_now = static_cast<size_t>(pool.spec.sessions);
  }
  impl_->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (impl_->wake < 0)
    throw Error(ErrorCode::kConfig, "no event descriptor for PostgreSQL's thread");
  impl_->thread = std::thread([this] { impl_->Run(); });
}

PostgresBackend::~PostgresBackend() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
  }
  impl_->Wake();
  impl_->thread.join();
  close(impl_->wake);
}

void PostgresBackend::Submit(ToolCall call) {
  HALO_CHECK(std::holds_alternative<SqlCall>(call.what), "a call for PostgreSQL is a SqlCall");
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->submitted.push_back(std::move(call));
  }
  impl_->Wake();
}

void PostgresBackend::Cancel(ToolCallId id) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->to_cancel.push_back(id);
  }
  impl_->Wake();
}

void PostgresBackend::Impl::Wake() const {
  const uint64_t one = 1;
  // It fails only where the count is full: then it is awake already.
  [[maybe_unused]] const ssize_t written = write(wake, &one, sizeof one);
}

// ---- the thread

void PostgresBackend::Impl::Run() {
  while (TakeOrders()) {
    CheckTimes();
    for (auto& [name, pool] : pools) Pump(pool);
    AwaitSockets();
    for (auto& [name, pool] : pools) Collect(pool);
  }
  End();
}

/// False when the end has come.
bool PostgresBackend::Impl::TakeOrders() {
  std::vector<ToolCall> calls;
  std::vector<ToolCallId> cancels;
  {
    const std::lock_guard lock(mutex);
    calls = std::exchange(submitted, {});
    cancels = std::exchange(to_cancel, {});
    if (ending && calls.empty()) return false;
  }
  for (ToolCall& call : calls) Accept(std::move(call));
  for (const ToolCallId id : cancels) CancelCall(id);
  return true;
}

void PostgresBackend::Impl::Finish(PostgresWork& work, std::optional<Failure> failure,
                                   nlohmann::ordered_json value) {
  ToolCompletion completion;
  completion.id = work.call.id;
  completion.finished_us = clock.NowUs();
  completion.started_us = work.started_us > 0 ? work.started_us : completion.finished_us;
  // Whether a write has been done before the server went away, nobody knows.
  if (failure && failure->code == "connection" && work.writes() && work.started_us > 0)
    failure->retriable = work.call.idempotent;
  completion.failure = std::move(failure);
  completion.value = std::move(value);
  mailbox.Put(std::move(completion));
}

void PostgresBackend::Impl::Accept(ToolCall call) {
  auto work = std::make_unique<PostgresWork>(std::move(call));
  const auto refuse = [&](const char* code, std::string why) {
    Finish(*work, Failure{"", code, std::move(why), false}, nullptr);
  };
  const auto found = pools.find(work->sql().connection);
  if (found == pools.end())
    return refuse("bad_connection", "there is no connection '" + work->sql().connection + "'");
  for (const auto& [name, value] : work->sql().settings) {
    if (std::string fault = SettingFault(name, value); !fault.empty())
      return refuse("bad_setting", std::move(fault));
  }
  if (work->sql().text.find('\0') != std::string::npos)
    return refuse("sql_error", "the statement has a NUL byte");
  std::string fault;
  work->arguments = TextsOfArguments(work->sql().arguments, fault);
  if (!fault.empty()) return refuse("bad_parameter", std::move(fault));
  Enqueue(found->second, std::move(work));
}

void PostgresBackend::Impl::Enqueue(Pool& pool, std::unique_ptr<PostgresWork> work) {
  const Place place{work->call.order, ++arrivals};
  const ToolCallId id = work->call.id;
  const int64_t deadline_us = work->call.deadline_us;
  waiting[id] = {&pool, work->writes(), place, deadline_us};
  if (deadline_us > 0) deadlines.emplace(deadline_us, id);
  (work->writes() ? pool.writes : pool.reads).emplace(place, std::move(work));
}

std::unique_ptr<PostgresWork> PostgresBackend::Impl::TakeWaiting(ToolCallId id) {
  const auto found = waiting.find(id);
  if (found == waiting.end()) return nullptr;
  const Waiting& at = found->second;
  Queue& queue = at.writes ? at.pool->writes : at.pool->reads;
  const auto entry = queue.find(at.place);
  std::unique_ptr<PostgresWork> work = std::move(entry->second);
  queue.erase(entry);
  deadlines.erase({at.deadline_us, id});
  waiting.erase(found);
  return work;
}

std::unique_ptr<PostgresWork> PostgresBackend::Impl::TakeFirst(Queue& queue) {
  return queue.empty() ? nullptr : TakeWaiting(queue.begin()->second->call.id);
}

void PostgresBackend::Impl::CancelCall(ToolCallId id) {
  if (const auto work = TakeWaiting(id)) return Finish(*work, Cancelled(), nullptr);
  for (auto& [name, pool] : pools) {
    for (const auto& session : pool.sessions) {
      PostgresWork* work = session->work();
      if (work == nullptr || work->call.id != id || work->cancelled) continue;
      work->cancelled = true;
      work->give_up_us = std::min(work->give_up_us, clock.NowUs() + kGraceUs);
      return SendCancel(*session);
    }
  }
}

void PostgresBackend::Impl::SendCancel(PostgresSession& session) {
  if (std::exchange(session.cancel_was_sent, true)) return;
  canceller.Send(session.NewCancel());
}

/// Ends what has waited or worked for too long.
void PostgresBackend::Impl::CheckTimes() {
  const int64_t now_us = clock.NowUs();
  while (!deadlines.empty() && deadlines.begin()->first <= now_us) {
    const auto work = TakeWaiting(deadlines.begin()->second);
    Finish(*work, PastDeadline(), nullptr);
  }
  for (auto& [name, pool] : pools) {
    if (pool.ask_again_us != 0 && pool.ask_again_us <= now_us) {
      const bool is_enough = ++pool.most_now >= static_cast<size_t>(pool.spec.sessions);
      pool.ask_again_us = is_enough ? 0 : now_us + kAskAgainUs;
    }
    for (const auto& session : pool.sessions) CheckSession(*session, now_us);
  }
}

void PostgresBackend::Impl::CheckSession(PostgresSession& session, int64_t now_us) {
  const PostgresWork* work = session.work();
  if (work != nullptr && now_us >= work->give_up_us) {
    SendCancel(session);
    session.GiveUp("the server does not answer");
  } else if (work == nullptr && !session.is_up() && now_us >= session.connect_by_us) {
    session.GiveUp("the server does not answer");
  }
}

// ---- sessions and the calls that they take

/// Gives waiting calls to sessions, and opens as many as there is need and room for.
void PostgresBackend::Impl::Pump(Pool& pool) {
  bool reads_stuck = false, writes_stuck = false;
  while (true) {
    const bool has_read = !pool.reads.empty() && !reads_stuck;
    const bool has_write = !pool.writes.empty() && !writes_stuck;
    if (!has_read && !has_write) return;
    const bool write_first =
        has_write && (!has_read || pool.writes.begin()->first < pool.reads.begin()->first);
    if (!ServeFirst(pool, write_first)) (write_first ? writes_stuck : reads_stuck) = true;
  }
}

/// False if the first call of the kind has to wait.
bool PostgresBackend::Impl::ServeFirst(Pool& pool, bool writes) {
  Queue& queue = writes ? pool.writes : pool.reads;
  if (PostgresSession* idle = FindIdle(pool, writes); idle != nullptr) {
    Start(*idle, TakeFirst(queue));
    return true;
  }
  const auto coming =
      std::count_if(pool.sessions.begin(), pool.sessions.end(), [&](const auto& session) {
        return !session->is_up() && session->state() != PostgresSession::State::kLost &&
               session->read_only() != writes;
      });
  for (auto missing = static_cast<int64_t>(queue.size()) - coming; missing > 0; --missing) {
    if (!MakeRoom(pool, writes)) break;
    pool.sessions.push_back(
        std::make_unique<PostgresSession>(pool.spec, !writes, pool.arrays, clock.NowUs()));
  }
  return false;
}

/// The idle session that was used last, so that those that are not needed stay cold.
PostgresSession* PostgresBackend::Impl::FindIdle(Pool& pool, bool writes) {
  PostgresSession* best = nullptr;
  for (const auto& session : pool.sessions) {
    if (session->read_only() == writes || session->state() != PostgresSession::State::kIdle)
      continue;
    session->CheckAlive();
    const bool is_idle = session->state() == PostgresSession::State::kIdle;
    if (is_idle && (best == nullptr || session->used_us > best->used_us)) best = session.get();
  }
  return best;
}

/// True if one more session may be opened, for which an idle one of the other kind may go.
bool PostgresBackend::Impl::MakeRoom(Pool& pool, bool writes) {
  if (pool.sessions.size() < pool.most_now) return true;
  const auto other =
      std::find_if(pool.sessions.begin(), pool.sessions.end(), [&](const auto& session) {
        return session->read_only() == writes && session->state() == PostgresSession::State::kIdle;
      });
  if (other == pool.sessions.end()) return false;
  pool.sessions.erase(other);
  return true;
}

void PostgresBackend::Impl::Start(PostgresSession& session, std::unique_ptr<PostgresWork> work) {
  const int64_t now_us = clock.NowUs();
  const int64_t limit_us = session.connection().statement_timeout_us;
  const int64_t left_us = work->call.deadline_us - now_us;
  work->by_deadline = work->call.deadline_us > 0 && left_us <= limit_us;
  work->timeout_us = work->by_deadline ? left_us : limit_us;
  work->started_us = now_us;
  work->give_up_us = now_us + work->timeout_us + kGraceUs;
  session.Begin(std::move(work));
}

// ---- waiting, and what came of it

int64_t PostgresBackend::Impl::NextTime() const {
  int64_t next_us = INT64_MAX;
  if (!deadlines.empty()) next_us = deadlines.begin()->first;
  for (const auto& [name, pool] : pools) {
    if (pool.ask_again_us != 0) next_us = std::min(next_us, pool.ask_again_us);
    for (const auto& session : pool.sessions) {
      if (session->work() != nullptr) {
        next_us = std::min(next_us, session->work()->give_up_us);
      } else if (!session->is_up()) {
        next_us = std::min(next_us, session->connect_by_us);
      }
    }
  }
  return next_us;
}

/// Waits until something can go on, and lets it.
void PostgresBackend::Impl::AwaitSockets() {
  std::vector<pollfd> sockets = {{wake, POLLIN, 0}};
  std::vector<PostgresSession*> sessions = {nullptr};
  bool is_lost = false;
  for (auto& [name, pool] : pools) {
    for (const auto& session : pool.sessions) {
      is_lost |= session->state() == PostgresSession::State::kLost;
      sockets.push_back({session->socket(), session->events(), 0});
      sessions.push_back(session.get());
    }
  }
  constexpr int64_t kMostMs = 3'600'000;
  const int64_t next_us = NextTime();
  const int64_t left_us = next_us == INT64_MAX ? kMostMs * 1'000 : next_us - clock.NowUs();
  const int64_t most_ms = is_lost ? 0 : std::clamp<int64_t>(left_us / 1'000 + 1, 0, kMostMs);
  const int ready = poll(sockets.data(), sockets.size(), static_cast<int>(most_ms));
  HALO_CHECK(ready >= 0 || errno == EINTR, "poll takes the sockets of sessions");
  if (ready <= 0) return;
  if (sockets[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = read(wake, &count, sizeof count);
  }
  for (size_t i = 1; i < sockets.size(); ++i) {
    if (sockets[i].revents != 0 && sessions[i]->state() != PostgresSession::State::kLost)
      sessions[i]->OnReady();
  }
}

/// Ends calls whose sessions are done with them, and buries sessions that are lost.
void PostgresBackend::Impl::Collect(Pool& pool) {
  for (size_t i = 0; i < pool.sessions.size();) {
    PostgresSession& session = *pool.sessions[i];
    if (session.is_up()) pool.without_any_us = 0;
    if (session.TakeWishToCancel()) SendCancel(session);
    if (std::unique_ptr<PostgresWork> work = session.TakeEnded()) {
      session.used_us = clock.NowUs();
      EndWork(pool, std::move(work));
    }
    const bool is_lost = session.state() == PostgresSession::State::kLost;
    const bool is_spent =
        session.state() == PostgresSession::State::kIdle && session.cancel_was_sent;
    if (!is_lost && !is_spent) {
      ++i;
      continue;
    }
    const std::unique_ptr<PostgresSession> buried = std::move(pool.sessions[i]);
    pool.sessions.erase(pool.sessions.begin() + static_cast<std::ptrdiff_t>(i));
    if (is_lost) OnLoss(pool, *buried);
  }
}

/// A session could not be had. While others of the connection's work, calls wait for them and more
/// are asked for a little later; if there is none, waiting would have no end.
void PostgresBackend::Impl::OnLoss(Pool& pool, const PostgresSession& lost) {
  if (lost.was_up()) return;
  const int64_t now_us = clock.NowUs();
  if (pool.sessions.empty() && lost.too_many() && pool.without_any_us == 0)
    pool.without_any_us = now_us;
  const bool may_change = lost.too_many() && now_us - pool.without_any_us < kPatienceUs;
  if (!pool.sessions.empty() || may_change) {
    pool.most_now = pool.sessions.size();
    pool.ask_again_us = now_us + kAskAgainUs;
    return;
  }
  pool.most_now = static_cast<size_t>(pool.spec.sessions);
  pool.ask_again_us = pool.without_any_us = 0;
  for (Queue* queue : {&pool.reads, &pool.writes}) {
    while (const auto work = TakeFirst(*queue)) Finish(*work, lost.loss(), nullptr);
  }
}

void PostgresBackend::Impl::EndWork(Pool& pool, std::unique_ptr<PostgresWork> work) {
  if (work->is_stale && !std::exchange(work->was_sent_again, true) && !work->cancelled) {
    work->is_stale = false;
    work->failure.reset();
    work->result = PostgresResult(work->sql());
    return Enqueue(pool, std::move(work));
  }
  nlohmann::ordered_json value;
  std::optional<Failure> failure = std::move(work->failure);
  if (!failure) failure = work->result.Take(pool.arrays, value);
  const bool ran_out = failure && failure->code == "timeout";
  const bool too_long = clock.NowUs() >= work->started_us + work->timeout_us;
  if (failure && work->cancelled) {
    failure = Cancelled();
  } else if (ran_out && work->by_deadline) {
    failure = PastDeadline();
  } else if (ran_out && too_long) {
    failure->message =
        fmt::format("the statement took longer than the connection's limit of {} ({})",
                    Seconds(work->timeout_us), failure->message);
  }
  Finish(*work, std::move(failure), std::move(value));
}

/// Every call that is left ends as cancelled; servers are told, so that they do not work on.
void PostgresBackend::Impl::End() {
  for (auto& [name, pool] : pools) {
    for (const auto& session : pool.sessions) {
      if (session->work() != nullptr) SendCancel(*session);
      if (const auto work = session->TakeWork()) Finish(*work, Cancelled(), nullptr);
    }
    for (Queue* queue : {&pool.reads, &pool.writes}) {
      while (const auto work = TakeFirst(*queue)) Finish(*work, Cancelled(), nullptr);
    }
    pool.sessions.clear();
  }
}

}  // namespace halo
