#pragma once

#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tool/sql/postgres_result.h"
#include "tool/sql/postgres_server.h"
#include "tool/sql/postgres_values.h"

namespace halo {

/// A call on its way through the backend.
struct PostgresWork {
  explicit PostgresWork(ToolCall given)
      : call(std::move(given)), result(std::get<SqlCall>(call.what)) {}

  const SqlCall& sql() const { return std::get<SqlCall>(call.what); }
  bool writes() const { return call.effect == ToolEffect::kWrite; }

  ToolCall call;
  PostgresArguments arguments;
  PostgresResult result;
  std::optional<Failure> failure;  ///< the first
  int64_t started_us = 0;
  int64_t timeout_us = 0;       ///< of the statement, from started_us
  int64_t give_up_us = 0;       ///< when it is not waited for any more
  bool by_deadline = false;     ///< it is the call's deadline that bounds it
  bool cancelled = false;       ///< by its caller
  bool is_stale = false;        ///< what was prepared is of no use any more: to be sent again
  bool was_sent_again = false;  ///< once is enough
};

/// One session on a server: a connection of libpq's that never blocks.
///
///   connecting --> setting up --> idle <--> working
///        |             |            |          |
///        +-------------+------------+----------+--> lost
///
/// A statement is one pipeline (libpq 14): BEGIN, settings, PREPARE where it is new, the statement
/// itself row by row, and the end of the transaction, in one journey to the server. A read's
/// transaction is READ ONLY and always rolled back: what a function of it might have set for the
/// session is undone with it. A write without settings has no transaction of its own, so that
/// statements work that allow none.
///
/// A prepared statement belongs to a text, its parameters' types and its settings: the server may
/// keep a plan for it, which settings of another call would not change.
class PostgresSession {
 public:
  enum class State : uint8_t { kConnecting, kSettingUp, kIdle, kWorking, kLost };

  /// `arrays` is shared by the sessions of a connection, all in one thread.
  PostgresSession(const PostgresConnection& connection, bool read_only, PostgresArrays& arrays,
                  int64_t now_us);

  State state() const { return state_; }
  bool read_only() const { return read_only_; }
  bool is_up() const { return state_ == State::kIdle || state_ == State::kWorking; }
  bool was_up() const { return was_up_; }  ///< if only for a while
  const PostgresConnection& connection() const { return connection_; }
  int socket() const { return PQsocket(handle_.get()); }
  short events() const;  ///< of poll()
  /// What is wrong with a lost session.
  const Failure& loss() const { return loss_; }
  /// The server had no session left to give.
  bool too_many() const { return too_many_; }
  int64_t used_us = 0;           ///< when its last work ended
  int64_t connect_by_us = 0;     ///< later it is given up
  bool cancel_was_sent = false;  ///< it may strike a later statement: not to be used again

  /// Goes on as far as the socket allows.
  void OnReady();
  /// An idle session that the server has closed becomes lost.
  void CheckAlive();
  /// Sends a call's statement. Only when idle.
  void Begin(std::unique_ptr<PostgresWork> work);
  PostgresWork* work() { return work_.get(); }
  /// Makes a session lost that takes too long, with a reason; so its work ends, if it has any.
  void GiveUp(const std::string& why);
  /// The work that has ended, or null.
  std::unique_ptr<PostgresWork> TakeEnded();
  /// The work of a session that is given up.
  std::unique_ptr<PostgresWork> TakeWork() { return std::move(work_); }
  /// True once, if the server should be told to stop what it does: its rows are of no use.
  bool TakeWishToCancel() { return std::exchange(wishes_cancel_, false); }
  /// For PQcancel, which waits and so belongs into another thread.
  PGcancel* NewCancel() const { return PQgetCancel(handle_.get()); }

 private:
  enum class StepKind : uint8_t { kCommand, kSetting, kPrepare, kExecute, kLookUp, kSync };
  struct Step {
    StepKind kind;
    std::string about;  // of a setting its name, of a prepared statement its key
  };
  struct Prepared {
    std::string key, name;
  };

  void Connect();
  void SetUp();
  void Command(StepKind kind, const std::string& sql, const std::string& about = "");
  void Sync();
  void SendStatement(bool in_transaction);
  std::string PreparedName(const std::string& key);
  void Forget(const std::string& key);
  void LookUpTypes();
  void Receive();
  void OnReply(const PGresult* reply);
  void OnRefusal(const Step& step, const PGresult* reply);
  void TakeTypes(const PGresult* reply);
  void NextStep();
  void EndBatch();
  void Flush();
  void Lose();

  const PostgresConnection& connection_;
  bool read_only_;
  PostgresArrays& arrays_;
  PostgresHandle handle_;
  State state_ = State::kConnecting;
  PostgresPollingStatusType connecting_ = PGRES_POLLING_WRITING;
  bool wants_write_ = false;
  std::deque<Step> steps_;  // sent and not yet answered
  std::unique_ptr<PostgresWork> work_;
  bool has_ended_ = false;
  bool wishes_cancel_ = false;
  bool looked_up_ = false;
  std::list<Prepared> prepared_;  // most recently used first
  std::map<std::string, std::list<Prepared>::iterator> by_key_;
  int64_t names_ = 0;
  Failure loss_;
  bool was_up_ = false;
  bool too_many_ = false;
};

/// "" or why a setting may not be given for a statement: only those that choose a plan may.
std::string SettingFault(const std::string& name, const std::string& value);

}  // namespace halo
