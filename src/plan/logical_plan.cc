#include "plan/logical_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "base/check.h"

namespace halo {
namespace {

/// Operators that put the row's prompt where a shared prefix can begin: all but continuations.
bool ReadsRowPrompt(const Operator& op) {
  return op.form == PromptForm::kRowPrompt && op.history != History::kContinue;
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

void LinkKvSources(LogicalPlan& plan) {
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

std::string Sampling(const SamplingSpec& sampling) {
  std::string text =
      sampling.temperature == 0.0
          ? "greedy"
          : fmt::format("temperature {:g}, top_p {:g}", sampling.temperature, sampling.top_p);
  if (sampling.top_k > 0) text += fmt::format(", top_k {}", sampling.top_k);
  if (sampling.min_p > 0.0) text += fmt::format(", min_p {:g}", sampling.min_p);
  text += sampling.max_tokens.expression
              ? fmt::format(", up to {} tokens", sampling.max_tokens.expression->source())
              : fmt::format(", up to {} tokens", sampling.max_tokens.constant);
  if (!sampling.stop.empty()) text += fmt::format(", {} stop strings", sampling.stop.size());
  return text;
}

}  // namespace

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

void RefuseTools(const Workflow& workflow) {
  std::vector<Diagnostic> faults;
  for (const Operator& op : workflow.operators) {
    if (op.kind == OperatorKind::kInference) continue;
    const char* kind = op.kind == OperatorKind::kSql    ? "SQL"
                       : op.kind == OperatorKind::kHttp ? "HTTP"
                                                        : "functions";
    faults.push_back({op.location, "'" + op.id + "' calls a tool (" + kind +
                                       "), and tools cannot be run yet: take it out"});
  }
  if (!faults.empty()) throw Error(ErrorCode::kWorkflow, std::move(faults));
}

std::string Count(size_t count, const char* what) {
  return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s");
}

/// What an operator's prompt takes up, for EXPLAIN.
std::string WhatItReads(const Workflow& workflow, const Operator& op) {
  std::string reads;
  if (op.form == PromptForm::kRowPrompt) {
    reads = "row prompt";
    if (op.inputs.empty()) return reads;
    reads = op.history == History::kContinue     ? "conversation of"
            : op.history == History::kTranscript ? "row prompt and transcripts of"
                                                 : "row prompt and answers of";
    for (const OperatorIndex input : op.inputs) reads += " " + workflow.at(input).id;
    return reads;
  }
  for (const NameBinding& name : op.names) {
    reads += (reads.empty() ? "" : ", ") + name.name;
    if (!name.column.empty()) {
      reads += " (column)";
    } else if (name.producers.empty()) {
      reads += " (nothing yet)";
    } else if (workflow.at(name.producers.front()).id != name.name) {
      reads += " of " + workflow.at(name.producers.front()).id;
    }
  }
  return reads.empty() ? "nothing" : reads;
}

/// When an operator runs and what it does with failures, for EXPLAIN; "" for the defaults.
std::string Conditions(const Operator& op) {
  std::vector<std::string> parts;
  if (op.when.expression) parts.push_back("when " + op.when.expression->source());
  if (!op.over.empty())
    parts.push_back("until " + op.over.back().expression->source() + " before it");
  if (op.samples > 1)
    parts.push_back(fmt::format("{} samples{}", op.samples, op.vote ? " and a vote" : ""));
  if (op.on_error != OnError::kFail)
    parts.push_back(op.on_error == OnError::kNull ? "on error null" : "on error skip");
  if (op.retry.max > 0) parts.push_back(fmt::format("up to {} retries", op.retry.max));
  if (op.timeout_s > 0.0) parts.push_back(fmt::format("at most {:g} s", op.timeout_s));
  return fmt::format("{}", fmt::join(parts, "; "));
}

AdapterIndex AdapterOf(LogicalPlan& plan, const LogicalAdapter& wanted) {
  auto found = std::find(plan.adapters.begin(), plan.adapters.end(), wanted);
  if (found == plan.adapters.end()) found = plan.adapters.insert(found, wanted);
  return static_cast<AdapterIndex>(found - plan.adapters.begin());
}

/// "[model]" or "[model + file, scale 0.5]".
std::string ModelAndAdapter(const Operator& op) {
  if (!op.lora) return fmt::format("[{}]", op.model.name);
  const std::string scale =
      op.lora->scale == 1.0 ? "" : fmt::format(", scale {:g}", op.lora->scale);
  return fmt::format("[{} + {}{}]", op.model.name, op.lora->file, scale);
}

}  // namespace

LogicalPlan MakeLogicalPlan(const Workflow& workflow) {
  LogicalPlan plan;
  plan.workflow = &workflow;
  RefuseTools(workflow);
  for (size_t i = 0; i < workflow.operators.size(); ++i) {
    const Operator& op = workflow.operators[i];
    auto model = std::find(plan.models.begin(), plan.models.end(), op.model);
    if (model == plan.models.end()) model = plan.models.insert(model, op.model);
    LogicalNode node;
    node.op = static_cast<OperatorIndex>(i);
    node.model = static_cast<ModelIndex>(model - plan.models.begin());
    if (op.lora) node.adapter = AdapterOf(plan, {node.model, *op.lora});
    plan.nodes.push_back(node);
  }
  ChooseLayouts(plan);
  LinkKvSources(plan);
  VerifyLogicalPlan(plan);
  return plan;
}

void VerifyLogicalPlan(const LogicalPlan& plan) {
  HALO_CHECK(plan.workflow != nullptr && plan.nodes.size() == plan.workflow->operators.size(),
             "one node for each operator");
  std::vector<int32_t> consumers(plan.nodes.size(), 0);
  for (size_t i = 0; i < plan.nodes.size(); ++i) {
    const LogicalNode& node = plan.nodes[i];
    HALO_CHECK(node.op == static_cast<OperatorIndex>(i), "nodes stand at their index");
    HALO_CHECK(node.model >= 0 && static_cast<size_t>(node.model) < plan.models.size(),
               "the model exists");
    HALO_CHECK(node.adapter == kNoAdapter ||
                   plan.adapters.at(static_cast<size_t>(node.adapter)).model == node.model,
               "an adapter is one of the model's");
    HALO_CHECK(node.layout != PromptLayout::kAuto, "layouts are chosen");
    for (const OperatorIndex input : plan.operator_of(node.op).inputs) {
      HALO_CHECK(input < node.op, "inputs come first");
    }
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

std::string PrintLogicalPlan(const LogicalPlan& plan) {
  const Workflow& workflow = *plan.workflow;
  std::string text =
      fmt::format("workflow {}: {}, {}\n", workflow.name, Count(plan.nodes.size(), "operator"),
                  Count(plan.models.size(), "model"));
  for (const LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    text += fmt::format("{:>3}  LLM {}  {}{}\n", node.op, op.id, ModelAndAdapter(op),
                        op.is_end ? "  -> output" : "");
    const std::string conditions = Conditions(op);
    text += fmt::format("       reads   {}\n", WhatItReads(workflow, op));
    if (op.history != History::kContinue)
      text += fmt::format("       prompt  {}\n", PromptLayoutName(node.layout));
    text += fmt::format("       sample  {}\n", Sampling(op.sampling));
    if (!conditions.empty()) text += fmt::format("       runs    {}\n", conditions);
    if (node.kv_source >= 0) {
      text += fmt::format("       KV      begins with that of {} ({})\n",
                          workflow.at(node.kv_source).id,
                          node.kv_source_answer ? "prompt and answer" : "row prompt");
    }
    if (node.kv_consumers > 0)
      text += fmt::format("       keeps   KV for {} operators\n", node.kv_consumers);
  }
  return text;
}

}  // namespace halo
