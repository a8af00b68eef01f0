#include "plan/logical_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "plan/node_signature.h"
#include "plan/operator_reads.h"
#include "plan/prompt_tree.h"
#include "plan/templated_prompt.h"

namespace halo {
namespace {

/// Operators that put the row's prompt where a shared prefix can begin: all but continuations.
bool ReadsRowPrompt(const Operator& op) {
  return op.is_inference() && op.form == PromptForm::kRowPrompt && op.history != History::kContinue;
}

/// What computes an operator's KV: operators with equal ones can share it.
std::pair<ModelIndex, AdapterIndex> ComputedBy(const LogicalNode& node) {
  return {node.model, node.adapter};
}

void ChooseLayouts(LogicalPlan& plan) {
  std::map<std::pair<ModelIndex, AdapterIndex>, int32_t> readers;
  for (const LogicalNode& node : plan.nodes) {
    if (ReadsRowPrompt(plan.operator_of(node.op))) ++readers[ComputedBy(node)];
  }
  for (LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    node.layout = op.prompt_layout;
    if (node.layout != PromptLayout::kAuto) continue;
    const bool shared = ReadsRowPrompt(op) && readers[ComputedBy(node)] > 1;
    node.layout = shared ? PromptLayout::kContextFirst : PromptLayout::kInstructionFirst;
  }
}

}  // namespace

namespace {

/// The tree of a plan's own prompts, put in operator by operator.
class KvLinker {
 public:
  explicit KvLinker(LogicalPlan& plan)
      : plan_(plan),
        prompts_(TemplatePrompts(plan, IdentifyOperators(plan, ""), PromptSetting())),
        ends_(plan.nodes.size(), PromptTree::kNoNode) {}

  void Link(LogicalNode& node) {
    const auto at = static_cast<size_t>(node.op);
    if (!prompts_[at] || node.removed) return;
    const TemplatedPrompt& prompt = *prompts_[at];
    const auto [root, is_new] = roots_.try_emplace(ComputedBy(node), PromptTree::kNoNode);
    if (is_new) root->second = tree_.AddRoot();
    if (prompt.continues < 0) {
      ends_[at] = tree_.Insert(at, prompt.pieces, root->second);
      return FindSource(node, ends_[at]);
    }
    const PromptTree::NodeIndex parent = ends_[static_cast<size_t>(prompt.continues)];
    HALO_CHECK(parent != PromptTree::kNoNode, "what an operator reads is run");
    ends_[at] = tree_.Insert(at, prompt.pieces, parent);
    if (plan_.operator_of(prompt.continues).keep_cache) Take(node, prompt.continues, true);
  }

 private:
  /// A conversation written out comes before whatever else goes on alike: its answer is not
  /// computed either.
  void FindSource(LogicalNode& node, PromptTree::NodeIndex end) {
    const auto own = static_cast<size_t>(node.op);
    PromptTree::NodeIndex alike = PromptTree::kNoNode;
    for (PromptTree::NodeIndex at = end; at != PromptTree::kNoNode; at = tree_.at(at).parent) {
      const bool is_answer = tree_.IsAnswerOfPromptBefore(
          at, [](OperatorIndex op) { return static_cast<size_t>(op); });
      if (is_answer) return Take(node, tree_.at(at).value->answer_of, true);
      const PromptTree::Node& shared = tree_.at(at);
      if (alike == PromptTree::kNoNode && shared.first != own && shared.open_values > 0) alike = at;
    }
    if (alike == PromptTree::kNoNode) return;
    const PromptTree::Node& shared = tree_.at(alike);
    Take(node, static_cast<OperatorIndex>(shared.first), false);
    const TemplatedPrompt& first = *prompts_[shared.first];
    node.kv_shared = ShownPrompt(first.pieces, shared.first_value, shared.bytes);
  }

  void Take(LogicalNode& node, OperatorIndex source, bool answer) {
    node.kv_source = source;
    node.kv_source_answer = answer;
    LogicalNode& from = plan_.nodes[static_cast<size_t>(source)];
    ++from.kv_consumers;
    from.keep_answer = from.keep_answer || answer;
  }

  LogicalPlan& plan_;
  std::vector<std::optional<TemplatedPrompt>> prompts_;  // [operators]
  PromptTree tree_;
  std::vector<PromptTree::NodeIndex> ends_;  // [operators]
  std::map<std::pair<ModelIndex, AdapterIndex>, PromptTree::NodeIndex> roots_;
};

}  // namespace

void LinkKvSources(LogicalPlan& plan) {
  for (LogicalNode& node : plan.nodes) {
    node.kv_source = -1;
    node.kv_source_answer = node.keep_answer = false;
    node.kv_shared.clear();
    node.kv_consumers = 0;
  }
  KvLinker linker(plan);
  for (LogicalNode& node : plan.nodes) linker.Link(node);
}

const char* HistoryName(History history) {
  switch (history) {
    case History::kNone:
      return "none";
    case History::kContinue:
      return "continue";
    case History::kOutputs:
      return "outputs";
    case History::kTranscript:
      return "transcript";
  }
  return "?";
}

const char* PromptLayoutName(PromptLayout layout) {
  switch (layout) {
    case PromptLayout::kInstructionFirst:
      return "instruction_first";
    case PromptLayout::kContextFirst:
      return "context_first";
    case PromptLayout::kAuto:
      return "auto";
  }
  return "?";
}

size_t RowPromptElement(const Operator& op, size_t elements) {
  HALO_CHECK(elements > 0, "an empty list has no element to give");
  return std::min(static_cast<size_t>(op.depth), elements - 1);
}

namespace {

AdapterIndex AdapterOf(LogicalPlan& plan, const LogicalAdapter& wanted) {
  auto found = std::find(plan.adapters.begin(), plan.adapters.end(), wanted);
  if (found == plan.adapters.end()) found = plan.adapters.insert(found, wanted);
  return static_cast<AdapterIndex>(found - plan.adapters.begin());
}

}  // namespace

LogicalPlan MakeLogicalPlan(const Workflow& workflow, bool all_outputs) {
  LogicalPlan plan;
  plan.workflow = &workflow;
  const std::vector<bool> needed = NeededOperators(workflow, all_outputs);
  const std::vector<bool> shown = ShownOperators(workflow, all_outputs);
  for (size_t i = 0; i < workflow.operators.size(); ++i) {
    const Operator& op = workflow.operators[i];
    LogicalNode node;
    node.op = static_cast<OperatorIndex>(i);
    node.order = node.op;
    node.inputs = TightInputs(workflow, node.op);
    std::set<OperatorIndex> waits_for(op.inputs.begin(), op.inputs.end());
    waits_for.insert(node.inputs.begin(), node.inputs.end());
    node.waits_for.assign(waits_for.begin(), waits_for.end());
    node.needed = needed[i];
    node.shown = shown[i];
    if (!op.is_inference()) {
      plan.nodes.push_back(node);
      continue;
    }
    auto model = std::find(plan.models.begin(), plan.models.end(), op.model);
    if (model == plan.models.end()) model = plan.models.insert(model, op.model);
    node.model = static_cast<ModelIndex>(model - plan.models.begin());
    if (op.lora) node.adapter = AdapterOf(plan, {node.model, *op.lora});
    plan.nodes.push_back(node);
  }
  ChooseLayouts(plan);
  LinkKvSources(plan);
  VerifyLogicalPlan(plan);
  return plan;
}

std::vector<std::vector<OperatorIndex>> GuardsOf(const LogicalPlan& plan) {
  const bool all_shown = std::all_of(plan.nodes.begin(), plan.nodes.end(),
                                     [](const LogicalNode& node) { return node.shown; });
  return GuardsOfOperators(*plan.workflow, all_shown);
}

namespace {

void VerifyOrder(const LogicalPlan& plan, const LogicalNode& node) {
  const std::vector<OperatorIndex>& declared = plan.operator_of(node.op).inputs;
  const auto holds = [](const std::vector<OperatorIndex>& all, OperatorIndex one) {
    return std::find(all.begin(), all.end(), one) != all.end();
  };
  std::vector<OperatorIndex> asked = ConditionInputs(plan.operator_of(node.op));
  for (const OperatorIndex guard : node.wanted_by) {
    HALO_CHECK(!node.shown && plan.operator_of(guard).is_conditional(),
               "conditions decide about what only they need");
    for (const OperatorIndex input : ConditionInputs(plan.operator_of(guard))) {
      HALO_CHECK(holds(node.waits_for, input), "guards are asked when they can answer");
      asked.push_back(input);
    }
  }
  for (const OperatorIndex input : node.waits_for) {
    HALO_CHECK(input < node.op, "inputs come first");
    HALO_CHECK(holds(declared, input) || holds(asked, input),
               "an operator waits for what the workflow says or conditions ask, or for less");
    HALO_CHECK(!plan.at(input).removed || node.removed, "nobody waits for what is not run");
  }
  for (const OperatorIndex input : node.inputs) {
    HALO_CHECK(holds(node.waits_for, input), "an operator waits for what it reads");
    HALO_CHECK(plan.at(input).needed || !node.needed, "what is needed reads what is needed");
  }
  HALO_CHECK(!node.removed || !node.needed, "what is needed is not removed");
}

}  // namespace

void VerifyLogicalPlan(const LogicalPlan& plan) {
  HALO_CHECK(plan.workflow != nullptr && plan.nodes.size() == plan.workflow->operators.size(),
             "one node for each operator");
  std::vector<int32_t> consumers(plan.nodes.size(), 0);
  std::vector<bool> taken(plan.nodes.size(), false);
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    const LogicalNode& node = plan.nodes[i];
    HALO_CHECK(node.op == static_cast<OperatorIndex>(i), "nodes stand at their index");
    const bool has_model = node.model >= 0 && static_cast<size_t>(node.model) < plan.models.size();
    HALO_CHECK(plan.operator_of(node.op).is_inference() ? has_model : node.model == kNoModel,
               "inference has a model, a tool has none");
    HALO_CHECK(node.adapter == kNoAdapter ||
                   plan.adapters.at(static_cast<size_t>(node.adapter)).model == node.model,
               "an adapter is one of the model's");
    HALO_CHECK(node.layout != PromptLayout::kAuto, "layouts are chosen");
    VerifyOrder(plan, node);
    const bool in_range = node.order >= 0 && static_cast<size_t>(node.order) < taken.size();
    HALO_CHECK(in_range && !taken[static_cast<size_t>(node.order)],
               "the order of operators is a permutation");
    taken[static_cast<size_t>(node.order)] = true;
    if (node.kv_source < 0) continue;
    HALO_CHECK(node.kv_source < node.op, "KV is made before it is used");
    HALO_CHECK(ComputedBy(plan.at(node.kv_source)) == ComputedBy(node),
               "KV belongs to one model and adapter");
    ++consumers[static_cast<size_t>(node.kv_source)];
  }
  for (const LogicalNode& node : plan.nodes) {
    HALO_CHECK(consumers[static_cast<size_t>(node.op)] == node.kv_consumers,
               "consumers are counted");
  }
}

}  // namespace halo
