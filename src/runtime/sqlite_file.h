#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// A connection to a SQLite file with what is prepared on it. One thread at a time. Functions throw
/// Error(kIo) with SQLite's words and the system's, behind `what`.
class SqliteFile {
 public:
  /// Opens, or makes, the file. `what`: what it is, for messages ("the journal"). `vfs`: SQLite's
  /// name of what reads and writes files; "": the usual one. `busy_ms`: how long another process is
  /// waited for.
  SqliteFile(const std::string& path, const std::string& vfs, std::string what, int busy_ms);
  ~SqliteFile() { Close(); }
  SqliteFile(const SqliteFile&) = delete;
  SqliteFile& operator=(const SqliteFile&) = delete;

  void Run(const std::string& sql);
  /// The first number of the first row; 0: there is no row.
  int64_t Number(const std::string& sql);
  /// Lives as long as the connection.
  sqlite3_stmt* Prepare(const std::string& sql);
  /// One step; true: there is a row.
  bool Step(sqlite3_stmt* statement);
  /// One step of what gives no rows; it can be bound anew.
  void Execute(sqlite3_stmt* statement);
  /// Its outcome matters to nobody: what is not committed is not there.
  void RollBack();
  /// Of what was thrown last: SQLITE_CORRUPT, SQLITE_BUSY and so on, without the details.
  int code() const { return code_; }
  int64_t changed() const { return sqlite3_changes64(handle_); }  ///< rows, by the last statement

 private:
  void Check(int code);
  std::string Why() const;
  void Close();

  const std::string what_;
  sqlite3* handle_ = nullptr;
  std::vector<sqlite3_stmt*> prepared_;
  int code_ = SQLITE_OK;
};

/// The bytes of a column, until the next step.
std::string_view BlobOf(sqlite3_stmt* statement, int column);

}  // namespace halo
