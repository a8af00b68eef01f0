#include "runtime/run_identities.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

RunReport Sound() {
  RunReport report;
  report.counts.rows_opened = 5;
  report.counts.rows_ok = 4;
  report.counts.rows_failed = 1;
  OperatorCounts counts;
  counts.id = "a";
  counts.logical = 5;
  counts.merged = 2;
  counts.distinct = 3;
  counts.executed = 2;
  counts.skipped = 1;
  counts.prompt_tokens = 10;
  counts.reused_tokens = 4;
  counts.prefilled_tokens = 6;
  report.operators.push_back(counts);
  return report;
}

TEST(RunIdentities, HoldForASoundRun) { EXPECT_EQ(BrokenIdentity(Sound()), ""); }

TEST(RunIdentities, NameWhatDoesNotAddUp) {
  RunReport rows = Sound();
  ++rows.counts.rows_opened;
  EXPECT_EQ(BrokenIdentity(rows), "rows opened = ok + failed + unfinished");
  // "Finished" with rows that are not.
  rows.rows_unfinished = 1;
  EXPECT_EQ(BrokenIdentity(rows), "a finished run has no unfinished rows");
  rows.end = RunEnd::kStopped;
  EXPECT_EQ(BrokenIdentity(rows), "");

  RunReport merged = Sound();
  ++merged.operators[0].merged;
  EXPECT_EQ(BrokenIdentity(merged), "a: logical = merged + distinct");
  RunReport executed = Sound();
  --executed.operators[0].executed;
  EXPECT_EQ(BrokenIdentity(executed), "a: distinct = executed + cached + skipped + unfinished");
  RunReport tokens = Sound();
  ++tokens.operators[0].reused_tokens;
  EXPECT_EQ(BrokenIdentity(tokens), "a: prompt tokens = reused + prefilled");
}

}  // namespace
}  // namespace halo
