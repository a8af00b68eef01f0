#include "session/replanning.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "optimizer/cardinality.h"
#include "session/planning.h"

namespace halo {

std::string TextOf(const Replanning& replanning) {
  return fmt::format("the rest is planned anew, {:.3g} s instead of {:.3g} s: {}",
                     replanning.revised_s, replanning.current_s, replanning.why);
}

Replanner::Replanner(const std::vector<OptimizerSource>& sources, const PhysicalPlan& plan,
                     const OperatorHistory* history, OptimizerOptions options, const Clock& clock)
    : sources_(sources),
      history_(history),
      options_(std::move(options)),
      clock_(clock),
      start_us_(clock.NowUs()),
      plan_(plan) {
  for (size_t source = 0; source < sources.size(); ++source)
    placements_.push_back(std::make_unique<WorkerPlacement>(plan, source));
}

/// Its answers so far are a fair sample.
bool Replanner::Tells(size_t position, const OperatorCounts& counts) const {
  if (counts.answered < kPilotCalls) return false;
  const PlannedOperator& planned = plan_.operators[position];
  const OptimizerSource& source = sources_[planned.source];
  const LogicalNode& node = source.plan->at(planned.op);
  if (node.model == kNoModel) return true;
  const int64_t sequences = source.models[static_cast<size_t>(node.model)].sequences;
  return counts.answered >= std::min(counts.calls - counts.answered, sequences);
}

/// What this run's operators turned out to be; earlier runs' records of those that have made few
/// calls.
OperatorHistory Replanner::Observed(const std::vector<OperatorCounts>& so_far) const {
  RunReport report;
  report.operators = so_far;
  int64_t engine_us = 0;
  for (size_t i = 0; i < report.operators.size(); ++i) {
    OperatorCounts& counts = report.operators[i];
    counts.calls = Tells(i, counts) ? counts.answered : 0;
    counts.logical = counts.ended;
    engine_us += counts.engine_us;
  }
  OperatorHistory of_run;
  AddToHistory(sources_, report, nullptr, of_run);
  // With what the profile says of these very calls: where passes take longer, the rest will too.
  PhysicalPlan as_run = plan_;
  CardinalityEstimator(sources_, &of_run).EstimateAll(as_run);
  for (size_t i = 0; i < report.operators.size(); ++i) {
    OperatorEstimate& estimate = as_run.operators[i].estimate;
    const auto calls = static_cast<double>(report.operators[i].calls);
    if (estimate.calls.value > 0.0)
      estimate.busy_s = estimate.busy_s * (calls / estimate.calls.value);
    estimate.calls = Estimate::Exactly(calls);
  }
  Planning::AddActuals(report, engine_us, as_run);
  OperatorHistory observed;
  AddToHistory(sources_, report, &as_run, observed);
  size_t position = 0;
  for (const OptimizerSource& source : sources_) {
    const std::vector<OperatorIdentity> identities =
        IdentifyOperators(*source.plan, source.prompt_column);
    for (const LogicalNode& node : source.plan->nodes) {
      const bool is_known = report.operators[position++].calls > 0;
      if (is_known || history_ == nullptr) continue;
      const Signature& signature = identities[static_cast<size_t>(node.op)].signature;
      const std::string digest =
          node.model == kNoModel ? "" : source.models[static_cast<size_t>(node.model)].digest;
      const OperatorRecord* earlier = history_->Find(signature, digest);
      if (earlier != nullptr) observed.Add(signature, digest, *earlier);
    }
  }
  return observed;
}

std::vector<double> Replanner::Left(const std::vector<OperatorCounts>& so_far) const {
  std::vector<double> left;
  for (size_t i = 0; i < so_far.size(); ++i) {
    const auto rows = static_cast<double>(plan_.sources[plan_.operators[i].source].rows);
    const double ended = static_cast<double>(so_far[i].ended);
    left.push_back(rows <= 0.0 ? 0.0 : std::clamp(1.0 - ended / rows, 0.0, 1.0));
  }
  return left;
}

void Replanner::OnCheckpoint(const std::vector<OperatorCounts>& so_far) {
  const bool are_rows_known =
      std::all_of(plan_.sources.begin(), plan_.sources.end(),
                  [](const PlannedSource& source) { return source.rows >= 0; });
  const int64_t start_us = clock_.NowUs();
  if (!are_rows_known || start_us - looked_at_us_ < kMostShareOfTime * looking_us_) return;
  const PlanRevision revision = Revise(sources_, plan_, Observed(so_far), Left(so_far), options_);
  looked_at_us_ = clock_.NowUs();
  const auto operators = static_cast<int64_t>(plan_.operators.size());
  looking_us_ = std::max(looked_at_us_ - start_us, kOperatorUs * operators);
  if (revision.current_s <= kWorthReplanning * revision.revised_s) return;
  CarryOut(revision);
  done_.push_back({looked_at_us_, static_cast<double>(looked_at_us_ - start_us_) * 1e-6,
                   revision.current_s, revision.revised_s, revision.why});
  if (on_replanning) on_replanning(done_.back());
}

void Replanner::CarryOut(const PlanRevision& revision) {
  for (size_t s = 0; s < sources_.size(); ++s) {
    LogicalPlan& plan = *sources_[s].plan;
    for (size_t op = 0; op < plan.nodes.size(); ++op) plan.nodes[op].order = revision.orders[s][op];
  }
  plan_.placements = revision.placements;
  for (size_t s = 0; s < sources_.size(); ++s) *placements_[s] = WorkerPlacement(plan_, s);
}

}  // namespace halo
