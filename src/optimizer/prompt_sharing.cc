#include "optimizer/prompt_sharing.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <tuple>

#include "optimizer/cardinality.h"

namespace halo {
namespace {

/// A group of prompts is worth a name from so many bytes of the author's on.
constexpr size_t kFewestBytes = 32;

bool HasListPrompts(const OptimizerSource& source) {
  if (source.rows == nullptr) return false;
  const auto& sample = source.rows->sample();
  return std::any_of(sample.begin(), sample.end(), [&](const nlohmann::ordered_json& row) {
    const auto found = row.find(source.prompt_column);
    return found != row.end() && found->is_array();
  });
}

PromptSetting SettingOf(const OptimizerSource& source, size_t index) {
  PromptSetting setting;
  setting.source = static_cast<int64_t>(index);
  setting.prompt_column = source.prompt_column;
  setting.list_prompts = HasListPrompts(source);
  setting.frame = [&source](ModelIndex model, const std::vector<std::string>& roles) {
    const ModelFacts& facts = source.models[static_cast<size_t>(model)];
    return facts.chat_frame ? facts.chat_frame(roles) : std::nullopt;
  };
  return setting;
}

/// Tokens of text that an author or a chat template wrote; a mark stands for a third of what the
/// template adds to a system's and a user's turn and to the beginning of the answer.
double WrittenTokens(const ModelFacts& model, std::string_view text) {
  constexpr double kMarksOfTwoTurns = 3.0;
  const auto marks = std::count_if(text.begin(), text.end(), IsFrameMark);
  std::string said(text);
  std::erase_if(said, IsFrameMark);
  return TokensOfWrittenText(model, said) +
         static_cast<double>(marks) * static_cast<double>(model.chat_tokens) / kMarksOfTwoTurns;
}

/// Mean tokens of columns over a sample of rows.
class ColumnTokens {
 public:
  double Of(const OptimizerSource& source, size_t source_index, ModelIndex model,
            const std::string& column, int32_t depth) {
    const auto [found, is_new] = known_.try_emplace({source_index, model, column, depth}, 0.0);
    if (is_new && source.rows != nullptr)
      found->second =
          MeanTokens(*source.rows, source.models[static_cast<size_t>(model)], column, depth);
    return found->second;
  }

 private:
  /// `depth`: of an operator that takes an element of a list; -1: the value as it is. Column "*":
  /// the whole row.
  static double MeanTokens(const RowStatistics& rows, const ModelFacts& model,
                           const std::string& column, int32_t depth) {
    constexpr size_t kRows = 64;
    const size_t count = std::min(kRows, rows.sample().size());
    double sum = 0.0;
    for (size_t i = 0; i < count; ++i) {
      const nlohmann::ordered_json& row = rows.sample()[i];
      const auto found = row.find(column);
      if (column != "*" && found == row.end()) continue;
      const nlohmann::ordered_json& value = column == "*" ? row : *found;
      const bool is_turns = depth >= 0 && value.is_array() && !value.empty();
      sum += TokensOfText(
          model,
          TextOfValue(is_turns
                          ? value[std::min<size_t>(static_cast<size_t>(depth), value.size() - 1)]
                          : value));
    }
    return count == 0 ? 0.0 : sum / static_cast<double>(count);
  }

  std::map<std::tuple<size_t, ModelIndex, std::string, int32_t>, double> known_;
};

}  // namespace

PromptSharing::PromptSharing(const std::vector<OptimizerSource>& sources,
                             const std::vector<std::vector<OperatorIdentity>>& identities)
    : sources_(sources) {
  for (size_t s = 0; s < sources.size(); ++s) {
    first_.push_back(source_of_.size());
    source_of_.resize(source_of_.size() + sources[s].plan->nodes.size(), s);
  }
  prompts_.resize(source_of_.size());
  for (size_t s = 0; s < sources.size(); ++s) {
    const PromptSetting setting = SettingOf(sources[s], s);
    auto made = TemplatePrompts(*sources[s].plan, identities[s], setting);
    for (size_t i = 0; i < made.size(); ++i) {
      if (made[i]) prompts_[first_[s] + i].prompt = *std::move(made[i]);
    }
  }
  // (model, adapter and its scale) of all sources together
  using ComputedBy = std::tuple<ModelRequest, std::string, double>;
  std::map<ComputedBy, NodeIndex> roots;
  for (size_t position = 0; position < prompts_.size(); ++position) {
    const LogicalPlan& plan = *sources[source_of_[position]].plan;
    const auto index = static_cast<OperatorIndex>(position - first_[source_of_[position]]);
    const Operator& op = plan.operator_of(index);
    if (!op.is_inference()) continue;
    Prompt& prompt = prompts_[position];
    const ComputedBy by = {op.model, op.lora ? op.lora->file : "", op.lora ? op.lora->scale : 0.0};
    const auto [root, is_new] = roots.try_emplace(by, PromptTree::kNoNode);
    if (is_new) root->second = tree_.AddRoot();
    prompt.begin = prompt.prompt.continues < 0
                       ? root->second
                       : prompts_[PositionOf(source_of_[position], prompt.prompt.continues)].end;
    prompt.end = tree_.Insert(position, prompt.prompt.pieces, prompt.begin);
  }
  order_ = tree_.TopDown();
  facts_.resize(tree_.size());
  CountTokens();
  CountDifferent(identities);
}

void PromptSharing::CountTokens() {
  ColumnTokens columns;
  for (const NodeIndex index : order_) {
    const PromptTree::Node& node = tree_.at(index);
    if (node.parent == PromptTree::kNoNode) continue;
    const size_t source = source_of_[node.first];
    const auto op = static_cast<OperatorIndex>(node.first - first_[source]);
    const LogicalPlan& plan = *sources_[source].plan;
    const ModelIndex model = plan.at(op).model;
    const ModelFacts& facts = sources_[source].models[static_cast<size_t>(model)];
    double& tokens = facts_[static_cast<size_t>(index)].known_tokens;
    tokens = WrittenTokens(facts, node.value == nullptr ? node.text : node.value->text);
    if (node.value == nullptr) continue;
    const bool takes_turns = plan.operator_of(op).form == PromptForm::kRowPrompt;
    for (const std::string& column : node.value->columns)
      tokens += columns.Of(sources_[source], source, model, column,
                           takes_turns ? plan.operator_of(op).depth : -1);
    if (node.value->whole_row) tokens += columns.Of(sources_[source], source, model, "*", -1);
  }
  for (Prompt& prompt : prompts_) {
    for (NodeIndex at = prompt.end; at != prompt.begin; at = tree_.at(at).parent)
      prompt.known_tokens += facts_[static_cast<size_t>(at)].known_tokens;
  }
}

void PromptSharing::CountDifferent(const std::vector<std::vector<OperatorIdentity>>& identities) {
  for (const NodeIndex index : order_) {
    const PromptTree::Node& node = tree_.at(index);
    if (node.parent == PromptTree::kNoNode) continue;
    const NodeFacts& before = facts_[static_cast<size_t>(node.parent)];
    NodeFacts& facts = facts_[static_cast<size_t>(index)];
    facts.different = before.different;
    facts.varies = before.varies;
    facts.whole_row = before.whole_row;
    facts.columns = before.columns;
    if (node.value == nullptr || !node.value->is_open()) continue;
    const size_t source = source_of_[node.first];
    facts.columns.insert(node.value->columns.begin(), node.value->columns.end());
    facts.whole_row = facts.whole_row || node.value->whole_row;
    for (const OperatorIndex producer : node.value->producers) {
      const OperatorIdentity& of = identities[source][static_cast<size_t>(producer)];
      facts.varies = facts.varies || of.varies;
      facts.whole_row = facts.whole_row || of.reaches.whole_row;
      facts.columns.insert(of.reaches.columns.begin(), of.reaches.columns.end());
    }
    const RowStatistics* rows = sources_[source].rows;
    const bool is_constant = !facts.varies && !facts.whole_row && facts.columns.empty();
    if (rows == nullptr || is_constant) continue;
    facts.different = static_cast<double>(rows->rows());
    if (facts.varies) continue;
    const DistinctCounter* counter =
        rows->Find(facts.whole_row ? std::set<std::string>{"*"} : facts.columns);
    if (counter != nullptr) facts.different = std::max(before.different, counter->Count().value);
  }
}

bool PromptSharing::IsAnswerOfPromptBefore(NodeIndex node) const {
  const size_t source = source_of_[tree_.at(node).first];
  return tree_.IsAnswerOfPromptBefore(node,
                                      [&](OperatorIndex op) { return PositionOf(source, op); });
}

PromptSharing::NodeIndex PromptSharing::FirstOpenNode(size_t position) const {
  NodeIndex first = PromptTree::kNoNode;
  for (NodeIndex at = prompts_[position].end; at != PromptTree::kNoNode; at = tree_.at(at).parent) {
    if (tree_.at(at).value != nullptr && tree_.at(at).value->is_open()) first = at;
  }
  return first;
}

const PromptPiece* PromptSharing::FirstValue(size_t position) const {
  const NodeIndex node = FirstOpenNode(position);
  return node == PromptTree::kNoNode ? nullptr : tree_.at(node).value;
}

bool PromptSharing::IsAlone(size_t position, const std::vector<bool>& live) const {
  const NodeIndex node = FirstOpenNode(position);
  if (node == PromptTree::kNoNode) return false;
  const PromptPiece& own = *tree_.at(node).value;
  // Whatever is below it, and beside it what may turn out to say the same.
  std::vector<NodeIndex> open = {node};
  for (const NodeIndex beside : tree_.at(tree_.at(node).parent).children) {
    const PromptPiece* other = tree_.at(beside).value;
    if (beside == node || other == nullptr) continue;
    const size_t source = source_of_[tree_.at(beside).first];
    const bool is_other_column =
        !other->column.empty() && other->column != own.column && source == source_of_[position];
    const bool is_answer = other->answer_of >= 0 &&
                           sources_[source].plan->operator_of(other->answer_of).is_inference();
    if (!is_other_column && !is_answer) open.push_back(beside);
  }
  while (!open.empty()) {
    const PromptTree::Node& at = tree_.at(open.back());
    open.pop_back();
    for (const size_t end : at.ends) {
      if (end != position && live[end]) return false;
    }
    open.insert(open.end(), at.children.begin(), at.children.end());
  }
  return true;
}

SharingPass::SharingPass(const PromptSharing& sharing)
    : sharing_(sharing), nodes_(sharing.tree_.size()) {}

SharingPass::Shared SharingPass::Add(size_t position, double calls, double wider,
                                     const AnswerTokens& answer_tokens,
                                     const std::function<bool(size_t)>& answer_is_kept) {
  Shared shared;
  if (calls <= 0.0) return shared;
  const PromptSharing::Prompt& prompt = sharing_.prompts_[position];
  for (auto at = prompt.end; at != prompt.begin; at = sharing_.tree_.at(at).parent) {
    const PromptTree::Node& node = sharing_.tree_.at(at);
    const PromptSharing::NodeFacts& facts = sharing_.facts_[static_cast<size_t>(at)];
    NodeState& state = nodes_[static_cast<size_t>(at)];
    const size_t source = sharing_.source_of_[node.first];
    if (state.tokens < 0.0) {
      state.tokens = facts.known_tokens;
      if (node.value != nullptr) {
        for (const OperatorIndex producer : node.value->producers)
          state.tokens +=
              node.value->answer_share *
              answer_tokens(sharing_.PositionOf(source, producer), node.value->with_conversation);
      }
      // Decoding has made it.
      const bool is_decoded = sharing_.IsAnswerOfPromptBefore(at) &&
                              answer_is_kept(sharing_.PositionOf(source, node.value->answer_of));
      if (is_decoded) state.covered = 1.0;
    }
    const bool is_open = node.open_values > 0;
    const double different = std::max(1.0, facts.different * (is_open ? wider : 1.0));
    const double own = std::min(different, calls);
    const double computed = own * (1.0 - state.covered);
    const double reused = state.tokens * (1.0 - computed / calls);
    shared.reused_tokens += reused;
    if (is_open) shared.source_tokens += state.tokens * state.covered;
    // What the first one finds was decoded.
    if (state.calls > 0.0) state.saved_tokens += own * state.covered * state.tokens;
    state.covered = std::max(state.covered, own / different);
    state.calls += calls;
  }
  return shared;
}

namespace {

void AddTo(std::vector<size_t>& all, const std::vector<size_t>& more) {
  all.insert(all.end(), more.begin(), more.end());
}

}  // namespace

/// [nodes] live prompts that begin with what leads there, conversations that only go on from one of
/// them aside; `branches` [nodes]: ways on which they part.
std::vector<std::vector<size_t>> SharingPass::MembersBelow(const std::vector<bool>& live,
                                                           std::vector<size_t>& branches) const {
  const std::vector<PromptSharing::NodeIndex>& order = sharing_.order_;
  std::vector<std::vector<size_t>> members(nodes_.size());
  branches.assign(nodes_.size(), 0);
  for (auto at = order.rbegin(); at != order.rend(); ++at) {
    const auto index = static_cast<size_t>(*at);
    const PromptTree::Node& node = sharing_.tree_.at(*at);
    for (const size_t end : node.ends) {
      if (!live[end]) continue;
      members[index].push_back(end);
      ++branches[index];
    }
    if (members[index].empty() || node.parent == PromptTree::kNoNode) continue;
    if (sharing_.IsAnswerOfPromptBefore(*at)) continue;
    const auto parent = static_cast<size_t>(node.parent);
    AddTo(members[parent], members[index]);
    ++branches[parent];
    // Only where ways part a list is looked at again.
    if (branches[index] < 2) members[index] = {};
  }
  return members;
}

std::vector<PrefixGroup> SharingPass::Groups(const std::vector<bool>& live) const {
  std::vector<size_t> branches;
  std::vector<std::vector<size_t>> members = MembersBelow(live, branches);
  std::vector<PrefixGroup> groups;
  // [nodes] the innermost group around it and where that is
  std::vector<std::pair<int32_t, PromptSharing::NodeIndex>> around(nodes_.size(),
                                                                   {-1, PromptTree::kNoNode});
  for (const PromptSharing::NodeIndex at : sharing_.order_) {
    const auto index = static_cast<size_t>(at);
    const PromptTree::Node& node = sharing_.tree_.at(at);
    if (node.parent == PromptTree::kNoNode) continue;
    if (!sharing_.IsAnswerOfPromptBefore(at))
      around[index] = around[static_cast<size_t>(node.parent)];
    if (branches[index] < 2) continue;
    const auto [group, where] = around[index];
    size_t written = node.written;
    int32_t open = node.open_values;
    if (where != PromptTree::kNoNode) {
      written -= sharing_.tree_.at(where).written;
      open -= sharing_.tree_.at(where).open_values;
    }
    if (open == 0 && written < kFewestBytes) continue;
    std::sort(members[index].begin(), members[index].end());
    groups.push_back(GroupAt(at, std::move(members[index]), group, where));
    around[index] = {static_cast<int32_t>(groups.size()) - 1, at};
  }
  return groups;
}

PrefixGroup SharingPass::GroupAt(PromptSharing::NodeIndex node, std::vector<size_t> operators,
                                 int32_t parent_group, PromptSharing::NodeIndex parent) const {
  PrefixGroup group;
  group.parent = parent_group;
  group.operators = std::move(operators);
  const PromptTree::Node& end = sharing_.tree_.at(node);
  const PromptSharing::Prompt& first = sharing_.prompts_[end.first];
  group.prefix = ShownPrompt(first.prompt.pieces, end.first_value, end.bytes);
  if (first.prompt.continues >= 0) {
    const LogicalPlan& plan = *sharing_.sources_[sharing_.source_of_[end.first]].plan;
    group.prefix = "the conversation of " + plan.operator_of(first.prompt.continues).id +
                   (end.first_value > 1 || end.bytes > 0 ? " + " + group.prefix : std::string());
  }
  group.values = end.open_values;
  group.prefixes = sharing_.facts_[static_cast<size_t>(node)].different;
  group.calls = nodes_[static_cast<size_t>(node)].calls;
  bool inside = true;  // of what the group adds to the one around it
  for (auto at = node; at != PromptTree::kNoNode; at = sharing_.tree_.at(at).parent) {
    inside = inside && at != parent;
    const NodeState& state = nodes_[static_cast<size_t>(at)];
    const double tokens = std::max(0.0, state.tokens);
    group.tokens += tokens;
    if (sharing_.tree_.at(at).open_values == 0) group.constant_tokens += tokens;
    if (inside) group.saved_tokens += state.saved_tokens;
  }
  return group;
}

}  // namespace halo
