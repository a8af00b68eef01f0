#include "runtime/run_identities.h"

namespace halo {
namespace {

std::string BrokenIdentityOf(const OperatorCounts& c) {
  if (c.logical != c.merged + c.distinct) return "logical = merged + distinct";
  if (c.distinct != c.executed + c.cached + c.skipped + c.unfinished)
    return "distinct = executed + cached + skipped + unfinished";
  if (c.prompt_tokens != c.reused_tokens + c.prefilled_tokens)
    return "prompt tokens = reused + prefilled";
  return "";
}

}  // namespace

std::string BrokenIdentity(const RunReport& report) {
  const RunCounts& rows = report.counts;
  if (rows.rows_opened != rows.rows_ok + rows.rows_failed + report.rows_unfinished)
    return "rows opened = ok + failed + unfinished";
  if (report.end == RunEnd::kFinished && report.rows_unfinished > 0)
    return "a finished run has no unfinished rows";
  for (const OperatorCounts& counts : report.operators) {
    const std::string broken = BrokenIdentityOf(counts);
    if (!broken.empty()) return counts.id + ": " + broken;
  }
  return "";
}

}  // namespace halo
