#include "workload/query_client.h"

#include <condition_variable>
#include <mutex>

#include "base/error.h"
#include "sql/duck_database.h"
#include "sql/sql_values.h"
#include "workload/postgres_connection.h"

namespace halo::workload {
namespace {

using Json = nlohmann::ordered_json;

/// Lends each of a few things to one thread at a time.
template <typename T>
class Pool {
 public:
  void Add(std::unique_ptr<T> item) { idle_.push_back(std::move(item)); }

  /// Calls `use` with one of them, once one is free.
  template <typename Use>
  auto With(const Use& use) {
    std::unique_ptr<T> item;
    {
      std::unique_lock lock(mutex_);
      returned_.wait(lock, [&] { return !idle_.empty(); });
      item = std::move(idle_.back());
      idle_.pop_back();
    }
    const Return back{*this, item};
    return use(*item);
  }

 private:
  struct Return {
    Pool& pool;
    std::unique_ptr<T>& item;
    ~Return() {
      const std::lock_guard lock(pool.mutex_);
      pool.idle_.push_back(std::move(item));
      pool.returned_.notify_one();
    }
  };

  std::mutex mutex_;
  std::condition_variable returned_;
  std::vector<std::unique_ptr<T>> idle_;  // under mutex_
};

// ---- DuckDB

using DuckConfig = DuckHandle<duckdb_config, duckdb_destroy_config>;
using DuckConnection = DuckHandle<duckdb_connection, duckdb_disconnect>;

std::vector<SqlType> ColumnTypes(duckdb_result& result) {
  std::vector<SqlType> types;
  for (idx_t i = 0; i < duckdb_column_count(&result); ++i) {
    const DuckType type(duckdb_column_logical_type(&result, i));
    std::string fault;
    types.push_back(ReadSqlType(type.get(), fault));
    if (!fault.empty()) throw Error(ErrorCode::kIo, fault);
  }
  return types;
}

void ReadChunk(duckdb_result& result, duckdb_data_chunk chunk, const std::vector<SqlType>& types,
               std::vector<Json>& rows) {
  std::vector<SqlVector> vectors;
  for (idx_t i = 0; i < types.size(); ++i)
    vectors.emplace_back(types[i], duckdb_data_chunk_get_vector(chunk, i));
  for (idx_t row = 0; row < duckdb_data_chunk_get_size(chunk); ++row) {
    Json object = Json::object();
    for (idx_t i = 0; i < types.size(); ++i) {
      std::string fault;
      object[duckdb_column_name(&result, i)] = SqlValue(vectors[i], row, fault);
      if (!fault.empty()) throw Error(ErrorCode::kIo, fault);
    }
    rows.push_back(std::move(object));
  }
}

class DuckClient final : public QueryClient {
 public:
  DuckClient(const std::string& path, int connections) {
    DuckConfig config;
    duckdb_create_config(config.out());
    duckdb_set_config(config.get(), "access_mode", "READ_ONLY");
    duckdb_set_config(config.get(), "enable_external_access", "false");
    char* fault = nullptr;
    if (duckdb_open_ext(path.c_str(), database_.out(), config.get(), &fault) != DuckDBSuccess)
      throw Error(ErrorCode::kIo, "cannot open " + path + ": " + TakeDuckText(fault));
    for (int i = 0; i < connections; ++i) {
      auto connection = std::make_unique<DuckConnection>();
      if (duckdb_connect(database_.get(), connection->out()) != DuckDBSuccess)
        throw Error(ErrorCode::kIo, "cannot connect to " + path);
      pool_.Add(std::move(connection));
    }
  }

  std::vector<Json> Query(const std::string& sql,
                          const std::vector<std::string>& parameters) override {
    return pool_.With([&](const DuckConnection& connection) {
      DuckStatement statement;
      if (duckdb_prepare(connection.get(), sql.c_str(), statement.out()) != DuckDBSuccess)
        throw Error(ErrorCode::kIo, duckdb_prepare_error(statement.get()));
      for (size_t i = 0; i < parameters.size(); ++i) {
        duckdb_bind_varchar_length(statement.get(), i + 1, parameters[i].data(),
                                   parameters[i].size());
      }
      DuckResult result;
      if (duckdb_execute_prepared(statement.get(), result.out()) != DuckDBSuccess)
        throw Error(ErrorCode::kIo, duckdb_result_error(result.out()));
      const std::vector<SqlType> types = ColumnTypes(*result.out());
      std::vector<Json> rows;
      while (true) {
        const DuckChunk chunk(duckdb_fetch_chunk(*result.out()));
        if (chunk.get() == nullptr) return rows;
        ReadChunk(*result.out(), chunk.get(), types, rows);
      }
    });
  }

 private:
  DuckHandle<duckdb_database, duckdb_close> database_;
  Pool<DuckConnection> pool_;
};

// ---- PostgreSQL

/// Types of the server's catalogue (pg_type) that are not texts in JSON.
Json PostgresValue(const PGresult* result, int row, int column) {
  if (PQgetisnull(result, row, column) != 0) return nullptr;
  const std::string text = PQgetvalue(result, row, column);
  constexpr Oid kBool = 16, kInt8 = 20, kInt2 = 21, kInt4 = 23, kFloat4 = 700, kFloat8 = 701;
  switch (PQftype(result, column)) {
    case kBool:
      return text == "t";
    case kInt2:
    case kInt4:
    case kInt8:
      return std::stoll(text);
    case kFloat4:
    case kFloat8:
      return std::stod(text);
    default:
      return text;
  }
}

class PostgresClient final : public QueryClient {
 public:
  PostgresClient(const std::string& url, int connections) {
    for (int i = 0; i < connections; ++i) pool_.Add(std::make_unique<PostgresConnection>(url));
  }

  std::vector<Json> Query(const std::string& sql,
                          const std::vector<std::string>& parameters) override {
    return pool_.With([&](PostgresConnection& connection) {
      const PostgresResult result = connection.Execute(sql, parameters);
      std::vector<Json> rows;
      for (int row = 0; row < PQntuples(result.get()); ++row) {
        Json object = Json::object();
        for (int i = 0; i < PQnfields(result.get()); ++i)
          object[PQfname(result.get(), i)] = PostgresValue(result.get(), row, i);
        rows.push_back(std::move(object));
      }
      return rows;
    });
  }

 private:
  Pool<PostgresConnection> pool_;
};

}  // namespace

std::unique_ptr<QueryClient> OpenQueryClient(const std::string& url, int connections) {
  if (IsPostgresUrl(url)) return std::make_unique<PostgresClient>(url, connections);
  const std::string prefix = "duckdb:";
  return std::make_unique<DuckClient>(url.starts_with(prefix) ? url.substr(prefix.size()) : url,
                                      connections);
}

}  // namespace halo::workload
