#include "bench/workflow_graph.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <stdexcept>

#include "bench/graph_dialect.h"

namespace halo::bench {
namespace {

void AddInput(std::vector<std::string>& inputs, const std::string& id) {
  if (std::find(inputs.begin(), inputs.end(), id) == inputs.end()) inputs.push_back(id);
}

std::vector<std::string> Split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  std::stringstream stream(text);
  for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
  return parts;
}

}  // namespace

WorkflowGraph ReadWorkflowGraph(const std::string& path) {
  YAML::Node file;
  try {
    file = YAML::LoadFile(path);
  } catch (const YAML::Exception& error) {
    throw std::runtime_error(path + ": " + error.what());
  }
  WorkflowGraph graph;
  if (file["graph"]) {
    try {
      graph = ReadGraphDialect(file["graph"]);
    } catch (const std::exception& error) {
      throw std::runtime_error(path + ": " + error.what());
    }
    TopologicalOrder(graph);
    return graph;
  }
  const YAML::Node ops = file["ops"];
  if (!ops || !ops.IsMap())
    throw std::runtime_error(path + ": has neither 'graph' nor a mapping 'ops'");
  for (const auto& op : ops) {
    const auto id = op.first.as<std::string>();
    graph[id];
    for (const auto& input : op.second["input_ops"]) AddInput(graph[id], input.as<std::string>());
    for (const auto& output : op.second["output_ops"])
      AddInput(graph[output.as<std::string>()], id);
  }
  TopologicalOrder(graph);
  return graph;
}

WorkflowGraph GraphFromLevels(const std::string& levels) {
  WorkflowGraph graph;
  std::vector<std::string> before;
  for (const std::string& level : Split(levels, '/')) {
    const std::vector<std::string> ids = Split(level, ',');
    for (const std::string& id : ids) {
      if (id.empty() || graph.contains(id)) {
        throw std::runtime_error("levels '" + levels +
                                 "': expected each operator once, as in a,b/c");
      }
      graph[id] = before;
    }
    before = ids;
  }
  return graph;
}

std::vector<std::string> TopologicalOrder(const WorkflowGraph& graph) {
  std::vector<std::string> order;
  std::set<std::string> placed;
  while (order.size() < graph.size()) {
    const size_t before = order.size();
    for (const auto& [id, inputs] : graph) {
      if (placed.contains(id)) continue;
      const bool ready = std::all_of(inputs.begin(), inputs.end(), [&](const std::string& input) {
        return placed.contains(input);
      });
      if (!ready) continue;
      order.push_back(id);
      placed.insert(id);
    }
    if (order.size() == before) {
      throw std::runtime_error("the operators wait for each other, or for one that is not there");
    }
  }
  return order;
}

}  // namespace halo::bench
