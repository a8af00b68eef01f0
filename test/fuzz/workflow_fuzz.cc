// Any bytes, taken for a workflow file, are a valid workflow or an Error that says where and what.

#include "fuzz/property.h"
#include "workflow/workflow.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using halo::fuzz::Require;
  try {
    const halo::Workflow workflow =
        halo::ParseWorkflow(halo::fuzz::Text(data, size), "fuzzed.yaml");
    Require(!workflow.operators.empty(), "a valid workflow has operators");
    Require(!workflow.outputs.empty(), "a valid workflow has outputs");
    for (size_t i = 0; i < workflow.operators.size(); ++i) {
      for (const halo::OperatorIndex input : workflow.operators[i].inputs) {
        Require(input >= 0 && static_cast<size_t>(input) < i, "operators come after their inputs");
      }
    }
    halo::RequiredColumns(workflow, halo::ResolveColumn(workflow, ""));
  } catch (const halo::Error& error) {
    halo::fuzz::RequireMeaningful(error, true);
  }
  return 0;
}
