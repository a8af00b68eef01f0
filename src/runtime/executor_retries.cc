// Calls that are made again: when, for whom, and what ends them first.
#include <algorithm>
#include <cmath>

#include "base/duration.h"
#include "runtime/executor_impl.h"

namespace halo {
namespace {

using State = InstanceState;

}  // namespace

double BackOffSeconds(const RetryPolicy& retry, int32_t attempt) {
  constexpr int32_t kMostDoublings = 20;
  constexpr double kMostSeconds = 3600.0;
  return std::min(kMostSeconds, std::ldexp(retry.backoff_s, std::min(attempt, kMostDoublings)));
}

bool Executor::Impl::MayRetry(const Call& call, const Completion& completion) const {
  return completion.failure && completion.failure->retriable &&
         (!stopping || is_left_for_later()) && !call.row->cancelled &&
         call.attempt < PlanOf(*call.row).operator_of(call.op).retry.max;
}

void Executor::Impl::RetryLater(Call call, Completion completion) {
  const RetryPolicy& retry = PlanOf(*call.row).operator_of(call.op).retry;
  const int64_t due_us = clock.NowUs() + MicrosecondsOf(BackOffSeconds(retry, call.attempt));
  // A row that will be over by then fails now, and whoever else waits for the call makes it.
  if (call.row->deadline_us > 0 && due_us >= call.row->deadline_us) {
    EndInstance(*call.row, call.op, completion, call, false);
    if (!call.followers.empty() && !stopping) PromoteFollower(call);
    return;
  }
  ++call.attempt;
  Instance& instance = At(*call.row, call.op);
  if (instance.samples == nullptr) {
    const int32_t consumers = KeepFor(*call.row, call.op).consumers;
    if (consumers > 0) call.engine->Release(call.request.id, consumers);
    instance.request = 0;
  }
  retries.emplace(due_us, Again{std::move(call), std::move(completion)});
}

/// Makes again what failed and is due. When the run stops nothing is tried again: the last failure
/// counts, unless the budget alone is why.
void Executor::Impl::MakeDueCalls() {
  while (!retries.empty() && (stopping || retries.begin()->first <= clock.NowUs()))
    due_retries.push_back(std::move(retries.extract(retries.begin()).mapped()));
  for (auto it = due_retries.begin(); it != due_retries.end();) {
    if (!stopping && CallsAreSpent()) StopAtCalls();
    const bool is_over = stopping || it->call.row->cancelled;
    // They have no more room than first attempts, but take what there is before these.
    if (!is_over && !options.naive && !MaySubmit(it->call.row->source, it->call.op)) {
      ++it;
      continue;
    }
    Again again = std::move(*it);
    it = due_retries.erase(it);
    if (is_left_for_later() && !again.call.row->cancelled) {
      At(*again.call.row, again.call.op).state = State::kReady;
    } else if (is_over) {
      if (again.call.row->cancelled) again.failed.failure = CancelledRow();
      const bool was_asked =
          again.call.attempt > 0 || RoundOf(*again.call.row, again.call.op, again.call.sample) == 0;
      if (was_asked) {
        Conclude(std::move(again.call), again.failed);
      } else {  // nothing is known of what was to repair an answer
        EndInstance(*again.call.row, again.call.op, again.failed, again.call, false);
      }
    } else {
      MakeAgain(std::move(again.call));
    }
  }
}

void Executor::Impl::MakeAgain(Call call) {
  RowState& row = *call.row;
  const int32_t round = RoundOf(row, call.op, call.sample);
  // The question that repairs an answer may have been answered before.
  const bool is_new = round > 0 && call.attempt == 0;
  if (is_new && (MergeInto(row, call.op, call) || TakeKnown(row, call.op, call))) return;
  call.request.id = next_request++;
  call.request.script_attempt = round + call.attempt;
  call.request.consumes = 0;  // given back with the first attempt
  call.request.keep = KeepFor(*call.row, call.op);
  call.request.deadline_us = call.row->deadline_us;
  Instance& instance = At(*call.row, call.op);
  if (instance.samples != nullptr) {
    instance.samples->requests[static_cast<size_t>(call.sample)] = call.request.id;
  }
  Offer(std::move(call));
}

}  // namespace halo
