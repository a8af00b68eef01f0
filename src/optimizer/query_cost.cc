#include "optimizer/query_cost.h"

#include <fmt/format.h>

#include <algorithm>

namespace halo {

double QueryRate::SecondsOf(const QueryCost& cost) const {
  return std::min(kMost_s, call_s + unit_s * cost.units);
}

QueryRate DefaultQueryRate(SqlDialect dialect) {
  switch (dialect) {
    case SqlDialect::kDuckDb:
      return {1e-3, 100e-9, "DuckDB's EXPLAIN"};
    case SqlDialect::kPostgres:
      return {0.5e-3, 5e-6, "PostgreSQL's EXPLAIN"};
  }
  return {};
}

Signature QueryPaceSignature(SqlDialect dialect) {
  return SignatureBuilder().Add("pace of queries").Add(static_cast<int64_t>(dialect)).Finish();
}

std::string QueryRateName(SqlDialect dialect) {
  const QueryRate rate = DefaultQueryRate(dialect);
  return fmt::format("{:g} {:g}", rate.call_s, rate.unit_s);
}

}  // namespace halo
