#include "tool/sql/postgres_session.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/check.h"
#include "sql/duck_database.h"

namespace halo {
namespace {

constexpr size_t kMostPrepared = 256;
constexpr int64_t kConnectTimeoutUs = 10'000'000;

/// Settings that choose a plan and change no result.
constexpr std::string_view kPlanSettings[] = {
    "constraint_exclusion",
    "cursor_tuple_fraction",
    "effective_cache_size",
    "effective_io_concurrency",
    "from_collapse_limit",
    "hash_mem_multiplier",
    "jit",
    "jit_expressions",
    "jit_tuple_deforming",
    "join_collapse_limit",
    "max_parallel_workers_per_gather",
    "min_parallel_index_scan_size",
    "min_parallel_table_scan_size",
    "parallel_leader_participation",
    "plan_cache_mode",
    "recursive_worktable_factor",
    "work_mem",
};

/// Which of some types are arrays, and of what.
std::string TypesQuery(const std::vector<PostgresType>& types) {
  std::string list;
  for (const PostgresType type : types) list += (list.empty() ? "" : ", ") + std::to_string(type);
  // A domain's values are written as its base type's.
  return "SELECT t.oid, COALESCE(NULLIF(e.typbasetype, 0), e.oid) FROM pg_catalog.pg_type t JOIN "
         "pg_catalog.pg_type e ON e.oid = t.typelem WHERE t.typdelim = ',' AND t.typinput = "
         "'pg_catalog.array_in'::pg_catalog.regproc AND t.oid IN (" +
         list + ")";
}

std::string KeyOf(const PostgresWork& work) {
  std::string key = work.sql().text;
  for (const PostgresType type : work.arguments.types) key += fmt::format("\n{}", type);
  for (const auto& [name, value] : work.sql().settings) key += "\n" + name + "=" + value;
  return key;
}

}  // namespace

std::string SettingFault(const std::string& name, const std::string& value) {
  const bool is_name =
      !name.empty() && name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_") == std::string::npos;
  const bool may_be_set = is_name && (name.starts_with("enable_") || name.starts_with("geqo") ||
                                      name.ends_with("_cost") ||
                                      std::find(std::begin(kPlanSettings), std::end(kPlanSettings),
                                                name) != std::end(kPlanSettings));
  if (!may_be_set) {
    return "the setting '" + name +
           "' does not choose a plan: use enable_..., ..._cost, work_mem, join_collapse_limit and "
           "the like";
  }
  if (value.find('\0') != std::string::npos) return "the setting '" + name + "' has a NUL byte";
  return "";
}

PostgresSession::PostgresSession(const PostgresConnection& connection, bool read_only,
                                 PostgresArrays& arrays, int64_t now_us)
    : connect_by_us(now_us + kConnectTimeoutUs),
      connection_(connection),
      read_only_(read_only),
      arrays_(arrays),
      handle_(StartConnecting(connection)) {
  if (PQstatus(handle_.get()) == CONNECTION_BAD) Lose();
}

short PostgresSession::events() const {
  if (state_ == State::kConnecting) return connecting_ == PGRES_POLLING_WRITING ? POLLOUT : POLLIN;
  return wants_write_ ? POLLIN | POLLOUT : POLLIN;
}

void PostgresSession::Lose() {
  if (state_ == State::kLost) return;
  if (loss_.message.empty()) loss_ = ConnectionFailure(connection_, handle_.get());
  too_many_ = state_ == State::kConnecting && RefusalState(handle_.get()) == "53300";
  state_ = State::kLost;
  steps_.clear();
  if (work_ == nullptr) return;
  if (!work_->failure) work_->failure = loss_;
  has_ended_ = true;
}

void PostgresSession::GiveUp(const std::string& why) {
  if (work_ != nullptr) {
    // The code is changed to "deadline" where it was the call's own.
    if (!work_->failure) work_->failure = Failure{"", "timeout", why, true};
  }
  loss_ = {"", "connection", "connection '" + connection_.name + "': " + why, true};
  Lose();
}

void PostgresSession::Connect() {
  connecting_ = PQconnectPoll(handle_.get());
  if (connecting_ == PGRES_POLLING_FAILED) return Lose();
  if (connecting_ == PGRES_POLLING_OK) SetUp();
}

void PostgresSession::SetUp() {
  state_ = State::kSettingUp;
  PQsetErrorVerbosity(handle_.get(), PQERRORS_DEFAULT);
  const bool ready =
      PQsetnonblocking(handle_.get(), 1) == 0 && PQenterPipelineMode(handle_.get()) == 1;
  if (!ready) return Lose();
  for (const std::string& setting : SessionSettings(read_only_))
    Command(StepKind::kCommand, setting);
  Sync();
  Flush();
}

void PostgresSession::Command(StepKind kind, const std::string& sql, const std::string& about) {
  if (state_ == State::kLost) return;
  if (PQsendQueryParams(handle_.get(), sql.c_str(), 0, nullptr, nullptr, nullptr, nullptr, 0) != 1)
    return Lose();
  steps_.push_back({kind, about});
}

void PostgresSession::Sync() {
  if (state_ == State::kLost) return;
  if (PQpipelineSync(handle_.get()) != 1) return Lose();
  steps_.push_back({StepKind::kSync, ""});
}

void PostgresSession::Flush() {
  if (state_ == State::kLost) return;
  const int left = PQflush(handle_.get());
  wants_write_ = left == 1;
  if (left < 0) Lose();
}

void PostgresSession::Begin(std::unique_ptr<PostgresWork> work) {
  HALO_CHECK(state_ == State::kIdle, "a session runs one statement at a time");
  work_ = std::move(work);
  has_ended_ = looked_up_ = false;
  state_ = State::kWorking;
  const bool in_transaction = !work_->writes() || !work_->sql().settings.empty();
  const char* local = in_transaction ? "LOCAL " : "";
  if (in_transaction) Command(StepKind::kCommand, work_->writes() ? "BEGIN" : "BEGIN READ ONLY");
  Command(StepKind::kCommand, fmt::format("SET {}statement_timeout = {}", local,
                                          std::max<int64_t>(1, work_->timeout_us / 1'000)));
  // Without a sync the server would take all for one transaction, which VACUUM refuses.
  if (!in_transaction) Sync();
  for (const auto& [name, value] : work_->sql().settings)
    Command(StepKind::kSetting, fmt::format("SET LOCAL {} = {}", name, QuoteSqlText(value)), name);
  SendStatement(in_transaction);
  Sync();
  if (in_transaction) {
    Command(StepKind::kCommand, work_->writes() ? "COMMIT" : "ROLLBACK");
    Sync();
  }
  Flush();
}

std::string PostgresSession::PreparedName(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return "";
  prepared_.splice(prepared_.begin(), prepared_, found->second);
  return prepared_.front().name;
}

void PostgresSession::Forget(const std::string& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  prepared_.erase(found->second);
  by_key_.erase(found);
}

void PostgresSession::SendStatement(bool in_transaction) {
  if (state_ == State::kLost) return;
  const std::string key = KeyOf(*work_);
  std::string name = PreparedName(key);
  const PostgresArguments& arguments = work_->arguments;
  const auto count = static_cast<int>(arguments.texts.size());
  if (name.empty()) {
    if (prepared_.size() >= kMostPrepared) {
      Command(StepKind::kCommand, "DEALLOCATE " + prepared_.back().name);
      if (!in_transaction) Sync();
      Forget(std::string(prepared_.back().key));
    }
    name = fmt::format("halo_{}", ++names_);
    if (PQsendPrepare(handle_.get(), name.c_str(), work_->sql().text.c_str(), count,
                      arguments.types.data()) != 1) {
      return Lose();
    }
    // Known from here on, and forgotten if the server refuses it.
    prepared_.push_front({key, name});
    by_key_[key] = prepared_.begin();
    steps_.push_back({StepKind::kPrepare, key});
  }
  std::vector<const char*> texts;
  for (const auto& text : arguments.texts) texts.push_back(text ? text->c_str() : nullptr);
  if (PQsendQueryPrepared(handle_.get(), name.c_str(), count, texts.data(), nullptr, nullptr, 0) !=
      1) {
    return Lose();
  }
  steps_.push_back({StepKind::kExecute, key});
}

void PostgresSession::OnReady() {
  if (state_ == State::kConnecting) return Connect();
  Flush();
  Receive();
}

void PostgresSession::CheckAlive() {
  if (state_ == State::kIdle) Receive();
}

void PostgresSession::Receive() {
  if (state_ == State::kLost) return;
  // What arrived before the end is still looked at: it says why the end came.
  const bool alive = PQconsumeInput(handle_.get()) == 1;
  while (!steps_.empty() && PQisBusy(handle_.get()) == 0) {
    const PostgresReply reply(PQgetResult(handle_.get()));
    if (reply == nullptr) {
      if (PQstatus(handle_.get()) == CONNECTION_BAD) break;
      NextStep();
    } else if (PQresultStatus(reply.get()) == PGRES_PIPELINE_SYNC) {
      NextStep();
    } else {
      OnReply(reply.get());
    }
    if (state_ == State::kLost) return;
  }
  // Nobody here listens, but a write may have said LISTEN.
  while (PGnotify* notice = PQnotifies(handle_.get())) PQfreemem(notice);
  if (!alive || PQstatus(handle_.get()) == CONNECTION_BAD) Lose();
}

void PostgresSession::NextStep() {
  steps_.pop_front();
  if (steps_.empty()) {
    EndBatch();
  } else if (steps_.front().kind == StepKind::kExecute) {
    PQsetSingleRowMode(handle_.get());  // rows come one by one: none waits for the others
  }
}

void PostgresSession::OnReply(const PGresult* reply) {
  const Step& step = steps_.front();
  const ExecStatusType status = PQresultStatus(reply);
  if (status == PGRES_PIPELINE_ABORTED) {  // what came before it failed
    if (step.kind == StepKind::kPrepare) Forget(step.about);
    return;
  }
  if (status == PGRES_FATAL_ERROR) return OnRefusal(step, reply);
  if (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH) {
    if (work_ != nullptr)
      work_->failure = Failure{"", "not_allowed",
                               "COPY from or to the client is not possible here: use SELECT or "
                               "INSERT",
                               false};
    return Lose();  // there is no way back from it within a pipeline
  }
  if (step.kind == StepKind::kLookUp) return TakeTypes(reply);
  if (step.kind != StepKind::kExecute || work_->failure) return;
  work_->failure = work_->result.Add(reply, arrays_);
  wishes_cancel_ |= work_->failure.has_value();
}

void PostgresSession::OnRefusal(const Step& step, const PGresult* reply) {
  Failure failure = StatementFailure(reply);
  if (step.kind == StepKind::kPrepare) Forget(step.about);
  if (step.kind == StepKind::kSetting) {
    failure.code = "bad_setting";
    failure.message = "setting " + step.about + ": " + failure.message;
  }
  if (work_ == nullptr) return Lose();  // a session whose settings are refused is of no use
  // The table has changed since, or the statement was discarded behind our back.
  const bool is_stale = step.kind == StepKind::kExecute && !work_->writes() &&
                        (HasState(reply, "0A000") || HasState(reply, "26000"));
  if (is_stale) Forget(step.about);
  if (work_->failure) return;
  work_->is_stale = is_stale;
  work_->failure = std::move(failure);
}

void PostgresSession::EndBatch() {
  if (state_ == State::kSettingUp) {
    state_ = State::kIdle;
    was_up_ = true;
    return;
  }
  if (work_ == nullptr) return;
  if (!work_->failure && !looked_up_ && !work_->result.unknown_types().empty())
    return LookUpTypes();
  has_ended_ = true;
  state_ = State::kIdle;
}

void PostgresSession::LookUpTypes() {
  looked_up_ = true;
  Command(StepKind::kLookUp, TypesQuery(work_->result.unknown_types()));
  Sync();
  Flush();
}

void PostgresSession::TakeTypes(const PGresult* reply) {
  const auto number = [&](int row, int column) {
    const std::string_view text = PQgetvalue(reply, row, column);
    PostgresType type = 0;
    std::from_chars(text.data(), text.data() + text.size(), type);
    return type;
  };
  for (const PostgresType type : work_->result.unknown_types()) arrays_[type] = 0;
  for (int row = 0; row < PQntuples(reply); ++row) arrays_[number(row, 0)] = number(row, 1);
}

std::unique_ptr<PostgresWork> PostgresSession::TakeEnded() {
  return std::exchange(has_ended_, false) ? std::move(work_) : nullptr;
}

}  // namespace halo
