#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "workflow/diagnostics.h"
#include "workflow/graph_keys.h"

namespace halo {

/// No unit, no loop.
constexpr size_t kNoUnit = static_cast<size_t>(-1);

/// What runs: an inference node, a tool node, or a tool that is embedded in an inference node.
/// Loops are not unrolled yet.
struct GraphUnit {
  std::string id;
  size_t node = 0;                  ///< position in GraphDraft::nodes
  const ToolDraft* tool = nullptr;  ///< null: inference
  size_t host = kNoUnit;            ///< of an embedded tool: the unit of its node
  bool after_host = false;
  size_t loop = kNoUnit;  ///< position in GraphDraft::loops
  size_t place = 0;       ///< in the body of its loop; tools stand before or behind their node
  std::vector<WrittenName> inputs;  ///< declared: required
  std::vector<WrittenName> outputs;
  /// Units, ascending; a dependency on a later place of the same loop is a back edge.
  std::vector<size_t> dependencies;
  bool is_end = true;  ///< nothing but its own tools depends on it
};

/// What a name stands for, before loops are unrolled.
struct GraphSource {
  size_t unit = kNoUnit;  ///< kNoUnit: a column
  std::string column;
  std::string field;  ///< of a structured answer
};

/// What runs in a graph and what its names stand for: everything that was written, checked and
/// connected, before loops are unrolled.
struct GraphUnits {
  const GraphDraft* draft = nullptr;         ///< outlives it
  std::vector<GraphUnit> units;              ///< in file order; a node stands among its tools
  std::map<std::string, GraphSource> names;  ///< of the whole graph
  std::map<size_t, std::map<std::string, GraphSource>> aliases;  ///< [node] by edges' mappings

  /// What `name` stands for in the node's templates and inputs; null: nothing.
  const GraphSource* Resolve(size_t node, const std::string& name) const;
  /// A dependency inside a loop on what stands there or later: on the iteration before.
  bool IsBack(size_t on, const GraphUnit& unit) const;
  const std::vector<TemplateUse>& TemplatesOf(const GraphUnit& unit) const;
  size_t IterationsOf(const GraphUnit& unit) const;
};

/// The id of a unit's operator in an iteration of its loop, counted from 0.
std::string OperatorIdOf(const GraphUnit& unit, size_t iteration);

/// Turns a draft into units. Throws Error(kWorkflow) with every fault found, those that are in the
/// diagnostics already included. The units point into `draft`.
GraphUnits ReadGraphUnits(GraphDraft& draft, std::string_view text, DiagnosticList& diagnostics);

}  // namespace halo
