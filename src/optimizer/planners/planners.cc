#include "optimizer/planners/planners.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "optimizer/planners/dp_planner.h"
#include "optimizer/planners/list_planner.h"
#include "optimizer/planners/local_search.h"

namespace halo {
namespace {

constexpr size_t kMostCallsOfDp = 40;
constexpr int32_t kMostWorkersOfDp = 16;
constexpr int32_t kBeamOfDp = 16;

Schedule Built(const ProblemTables& tables, const std::vector<TaskPlacement>& placements) {
  ScheduleBuilder builder(tables);
  for (const TaskPlacement& placement : placements) builder.Place(placement);
  return builder.Finish("");
}

Schedule Finished(Schedule schedule, const std::string& planner, double bound_s, int64_t states) {
  schedule.planner = planner;
  schedule.states = states;
  schedule.lower_bound_s = std::min(bound_s, schedule.makespan_s);
  schedule.proved_optimal = bound_s >= schedule.makespan_s * (1.0 - 1e-9);
  return schedule;
}

/// Takes the better of what there is and what the local search makes of it.
void Improve(const ProblemTables& tables, double floor_s, double share, SearchBudget* budget,
             Schedule* schedule) {
  std::vector<SequencedShard> sequence = SequenceOf(tables, *schedule);
  SequenceTimer timer(tables);
  if (timer.Makespan(sequence) == kNever) return;  // equal starts hide the order
  ImproveSequence(tables, floor_s, share, budget, &sequence);
  Schedule improved = timer.Build(sequence, "");
  if (improved.makespan_s < schedule->makespan_s) *schedule = std::move(improved);
}

}  // namespace

Schedule PlanByList(const SchedulingProblem& problem, const PlannerOptions& options) {
  VerifyProblem(problem);
  const ProblemTables tables(problem);
  SearchBudget budget(options);
  return Finished(Built(tables, BestListPlacements(tables, &budget)), "list",
                  PartialSchedule(tables).LowerBound(), budget.states());
}

Schedule PlanByBeam(const SchedulingProblem& problem, const PlannerOptions& options) {
  VerifyProblem(problem);
  const ProblemTables tables(problem);
  SearchBudget budget(options);
  double makespan_s = 0.0;
  const std::vector<TaskPlacement> placements =
      BeamPlacements(tables, options.beam_width, /*share=*/1.0, &budget, &makespan_s);
  return Finished(Built(tables, placements), "beam", PartialSchedule(tables).LowerBound(),
                  budget.states());
}

Schedule PlanByDp(const SchedulingProblem& problem, const PlannerOptions& options) {
  VerifyProblem(problem);
  const ProblemTables tables(problem);
  SearchBudget budget(options);
  double bound_s = PartialSchedule(tables).LowerBound();
  const bool large =
      tables.calls().size() > kMostCallsOfDp || tables.worker_count() > kMostWorkersOfDp;
  Schedule best = Built(tables, large ? SearchedListPlacements(tables, /*share=*/0.5, &budget)
                                      : BestListPlacements(tables, &budget));
  if (!large) {
    double makespan_s = 0.0;
    const std::vector<TaskPlacement> beam =
        BeamPlacements(tables, kBeamOfDp, /*share=*/0.1, &budget, &makespan_s);
    if (makespan_s < best.makespan_s) best = Built(tables, beam);
  }
  const auto is_open = [&] { return bound_s < best.makespan_s * (1.0 - 1e-9) && !budget.spent(); };
  if (is_open() && !large) Improve(tables, bound_s, /*share=*/0.3, &budget, &best);
  if (is_open() && !large) {
    const TreeResult tree = SearchTree(tables, best.makespan_s, /*share=*/0.7, &budget);
    if (!tree.best.empty()) best = Built(tables, tree.best);
    if (!OrdersMayCross(tables)) bound_s = std::max(bound_s, tree.bound_s);
  }
  if (is_open()) Improve(tables, bound_s, /*share=*/1.0, &budget, &best);
  return Finished(std::move(best), "dp", bound_s, budget.states());
}

Schedule PlanAutomatically(const SchedulingProblem& problem, const PlannerOptions& options) {
  return PlanByDp(problem, options);
}

int64_t AutomaticStates(const SchedulingProblem& problem) {
  // Measured (planning_bench, one busy core): 18 to 45 million (task, worker) pairs a second where
  // dp searches, 2.5 to 12 million (state, worker) pairs where it schedules lists.
  constexpr int64_t kPairsOfTree = 800'000, kPairsOfLists = 100'000, kLeast = 1'000;
  const auto workers = std::max<int64_t>(1, static_cast<int64_t>(problem.workers.size()));
  const auto tasks = static_cast<int64_t>(problem.tasks.size());
  const bool large = tasks > static_cast<int64_t>(kMostCallsOfDp) || workers > kMostWorkersOfDp;
  return std::max(kLeast, large ? kPairsOfLists / workers : kPairsOfTree / (tasks * workers + 1));
}

Schedule PlanByName(const std::string& name, const SchedulingProblem& problem,
                    const PlannerOptions& options) {
  if (name == "auto") return PlanAutomatically(problem, options);
  if (name == "beam") return PlanByBeam(problem, options);
  if (name == "dp") return PlanByDp(problem, options);
  if (name == "list") return PlanByList(problem, options);
  if (name == "milp") return PlanByMilp(problem, options);
  throw Error(ErrorCode::kUsage,
              "no planner is called '" + name + "'; there are auto, beam, dp, list and milp");
}

}  // namespace halo
