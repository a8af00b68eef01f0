#pragma once

#include <map>
#include <string>
#include <vector>

namespace halo::bench {

/// Which operators of a workflow wait for which: operator id -> ids of its inputs.
using WorkflowGraph = std::map<std::string, std::vector<std::string>>;

/// From a workflow file: of the `ops` dialect by `input_ops` and `output_ops` alone, of `graph` as
/// in graph_dialect.h. Throws std::runtime_error.
WorkflowGraph ReadWorkflowGraph(const std::string& path);

/// From text: "a,b/c/d" means that c waits for a and b, and d for c.
WorkflowGraph GraphFromLevels(const std::string& levels);

/// Ids in an order in which inputs come first. Throws std::runtime_error for a cycle or an unknown
/// id.
std::vector<std::string> TopologicalOrder(const WorkflowGraph& graph);

}  // namespace halo::bench
