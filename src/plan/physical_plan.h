#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/estimate.h"
#include "plan/logical_plan.h"

namespace halo {

/// What one operator is expected to do over all rows of its source. Token counts are means over the
/// calls that are made.
struct OperatorEstimate {
  Estimate instances;      ///< one for each row
  Estimate calls;          ///< that are made: distinct ones, samples counted
  Estimate prompt_tokens;  ///< of a call; = reused + prefilled
  Estimate reused_tokens;  ///< of a call: KV that is there
  /// Of reused_tokens, those that lie where the operator's KV source ran; the rest all workers have
  /// after their first call.
  double source_tokens = 0.0;
  Estimate output_tokens;  ///< of a call
  Estimate busy_s;         ///< of the engine, or of the tool summed over its calls
  /// Engine seconds of earlier runs / what the profile says of them; busy_s contains it. Tools that
  /// take the engine's cores, among others, make it more than 1.
  double pace = 1.0;
  std::vector<std::string> assumptions;  ///< what is not known, and what was taken instead
};

/// What it did, for `explain --analyze`. Same units.
struct OperatorActual {
  int64_t instances = 0, calls = 0;
  double prompt_tokens = 0.0, reused_tokens = 0.0, output_tokens = 0.0, busy_s = 0.0;
};

struct PlannedSource {
  std::string workflow;
  const LogicalPlan* plan = nullptr;  ///< outlives this
  int64_t rows = -1;                  ///< -1: not known
};

/// One operator of one source.
struct PlannedOperator {
  size_t source = 0;
  OperatorIndex op = 0;
  bool serves_others = false;     ///< one of another source has it as same_as
  int32_t same_as = -1;           ///< an earlier one that asks the same: its calls serve both
  bool is_constant = false;       ///< one call for all rows
  int32_t prefix_group = -1;      ///< the innermost
  int32_t batch_limit = 0;        ///< of inference: most of its calls in the engine's batch at once
  std::optional<double> start_s;  ///< of its first call, in the schedule; nothing: it is not run
  OperatorEstimate estimate;
  std::optional<OperatorActual> actual;
};

/// Operators of one model and adapter whose prompts begin alike: with the same text, and with equal
/// values where they are of the same row.
struct PrefixGroup {
  std::vector<size_t> operators;  ///< positions in PhysicalPlan::operators, ascending
  int32_t parent = -1;            ///< the group around it, whose prefix is shorter; -1: none
  std::string prefix;             ///< for people: "You are ..." + {{ title }}
  int32_t values = 0;             ///< in the prefix, that are not known before there is a row
  double tokens = 0.0;            ///< of the prefix, expected
  double constant_tokens = 0.0;   ///< of these, ahead of the first value
  double prefixes = 0.0;          ///< different ones, expected
  double calls = 0.0;             ///< whose prompts begin with one of them
  /// Of all calls: computed once instead of once for each operator, beyond what `parent` saves.
  double saved_tokens = 0.0;
  double saved_s = 0.0;  ///< of the engine for these; the estimates have them
};

/// What a rule did.
struct AppliedRule {
  std::string name;
  std::string what;  ///< in a sentence
  bool is_on = true;
  std::vector<std::string> changes;  ///< one for each place; empty: it did not apply
  double saved_s = 0.0;              ///< of estimated machine time
  double planning_s = 0.0;           ///< that it took
};

/// A share of an operator's rows on a worker, over time.
struct PlacedOperator {
  size_t op = 0;  ///< position in PhysicalPlan::operators
  int32_t worker = 0;
  int32_t share = 0, shares = 1;  ///< the `share`-th of `shares` equal parts of the rows
  double start_s = 0.0, end_s = 0.0;
  double load_s = 0.0;  ///< before start_s: the model is loaded
};

struct PlanWorker {
  std::string name;
  int64_t memory_bytes = 0;
};

/// The plan that is carried out, with what it is expected to cost.
struct PhysicalPlan {
  std::vector<PlannedSource> sources;
  std::vector<PlannedOperator> operators;  ///< sources in order, operators in order
  std::vector<PrefixGroup> prefix_groups;
  std::vector<AppliedRule> rules;
  std::vector<PlanWorker> workers;
  std::vector<PlacedOperator> placements;  ///< by worker and start
  std::vector<std::string> models;         ///< names, by what is placed
  std::string planner;
  Estimate engine_busy_s;      ///< of all workers together
  Estimate elapsed_s;          ///< of the run
  double load_s = 0.0;         ///< of models, over all workers
  double lower_bound_s = 0.0;  ///< of elapsed_s under the same costs, as far as proved
  /// What a run of the plan took, for `explain --analyze`.
  std::optional<double> actual_engine_busy_s, actual_elapsed_s;
  bool has_costs = false;          ///< seconds mean something: a model's rates are known
  std::vector<std::string> notes;  ///< what a reader should know about the estimates
};

/// EXPLAIN (contract 1). All are pure, and equal byte for byte for equal plans: times that planning
/// took are left out.
std::string ExplainText(const PhysicalPlan& plan);
std::string ExplainJson(const PhysicalPlan& plan);
std::string ExplainMermaid(const PhysicalPlan& plan);
/// One self-contained page.
std::string ExplainHtml(const PhysicalPlan& plan);

}  // namespace halo
