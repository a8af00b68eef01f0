#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "sql/statement.h"
#include "tool/tool_backend.h"

namespace halo {

/// One `connections` entry of a workflow that is a PostgreSQL server.
struct PostgresConnection {
  std::string name;      ///< what SqlCall::connection says
  std::string url;       ///< postgres://... with its password; in no message, ever
  int32_t sessions = 8;  ///< most at once; further statements wait
  int64_t statement_timeout_us = 30'000'000;  ///< of a statement without an earlier deadline
};

/// Statements on PostgreSQL servers through libpq: one thread, every session asynchronous, sessions
/// pooled and opened as they are needed, statements prepared once a session. Calls whose effect is
/// kRead run in read-only transactions; a kWrite runs on a session of its own kind.
class PostgresBackend final : public ToolBackend {
 public:
  /// Connects to nothing yet. `mailbox` and `clock` outlive it. Throws Error(kConfig) for a URL
  /// that cannot be read.
  PostgresBackend(std::vector<PostgresConnection> connections, ToolMailbox& mailbox, Clock& clock);
  ~PostgresBackend() override;

  void Submit(ToolCall call) override;  ///< a SqlCall
  void Cancel(ToolCallId id) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// What a server's catalogue says about names, for statements whose text alone does not tell.
struct PostgresCatalogue {
  std::vector<SqlName> volatile_functions;  ///< of those asked for
  /// Relations that are views, with the functions that their definitions call (views of views
  /// included), of those asked for.
  std::vector<SqlName> volatile_views;
  /// True if a write to one table can change another, or what a view shows: there are views,
  /// triggers, rules or cascading foreign keys outside the system's schemas.
  bool writes_spread = false;
};

/// Asks a server, once, before a run. Throws Error(kConfig) naming the connection and the reason.
PostgresCatalogue AskPostgres(const PostgresConnection& connection,
                              const std::vector<SqlName>& functions,
                              const std::vector<SqlName>& relations);

/// Lets the server prepare a statement without executing it (`halo validate --connect`): "" or what
/// is wrong, with the position in the text if the server gives one. Throws Error(kConfig) if it
/// cannot be reached.
std::string CheckOnPostgres(const PostgresConnection& connection, const SqlStatement& statement,
                            const std::vector<SqlArgument>& types);

}  // namespace halo
