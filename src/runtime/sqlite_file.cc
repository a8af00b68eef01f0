#include "runtime/sqlite_file.h"

#include <cstring>
#include <utility>

#include "base/error.h"

namespace halo {

SqliteFile::SqliteFile(const std::string& path, const std::string& vfs, std::string what,
                       int busy_ms)
    : what_(std::move(what)) {
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX;
  code_ = sqlite3_open_v2(path.c_str(), &handle_, flags, vfs.empty() ? nullptr : vfs.c_str());
  if (code_ != SQLITE_OK) {
    const std::string why = Why();
    Close();
    throw Error(ErrorCode::kIo, {{{path, 0, 0}, what_ + " cannot be opened: " + why}});
  }
  sqlite3_extended_result_codes(handle_, 1);
  sqlite3_busy_timeout(handle_, busy_ms);
}

void SqliteFile::Close() {
  for (sqlite3_stmt* statement : prepared_) sqlite3_finalize(statement);
  prepared_.clear();
  sqlite3_close(handle_);
  handle_ = nullptr;
}

std::string SqliteFile::Why() const {
  if (handle_ == nullptr) return "out of memory";
  std::string why = sqlite3_errmsg(handle_);
  const int system = sqlite3_system_errno(handle_);
  if (system != 0) why += std::string(" (") + std::strerror(system) + ")";
  return why;
}

void SqliteFile::Check(int code) {
  if (code == SQLITE_OK || code == SQLITE_ROW || code == SQLITE_DONE) return;
  constexpr int kPrimary = 0xFF;
  code_ = code & kPrimary;
  throw Error(ErrorCode::kIo, what_ + ": " + Why());
}

void SqliteFile::Run(const std::string& sql) {
  Check(sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr));
}

int64_t SqliteFile::Number(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  Check(sqlite3_prepare_v2(handle_, sql.c_str(), -1, &statement, nullptr));
  const int code = sqlite3_step(statement);
  const int64_t number = code == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : 0;
  sqlite3_finalize(statement);
  Check(code);
  return number;
}

sqlite3_stmt* SqliteFile::Prepare(const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  Check(sqlite3_prepare_v2(handle_, sql.c_str(), -1, &statement, nullptr));
  prepared_.push_back(statement);
  return statement;
}

bool SqliteFile::Step(sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  if (code == SQLITE_ROW) return true;
  sqlite3_reset(statement);
  Check(code);
  return false;
}

void SqliteFile::Execute(sqlite3_stmt* statement) {
  const int code = sqlite3_step(statement);
  sqlite3_reset(statement);
  Check(code);
}

void SqliteFile::RollBack() { sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr); }

std::string_view BlobOf(sqlite3_stmt* statement, int column) {
  const void* bytes = sqlite3_column_blob(statement, column);
  const int size = sqlite3_column_bytes(statement, column);
  return {static_cast<const char*>(bytes), static_cast<size_t>(size)};
}

}  // namespace halo
