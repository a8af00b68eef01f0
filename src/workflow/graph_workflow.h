#pragma once

#include <set>
#include <string_view>

#include "workflow/workflow.h"
#include "workflow/yaml_tree.h"

namespace halo {

/// Reads the mapping under `graph` (contract 3.2) into a workflow: loops are unrolled (iteration i
/// of node n is the operator n__iter<i>, the first one n), embedded tools become operators of their
/// own (n__pre__NAME, n__post__NAME), names are bound to columns and operators. Throws
/// Error(kWorkflow) with every fault found. Path, source text and a missing name are the caller's.
Workflow ParseGraph(const YamlNode& graph, std::string_view text,
                    const std::set<std::string>& host_functions, DiagnosticList& diagnostics);

}  // namespace halo
