#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "halo/session.h"
#include "runtime/executor.h"
#include "session/call_dump.h"
#include "session/durable_run.h"
#include "session/report_data.h"
#include "session/run_outlook.h"
#include "session/run_trace.h"

namespace halo {

/// Failed rows by operator and code, with an example of each.
class FailureGroups {
 public:
  void Add(const RowResult& row);
  /// The largest first, at most 20.
  std::vector<FailureGroup> Largest() const;

 private:
  std::map<std::pair<std::string, std::string>, FailureGroup> groups_;  // by operator and code
};

/// Tells everyone who asked what a run does: the dump of calls, the trace, the report, and a
/// person.
class Reporter final : public RunObserver {
 public:
  /// `dump`, `trace` and `report` may be null. `news` are taken from there with each progress.
  Reporter(CallDump* dump, RunTrace* trace, ReportData* report, RunOutlook outlook,
           std::vector<std::string>& news, const std::function<void(const Progress&)>& on_progress,
           const Clock& clock);

  void OnCall(const CallRecord& call) override;
  void OnToolCall(const ToolCallRecord& call) override;
  void OnAttempt(const CallRecord& call) override;
  void OnToolAttempt(const ToolCallRecord& call) override;
  void OnTurn(const RunCounts& counts) override;
  void OnRow(size_t source, const RowResult& row) override;
  /// From now on failed rows are kept there, as they were given.
  void KeepFailedRows(DurableRun& run) { run_ = &run; }
  void OnFailedRow(size_t source, const Row& row) override;
  void OnProgress(const RunProgress& run) override;

  std::vector<FailureGroup> failures() const { return failures_.Largest(); }

 private:
  FailureGroups failures_;
  CallDump* dump_;
  RunTrace* trace_;
  DurableRun* run_ = nullptr;
  ReportData* report_;
  RunOutlook outlook_;
  std::vector<std::string>& news_;
  const std::function<void(const Progress&)>& on_progress_;
  const Clock& clock_;
  int64_t start_us_;
};

}  // namespace halo
