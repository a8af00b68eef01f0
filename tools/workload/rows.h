#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "workload/datasets.h"

namespace halo::workload {

/// Rows for one of the workloads.
struct RowOptions {
  std::string workload;  ///< "w1" to "w6"
  int64_t count = 64;
  /// Share of the rows whose key, the parameters that drive SQL and HTTP, an earlier row has too.
  double repeat_share = 0.5;
  uint64_t seed = 0;  ///< of the rows
  DataOptions data;   ///< that the rows ask about (W3, W4: titles)
};

/// A row and its key: the keyword that its question is about (W1, W2), the title (W3, W4), or what
/// the request says (W5, W6).
struct WorkloadRow {
  std::string id, user_query, key;
};

/// Exactly round(count * repeat_share) rows repeat a key (at most count - 1); which earlier key
/// they repeat follows Zipf's law. Throws Error(kUsage) if there are not so many different keys.
std::vector<WorkloadRow> MakeRows(const RowOptions& options);

/// {"id", "user_query"}
nlohmann::ordered_json RowJson(const WorkloadRow& row);

}  // namespace halo::workload
