#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace halo::workload {

/// Reads from a database that was generated, from several threads at once.
class QueryClient {
 public:
  virtual ~QueryClient() = default;
  /// The rows of a SELECT as objects; `parameters` are the texts $1, $2, ... Waits for one of the
  /// connections. Throws Error(kIo).
  virtual std::vector<nlohmann::ordered_json> Query(const std::string& sql,
                                                    const std::vector<std::string>& parameters) = 0;
};

/// postgres://..., or a DuckDB file ("duckdb:PATH" or PATH), which is opened read-only. Throws
/// Error(kIo).
std::unique_ptr<QueryClient> OpenQueryClient(const std::string& url, int connections);

}  // namespace halo::workload
