#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace halo::workload {

struct MockApiOptions {
  int port = 8765;  ///< 0: a free one
  /// postgres://... or DuckDB files; "": requests for that data set are answered with 503.
  std::string imdb, wiki, tpch;
  /// Answers are held back for this much of a draw from the declared latencies (mean 3 s, TPC-H 6
  /// s; chi-square with as many degrees of freedom). 0: not at all.
  double latency_scale = 0;
  uint64_t seed = 0;  ///< of those draws
};

/// The web service that the HTTP operators of W1 to W6 call, answering from the generated data.
/// GET only, on 127.0.0.1, keep-alive, up to 128 connections at once. Answers are
/// {endpoint, params, rowcount, rows, report?}; errors {error} with 400 (parameters), 404 (path),
/// 503 (data set not given or not reachable) or 500. Equal requests for films and articles under
/// way at once are answered by one query; TPC-H's reports are computed when the service starts.
class MockApi {
 public:
  /// Opens the data and binds the port. Throws Error(kIo).
  explicit MockApi(const MockApiOptions& options);
  ~MockApi();

  int port() const;
  /// Serves until Stop(), which any thread may call.
  void Run();
  void Stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo::workload
