#include "session/run_outlook.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace halo {
namespace {

double Positive(double value) { return std::max(0.0, value); }

/// For a person: what calls are not made for just now.
std::vector<std::string> WaitWords(const RunWaits& waits, int64_t now_us) {
  std::vector<std::string> words;
  for (const std::string& model : waits.models) words.push_back("model " + model + " to be loaded");
  const double next_s = Positive(static_cast<double>(waits.next_retry_us - now_us) * 1e-6);
  const int64_t others = waits.retries - waits.asked_to_wait;
  if (waits.asked_to_wait > 0) {
    words.push_back(fmt::format("a rate limit ({} later, the first in {:.0f} s)",
                                Counted(waits.asked_to_wait, "call"), next_s));
  }
  if (others > 0) {
    words.push_back(fmt::format("another try of {}, the first in {:.0f} s",
                                Counted(others, "failed call"), next_s));
  }
  if (waits.held_back > 0)
    words.push_back("a host's requests_per_second (" + Counted(waits.held_back, "call") + ")");
  if (waits.for_budget) words.push_back("room in the budget");
  if (waits.for_rows) words.push_back("rows");
  return words;
}

}  // namespace

RunOutlook::RunOutlook(const PhysicalPlan& plan, const std::vector<int64_t>& rows) {
  for (const int64_t of_source : rows)
    rows_total_ = of_source < 0 || rows_total_ < 0 ? -1 : rows_total_ + of_source;
  for (const PlannedOperator& planned : plan.operators) {
    const PlannedSource& source = plan.sources[planned.source];
    Expected expected;
    expected_.push_back(expected);
    if (source.plan->at(planned.op).removed) continue;
    const std::string& id = source.plan->operator_of(planned.op).id;
    expected.id = plan.sources.size() > 1 ? source.workflow + ": " + id : id;
    expected.instances = rows[planned.source];
    const OperatorEstimate& e = planned.estimate;
    if (e.instances.value > 0.0) {
      expected.tokens =
          e.calls.value / e.instances.value *
          (Positive(e.prompt_tokens.value - e.reused_tokens.value) + e.output_tokens.value);
    }
    expected_.back() = expected;
  }
}

double RunOutlook::SecondsLeft(const std::vector<OperatorCounts>& operators,
                               double elapsed_s) const {
  constexpr int64_t kEnough = 8;       // instances whose mean says something
  constexpr double kSettled = 0.02;    // of the work: before that a forecast is noise
  constexpr double kFirstLookS = 2.0;  // the same
  double engine_us = 0.0, tokens = 0.0, ended = 0.0;
  bool asks_models = false;
  for (const OperatorCounts& counts : operators) {
    asks_models = asks_models || counts.kind == OperatorKind::kInference;
    engine_us += static_cast<double>(counts.engine_us);
    tokens += static_cast<double>(counts.prefilled_tokens + counts.output_tokens);
  }
  if (asks_models && engine_us <= 0.0) return -1.0;  // tools say nothing of them
  double left = 0.0;
  for (size_t i = 0; i < operators.size(); ++i) {
    const OperatorCounts& counts = operators[i];
    if (expected_[i].id.empty()) continue;
    if (expected_[i].instances < 0) return -1.0;
    const double remaining = Positive(static_cast<double>(expected_[i].instances - counts.ended));
    ended += static_cast<double>(counts.ended);
    double each = 1.0;
    if (engine_us > 0.0 && counts.ended >= kEnough) {
      each = static_cast<double>(counts.engine_us) / static_cast<double>(counts.ended);
    } else if (engine_us > 0.0) {
      each = expected_[i].tokens * engine_us / std::max(1.0, tokens);
    }
    left += remaining * each;
  }
  const double done = engine_us > 0.0 ? engine_us : ended;
  if (elapsed_s < kFirstLookS || done <= kSettled * (done + left)) return -1.0;
  return elapsed_s * left / done;
}

Progress RunOutlook::At(const RunProgress& run, int64_t now_us, double elapsed_s) const {
  Progress progress;
  progress.rows_total = rows_total_;
  progress.rows_ok = run.rows_ended - run.rows_ended_failed;
  progress.rows_failed = run.rows_ended_failed;
  progress.calls_done = run.counts.calls_done;
  progress.calls_running = run.counts.calls_running;
  progress.output_tokens = run.counts.output_tokens;
  progress.elapsed_s = elapsed_s;
  progress.instances_total = 0;
  for (size_t i = 0; i < run.operators.size(); ++i) {
    const OperatorCounts& counts = run.operators[i];
    progress.prompt_tokens += counts.prompt_tokens;
    progress.reused_tokens += counts.reused_tokens;
    if (expected_[i].id.empty()) continue;
    const int64_t instances = expected_[i].instances;
    progress.operators.push_back(
        {expected_[i].id, instances, counts.ended, counts.failed, counts.running});
    progress.instances_done += counts.ended;
    progress.instances_total =
        instances < 0 || progress.instances_total < 0 ? -1 : progress.instances_total + instances;
  }
  progress.left_s = SecondsLeft(run.operators, elapsed_s);
  progress.waits = WaitWords(run.waits, now_us);
  return progress;
}

}  // namespace halo
