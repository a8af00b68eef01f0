#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "workload/query_client.h"

namespace halo::workload {

/// The reports of the mock service over TPC-H data, computed at once in three passes.
class TpchReports {
 public:
  /// Throws Error(kIo).
  explicit TpchReports(QueryClient& data);

  /// Lines of a mode received in a year, late for their commitment though shipped before it (query
  /// 12): {shipmode, line_count, high_line_count, low_line_count}; null: none.
  nlohmann::ordered_json ShipmodePriority(const std::string& mode, int64_t year) const;
  /// Share of promotional parts in September's revenue (query 14).
  nlohmann::ordered_json PromoRevenue(int64_t year) const;
  /// Revenue and lines of a segment's orders of a year that were shipped after the order.
  nlohmann::ordered_json SegmentRevenue(const std::string& segment, int64_t year) const;

 private:
  using Reports = std::map<std::pair<std::string, int64_t>, nlohmann::ordered_json>;
  static nlohmann::ordered_json Find(const Reports& reports, const std::string& name, int64_t year);

  Reports modes_, promotions_, segments_;
};

}  // namespace halo::workload
