#pragma once

#include <duckdb.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace halo {

/// A handle of DuckDB's C interface, given back with the scope.
template <typename Handle, void (*Destroy)(Handle*)>
class DuckHandle {
 public:
  DuckHandle() = default;
  explicit DuckHandle(Handle handle) : handle_(handle) {}
  ~DuckHandle() { Destroy(&handle_); }
  DuckHandle(const DuckHandle&) = delete;
  DuckHandle& operator=(const DuckHandle&) = delete;

  Handle get() const { return handle_; }
  Handle* out() { return &handle_; }

 private:
  Handle handle_{};
};

using DuckStatement = DuckHandle<duckdb_prepared_statement, duckdb_destroy_prepare>;
using DuckResult = DuckHandle<duckdb_result, duckdb_destroy_result>;
using DuckChunk = DuckHandle<duckdb_data_chunk, duckdb_destroy_data_chunk>;
using DuckType = DuckHandle<duckdb_logical_type, duckdb_destroy_logical_type>;

/// A text that DuckDB has made for the caller, given back to it.
std::string TakeDuckText(char* text);

/// 'text', its quotes doubled.
std::string QuoteSqlText(const std::string& text);

struct DuckLimits {
  int64_t memory_bytes = kDefaultMemoryBytes;
  std::string spill_folder;  ///< for what does not fit in memory, at most kMaxSpillBytes; "": none

  static constexpr int64_t kDefaultMemoryBytes = int64_t{512} << 20;
  static constexpr int64_t kMaxSpillBytes = int64_t{64} << 30;
};

/// Which database.
struct DuckFile {
  std::string path;        ///< "": an empty one in memory
  bool read_only = false;  ///< of a file
};

using DuckConnection = DuckHandle<duckdb_connection, duckdb_disconnect>;

/// A database with one connection, or more: by default an empty one in memory, for reading and
/// writing files of rows.
///
/// No extension beyond those linked in is ever looked for, no stored secret is read, times are in
/// UTC whatever the machine says. One thread: rows without ORDER BY come in the same order every
/// time, and the engine's threads keep their cores.
class DuckDatabase {
 public:
  /// Throws Error(kConfig) if DuckDB cannot start.
  explicit DuckDatabase(const DuckLimits& limits, const DuckFile& file = {});

  /// One more, before Lock.
  std::unique_ptr<DuckConnection> Connect();

  duckdb_connection connection() const { return connection_->get(); }
  /// Runs a statement of our own. Throws Error(kIo) with DuckDB's message.
  void Execute(const std::string& sql) { Execute(connection(), sql); }
  static void Execute(duckdb_connection connection, const std::string& sql);
  /// A statement of our own with one text as $1: its first column. Throws Error(kIo).
  std::vector<std::string> Texts(const std::string& sql, const std::string& argument);
  /// From here on nothing but `files` can be opened, by exactly these names. It does not forbid
  /// writing to them: see CheckSelect.
  void Confine(const std::vector<std::string>& files);
  /// From here on no setting can be changed.
  void LockSettings() { Execute("SET lock_configuration = true"); }
  /// Both.
  void Lock(const std::vector<std::string>& files);

 private:
  DuckHandle<duckdb_database, duckdb_close> database_;
  std::unique_ptr<DuckConnection> connection_;
};

}  // namespace halo
