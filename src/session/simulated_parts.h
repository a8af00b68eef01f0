#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/simulated/scripted_answer.h"
#include "engine/simulated/simulated_costs.h"
#include "engine/simulated/simulated_worker.h"
#include "model/vocabulary.h"
#include "optimizer/cost_profile.h"
#include "plan/physical_plan.h"
#include "runtime/simulated_tools.h"
#include "workflow/workflow.h"

namespace halo {

/// What a simulation is made of: everything that stands between the optimizer's figures and the
/// simulated engines and tools, which know nothing of it.

/// A measured model as a simulated one's costs.
SimulatedCosts CostsOf(const ModelProfile& profile);

/// What simulated models say: made-up words, or a text that a call's grammar admits, as long as the
/// operator's earlier answers were, else of any length up to max_tokens.
///
/// Pure: a drawn answer depends on the call's draw key, one at temperature 0 on what equal calls
/// have in common, so that the rows are those of the naive run. (Except where history knows two
/// operators by different lengths that turn out to ask the same at run time.)
class SimulatedAnswers {
 public:
  /// `vocabulary`: of the model, shared with the prompts; null: texts, four bytes a token.
  SimulatedAnswers(uint64_t seed, std::map<std::string, AnswerLengths> lengths,
                   std::shared_ptr<const Vocabulary> vocabulary);

  SimulatedAnswer Answer(const Request& request, int32_t max_tokens);

 private:
  uint64_t KeyOf(const Request& request) const;
  void FillByGrammar(const Request& request, int32_t tokens, uint64_t key, SimulatedAnswer& answer);

  uint64_t seed_;
  std::map<std::string, AnswerLengths> lengths_;  // by operator; missing: not known
  std::shared_ptr<const Vocabulary> vocabulary_;  // shared as said above
  std::vector<TokenId> words_;                    // of the vocabulary
  std::map<std::string, std::unique_ptr<GrammarTexts>> grammars_;  // by text
};

/// What simulated tools answer. Functions that come with Halo are run, since they are pure; queries
/// give a few rows, web services a short text. How long a call takes is drawn: a declared latency
/// as it is declared, others from a log-normal distribution around the plan's estimate.
class SimulatedToolResults {
 public:
  SimulatedToolResults(uint64_t seed, const Workflow& workflow, const PhysicalPlan& plan,
                       size_t source);

  ScriptedResult Answer(const ToolCall& call) const;

 private:
  nlohmann::ordered_json RowsOf(const SqlCall& call) const;

  uint64_t seed_;
  std::map<std::string, double> mean_s_;  // by operator, of one call
  std::vector<std::string> columns_;      // that some query's mapping reads
};

}  // namespace halo
