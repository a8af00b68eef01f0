// Rules about work that is done once instead of often.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "optimizer/rules/rules.h"
#include "plan/plan_words.h"

namespace halo {
namespace {

/// True for what puts the row's prompt where a shared prefix can begin.
bool MayShareRowPrompt(const Operator& op) {
  return op.is_inference() && op.form == PromptForm::kRowPrompt && op.history != History::kContinue;
}

}  // namespace

std::vector<std::string> EqualOperators::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  std::map<std::pair<uint64_t, uint64_t>, size_t> first;
  for (size_t i = 0; i < state.plan.operators.size(); ++i) {
    PlannedOperator& planned = state.plan.operators[i];
    const OperatorIdentity& identity = state.estimator.identity(planned.source, planned.op);
    if (identity.each_row || state.node(planned).removed) continue;
    const auto [found, is_first] =
        first.emplace(std::pair(identity.signature.high, identity.signature.low), i);
    if (is_first) continue;
    planned.same_as = static_cast<int32_t>(found->second);
    changes.push_back(fmt::format("{} takes the answers of {}", state.NameOf(planned),
                                  state.NameOf(state.plan.operators[found->second])));
  }
  return changes;
}

std::vector<std::string> ConstantOperators::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  for (PlannedOperator& planned : state.plan.operators) {
    const OperatorIdentity& identity = state.estimator.identity(planned.source, planned.op);
    if (!identity.is_constant() || state.node(planned).removed) continue;
    planned.is_constant = true;
    changes.push_back(fmt::format("{} is called once", state.NameOf(planned)));
  }
  return changes;
}

namespace {

/// Names of operators; of many, how many more there are.
std::string NamesOf(const OptimizerState& state, const std::vector<size_t>& operators) {
  constexpr size_t kMost = 8;
  std::string names;
  for (size_t i = 0; i < std::min(kMost, operators.size()); ++i)
    names += (names.empty() ? "" : ", ") + state.NameOf(state.plan.operators[operators[i]]);
  return operators.size() <= kMost ? names
                                   : names + fmt::format(" and {} more", operators.size() - kMost);
}

/// Engine seconds for the tokens that a group saves, spread over its calls.
double SecondsSaved(const OptimizerState& state, const PrefixGroup& group) {
  if (group.calls <= 0.0) return 0.0;
  const PlannedOperator& first = state.plan.operators[group.operators.front()];
  const ModelFacts& model =
      state.sources[first.source].models[static_cast<size_t>(state.node(first).model)];
  return PrefillSeconds(model.profile, group.calls, group.saved_tokens / group.calls, 0.0);
}

}  // namespace

std::vector<std::string> PrefixGroups::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  state.plan.prefix_groups = state.estimator.Groups(state.plan);
  for (PlannedOperator& planned : state.plan.operators) planned.prefix_group = -1;
  for (size_t i = 0; i < state.plan.prefix_groups.size(); ++i) {
    PrefixGroup& group = state.plan.prefix_groups[i];
    group.saved_s = SecondsSaved(state, group);
    // Enclosing groups come first, so that the innermost stays.
    for (const size_t member : group.operators)
      state.plan.operators[member].prefix_group = static_cast<int32_t>(i);
    changes.push_back(fmt::format("{} begin with {}: {}", NamesOf(state, group.operators),
                                  group.prefix, PrefixGroupWords(group)));
  }
  return changes;
}

std::vector<std::string> ChoosePromptLayout::Apply(OptimizerState& state) const {
  std::vector<std::string> changes;
  using Readers = std::vector<const PlannedOperator*>;
  std::map<std::tuple<size_t, ModelIndex, AdapterIndex>, Readers> readers;
  for (const PlannedOperator& planned : state.plan.operators) {
    const LogicalNode& node = state.node(planned);
    const Operator& op = state.operator_of(planned);
    if (node.removed || !MayShareRowPrompt(op) || op.prompt_layout != PromptLayout::kAuto) continue;
    readers[{planned.source, node.model, node.adapter}].push_back(&planned);
  }
  std::set<size_t> changed;  // sources
  for (const auto& [key, all] : readers) {
    const size_t source = std::get<0>(key);
    double instructions = 0.0, row = 0.0;
    for (const PlannedOperator* planned : all) {
      instructions += state.estimator.written_tokens(source, planned->op);
      row = std::max(row, state.estimator.row_tokens(source, planned->op));
    }
    // For each row: its text once and every instruction, or its text for every operator.
    const double context_first = row + instructions;
    const double instruction_first = row * static_cast<double>(all.size());
    const PromptLayout best = row > 0.0 && all.size() > 1 && context_first < instruction_first
                                  ? PromptLayout::kContextFirst
                                  : PromptLayout::kInstructionFirst;
    for (const PlannedOperator* planned : all) {
      LogicalNode& node = state.node(*planned);
      if (row <= 0.0 || node.layout == best) continue;
      node.layout = best;
      changed.insert(source);
      changes.push_back(
          fmt::format("{} becomes {}", state.NameOf(*planned), PromptLayoutName(best)));
    }
  }
  for (const size_t source : changed) LinkKvSources(*state.sources[source].plan);
  return changes;
}

std::vector<std::string> LonePrompts::Apply(OptimizerState& state) const {
  const PromptSharing& sharing = state.estimator.sharing();
  std::vector<bool> live;
  for (const PlannedOperator& planned : state.plan.operators) {
    live.push_back(state.operator_of(planned).is_inference() && !state.node(planned).removed &&
                   planned.same_as < 0);
  }
  std::map<std::string, std::string> names;  // of operators, by column
  for (size_t i = 0; i < live.size(); ++i) {
    const PlannedOperator& planned = state.plan.operators[i];
    LogicalNode& node = state.node(planned);
    node.lone_prompts = false;
    if (!live[i] || node.kv_source >= 0 || node.kv_consumers > 0) continue;
    const RowStatistics* rows = state.sources[planned.source].rows;
    const PromptPiece* value = sharing.FirstValue(i);
    const DistinctCounter* values =
        rows == nullptr || value == nullptr ? nullptr : rows->Find({value->column});
    // Calls are as many as the rows, or as their different combinations of values.
    const bool is_lone = state.operator_of(planned).samples == 1 && values != nullptr &&
                         values->Count().value >= planned.estimate.calls.value &&
                         sharing.IsAlone(i, live);
    if (!is_lone) continue;
    node.lone_prompts = true;
    std::string& all = names[value->column];
    all += (all.empty() ? "" : ", ") + state.NameOf(planned);
  }
  std::vector<std::string> changes;
  for (const auto& [column, all] : names)
    changes.push_back(fmt::format("each prompt has a {} of its own: {}", column, all));
  return changes;
}

}  // namespace halo
