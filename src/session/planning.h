#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "halo/session.h"
#include "model/chat_template.h"
#include "model/model_names.h"
#include "model/vocabulary.h"
#include "optimizer/optimizer.h"
#include "plan/physical_plan.h"
#include "runtime/executor.h"
#include "session/replanning.h"

namespace halo {

/// One model file as planning knows it.
struct ModelToPlan {
  const ResolvedModel* resolved = nullptr;       ///< null: no file is known for the name
  std::shared_ptr<const Vocabulary> vocabulary;  ///< shared with engine and prompts; may be null
  std::shared_ptr<const ChatTemplate> chat;      ///< shared as the vocabulary
};

/// One (workflow, rows) pair as planning knows it.
struct InputToPlan {
  LogicalPlan* plan = nullptr;
  std::string prompt_column;
  const RowStatistics* rows = nullptr;  ///< null: not known
  std::vector<ModelToPlan> models;      ///< [plan models]
  /// OptimizerSource::query_costs
  std::vector<std::optional<QueryCost>> query_costs;
};

/// Adds what a model's vocabulary and chat template say of prompts; either may be null.
void DescribePrompts(const std::shared_ptr<const Vocabulary>& vocabulary,
                     const std::shared_ptr<const ChatTemplate>& chat, ModelFacts& facts);

/// ModelFacts::profile_id of a profile.
std::string ProfileId(const ModelProfile& profile);

/// Adds what the operators of a run turned out to be. `sources` are those that its plan was made
/// of; `as_run`: that plan with actuals, and with what the profile says of the run's own calls;
/// null: the run is no measure of the profile.
void AddToHistory(const std::vector<OptimizerSource>& sources, const RunReport& report,
                  const PhysicalPlan* as_run, OperatorHistory& history);

/// Planning of one run: reads the machine's profile and the history of earlier runs, plans, and
/// writes down what the run turned out to be. Neither file is needed, and what is wrong with one is
/// a note of the plan.
class Planning {
 public:
  Planning(const RunOptions& options, Clock& clock);

  /// Rewrites the logical plans.
  PhysicalPlan Plan(const std::vector<InputToPlan>& inputs, int64_t rows_side_by_side);

  /// For a run of this plan; this outlives it.
  std::unique_ptr<Replanner> MakeReplanner(const PhysicalPlan& plan) const;

  /// Puts what happened beside the estimates. `engine_busy_us`: of all engines; what is no pass
  /// (sampling, copies) is shared out as the passes are.
  static void AddActuals(const RunReport& report, int64_t engine_busy_us, PhysicalPlan& plan);
  /// Seconds that the machine needs for the run's own calls and tokens by its profile; nothing
  /// without a measured one for every model.
  std::optional<double> LowerBound(const RunReport& report, const PhysicalPlan& plan) const;
  /// Adds the run to the history. Returns what went wrong, or "": a run does not fail for it.
  std::string Remember(const RunReport& report, const PhysicalPlan& plan) const;

 private:
  /// The plan with what the profile says of the run's own calls.
  PhysicalPlan AsRun(const RunReport& report, const PhysicalPlan& plan) const;
  ModelFacts FactsOf(const std::string& name, const ModelToPlan& model);

  const RunOptions& options_;
  Clock& clock_;
  CostProfile profile_;
  OperatorHistory history_;
  std::vector<std::string> notes_;
  std::vector<OptimizerSource> sources_;  // of the last Plan
  OptimizerOptions how_;                  // the same
};

}  // namespace halo
