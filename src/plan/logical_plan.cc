#include "plan/logical_plan.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/check.h"
#include "plan/operator_reads.h"

namespace halo {
namespace {

/// Operators that put the row's prompt where a shared prefix can begin: all but continuations.
bool ReadsRowPrompt(const Operator& op) {
  return op.is_inference() && op.form == PromptForm::kRowPrompt && op.history != History::kContinue;
}

/// The operator whose answer is the last turn of an assistant in `messages`, if that is all there
/// is in it: then its conversation may go on here. -1: none.
OperatorIndex ContinuedBy(const Operator& op) {
  for (auto message = op.messages.rbegin(); message != op.messages.rend(); ++message) {
    if (message->role != "assistant") continue;
    for (const NameBinding& name : op.names) {
      const bool is_all = message->content->source() == "{{ " + name.name + " }}";
      if (is_all && name.producers.size() == 1) return name.producers.front();
    }
    return -1;
  }
  return -1;
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

void LinkKvSources(LogicalPlan& plan) {
  for (LogicalNode& node : plan.nodes) {
    node.kv_source = -1;
    node.kv_source_answer = node.keep_answer = false;
    node.kv_consumers = 0;
  }
  std::map<std::pair<ModelIndex, AdapterIndex>, OperatorIndex> first_reader;
  for (LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    if (op.history == History::kContinue) {
      const OperatorIndex parent = op.inputs.front();
      const bool same = ComputedBy(plan.at(parent)) == ComputedBy(node);
      if (same && plan.operator_of(parent).keep_cache) {
        node.kv_source = parent;
        node.kv_source_answer = true;
      }
    } else if (op.form == PromptForm::kMessages) {
      const OperatorIndex parent = ContinuedBy(op);
      if (parent >= 0 && ComputedBy(plan.at(parent)) == ComputedBy(node)) {
        node.kv_source = parent;
        node.kv_source_answer = true;
      }
    } else if (ReadsRowPrompt(op) && node.layout == PromptLayout::kContextFirst) {
      const auto [found, is_first] = first_reader.emplace(ComputedBy(node), node.op);
      if (!is_first) node.kv_source = found->second;
    }
    if (node.kv_source < 0) continue;
    LogicalNode& source = plan.nodes[static_cast<size_t>(node.kv_source)];
    ++source.kv_consumers;
    source.keep_answer = source.keep_answer || node.kv_source_answer;
  }
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
