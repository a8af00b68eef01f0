#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "halo/session.h"
#include "optimizer/operator_history.h"
#include "optimizer/planners/scheduling_problem.h"
#include "session/replanning.h"

namespace halo {

/// A run that is only simulated.
struct SimulationOptions {
  /// What a run is told, as far as it matters here: the first of `inputs` (of a stream rows that
  /// come before), `on_row`, functions (by name; they are not called), models (used for their
  /// tokenizers where they are there), column, limit, seed, date, planner, rules_off, naive,
  /// workers, worker_memory_bytes (of each worker, weights included; 0: this machine's memory),
  /// kept_memory_bytes (of each; 0: half of that), sequences, context_tokens, window,
  /// latency_scale, share_tool_calls, replan, all_outputs, profile_file, history_file, use_history.
  RunOptions run;
  std::map<std::string, std::string> costs_as;  ///< model of the workflow -> name in the profile
  std::string results;  ///< file of rows as `halo run -o` writes them, with made-up answers; "":
                        ///< none. Not read where `run.on_row` takes them.
  int64_t rows = -1;    ///< rows to run: those of the input, over and over; -1: as they are
  /// As OptimizerOptions::place: in place of the planner that `run` names. May be null.
  std::function<Schedule(const SchedulingProblem&)> place;
  /// Workers with little to do take calls from others, as in a run; false shows what plans alone
  /// do.
  bool moves_calls = true;
  /// What planning takes for the history of earlier runs, right or wrong, while answers are as
  /// `run.history_file` has them. Null: the same. Outlives the simulation.
  const OperatorHistory* believed = nullptr;
  /// The same of costs, by the models' names, while workers cost what `run.profile_file` says.
  const CostProfile* believed_costs = nullptr;
};

struct SimulatedWorkerReport {
  double busy_s = 0.0;  ///< of passes
  double load_s = 0.0;
  int64_t loads = 0, calls = 0;
  int64_t peak_memory_bytes = 0;
};

/// Seconds: of inference its share of the engines' passes, of a tool its calls' latencies added up.
struct SimulatedOperatorReport {
  std::string id, model;  ///< no model: a tool
  int64_t instances = 0, merged = 0, calls = 0, failed = 0;
  int64_t prompt_tokens = 0, reused_tokens = 0, output_tokens = 0;
  double seconds = 0.0;
  double estimated_calls = 0.0, estimated_s = 0.0;
};

/// What happened on the virtual clock, beside what the plan expected.
struct SimulationReport {
  std::string workflow, planner;
  uint64_t seed = 0;
  int64_t rows = 0, rows_ok = 0, rows_failed = 0;
  int64_t worker_memory_bytes = 0;
  double elapsed_s = 0.0, estimated_elapsed_s = 0.0, lower_bound_s = 0.0;
  double busy_s = 0.0, estimated_busy_s = 0.0;  ///< of all workers, loads not included
  double load_s = 0.0, estimated_load_s = 0.0;
  double tool_s = 0.0, estimated_tool_s = 0.0;  ///< latencies added up
  int64_t prompt_tokens = 0, reused_tokens = 0, output_tokens = 0;
  std::vector<SimulatedWorkerReport> workers;
  std::vector<SimulatedOperatorReport> operators;
  std::vector<std::string> notes;
  std::vector<std::string> first_failures;
  std::vector<Replanning> replannings;
  OperatorHistory history;                      ///< of this run alone, as a run remembers it
  double planning_s = 0.0, simulating_s = 0.0;  ///< on the real clock: no part of the result
};

/// Plans as a session does and runs the plan with the real scheduler on simulated workers and tools
/// (docs/simulation.md). Rows are read; no model is loaded and no tool is asked. Throws Error for
/// what is wrong with workflow, rows, profile or options; raising no model's absence: that is a
/// note.
SimulationReport Simulate(const SimulationOptions& options);

/// As a person reads it; many workers alike are summed up. Equal for equal simulations: real times
/// are left out.
std::string SimulationText(const SimulationReport& report);
/// One JSON object with every worker and operator.
std::string SimulationJson(const SimulationReport& report);

}  // namespace halo
