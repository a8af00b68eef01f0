#include "tool/sql/duckdb_backend.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <unordered_map>

#include "base/error.h"
#include "sql/duck_database.h"
#include "tool/sql/duckdb_costs.h"
#include "tool/sql/duckdb_failure.h"
#include "tool/sql/duckdb_result.h"
#include "tool/sql/duckdb_statement_rules.h"
#include "tool/sql/duckdb_values.h"
#include "tool/sql/sql_arguments.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::chrono::milliseconds kBetweenInterrupts{5};
constexpr size_t kMostStatements = 256;  // prepared on one connection

Failure Cancelled() { return DuckFailure("cancelled", "the call was cancelled"); }

Failure Late() { return DuckFailure("deadline", "the call took longer than its deadline allows"); }

/// One of a database's connections: used by one thread at a time.
class Lane {
 public:
  Lane(DuckDatabase& database, const DuckDbConnection& spec, const DuckDbStatementRules& rules)
      : connection_(database.Connect()), rules_(rules) {
    MakeDuckDbFileViews(connection_->get(), spec.files);
  }

  duckdb_connection get() const { return connection_->get(); }

  /// The prepared statement of a text. Throws Failure.
  duckdb_prepared_statement Prepare(const std::string& text) {
    if (const auto found = by_text_.find(text); found != by_text_.end()) {
      statements_.splice(statements_.begin(), statements_, found->second);
      return statements_.front().statement->get();
    }
    if (std::string why = rules_.WhyRefused(text); !why.empty())
      throw DuckFailure("not_allowed", std::move(why));
    auto statement = std::make_unique<DuckStatement>();
    if (duckdb_prepare(get(), text.c_str(), statement->out()) != DuckDBSuccess)
      throw DuckFailure("sql_error", DuckMessage(duckdb_prepare_error(statement->get())));
    statements_.push_front({text, std::move(statement)});
    by_text_[text] = statements_.begin();
    if (statements_.size() > kMostStatements) {
      by_text_.erase(statements_.back().text);
      statements_.pop_back();
    }
    return statements_.front().statement->get();
  }

 private:
  struct Prepared {
    std::string text;
    std::unique_ptr<DuckStatement> statement;
  };

  std::unique_ptr<DuckConnection> connection_;
  const DuckDbStatementRules& rules_;
  std::list<Prepared> statements_;  // most recently used first
  std::unordered_map<std::string, std::list<Prepared>::iterator> by_text_;
};

/// The transaction of a write: all of it or, if it fails on the way, nothing.
class Transaction {
 public:
  explicit Transaction(duckdb_connection connection) : connection_(connection) {
    if (const std::string fault = Execute("BEGIN TRANSACTION"); !fault.empty())
      throw DuckFailure("sql_error", fault);
    is_open_ = true;
  }
  ~Transaction() {
    // One that is interrupted is tried again: the connection must be fit for the next call.
    constexpr int kMostAttempts = 100;
    for (int i = 0; i < kMostAttempts && is_open_; ++i) is_open_ = !Execute("ROLLBACK").empty();
  }
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;

  void Commit() {
    is_open_ = false;  // a commit that fails has rolled back
    if (const std::string fault = Execute("COMMIT"); !fault.empty())
      throw DuckFailure("sql_error", fault);
  }

 private:
  /// "" or what is wrong.
  std::string Execute(const char* sql) {
    DuckResult result;
    if (duckdb_query(connection_, sql, result.out()) == DuckDBSuccess) return "";
    return DuckMessage(duckdb_result_error(result.out()));
  }

  duckdb_connection connection_;
  bool is_open_ = false;
};

struct Database {
  DuckDbConnection spec;
  std::unique_ptr<DuckDatabase> database;
  std::unique_ptr<DuckDbStatementRules> rules;
  DuckDbCatalogue catalogue;
  QueryCosts costs;                          // of spec.queries
  std::vector<std::unique_ptr<Lane>> lanes;  // [threads]
};

}  // namespace

struct DuckDbBackend::Impl {
  /// A call from Submit to its completion.
  struct Waiting {
    ToolCall call;
    bool operator<(const Waiting& other) const {
      return std::tie(call.order, call.id) < std::tie(other.call.order, other.call.id);
    }
  };
  /// What a thread runs now; the watch interrupts it when it is late.
  struct Running {
    ToolCallId id = 0;
    duckdb_connection connection = nullptr;
    int64_t deadline_us = 0;
    bool timed_out = false, cancelled = false;
  };

  ToolMailbox& mailbox;
  Clock& clock;
  std::map<std::string, Database> databases;
  std::mutex mutex;
  std::condition_variable changed;  // something waits, something runs, or the end has come
  std::multiset<Waiting> waiting;   // under mutex, as all below
  std::vector<Running> running;     // [threads]
  bool ending = false;
  std::vector<std::thread> threads;
  std::thread watch;

  Impl(ToolMailbox& m, Clock& c) : mailbox(m), clock(c) {}

  void Open(DuckDbConnection spec, int32_t count);
  void Work(size_t thread);
  void Watch();
  bool InterruptAll();
  void EndLate(std::unique_lock<std::mutex>& lock);
  Failure TooSlow(const std::string& connection) const;
  void Execute(size_t thread, ToolCall call);
  Json Run(size_t thread, const ToolCall& call, const SqlCall& sql);
  void Bind(duckdb_prepared_statement statement, const SqlCall& sql);
};

void DuckDbBackend::Impl::Open(DuckDbConnection spec, int32_t count) {
  Database opened;
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kConfig, "connection '" + spec.name + "' (duckdb:" +
                                        (spec.path.empty() ? ":memory:" : spec.path) + "): " + why);
  };
  std::error_code ignored;
  const bool exists = !spec.path.empty() && std::filesystem::is_regular_file(spec.path, ignored);
  if (!spec.path.empty() && !exists && !spec.may_write)
    refuse("there is no such file: make it first, or give another with --connect " + spec.name +
           "=duckdb:PATH");
  for (const auto& [name, other] : databases) {
    // DuckDB's lock on a file is one of the process: it does not keep two of ours apart.
    const bool is_same = exists && !other.spec.path.empty() &&
                         std::filesystem::equivalent(spec.path, other.spec.path, ignored);
    if (is_same && (spec.may_write || other.spec.may_write))
      refuse("connection '" + name +
             "' is the same file, and the run writes to it: use one "
             "connection for both");
  }
  try {
    opened.database =
        std::make_unique<DuckDatabase>(DuckLimits{spec.memory_bytes, spec.spill_folder},
                                       DuckFile{spec.path, !spec.path.empty() && !spec.may_write});
    opened.rules = std::make_unique<DuckDbStatementRules>(*opened.database);
    for (int32_t i = 0; i < count + 1; ++i)
      opened.lanes.push_back(std::make_unique<Lane>(*opened.database, spec, *opened.rules));
    std::vector<std::string> files;
    for (const auto& [table, file] : spec.files) files.push_back(file);
    opened.catalogue = ReadDuckDbCatalogue(*opened.database);
    opened.database->Confine(files);
    opened.costs = DuckDbCosts(*opened.database, opened.lanes.back()->get(), *opened.rules,
                               opened.catalogue, spec.queries);
    opened.database->LockSettings();
  } catch (const Error& error) {
    refuse(DuckMessage(error.what()));
  }
  opened.spec = std::move(spec);
  const std::string name = opened.spec.name;
  databases.emplace(name, std::move(opened));
}

void DuckDbBackend::Impl::Work(size_t thread) {
  while (true) {
    ToolCall call;
    {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return ending || !waiting.empty(); });
      if (ending) return;
      call = std::move(waiting.extract(waiting.begin()).value().call);
      running[thread] = {call.id, nullptr, 0, false, false};
    }
    if (mailbox.on_threads) mailbox.on_threads(1);
    Execute(thread, std::move(call));
    if (mailbox.on_threads) mailbox.on_threads(-1);
  }
}

/// Ends calls whose deadline passed while they waited. Gives the lock up for a moment.
void DuckDbBackend::Impl::EndLate(std::unique_lock<std::mutex>& lock) {
  std::vector<ToolCompletion> late;
  const int64_t now_us = clock.NowUs();
  for (auto it = waiting.begin(); it != waiting.end();) {
    const ToolCall& call = it->call;
    if (call.deadline_us == 0 || now_us < call.deadline_us) {
      ++it;
      continue;
    }
    late.emplace_back();
    late.back().id = call.id;
    late.back().failure = Late();
    late.back().finished_us = now_us;
    it = waiting.erase(it);
  }
  lock.unlock();
  for (ToolCompletion& completion : late) mailbox.Put(std::move(completion));
  lock.lock();
}

/// False if nothing runs.
bool DuckDbBackend::Impl::InterruptAll() {
  const std::lock_guard lock(mutex);
  bool any = false;
  for (const Running& each : running) {
    if (each.connection == nullptr) continue;
    duckdb_interrupt(each.connection);
    any = true;
  }
  return any;
}

/// Interrupts statements that run past their deadline.
void DuckDbBackend::Impl::Watch() {
  std::unique_lock lock(mutex);
  while (!ending) {
    EndLate(lock);
    if (ending) return;
    int64_t next_us = 0;
    const int64_t now_us = clock.NowUs();
    for (const Waiting& each : waiting) {
      const int64_t deadline_us = each.call.deadline_us;
      if (deadline_us > 0) next_us = next_us == 0 ? deadline_us : std::min(next_us, deadline_us);
    }
    for (Running& each : running) {
      if (each.connection == nullptr || each.deadline_us == 0) continue;
      if (now_us >= each.deadline_us) {
        each.timed_out = true;
        duckdb_interrupt(each.connection);
      }
      next_us = next_us == 0 ? each.deadline_us : std::min(next_us, each.deadline_us);
    }
    if (next_us == 0) {
      changed.wait(lock);
    } else {
      // An interrupt that came between two statements of a call is lost: it is sent again.
      constexpr int64_t kAgainUs = 20'000;
      changed.wait_for(lock, std::chrono::microseconds(std::max(kAgainUs, next_us - now_us)));
    }
  }
}

Failure DuckDbBackend::Impl::TooSlow(const std::string& connection) const {
  constexpr double kUsPerS = 1e6;
  const auto limit_us = static_cast<double>(databases.at(connection).spec.statement_timeout_us);
  return {"", "timeout",
          "the statement took longer than the connection's limit of " +
              Json(limit_us / kUsPerS).dump() + " s",
          true};
}

void DuckDbBackend::Impl::Execute(size_t thread, ToolCall call) {
  ToolCompletion completion;
  completion.id = call.id;
  completion.started_us = clock.NowUs();
  const int64_t cpu_us = ThreadCpuUs();
  const auto& sql = std::get<SqlCall>(call.what);
  try {
    if (call.deadline_us > 0 && completion.started_us >= call.deadline_us) throw Late();
    completion.value = Run(thread, call, sql);
  } catch (Failure& failure) {
    completion.failure = std::move(failure);
  } catch (const std::bad_alloc&) {
    completion.failure = DuckFailure("out_of_memory", "there is not enough memory for the result");
  }
  completion.finished_us = clock.NowUs();
  // DuckDB runs with one thread, so a statement's work is done by the thread that asks for it.
  completion.cpu_us = ThreadCpuUs() - cpu_us;
  {
    const std::lock_guard lock(mutex);
    const Running ran = std::exchange(running[thread], {});
    // A result that was there in time counts, whatever was asked for meanwhile.
    if (completion.failure && ran.cancelled) {
      completion.failure = Cancelled();
    } else if (completion.failure && ran.timed_out) {
      completion.failure = call.deadline_us > 0 ? Late() : TooSlow(sql.connection);
    }
  }
  mailbox.Put(std::move(completion));
}

void DuckDbBackend::Impl::Bind(duckdb_prepared_statement statement, const SqlCall& sql) {
  duckdb_clear_bindings(statement);
  for (size_t i = 0; i < sql.arguments.size(); ++i) {
    std::string fault;
    const DuckValue value(MakeDuckValue(sql.arguments[i], fault));
    if (fault.empty() && duckdb_bind_value(statement, i + 1, value.get()) != DuckDBSuccess)
      fault = DuckMessage(duckdb_prepare_error(statement));
    if (!fault.empty())
      throw DuckFailure("bad_parameter", ArgumentFault(sql.arguments[i], i, fault));
  }
}

Json DuckDbBackend::Impl::Run(size_t thread, const ToolCall& call, const SqlCall& sql) {
  const auto found = databases.find(sql.connection);
  if (found == databases.end())
    throw DuckFailure("bad_connection", "there is no connection '" + sql.connection + "'");
  Lane& lane = *found->second.lanes[thread];
  {
    const std::lock_guard lock(mutex);
    Running& mine = running[thread];
    if (mine.cancelled) throw Cancelled();
    mine.connection = lane.get();
    mine.deadline_us = call.deadline_us > 0
                           ? call.deadline_us
                           : clock.NowUs() + found->second.spec.statement_timeout_us;
  }
  changed.notify_all();
  const bool writes = call.effect == ToolEffect::kWrite;
  duckdb_prepared_statement statement = lane.Prepare(sql.text);
  if (!MayRun(duckdb_prepared_statement_type(statement), writes))
    throw DuckFailure("not_allowed", WhyItMayNot(writes));
  if (!sql.settings.empty())
    throw DuckFailure("not_allowed",
                      "settings of a plan are PostgreSQL's: DuckDB has none of them");
  Bind(statement, sql);
  if (!writes) return ExecuteDuckDb(statement, sql);
  Transaction transaction(lane.get());
  Json result = ExecuteDuckDb(statement, sql);
  transaction.Commit();
  return result;
}

DuckDbBackend::DuckDbBackend(std::vector<DuckDbConnection> connections, int32_t threads,
                             ToolMailbox& mailbox, Clock& clock)
    : impl_(std::make_unique<Impl>(mailbox, clock)) {
  for (DuckDbConnection& connection : connections) impl_->Open(std::move(connection), threads);
  impl_->running.resize(static_cast<size_t>(threads));
  for (int32_t i = 0; i < threads; ++i)
    impl_->threads.emplace_back([this, i] { impl_->Work(static_cast<size_t>(i)); });
  impl_->watch = std::thread([this] { impl_->Watch(); });
}

DuckDbBackend::~DuckDbBackend() {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->ending = true;
    for (Impl::Running& each : impl_->running) each.cancelled = true;
  }
  impl_->changed.notify_all();
  // An interrupt that comes between two steps of a call is lost: until all have ended.
  while (impl_->InterruptAll()) std::this_thread::sleep_for(kBetweenInterrupts);
  for (std::thread& thread : impl_->threads) thread.join();
  impl_->watch.join();
}

void DuckDbBackend::Submit(ToolCall call) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->waiting.insert({std::move(call)});
  }
  impl_->changed.notify_all();
}

void DuckDbBackend::Cancel(ToolCallId id) {
  ToolCompletion completion;
  {
    const std::lock_guard lock(impl_->mutex);
    for (Impl::Running& each : impl_->running) {
      if (each.id != id) continue;
      each.cancelled = true;
      each.deadline_us = 1;  // the watch interrupts it until it has ended
      if (each.connection != nullptr) duckdb_interrupt(each.connection);
      impl_->changed.notify_all();
      return;
    }
    const auto found = std::find_if(impl_->waiting.begin(), impl_->waiting.end(),
                                    [&](const Impl::Waiting& each) { return each.call.id == id; });
    if (found == impl_->waiting.end()) return;
    impl_->waiting.erase(found);
    completion.id = id;
    completion.failure = Cancelled();
    completion.finished_us = impl_->clock.NowUs();
  }
  impl_->mailbox.Put(std::move(completion));
}

std::string DuckDbBackend::Check(const std::string& connection, const SqlStatement& statement,
                                 bool writes) {
  // Some statements of other kinds become a SELECT when they are prepared.
  if (!BeginsLikeAQuery(statement.normalized)) return WhyItMayNot(writes);
  Database& database = impl_->databases.at(connection);
  duckdb_connection spare = database.lanes.back()->get();
  if (std::string why = database.rules->WhyRefused(statement.text); !why.empty()) return why;
  DuckStatement prepared;
  if (duckdb_prepare(spare, statement.text.c_str(), prepared.out()) != DuckDBSuccess)
    return DuckMessage(duckdb_prepare_error(prepared.get()));
  if (!MayRun(duckdb_prepared_statement_type(prepared.get()), writes)) return WhyItMayNot(writes);
  return "";
}

const DuckDbCatalogue& DuckDbBackend::Ask(const std::string& connection) const {
  return impl_->databases.at(connection).catalogue;
}

const QueryCosts& DuckDbBackend::Costs(const std::string& connection) const {
  return impl_->databases.at(connection).costs;
}

}  // namespace halo
