#include "sql/duck_database.h"

#include <utility>

#include "base/error.h"

namespace halo {
namespace {

using DuckConfig = DuckHandle<duckdb_config, duckdb_destroy_config>;

std::string BytesSetting(int64_t bytes) { return std::to_string(bytes >> 20) + "MiB"; }

}  // namespace

std::string TakeDuckText(char* text) {
  std::string copy = text == nullptr ? "" : text;
  duckdb_free(text);
  return copy;
}

std::string QuoteSqlText(const std::string& text) {
  std::string quoted = "'";
  for (const char c : text) {
    if (c == '\'') quoted += '\'';
    quoted += c;
  }
  return quoted + "'";
}

DuckDatabase::DuckDatabase(const DuckLimits& limits, const DuckFile& file) {
  DuckConfig config;
  duckdb_create_config(config.out());
  const std::pair<const char*, std::string> settings[] = {
      {"autoinstall_known_extensions", "false"},
      {"autoload_known_extensions", "false"},
      {"allow_community_extensions", "false"},
      {"allow_persistent_secrets", "false"},
      {"threads", "1"},
      {"memory_limit", BytesSetting(limits.memory_bytes)},
      {"temp_directory", limits.spill_folder},  // the default would be a folder beside the user's
      {"max_temp_directory_size", BytesSetting(DuckLimits::kMaxSpillBytes)},
      {"preserve_insertion_order", "true"},
      {"access_mode", file.read_only ? "READ_ONLY" : "AUTOMATIC"},
  };
  for (const auto& [name, value] : settings) {
    if (duckdb_set_config(config.get(), name, value.c_str()) != DuckDBSuccess)
      throw Error(ErrorCode::kConfig, std::string("DuckDB has no setting ") + name);
  }
  char* fault = nullptr;
  const char* path = file.path.empty() ? nullptr : file.path.c_str();
  if (duckdb_open_ext(path, database_.out(), config.get(), &fault) != DuckDBSuccess) {
    throw Error(ErrorCode::kConfig,
                (file.path.empty() ? "DuckDB cannot start: " : "DuckDB cannot open it: ") +
                    TakeDuckText(fault));
  }
  connection_ = Connect();
}

std::unique_ptr<DuckConnection> DuckDatabase::Connect() {
  auto connection = std::make_unique<DuckConnection>();
  if (duckdb_connect(database_.get(), connection->out()) != DuckDBSuccess)
    throw Error(ErrorCode::kConfig, "DuckDB cannot start: no connection");
  Execute(connection->get(), "SET TimeZone = 'UTC'");
  return connection;
}

void DuckDatabase::Execute(duckdb_connection connection, const std::string& sql) {
  DuckResult result;
  if (duckdb_query(connection, sql.c_str(), result.out()) != DuckDBSuccess)
    throw Error(ErrorCode::kIo, duckdb_result_error(result.out()));
}

std::vector<std::string> DuckDatabase::Texts(const std::string& sql, const std::string& argument) {
  DuckStatement statement;
  if (duckdb_prepare(connection(), sql.c_str(), statement.out()) != DuckDBSuccess)
    throw Error(ErrorCode::kIo, duckdb_prepare_error(statement.get()));
  duckdb_bind_varchar_length(statement.get(), 1, argument.data(), argument.size());
  DuckResult result;
  if (duckdb_execute_prepared(statement.get(), result.out()) != DuckDBSuccess)
    throw Error(ErrorCode::kIo, duckdb_result_error(result.out()));
  std::vector<std::string> texts;
  while (true) {
    const DuckChunk chunk(duckdb_fetch_chunk(*result.out()));
    if (chunk.get() == nullptr) return texts;
    const idx_t rows = duckdb_data_chunk_get_size(chunk.get());
    auto* values = static_cast<duckdb_string_t*>(
        duckdb_vector_get_data(duckdb_data_chunk_get_vector(chunk.get(), 0)));
    for (idx_t row = 0; row < rows; ++row) {
      texts.emplace_back(duckdb_string_t_data(&values[row]), duckdb_string_t_length(values[row]));
    }
  }
}

void DuckDatabase::Confine(const std::vector<std::string>& files) {
  std::string list;
  for (const std::string& file : files) list += (list.empty() ? "" : ", ") + QuoteSqlText(file);
  Execute("SET allowed_paths = [" + list + "]");
  Execute("SET enable_external_access = false");
}

void DuckDatabase::Lock(const std::vector<std::string>& files) {
  Confine(files);
  LockSettings();
}

}  // namespace halo
