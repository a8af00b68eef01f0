#include "plan/operator_reads.h"

#include <algorithm>

namespace halo {
namespace {

/// Gathers what templates read, one operator at a time.
class ReadCollector {
 public:
  explicit ReadCollector(OperatorReads& reads) : reads_(reads) {}

  void AddColumn(const std::string& column) { reads_.columns.insert(column); }
  void AddProducers(const NameBinding& name) {
    if (!name.column.empty()) AddColumn(name.column);
    producers_.insert(name.producers.begin(), name.producers.end());
  }
  void AddAll(const std::vector<NameBinding>& names) {
    for (const NameBinding& name : names) AddProducers(name);
  }
  void AddTemplate(const Template* text, const std::vector<NameBinding>& names) {
    if (text == nullptr) return;
    for (const std::string& path : text->reads()) {
      const size_t dot = path.find('.');
      const std::string root = path.substr(0, dot);
      for (const NameBinding& name : names) {
        if (name.name == root) AddProducers(name);
      }
      if (root != "row") continue;
      if (dot == std::string::npos) {
        reads_.whole_row = true;
      } else {
        AddColumn(path.substr(dot + 1, path.find('.', dot + 1) - dot - 1));
      }
    }
  }
  void AddCondition(const Condition& condition) {
    AddTemplate(condition.expression.get(), condition.names);
  }
  void Finish() { reads_.producers.assign(producers_.begin(), producers_.end()); }

 private:
  OperatorReads& reads_;
  std::set<OperatorIndex> producers_;
};

}  // namespace

OperatorReads ReadsOf(const Workflow& workflow, OperatorIndex index,
                      const std::string& prompt_column) {
  const Operator& op = workflow.at(index);
  OperatorReads reads;
  ReadCollector collector(reads);
  if (op.is_inference()) {
    collector.AddTemplate(op.instruction.get(), op.names);
    collector.AddTemplate(op.body.get(), op.names);
    for (const MessageSpec& message : op.messages)
      collector.AddTemplate(message.content.get(), op.names);
    if (op.form == PromptForm::kInputs) collector.AddAll(op.names);
    if (op.form == PromptForm::kRowPrompt) {
      collector.AddColumn(prompt_column);
      for (const OperatorIndex input : op.inputs) collector.AddProducers({"", "", {input}});
    }
    collector.AddTemplate(op.sampling.max_tokens.expression.get(), op.names);
    collector.AddTemplate(op.sampling.min_tokens.expression.get(), op.names);
  } else {
    // A tool has the names of its own parameters only.
    collector.AddAll(op.names);
    ForEachTemplate(*op.tool,
                    [&](const Template& text) { collector.AddTemplate(&text, op.names); });
  }
  collector.AddCondition(op.when);
  for (const Condition& until : op.over) collector.AddCondition(until);
  collector.Finish();
  return reads;
}

std::vector<bool> MaybeSkipped(const Workflow& workflow) {
  std::vector<bool> maybe(workflow.operators.size(), false);
  for (size_t i = 0; i < workflow.operators.size(); ++i) {
    const Operator& op = workflow.operators[i];
    bool skips = op.when.expression != nullptr || !op.over.empty() || op.on_error == OnError::kSkip;
    for (const OperatorIndex input : op.inputs) skips = skips || maybe[static_cast<size_t>(input)];
    maybe[i] = skips;
  }
  return maybe;
}

namespace {

bool Writes(const Operator& op) {
  return !op.is_inference() && op.tool->effect == ToolEffect::kWrite;
}

}  // namespace

std::vector<OperatorIndex> ConditionInputs(const Operator& op) {
  OperatorReads reads;
  ReadCollector collector(reads);
  collector.AddCondition(op.when);
  for (const Condition& until : op.over) collector.AddCondition(until);
  collector.Finish();
  return reads.producers;
}

std::vector<OperatorIndex> TightInputs(const Workflow& workflow, OperatorIndex index) {
  const Operator& op = workflow.at(index);
  // A condition may look at what lies further back.
  const std::vector<OperatorIndex> asked = ConditionInputs(op);
  std::set<OperatorIndex> all(asked.begin(), asked.end());
  // The order of writes is part of what a workflow says, through whatever lies between them.
  if (std::any_of(workflow.operators.begin(), workflow.operators.end(), Writes)) {
    all.insert(op.inputs.begin(), op.inputs.end());
    return {all.begin(), all.end()};
  }
  std::set<OperatorIndex> tight;
  for (const OperatorIndex producer : ReadsOf(workflow, index, "").producers)
    tight.insert(producer);
  const std::vector<bool> maybe_skipped = MaybeSkipped(workflow);
  for (const NameBinding& name : op.names) {
    for (const OperatorIndex producer : name.producers) {
      const bool skips = name.required && maybe_skipped[static_cast<size_t>(producer)];
      if (name.declared || skips) tight.insert(producer);
    }
  }
  for (const OperatorIndex input : op.inputs) {
    if (tight.contains(input)) all.insert(input);
  }
  return {all.begin(), all.end()};
}

std::vector<bool> ShownOperators(const Workflow& workflow, bool all_outputs) {
  std::vector<bool> shown;
  for (const Operator& op : workflow.operators)
    shown.push_back(all_outputs || op.is_end || Writes(op));
  return shown;
}

std::vector<std::vector<OperatorIndex>> GuardsOfOperators(const Workflow& workflow,
                                                          bool all_outputs) {
  const size_t count = workflow.operators.size();
  const std::vector<bool> shown = ShownOperators(workflow, all_outputs);
  std::vector<std::set<OperatorIndex>> guards(count);
  std::vector<bool> always = shown, read(count, false);
  for (size_t i = count; i > 0; --i) {
    const auto consumer = static_cast<OperatorIndex>(i - 1);
    if (!shown[i - 1] && !read[i - 1]) continue;  // nobody needs it
    const Operator& op = workflow.at(consumer);
    const std::vector<OperatorIndex> asked = ConditionInputs(op);
    for (const OperatorIndex input : TightInputs(workflow, consumer)) {
      const auto at = static_cast<size_t>(input);
      read[at] = true;
      // What a condition looks at is needed to know whether it holds.
      const bool is_asked = std::binary_search(asked.begin(), asked.end(), input);
      if (op.is_conditional() && !is_asked) {
        guards[at].insert(consumer);
      } else {
        always[at] = always[at] || always[i - 1];
        guards[at].insert(guards[i - 1].begin(), guards[i - 1].end());
      }
    }
  }
  std::vector<std::vector<OperatorIndex>> all(count);
  for (size_t i = 0; i < count; ++i) {
    if (!always[i]) all[i].assign(guards[i].begin(), guards[i].end());
  }
  return all;
}

std::vector<bool> NeededOperators(const Workflow& workflow, bool all_outputs) {
  std::vector<bool> needed = ShownOperators(workflow, all_outputs);
  for (size_t i = workflow.operators.size(); i > 0; --i) {
    if (!needed[i - 1]) continue;
    for (const OperatorIndex input : TightInputs(workflow, static_cast<OperatorIndex>(i - 1)))
      needed[static_cast<size_t>(input)] = true;
  }
  return needed;
}

}  // namespace halo
