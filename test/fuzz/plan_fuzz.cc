// Any bytes, taken for a saved plan (`--plan`) of a graph and a conversation: refused with what is
// wrong, or carried out, in which case the plans do not contradict themselves, and what EXPLAIN
// writes of them is taken again and changes nothing.

#include "fuzz/property.h"
#include "plan/physical_plan.h"
#include "session/plan_file.h"
#include "workflow/workflow.h"

namespace {

using halo::LogicalNode;
using halo::LogicalPlan;
using halo::Workflow;
using halo::fuzz::Require;

constexpr const char* kGraph = R"(graph:
  name: f
  defaults: {model: m, temperature: 0}
  nodes:
    - {id: in, type: input, outputs: [text]}
    - {id: side, prompt: "Side {{ text }}", outputs: [aside]}
    - {id: first, prompt: "A {{ text }}", outputs: [a]}
    - {id: second, inputs: [a], prompt: "B {{ a }}", outputs: [b]}
    - {id: free, prompt: "C {{ b }}", inputs: [b], outputs: [c], prompt_layout: auto}
  edges: [{from: side, to: second}]
)";
constexpr const char* kConversation = R"(name: talk
start_ops: [ask]
end_ops: [other, end]
ops:
  ask: {model: m, prompt: "Ask.", prompt_layout: auto}
  other: {model: n, prompt: "Other.", prompt_layout: auto, input_ops: [ask], history: outputs}
  end: {model: m, prompt: "End.", input_ops: [ask]}
)";

/// Plans of both workflows, as they are before a plan is loaded.
std::vector<LogicalPlan> FreshPlans() {
  static const Workflow graph = halo::ParseWorkflow(kGraph, "f.yaml");
  static const Workflow conversation = halo::ParseWorkflow(kConversation, "talk.yaml");
  static const std::vector<LogicalPlan> plans = {halo::MakeLogicalPlan(graph),
                                                 halo::MakeLogicalPlan(conversation)};
  return plans;
}

void Apply(const std::string& text, std::vector<LogicalPlan>& plans, bool layouts_only) {
  halo::ApplyPlanFile(text, "plan.json", {&plans[0], &plans[1]}, layouts_only);
}

std::string Written(const std::vector<LogicalPlan>& plans) {
  halo::PhysicalPlan physical;
  for (size_t s = 0; s < plans.size(); ++s) {
    physical.sources.push_back({plans[s].workflow->name, &plans[s], 1});
    for (const LogicalNode& node : plans[s].nodes) {
      halo::PlannedOperator planned;
      planned.source = s;
      planned.op = node.op;
      physical.operators.push_back(std::move(planned));
    }
  }
  return halo::ExplainJson(physical);
}

void Check(const std::string& text, bool layouts_only) {
  std::vector<LogicalPlan> plans = FreshPlans();
  try {
    Apply(text, plans, layouts_only);
  } catch (const halo::Error& error) {
    Require(error.code() == halo::ErrorCode::kUsage, "a plan that is refused was ill chosen");
    halo::fuzz::RequireMeaningful(error, false);
    return;
  }
  // What EXPLAIN writes can be taken: an Error from here on is a failure.
  for (const LogicalPlan& plan : plans) halo::VerifyLogicalPlan(plan);
  const std::string written = Written(plans);
  std::vector<LogicalPlan> again = FreshPlans();
  Apply(written, again, false);
  Require(Written(again) == written, "a plan that was taken survives another journey");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text = halo::fuzz::Text(data, size);
  Check(text, false);
  Check(text, true);
  return 0;
}
