// Rules about work that is done once instead of often.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <tuple>

#include "optimizer/rules/rules.h"

namespace halo {
namespace {

/// Texts that begin a prompt's constant part, as far as the workflow writes it out.
std::string ConstantBeginning(const LogicalNode& node, const Operator& op) {
  if (!op.is_inference() || op.history == History::kContinue) return "";
  if (node.layout != PromptLayout::kInstructionFirst) return "";
  const std::string& source = op.instruction->source();
  return source.substr(0, std::min(source.find("{{"), source.find("{%")));
}

size_t SharedBytes(const std::string& a, const std::string& b) {
  const size_t most = std::min(a.size(), b.size());
  const auto end = a.begin() + static_cast<ptrdiff_t>(most);
  return static_cast<size_t>(std::mismatch(a.begin(), end, b.begin()).first - a.begin());
}

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

std::vector<std::string> PrefixGroups::Apply(OptimizerState& state) const {
  constexpr size_t kFewestBytes = 32;  // a few tokens are not worth keeping together for
  std::vector<std::string> changes;
  // (source, model, adapter) -> groups by their beginning
  std::map<std::tuple<ModelRequest, std::string>, std::vector<PrefixGroup>> groups;
  for (size_t i = 0; i < state.plan.operators.size(); ++i) {
    const PlannedOperator& planned = state.plan.operators[i];
    const LogicalNode& node = state.node(planned);
    const Operator& op = state.operator_of(planned);
    const std::string beginning = ConstantBeginning(node, op);
    if (node.removed || planned.same_as >= 0 || beginning.size() < kFewestBytes) continue;
    std::vector<PrefixGroup>& known = groups[{op.model, op.lora ? op.lora->file : ""}];
    const auto alike = std::find_if(known.begin(), known.end(), [&](const PrefixGroup& group) {
      return SharedBytes(group.text, beginning) >= kFewestBytes;
    });
    if (alike == known.end()) {
      known.push_back({{i}, beginning, 0});
    } else {
      alike->operators.push_back(i);
      alike->text.resize(SharedBytes(alike->text, beginning));
    }
  }
  state.plan.prefix_groups.clear();
  for (auto& [model, known] : groups) {
    for (PrefixGroup& group : known) {
      if (group.operators.size() < 2) continue;
      const PlannedOperator& first = state.plan.operators[group.operators.front()];
      const ModelFacts& facts =
          state.sources[first.source].models[static_cast<size_t>(state.node(first).model)];
      group.tokens = facts.count_tokens ? facts.count_tokens(group.text)
                                        : static_cast<int64_t>(group.text.size() / 4);
      std::string names;
      for (const size_t member : group.operators) {
        PlannedOperator& planned = state.plan.operators[member];
        planned.prefix_group = static_cast<int32_t>(state.plan.prefix_groups.size());
        names += (names.empty() ? "" : ", ") + state.NameOf(planned);
      }
      changes.push_back(fmt::format("{} begin with the same {} tokens", names, group.tokens));
      state.plan.prefix_groups.push_back(std::move(group));
    }
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
  for (const auto& [key, all] : readers) {
    const size_t source = std::get<0>(key);
    LogicalPlan& plan = *state.sources[source].plan;
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
      changes.push_back(
          fmt::format("{} becomes {}", state.NameOf(*planned), PromptLayoutName(best)));
    }
    LinkKvSources(plan);
  }
  return changes;
}

std::vector<std::string> LonePrompts::Apply(OptimizerState& state) const {
  struct Candidate {
    const PlannedOperator* planned;
    PromptBeginning beginning;
    bool is_lone;
  };
  std::map<std::pair<ModelRequest, std::string>, std::vector<Candidate>> by_model;
  for (const PlannedOperator& planned : state.plan.operators) {
    const Operator& op = state.operator_of(planned);
    LogicalNode& node = state.node(planned);
    node.lone_prompts = false;
    if (!op.is_inference() || node.removed || planned.same_as >= 0) continue;
    const OptimizerSource& source = state.sources[planned.source];
    Candidate candidate{&planned, BeginningOf(op, node.layout, source.prompt_column), false};
    const DistinctCounter* values =
        source.rows == nullptr ? nullptr : source.rows->Find({candidate.beginning.column});
    // Calls are as many as the rows, or as their different combinations of values.
    candidate.is_lone = node.kv_source < 0 && node.kv_consumers == 0 && op.samples == 1 &&
                        values != nullptr && values->Count().value >= planned.estimate.calls.value;
    by_model[{op.model, op.lora ? op.lora->file : ""}].push_back(std::move(candidate));
  }
  const auto begin_alike = [](const Candidate& a, const Candidate& b) {
    const std::string &one = a.beginning.text, &other = b.beginning.text;
    return SharedBytes(one, other) == std::min(one.size(), other.size());
  };
  std::map<std::string, std::string> names;  // of operators, by column
  for (const auto& [model, candidates] : by_model) {
    for (const Candidate& one : candidates) {
      const bool is_alone = std::none_of(
          candidates.begin(), candidates.end(),
          [&](const Candidate& other) { return &other != &one && begin_alike(one, other); });
      if (!one.is_lone || !is_alone) continue;
      state.node(*one.planned).lone_prompts = true;
      std::string& all = names[one.beginning.column];
      all += (all.empty() ? "" : ", ") + state.NameOf(*one.planned);
    }
  }
  std::vector<std::string> changes;
  for (const auto& [column, all] : names)
    changes.push_back(fmt::format("each prompt has a {} of its own: {}", column, all));
  return changes;
}

}  // namespace halo
