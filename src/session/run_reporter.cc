#include "session/run_reporter.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace halo {

void FailureGroups::Add(const RowResult& row) {
  if (!row.failure) return;
  FailureGroup& group = groups_[{row.failure->operator_id, row.failure->code}];
  if (group.rows++ > 0) return;
  group.operator_id = row.failure->operator_id;
  group.code = row.failure->code;
  group.example = row.failure->message;
  group.example_row = row.id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<FailureGroup> FailureGroups::Largest() const {
  constexpr size_t kMost = 20;
  std::vector<FailureGroup> largest;
  for (const auto& [key, group] : groups_) largest.push_back(group);
  std::stable_sort(largest.begin(), largest.end(),
                   [](const FailureGroup& a, const FailureGroup& b) { return a.rows > b.rows; });
  if (largest.size() > kMost) largest.resize(kMost);
  return largest;
}

Reporter::Reporter(CallDump* dump, RunTrace* trace, ReportData* report, RunOutlook outlook,
                   std::vector<std::string>& news,
                   const std::function<void(const Progress&)>& on_progress, const Clock& clock)
    : dump_(dump),
      trace_(trace),
      report_(report),
      outlook_(std::move(outlook)),
      news_(news),
      on_progress_(on_progress),
      clock_(clock),
      start_us_(clock.NowUs()) {}

void Reporter::OnCall(const CallRecord& call) {
  if (dump_ != nullptr) dump_->Write(call);
  if (report_ != nullptr) report_->OnCall(call);
}

void Reporter::OnToolCall(const ToolCallRecord& call) {
  if (dump_ != nullptr) dump_->Write(call);
  if (report_ != nullptr) report_->OnToolCall(call);
}

void Reporter::OnAttempt(const CallRecord& call) {
  if (trace_ != nullptr) trace_->OnAttempt(call);
  if (report_ != nullptr) report_->OnAttempt(call);
}

void Reporter::OnToolAttempt(const ToolCallRecord& call) {
  if (trace_ != nullptr) trace_->OnToolAttempt(call);
  if (report_ != nullptr) report_->OnToolAttempt(call);
}

void Reporter::OnTurn(const RunCounts& counts) {
  if (trace_ != nullptr) trace_->OnTurn(counts);
}

void Reporter::OnRow(size_t source, const RowResult& row) {
  failures_.Add(row);
  if (trace_ != nullptr) trace_->OnRow(source, row);
  if (report_ != nullptr) report_->OnRow(source, row);
}

void Reporter::OnFailedRow(size_t source, const Row& row) {
  if (run_ != nullptr) run_->KeepFailedRow(source, row);
}

void Reporter::OnProgress(const RunProgress& run) {
  if (!on_progress_) return;
  const int64_t now_us = clock_.NowUs();
  Progress progress = outlook_.At(run, now_us, static_cast<double>(now_us - start_us_) * 1e-6);
  progress.news = std::exchange(news_, {});
  on_progress_(progress);
}

}  // namespace halo
