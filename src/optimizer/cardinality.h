#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "optimizer/cost_profile.h"
#include "optimizer/operator_history.h"
#include "optimizer/prompt_sharing.h"
#include "optimizer/query_cost.h"
#include "optimizer/row_statistics.h"
#include "plan/node_signature.h"
#include "plan/physical_plan.h"
#include "plan/templated_prompt.h"

namespace halo {

/// What planning knows of one model of a plan.
struct ModelFacts {
  std::string name;
  std::string digest;    ///< of its file; "": not resolved
  ModelProfile profile;  ///< measured, or defaults
  /// Names the profile among others of the model; "": estimates are by the profile alone, whatever
  /// earlier runs took.
  std::string profile_id;
  /// Tokens of a text; null: a token for every four bytes is assumed.
  std::function<int64_t(const std::string&)> count_tokens;
  /// The same of text that the author or a chat template wrote, in which control tokens are known;
  /// null: count_tokens.
  std::function<int64_t(const std::string&)> count_written_tokens;
  int64_t chat_tokens = 0;  ///< that the chat template adds to a system and a user turn
  /// What the chat template puts around messages of these roles; nothing: it cannot be told. Null:
  /// not known.
  std::function<std::optional<ChatFrame>(const std::vector<std::string>& roles)> chat_frame;
  int32_t sequences = 64;  ///< calls that run at once
};

/// One (workflow, rows) pair to be planned. What is pointed to outlives the planning.
struct OptimizerSource {
  LogicalPlan* plan = nullptr;
  std::string prompt_column;
  const RowStatistics* rows = nullptr;  ///< null: not known
  std::vector<ModelFacts> models;       ///< [plan models]
  double latency_scale = 1.0;           ///< of the latencies that tools declare
  /// [operators] nothing where no database has said; empty: none was asked.
  std::vector<std::optional<QueryCost>> query_costs;
};

/// Tokens of a value's text; a token for every four bytes where the model is not known.
double TokensOfText(const ModelFacts& model, const std::string& text);
/// Likewise of text in which control tokens are known.
double TokensOfWrittenText(const ModelFacts& model, const std::string& text);
/// A value as prompts show it.
std::string TextOfValue(const nlohmann::ordered_json& value);

/// Estimates rows, calls, tokens and seconds of every operator. What does not change while rules
/// are tried (texts of rows and templates in tokens, different values of columns, history) is
/// looked up once.
///
/// Where its numbers come from, best first: history of the same operator with the same model;
/// counting in the rows and texts, and what databases say of queries; stated assumptions, each with
/// an interval and a sentence in OperatorEstimate::assumptions.
class CardinalityEstimator {
 public:
  /// `history` may be null.
  CardinalityEstimator(const std::vector<OptimizerSource>& sources, const OperatorHistory* history);

  /// Fills the estimates of `plan.operators`, which are those of the sources in order.
  void EstimateAll(PhysicalPlan& plan) const;

  const OperatorIdentity& identity(size_t source, OperatorIndex op) const {
    return identities_[source][static_cast<size_t>(op)];
  }
  /// Mean tokens of the row's text that an operator's prompt repeats.
  double row_tokens(size_t source, OperatorIndex op) const {
    return facts_[source][static_cast<size_t>(op)].row_tokens;
  }
  /// Tokens that the author wrote into an operator's prompt.
  double written_tokens(size_t source, OperatorIndex op) const {
    return facts_[source][static_cast<size_t>(op)].written_tokens;
  }
  /// Groups of the operators that make calls, for the estimates that `plan` has.
  std::vector<PrefixGroup> Groups(const PhysicalPlan& plan) const;
  const PromptSharing& sharing() const { return sharing_; }

 private:
  struct Facts {
    const OperatorRecord* record = nullptr;  ///< history
    const QueryCost* cost = nullptr;         ///< of a query that its database was asked for
    const OperatorRecord* pace = nullptr;    ///< history of all queries of that kind, or model
    double written_tokens = 0.0, row_tokens = 0.0;
    double row_variance = 0.0;     ///< of row_tokens over the rows
    double answer_variance = 0.0;  ///< of its answers' tokens, where history knows
  };

  Facts FactsOf(const OptimizerSource& source, OperatorIndex op, const OperatorHistory* history,
                const OperatorIdentity& identity) const;
  void EstimateCalls(const PhysicalPlan& plan, size_t position, OperatorEstimate& estimate) const;
  void EstimateInference(const PhysicalPlan& plan, size_t position, SharingPass& pass,
                         OperatorEstimate& estimate) const;
  Estimate PromptTokens(const PhysicalPlan& plan, size_t position) const;
  void EstimateReuse(const PhysicalPlan& plan, size_t position, SharingPass& pass,
                     OperatorEstimate& estimate) const;
  double WiderThanItsSource(const PhysicalPlan& plan, size_t position, double calls) const;
  void EstimateTool(size_t source, OperatorIndex op, OperatorEstimate& estimate) const;
  static Estimate QuerySeconds(const Facts& facts, OperatorEstimate& estimate);
  double SpreadTokens(size_t source, OperatorIndex op) const;
  Estimate DistinctRows(const PhysicalPlan& plan, size_t position) const;

  static std::vector<std::vector<OperatorIdentity>> IdentitiesOf(
      const std::vector<OptimizerSource>& sources);

  const std::vector<OptimizerSource>& sources_;
  std::vector<std::vector<OperatorIdentity>> identities_;  // [sources][operators]
  PromptSharing sharing_;
  std::vector<std::vector<Facts>> facts_;  // [sources][operators]
};

/// Column sets whose values reach operators, for RowStatistics.
std::vector<std::set<std::string>> ColumnSetsOf(const LogicalPlan& plan,
                                                const std::string& prompt_column);

}  // namespace halo
