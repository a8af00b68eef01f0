#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "halo/session.h"
#include "runtime/executor.h"
#include "session/call_dump.h"
#include "session/durable_run.h"
#include "session/run_trace.h"

namespace halo {

/// Tells everyone who asked what a run does: the dump of calls, the trace, and a person.
class Reporter final : public RunObserver {
 public:
  /// `dump` and `trace` may be null. `news` are taken from there with each progress.
  Reporter(CallDump* dump, RunTrace* trace, int64_t rows_total, int64_t calls_total,
           std::vector<std::string>& news, const std::function<void(const Progress&)>& on_progress,
           const Clock& clock)
      : dump_(dump),
        trace_(trace),
        rows_total_(rows_total),
        calls_total_(calls_total),
        news_(news),
        on_progress_(on_progress),
        clock_(clock),
        start_us_(clock.NowUs()) {}

  void OnCall(const CallRecord& call) override {
    if (dump_ != nullptr) dump_->Write(call);
  }
  void OnToolCall(const ToolCallRecord& call) override {
    if (dump_ != nullptr) dump_->Write(call);
  }
  void OnAttempt(const CallRecord& call) override {
    if (trace_ != nullptr) trace_->OnAttempt(call);
  }
  void OnToolAttempt(const ToolCallRecord& call) override {
    if (trace_ != nullptr) trace_->OnToolAttempt(call);
  }
  void OnTurn(const RunCounts& counts) override {
    if (trace_ != nullptr) trace_->OnTurn(counts);
  }
  void OnRow(size_t source, const RowResult& row) override {
    constexpr size_t kShown = 3;
    if (trace_ != nullptr) trace_->OnRow(source, row);
    if (!row.failure || failures_.size() >= kShown) return;
    std::string id = row.id.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
    const std::string who = row.failure->operator_id.empty() ? "" : row.failure->operator_id + ": ";
    failures_.push_back(
        fmt::format("row {}: {}{} ({})", id, who, row.failure->message, row.failure->code));
  }
  /// From now on failed rows are kept there, as they were given.
  void KeepFailedRows(DurableRun& run) { run_ = &run; }
  void OnFailedRow(size_t source, const Row& row) override {
    if (run_ != nullptr) run_->KeepFailedRow(source, row);
  }
  std::vector<std::string> failures() const { return failures_; }
  void OnProgress(const RunCounts& counts) override {
    if (!on_progress_) return;
    on_progress_({rows_total_, counts.rows_ok, counts.rows_failed, calls_total_, counts.calls_done,
                  counts.calls_running, counts.output_tokens,
                  static_cast<double>(clock_.NowUs() - start_us_) * 1e-6,
                  std::exchange(news_, {})});
  }

 private:
  std::vector<std::string> failures_;
  CallDump* dump_;
  RunTrace* trace_;
  DurableRun* run_ = nullptr;
  int64_t rows_total_;
  int64_t calls_total_;
  std::vector<std::string>& news_;
  const std::function<void(const Progress&)>& on_progress_;
  const Clock& clock_;
  int64_t start_us_;
};

}  // namespace halo
