#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tool/sql/postgres_backend.h"

namespace halo {

struct PostgresFinish {
  void operator()(PGconn* connection) const { PQfinish(connection); }
};
struct PostgresClear {
  void operator()(PGresult* result) const { PQclear(result); }
};
using PostgresHandle = std::unique_ptr<PGconn, PostgresFinish>;
using PostgresReply = std::unique_ptr<PGresult, PostgresClear>;

/// "" or why a connection's URL cannot be used. It quotes nothing: a URL may hold a password.
std::string UrlFault(const PostgresConnection& connection);

/// Begins to connect; PQconnectPoll goes on. Never null: what is wrong is in its status. What the
/// URL leaves out is taken from libpq's own environment variables and password file, as every
/// program that uses libpq does. A host's name is looked up at once, as libpq has no other way.
PostgresHandle StartConnecting(const PostgresConnection& connection);

/// Statements that a new session begins with: results are written in one way whatever the server's
/// settings are. `read_only`: its transactions may not write.
std::vector<std::string> SessionSettings(bool read_only);

/// The SQLSTATE with which a server refused a connection, or "".
std::string RefusalState(PGconn* handle);

/// What a failed connection says, without a password, and whether another attempt may do better.
Failure ConnectionFailure(const PostgresConnection& connection, PGconn* handle);

/// What a failed statement says: "22012: division by zero (at character 8)". A failure that ends
/// the session has the code "connection".
Failure StatementFailure(const PGresult* result);

/// True if `result` says `state`, one of PostgreSQL's SQLSTATEs.
bool HasState(const PGresult* result, const char* state);

/// Statements one after the other, each waited for: for what is asked before a run.
class BlockingPostgres {
 public:
  /// Throws Error(kConfig) naming the connection and the reason.
  explicit BlockingPostgres(const PostgresConnection& connection);

  using RowTexts = std::vector<std::vector<std::optional<std::string>>>;

  /// Values as texts, null where they are NULL. Throws Error(kConfig).
  RowTexts Rows(const std::string& sql, const std::vector<std::string>& values);
  /// The same; nothing where the server refuses the statement. Throws Error(kConfig) if the session
  /// ends.
  std::optional<RowTexts> RowsUnlessRefused(const std::string& sql);
  /// "" or what is wrong with a statement, which is not executed. `name`: what it is prepared
  /// under.
  std::string Prepare(const std::string& sql, const std::vector<uint32_t>& types,
                      const std::string& name = "");

 private:
  PostgresReply Ask(const std::string& sql, const std::vector<std::string>& values);
  /// Waits for the socket, at most as long as a statement may take.
  void Await(bool writing, int64_t most_us);
  void Connect();
  /// Waits for the one result of what was sent. Throws Error(kConfig) if the session ends.
  PostgresReply Finish(int sent);
  [[noreturn]] void Fail(const std::string& why) const;

  PostgresConnection connection_;
  PostgresHandle handle_;
};

}  // namespace halo
