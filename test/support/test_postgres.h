#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace halo {

/// A real PostgreSQL server of a test's own (test/support/postgres_server.py), removed with this
/// object, and also where the test is killed. User and database: halo, postgres.
class TestPostgres {
 public:
  /// `arguments` of the script. Throws std::runtime_error if there is no PostgreSQL.
  explicit TestPostgres(const std::vector<std::string>& arguments = {});
  ~TestPostgres();
  TestPostgres(const TestPostgres&) = delete;
  TestPostgres& operator=(const TestPostgres&) = delete;

  /// One for all tests of a program, started by the first that asks.
  static TestPostgres& Shared();

  const std::string& url() const { return url_; }
  /// The URL of another database or user of this server.
  std::string UrlOf(const std::string& user, const std::string& database) const;
  /// The server ends as if it had crashed; Start runs it again on the same data.
  void Stop();
  void Start();

  /// Runs statements by a session of its own; the last one's rows. NULL is "NULL". Throws
  /// std::runtime_error with the server's message.
  std::vector<std::vector<std::string>> Rows(const std::string& sql) const {
    return Rows(sql, url_);
  }
  static std::vector<std::vector<std::string>> Rows(const std::string& sql, const std::string& url);
  /// The one value of the one row.
  std::string Value(const std::string& sql) const { return Rows(sql).at(0).at(0); }
  /// Returns when `sql` has the value; throws std::runtime_error if it never has.
  void Await(const std::string& sql, const std::string& value) const;

 private:
  void Say(const std::string& line) const;
  std::string Answer();

  pid_t process_ = -1;
  int to_ = -1, from_ = -1;  // its standard input and output
  std::string url_;
};

}  // namespace halo
