#pragma once

#include <libpq-fe.h>

#include <memory>
#include <string>
#include <vector>

namespace halo::workload {

struct PostgresResultDeleter {
  void operator()(PGresult* result) const { PQclear(result); }
};
using PostgresResult = std::unique_ptr<PGresult, PostgresResultDeleter>;

/// One session of a PostgreSQL server, for statements of this tool's own. Not for several threads
/// at once. Errors do not name the URL, which may hold a password.
class PostgresConnection {
 public:
  /// Throws Error(kIo).
  explicit PostgresConnection(const std::string& url);

  PGconn* get() const { return connection_.get(); }
  /// Runs a statement with text parameters $1, $2, ... Throws Error(kIo) with the server's message.
  PostgresResult Execute(const std::string& sql, const std::vector<std::string>& parameters = {});
  [[noreturn]] void Fail() const;

 private:
  struct Deleter {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  std::unique_ptr<PGconn, Deleter> connection_;
};

/// True for postgres:// and postgresql:// URLs.
bool IsPostgresUrl(const std::string& url);

}  // namespace halo::workload
