// What ends a run early: failures, the budget, a person. What is said of a run meanwhile.
#include <fmt/format.h>

#include <algorithm>

#include "runtime/executor_impl.h"

namespace halo {
namespace {

/// Rows before a share of failures, or failures without exception, say anything.
constexpr int64_t kFirstRows = 20;
/// Failed rows in a row, all alike, that no longer look like a matter of rows.
constexpr int64_t kMostAlike = 100;

std::string WordsOf(const Failure& failure) {
  const std::string where = failure.operator_id.empty() ? "" : failure.operator_id + ": ";
  return where + failure.message + " (" + failure.code + ")";
}

}  // namespace

const char* StopCauseName(StopCause cause) {
  switch (cause) {
    case StopCause::kNone:
      return "none";
    case StopCause::kFirstFailure:
      return "first_failure";
    case StopCause::kMaxFailures:
      return "max_failures";
    case StopCause::kAllFail:
      return "all_fail";
    case StopCause::kBudget:
      return "budget";
  }
  return "?";
}

/// All instances of a row have ended.
void Executor::Impl::NoteRowEnd(const RowState& row) {
  ++rows_ended;
  if (!row.failure) {
    failed_alike = 0;
    return;
  }
  ++rows_ended_failed;
  if (row.cancelled) return;  // somebody's wish says nothing about the others
  const bool is_alike = failed_alike > 0 && alike.code == row.failure->code &&
                        alike.operator_id == row.failure->operator_id;
  failed_alike = is_alike ? failed_alike + 1 : 1;
  alike = *row.failure;
}

/// Counts rows that have ended, though they may wait for an earlier one to be written.
void Executor::Impl::CheckLimits() {
  if (stopping) return;
  const auto failed = static_cast<double>(rows_ended_failed);
  const bool too_large_a_share =
      options.max_failures_share >= 0 && rows_ended >= kFirstRows &&
      failed > options.max_failures_share * static_cast<double>(rows_ended);
  const bool none_worked = failed_alike >= kFirstRows && failed_alike == rows_ended;
  if (options.stop_on_error && rows_ended_failed > 0) {
    StopAt(StopCause::kFirstFailure, "a row failed");
  } else if (too_large_a_share || (options.max_failures >= 0 && failed > options.max_failures)) {
    StopAt(StopCause::kMaxFailures, fmt::format("{} of {} rows failed, more than is allowed",
                                                rows_ended_failed, rows_ended));
  } else if (options.stop_when_all_fail && (none_worked || failed_alike >= kMostAlike)) {
    StopAt(StopCause::kAllFail,
           fmt::format("the {} {} rows all failed alike: {}", none_worked ? "first" : "last",
                       failed_alike, WordsOf(alike)));
  } else if (options.budget.time_us >= 0 && earlier_us + ElapsedUs() >= options.budget.time_us) {
    StopAt(StopCause::kBudget, fmt::format("the budget of {} s is spent",
                                           static_cast<double>(options.budget.time_us) * 1e-6));
  }
}

/// What runs is finished, nothing new is started.
void Executor::Impl::Stop() {
  if (stopping) return;
  stopping = true;
  for (Engine* engine : engines) engine->CancelWaiting();
}

void Executor::Impl::StopAt(StopCause cause, std::string reason) {
  report.stop_cause = cause;
  report.stop_reason = std::move(reason);
  Stop();
}

/// Calls that were given out are within the budget, begun or not: they are made.
void Executor::Impl::StopAtSpent(std::string reason) {
  report.stop_cause = StopCause::kBudget;
  report.stop_reason = std::move(reason);
  stopping = true;
}

void Executor::Impl::StopAtCalls() {
  StopAtSpent(fmt::format("the budget of {} calls is spent", options.budget.calls));
}

/// True if a call fits beside those in flight, however long their answers become.
bool Executor::Impl::FitsBudget(const Call& call) const {
  const RunBudget& budget = options.budget;
  return (budget.tokens < 0 ||
          tokens_spent + tokens_reserved + call.most_tokens <= budget.tokens) &&
         (budget.cost < 0 || cost_spent + cost_reserved + call.most_cost <= budget.cost);
}

/// Nothing is in flight, and it does not fit.
std::string Executor::Impl::WhySpent(const Call& next) const {
  const RunBudget& budget = options.budget;
  if (budget.tokens >= 0 && tokens_spent + next.most_tokens > budget.tokens)
    return fmt::format("the budget of {} tokens is spent: {} are, and the next call may take {}",
                       budget.tokens, tokens_spent, next.most_tokens);
  constexpr double kUnit = 1e-9;
  return fmt::format(
      "the budget of {:.6g} for tokens is spent: {:.6g} is, and the next call may "
      "cost {:.6g}",
      static_cast<double>(budget.cost) * kUnit, static_cast<double>(cost_spent) * kUnit,
      static_cast<double>(next.most_cost) * kUnit);
}

/// In TokenPrice's unit.
int64_t Executor::Impl::CostOf(const RowState& row, OperatorIndex op, int64_t prompt_tokens,
                               int64_t output_tokens) const {
  const TokenPrice& price =
      sources[row.source].models[static_cast<size_t>(PlanOf(row).at(op).model)].price;
  return price.prompt * prompt_tokens + price.output * output_tokens;
}

/// Gives a call to its engine, or has it wait until the budget has room.
void Executor::Impl::Offer(Call call) {
  if (options.only_known) return Refuse(call);
  if (held.empty() && FitsBudget(call)) return Send(std::move(call));
  At(*call.row, call.op).state = InstanceState::kReady;
  held.push_back(std::move(call));
}

/// False while a call waits for room in the budget. Answers that turn out shorter than they might
/// make room; when none is under way any more, the budget is spent.
bool Executor::Impl::SendHeld() {
  while (!held.empty() && !stopping) {
    Call& next = held.front();
    if (next.row->cancelled) {
      Call call = std::move(next);
      held.pop_front();
      Completion over;
      if (At(*call.row, call.op).counted == CountedAs::kNot) ReleaseKvOf(*call.row, call.op);
      CountStart(*call.row, call.op);
      over.failure = Failure{"", "cancelled", "the row was cancelled", false};
      Conclude(std::move(call), over);
    } else if (FitsBudget(next)) {
      Call call = std::move(next);
      held.pop_front();
      Send(std::move(call));
    } else if (calls.empty()) {
      StopAtSpent(WhySpent(next));
    } else {
      return false;
    }
  }
  return !stopping;
}

RunWaits Executor::Impl::Waits() const {
  RunWaits waits;
  waits.retries = static_cast<int64_t>(retries.size() + tool_retries.size());
  for (const auto& [due_us, again] : tool_retries)
    waits.asked_to_wait += again.failed.retry_after_us > 0 ? 1 : 0;
  if (!retries.empty()) waits.next_retry_us = retries.begin()->first;
  if (!tool_retries.empty() &&
      (retries.empty() || tool_retries.begin()->first < waits.next_retry_us))
    waits.next_retry_us = tool_retries.begin()->first;
  if (options.tools != nullptr) waits.held_back = options.tools->held_back();
  waits.for_budget = !held.empty();
  waits.for_rows = std::any_of(states.begin(), states.end(),
                               [](const SourceState& state) { return state.idle; });
  for (const Engine* engine : engines) {
    if (engine->pending() > 0 && engine->residency() == Residency::kUnloaded)
      waits.models.push_back(engine->Describe().model);
  }
  return waits;
}

}  // namespace halo
