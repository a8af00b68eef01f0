#include "workload/tpch_reports.h"

#include <cmath>

namespace halo::workload {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kModes = R"(
SELECT l_shipmode AS name, CAST(extract(year FROM l_receiptdate) AS integer) AS year, l_shipmode AS shipmode,
       count(*) AS line_count,
       CAST(sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 1 ELSE 0 END) AS bigint) AS high_line_count,
       CAST(sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 0 ELSE 1 END) AS bigint) AS low_line_count
FROM lineitem JOIN orders ON o_orderkey = l_orderkey
WHERE l_commitdate < l_receiptdate AND l_shipdate < l_commitdate
GROUP BY 1, 2)";

constexpr const char* kPromotions = R"(
SELECT '' AS name, CAST(extract(year FROM l_shipdate) AS integer) AS year,
       CAST(sum(CASE WHEN p_type LIKE 'PROMO%' THEN l_extendedprice * (1 - l_discount) ELSE 0 END)
            AS double precision) AS promo_revenue,
       CAST(sum(l_extendedprice * (1 - l_discount)) AS double precision) AS total_revenue
FROM lineitem JOIN part ON p_partkey = l_partkey
WHERE extract(month FROM l_shipdate) = 9
GROUP BY 2)";

constexpr const char* kSegments = R"(
SELECT c_mktsegment AS name, CAST(extract(year FROM o_orderdate) AS integer) AS year, c_mktsegment AS segment,
       CAST(sum(l_extendedprice * (1 - l_discount)) AS double precision) AS revenue, count(*) AS line_cnt,
       CAST(sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 1 ELSE 0 END) AS bigint) AS high_line_cnt,
       CAST(sum(CASE WHEN o_orderpriority IN ('1-URGENT', '2-HIGH') THEN 0 ELSE 1 END) AS bigint) AS low_line_cnt
FROM customer JOIN orders ON o_custkey = c_custkey JOIN lineitem ON l_orderkey = o_orderkey
WHERE l_shipdate > o_orderdate
GROUP BY 1, 2)";

double Cents(double amount) { return std::round(amount * 100) / 100; }

}  // namespace

TpchReports::TpchReports(QueryClient& data) {
  const auto read = [&](const char* sql, Reports& reports) {
    for (Json& row : data.Query(sql, {})) {
      const std::pair<std::string, int64_t> key{row["name"], row["year"]};
      row.erase("name");
      reports[key] = std::move(row);
    }
  };
  read(kModes, modes_);
  read(kPromotions, promotions_);
  read(kSegments, segments_);
  for (auto& [key, row] : promotions_) {
    const double promo = row["promo_revenue"], total = row["total_revenue"];
    row["promo_revenue"] = Cents(promo);
    row["total_revenue"] = Cents(total);
    row["promo_share_percent"] = total > 0 ? Cents(100 * promo / total) : 0.0;
  }
  for (auto& [key, row] : segments_) row["revenue"] = Cents(row["revenue"]);
}

Json TpchReports::Find(const Reports& reports, const std::string& name, int64_t year) {
  const auto found = reports.find({name, year});
  return found == reports.end() ? Json() : found->second;
}

Json TpchReports::ShipmodePriority(const std::string& mode, int64_t year) const {
  return Find(modes_, mode, year);
}

Json TpchReports::PromoRevenue(int64_t year) const { return Find(promotions_, "", year); }

Json TpchReports::SegmentRevenue(const std::string& segment, int64_t year) const {
  return Find(segments_, segment, year);
}

}  // namespace halo::workload
