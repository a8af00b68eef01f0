#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/estimate.h"
#include "base/random.h"

namespace halo {

/// How many different values went in, in bounded memory: exact below 2 x kMost, then by how many
/// hashes lie below a limit that sinks so that at least kMost stay (adaptive sampling: Flajolet
/// 1990; standard error 1 / sqrt(kMost), 0.4 %).
class DistinctCounter {
 public:
  static constexpr size_t kMost = 65536;

  void Add(uint64_t hash);
  void Merge(const DistinctCounter& other);
  Estimate Count() const;

 private:
  void Shrink();

  std::unordered_set<uint64_t> hashes_;  ///< those below `limit_`
  uint64_t limit_ = UINT64_MAX;          ///< UINT64_MAX: nothing was left out
};

/// What a plan needs to know of the rows of one source, gathered as they are scanned. Memory does
/// not grow with the rows beyond DistinctCounter and the sample.
class RowStatistics {
 public:
  static constexpr size_t kSample = 256;

  /// `column_sets`: for each, the different combinations of values are counted; {"*"} stands for
  /// the whole row.
  explicit RowStatistics(std::vector<std::set<std::string>> column_sets);

  void Add(const nlohmann::ordered_json& values);

  int64_t rows() const { return rows_; }
  /// Null if the set is none of those given.
  const DistinctCounter* Find(const std::set<std::string>& columns) const;
  /// Rows drawn evenly from all (reservoir), the same ones every time.
  const std::vector<nlohmann::ordered_json>& sample() const { return sample_; }

 private:
  std::vector<std::pair<std::set<std::string>, DistinctCounter>> counters_;
  std::vector<nlohmann::ordered_json> sample_;
  int64_t rows_ = 0;
};

}  // namespace halo
