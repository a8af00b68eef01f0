#pragma once

#include <gtest/gtest.h>

#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "sql/duck_database.h"
#include "support/test_models.h"
#include "tool/backend_rig.h"
#include "tool/sql/duckdb_backend.h"

namespace halo::test {

/// Runs for hours unless it is interrupted.
constexpr const char* kEndless = "SELECT count(*) FROM range(100000000) a, range(100000000) b";

inline void WriteFile(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

inline std::string ReadFile(const std::string& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

/// A folder with databases, and a backend on them.
class Duck : public BackendRig {
 public:
  explicit Duck(std::vector<DuckDbConnection> connections = {{"db"}}, int32_t threads = 1)
      : backend(std::make_unique<DuckDbBackend>(std::move(connections), threads, mailbox, clock)) {}

  ToolCallId Submit(SqlCall sql, ToolCall how = {}) {
    how.id = NextId();
    if (sql.connection.empty()) sql.connection = "db";
    how.what = std::move(sql);
    const ToolCallId id = how.id;
    backend->Submit(std::move(how));
    return id;
  }

  ToolCompletion Do(SqlCall sql, ToolCall how = {}) { return Wait(Submit(std::move(sql), how)); }

  ToolCompletion Ask(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    return Do({.text = text, .arguments = std::move(arguments)});
  }

  ToolCompletion Change(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    return Do({.text = text, .arguments = std::move(arguments)}, {.effect = ToolEffect::kWrite});
  }

  /// The one value of the one row of a query that must succeed.
  nlohmann::ordered_json One(const std::string& text, std::vector<SqlArgument> arguments = {}) {
    const ToolCompletion completion = Ask(text, std::move(arguments));
    if (completion.failure) {
      ADD_FAILURE() << text << ": " << completion.failure->code << ": "
                    << completion.failure->message;
      return {};
    }
    EXPECT_EQ(completion.value["rows"].size(), 1U) << text;
    return completion.value["rows"][0].begin().value();
  }

  std::string Check(const std::string& text, bool writes = false,
                    const std::string& connection = "db") {
    std::string fault;
    const SqlStatement statement = ReadSqlStatement(text, SqlDialect::kDuckDb, fault);
    EXPECT_EQ(fault, "") << text;
    return backend->Check(connection, statement, writes);
  }

  std::unique_ptr<DuckDbBackend> backend;
};

/// A database file with a table t(id, name) of three rows.
inline std::string MakeDatabase(const std::string& folder, const std::string& more = "") {
  const std::string path = folder + "/data.duckdb";
  DuckDatabase database({}, {path, false});
  database.Execute(
      "CREATE TABLE t AS SELECT * FROM (VALUES (1, 'one'), (2, 'two'), (3, 'three')) v(id, name)");
  if (!more.empty()) database.Execute(more);
  return path;
}

}  // namespace halo::test
