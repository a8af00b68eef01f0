#include "optimizer/row_statistics.h"

#include <algorithm>
#include <cmath>

#include "base/hash.h"

namespace halo {
namespace {

constexpr uint64_t kSampleKey = 0x68616c6f;  // any number: the sample is the same every time

std::string TextOf(const nlohmann::ordered_json& value) {
  if (value.is_string()) return "s" + value.get_ref<const std::string&>();
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace

void DistinctCounter::Add(uint64_t hash) {
  if (hash >= limit_) return;
  hashes_.insert(hash);
  if (hashes_.size() >= 2 * kMost) Shrink();
}

void DistinctCounter::Shrink() {
  std::vector<uint64_t> all(hashes_.begin(), hashes_.end());
  const auto middle = all.begin() + kMost;
  std::nth_element(all.begin(), middle, all.end());
  limit_ = *middle;
  hashes_ = {all.begin(), middle};
}

void DistinctCounter::Merge(const DistinctCounter& other) {
  limit_ = std::min(limit_, other.limit_);
  std::erase_if(hashes_, [this](uint64_t hash) { return hash >= limit_; });
  for (const uint64_t hash : other.hashes_) Add(hash);
}

Estimate DistinctCounter::Count() const {
  const double count = static_cast<double>(hashes_.size());
  if (limit_ == UINT64_MAX) return Estimate::Exactly(count);
  constexpr double kAllHashes = 18446744073709551616.0;  // 2^64
  constexpr double kErrors = 1.28;                       // of the standard error, for 80 %
  return Estimate::Within(count * kAllHashes / static_cast<double>(limit_),
                          kErrors / std::sqrt(count));
}

RowStatistics::RowStatistics(std::vector<std::set<std::string>> column_sets) {
  std::sort(column_sets.begin(), column_sets.end());
  column_sets.erase(std::unique(column_sets.begin(), column_sets.end()), column_sets.end());
  for (std::set<std::string>& columns : column_sets)
    counters_.emplace_back(std::move(columns), DistinctCounter{});
}

void RowStatistics::Add(const nlohmann::ordered_json& values) {
  for (auto& [columns, counter] : counters_) {
    std::string key;
    if (columns.contains("*")) {
      key = TextOf(values);
    } else {
      for (const std::string& column : columns) {
        const auto found = values.find(column);
        key += found == values.end() ? "-" : TextOf(*found);
        key += '\x1f';  // between values
      }
    }
    counter.Add(Hash64(key));
  }
  const auto index = static_cast<uint64_t>(rows_++);
  if (sample_.size() < kSample) {
    sample_.push_back(values);
    return;
  }
  const double draw = UniformDraw(kSampleKey, index) * static_cast<double>(rows_);
  const auto place = static_cast<size_t>(draw);
  if (place < kSample) sample_[place] = values;
}

const DistinctCounter* RowStatistics::Find(const std::set<std::string>& columns) const {
  const auto found = std::lower_bound(
      counters_.begin(), counters_.end(), columns,
      [](const auto& counter, const auto& wanted) { return counter.first < wanted; });
  return found == counters_.end() || found->first != columns ? nullptr : &found->second;
}

}  // namespace halo
