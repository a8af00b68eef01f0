#include "workflow/graph_units.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/text.h"
#include "workflow/prompt_check.h"

namespace halo {
namespace {

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

/// Makes units of a draft and checks all that is wrong with how they are connected.
class GraphReader {
 public:
  GraphReader(GraphDraft& draft, std::string_view text, DiagnosticList& diagnostics)
      : draft_(draft), text_(text), diagnostics_(diagnostics) {
    graph_.draft = &draft;
  }

  GraphUnits Read() {
    MakeUnits();
    ReadLoops();
    CheckIterationIds();
    CollectNames();
    ReadEdges();
    Connect();
    CheckReads();
    CheckCycles();
    for (GraphNodeDraft& node : draft_.nodes) {
      if (node.kind == GraphNodeKind::kInference) CheckNode(node);
    }
    diagnostics_.ThrowIfAny(ErrorCode::kWorkflow);
    return std::move(graph_);
  }

 private:
  void Fault(const YamlNode& place, std::string message) {
    diagnostics_.Add(place.line, place.column, std::move(message));
  }

  // ---- Units

  void MakeUnits() {
    std::set<std::string> ids;
    for (size_t n = 0; n < draft_.nodes.size(); ++n) {
      GraphNodeDraft& node = draft_.nodes[n];
      if (!ids.insert(node.id).second) {
        Fault(*node.node, "two nodes are called " + Quoted(node.id));
        continue;
      }
      node_by_id_[node.id] = n;
      node_ids_.push_back(node.id);
      if (node.kind == GraphNodeKind::kInput) continue;
      if (node.kind == GraphNodeKind::kTool) {
        AddUnit(node.id, n, &node.tools.front());
        continue;
      }
      std::vector<size_t> before;
      for (const ToolDraft& tool : node.tools) {
        if (!tool.after_llm) before.push_back(AddEmbedded(n, tool));
      }
      const size_t host = AddUnit(node.id, n, nullptr);
      for (const size_t tool : before) graph_.units[tool].host = host;
      for (const ToolDraft& tool : node.tools) {
        if (!tool.after_llm) continue;
        const size_t unit = AddEmbedded(n, tool);
        graph_.units[unit].host = host;
        graph_.units[unit].after_host = true;
      }
    }
  }

  size_t AddUnit(std::string id, size_t node, const ToolDraft* tool) {
    GraphUnit unit;
    unit.id = std::move(id);
    unit.node = node;
    unit.tool = tool;
    unit.inputs = draft_.nodes[node].inputs;
    unit.outputs = draft_.nodes[node].outputs;
    if (unit.outputs.empty()) unit.outputs.push_back({unit.id, draft_.nodes[node].node});
    main_unit_[node] = graph_.units.size();
    graph_.units.push_back(std::move(unit));
    return graph_.units.size() - 1;
  }

  size_t AddEmbedded(size_t node, const ToolDraft& tool) {
    GraphUnit unit;
    unit.id = draft_.nodes[node].id + (tool.after_llm ? "__post__" : "__pre__") + tool.name;
    while (std::any_of(graph_.units.begin(), graph_.units.end(),
                       [&](const GraphUnit& other) { return other.id == unit.id; }))
      unit.id += "_1";
    unit.node = node;
    unit.tool = &tool;
    unit.inputs = tool.inputs;
    if (tool.kind == OperatorKind::kFunction && tool.inputs.empty()) {
      // A function reads what its node reads; behind it, what it said comes first.
      const GraphNodeDraft& host = draft_.nodes[node];
      if (tool.after_llm) unit.inputs = host.outputs;
      unit.inputs.insert(unit.inputs.end(), host.inputs.begin(), host.inputs.end());
    }
    unit.outputs.push_back({tool.name, tool.node});
    unit.outputs.insert(unit.outputs.end(), tool.mapped.begin(), tool.mapped.end());
    graph_.units.push_back(std::move(unit));
    return graph_.units.size() - 1;
  }

  // ---- Loops

  void ReadLoops() {
    constexpr size_t kPlaces = 3;  // tools before a node, the node, tools behind it
    for (size_t index = 0; index < draft_.loops.size(); ++index) {
      const GraphLoopDraft& loop = draft_.loops[index];
      for (size_t place = 0; place < loop.nodes.size(); ++place) {
        const WrittenName& name = loop.nodes[place];
        const auto node = node_by_id_.find(name.name);
        if (node == node_by_id_.end()) {
          Fault(*name.node,
                "loops: unknown node " + Quoted(name.name) + DidYouMean(name.name, node_ids_));
          continue;
        }
        if (draft_.nodes[node->second].kind == GraphNodeKind::kInput) {
          Fault(*name.node, "loops: " + Quoted(name.name) + " is an input, which does not run");
          continue;
        }
        for (GraphUnit& unit : graph_.units) {
          if (unit.node != node->second) continue;
          if (unit.loop != kNoUnit && unit.loop != index) {
            Fault(*name.node, "loops: " + Quoted(name.name) + " is in another loop already");
            break;
          }
          unit.loop = index;
          const size_t side = unit.host == kNoUnit ? 1 : unit.after_host ? 2 : 0;
          unit.place = place * kPlaces + side;
        }
      }
    }
  }

  /// Draws, errors and counts go by the ids of operators, and each iteration is one.
  void CheckIterationIds() {
    std::map<std::string, const GraphUnit*> by_id;
    for (const GraphUnit& unit : graph_.units) by_id.emplace(unit.id, &unit);
    for (const GraphUnit& unit : graph_.units) {
      for (size_t i = 1; i < graph_.IterationsOf(unit); ++i) {
        const auto found = by_id.find(OperatorIdOf(unit, i));
        if (found == by_id.end()) continue;
        Fault(*draft_.nodes[found->second->node].node,
              Quoted(found->first) + " is what an iteration of " + Quoted(unit.id) +
                  " is called: choose another id");
      }
    }
  }

  // ---- Names

  void CollectNames() {
    for (const GraphNodeDraft& node : draft_.nodes) {
      if (node.kind != GraphNodeKind::kInput) continue;
      for (const WrittenName& output : node.outputs)
        Declare(output, {kNoUnit, output.name, ""}, "input node " + Quoted(node.id));
    }
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      const GraphUnit& unit = graph_.units[u];
      const bool fields = unit.tool != nullptr || draft_.nodes[unit.node].structured;
      for (const WrittenName& output : unit.outputs)
        Declare(output, {u, "", fields ? output.name : ""}, Quoted(unit.id));
    }
  }

  void Declare(const WrittenName& output, GraphSource source, const std::string& who) {
    const auto [found, is_new] = graph_.names.emplace(output.name, source);
    if (is_new) {
      producers_[output.name] = who;
      name_list_.push_back(output.name);
      return;
    }
    Fault(*output.node, who + " gives the name " + Quoted(output.name) + ", which " +
                            producers_[output.name] + " gives already: choose another");
  }

  std::string UnknownName(const std::string& name) const {
    return "unknown name " + Quoted(name) + DidYouMean(name, name_list_);
  }

  // ---- Edges

  const GraphNodeDraft* EdgeEnd(const std::string& id, const YamlNode& place, const char* side) {
    const auto found = node_by_id_.find(id);
    if (found != node_by_id_.end()) return &draft_.nodes[found->second];
    Fault(place, std::string(side) + ": unknown node " + Quoted(id) + DidYouMean(id, node_ids_));
    return nullptr;
  }

  void ReadEdges() {
    for (const GraphEdgeDraft& edge : draft_.edges) {
      const GraphNodeDraft* from = EdgeEnd(edge.from, *edge.from_node, "from");
      const GraphNodeDraft* to = EdgeEnd(edge.to, *edge.to_node, "to");
      if (from == nullptr || to == nullptr) continue;
      if (to->kind == GraphNodeKind::kInput) {
        Fault(*edge.to_node, "to: " + Quoted(edge.to) + " is an input, which takes nothing");
        continue;
      }
      const size_t target = node_by_id_.at(edge.to), source = node_by_id_.at(edge.from);
      if (from->kind != GraphNodeKind::kInput)
        edges_[main_unit_.at(target)].insert(main_unit_.at(source));
      ReadMapping(edge, *from, source, target);
    }
  }

  void ReadMapping(const GraphEdgeDraft& edge, const GraphNodeDraft& from, size_t source,
                   size_t target) {
    for (const auto& alias : edge.mapping) {
      const WrittenName& in_target = alias.first;
      const WrittenName& in_source = alias.second;
      if (in_target.name == "row") {
        Fault(*in_target.node,
              "mapping: 'row' is how templates read the row's columns: choose another name");
        continue;
      }
      const auto found = graph_.names.find(in_source.name);
      const bool of_source =
          found != graph_.names.end() &&
          (found->second.unit == kNoUnit
               ? from.kind == GraphNodeKind::kInput &&
                     std::any_of(from.outputs.begin(), from.outputs.end(),
                                 [&](const auto& o) { return o.name == in_source.name; })
               : graph_.units[found->second.unit].node == source);
      if (!of_source) {
        std::vector<std::string> there;
        for (const WrittenName& output : from.outputs) there.push_back(output.name);
        Fault(*in_source.node, "mapping: " + Quoted(edge.from) + " has no output " +
                                   Quoted(in_source.name) + DidYouMean(in_source.name, there));
        continue;
      }
      const bool is_new = graph_.aliases[target].emplace(in_target.name, found->second).second;
      if (!is_new)
        Fault(*in_target.node,
              "mapping: " + Quoted(in_target.name) + " in " + Quoted(edge.to) + " is mapped twice");
    }
  }

  // ---- Dependencies

  /// First steps of the paths that a tool's templates and required_inputs name.
  static std::set<std::string> NamesReadBy(const ToolDraft& tool) {
    std::set<std::string> names;
    for (const TemplateUse& use : tool.parameters) {
      for (const std::string& path : use.parsed->reads())
        names.insert(path.substr(0, path.find('.')));
    }
    for (const WrittenName& path : tool.required)
      names.insert(path.name.substr(0, path.name.find('.')));
    return names;
  }

  void Connect() {
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      GraphUnit& unit = graph_.units[u];
      std::set<size_t> on = edges_[u];
      for (const WrittenName& input : unit.inputs) {
        const GraphSource* source = graph_.Resolve(unit.node, input.name);
        if (source == nullptr) {
          Fault(*input.node, "inputs: nothing produces " + Quoted(input.name) +
                                 DidYouMean(input.name, name_list_));
        } else {
          if (source->unit != kNoUnit) on.insert(source->unit);
        }
      }
      // A tool waits for what its parameters read, and for nothing else.
      if (unit.tool != nullptr) {
        for (const std::string& name : NamesReadBy(*unit.tool)) {
          const GraphSource* source = graph_.Resolve(unit.node, name);
          if (source != nullptr && source->unit != kNoUnit) on.insert(source->unit);
        }
        if (unit.after_host) on.insert(unit.host);
      } else if (unit.loop != kNoUnit) {
        // Templates in a loop may read its other nodes without naming them in inputs (CheckReads);
        // elsewhere what they read is an ancestor already.
        for (const TemplateUse& use : graph_.TemplatesOf(unit)) {
          for (const std::string& path : use.parsed->reads()) {
            const GraphSource* source = graph_.Resolve(unit.node, path.substr(0, path.find('.')));
            if (source == nullptr || source->unit == kNoUnit) continue;
            if (graph_.units[source->unit].loop == unit.loop) on.insert(source->unit);
          }
        }
      }
      for (size_t t = 0; t < graph_.units.size(); ++t) {
        if (graph_.units[t].host == u && !graph_.units[t].after_host) on.insert(t);
      }
      unit.dependencies.assign(on.begin(), on.end());
    }
    for (const GraphUnit& unit : graph_.units) {
      for (const size_t on : unit.dependencies) {
        const bool own_tool = unit.host == on;
        if (!graph_.IsBack(on, unit) && !own_tool) graph_.units[on].is_end = false;
      }
    }
  }

  // ---- Templates

  std::vector<bool> AncestorsOf(size_t u) const {
    std::vector<bool> found(graph_.units.size(), false);
    std::vector<size_t> open = graph_.units[u].dependencies;
    while (!open.empty()) {
      const size_t next = open.back();
      open.pop_back();
      if (found[next]) continue;
      found[next] = true;
      open.insert(open.end(), graph_.units[next].dependencies.begin(),
                  graph_.units[next].dependencies.end());
    }
    // Inside a loop everything has an iteration before.
    for (size_t other = 0; other < graph_.units.size(); ++other) {
      if (graph_.units[u].loop != kNoUnit && graph_.units[other].loop == graph_.units[u].loop)
        found[other] = true;
    }
    return found;
  }

  void CheckReads() {
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      const std::vector<bool> ancestors = AncestorsOf(u);
      for (const TemplateUse& use : graph_.TemplatesOf(graph_.units[u])) {
        for (const std::string& path : use.parsed->reads())
          CheckRead(graph_.units[u], use, path, ancestors);
      }
      if (graph_.units[u].tool != nullptr) CheckTool(graph_.units[u]);
    }
    for (const GraphLoopDraft& loop : draft_.loops) {
      if (!loop.until) continue;
      for (const std::string& path : loop.until->parsed->reads()) {
        const std::string root = path.substr(0, path.find('.'));
        if (root != "row" && !graph_.names.contains(root))
          Misread(*loop.until, root, UnknownName(root));
      }
    }
  }

  void CheckTool(const GraphUnit& unit) {
    const ToolDraft& tool = *unit.tool;
    for (const WrittenName& path : tool.required) {
      const std::string root = path.name.substr(0, path.name.find('.'));
      if (root != "row" && graph_.Resolve(unit.node, root) == nullptr)
        Fault(*path.node, "required_inputs: " + UnknownName(root));
    }
    if (tool.kind != OperatorKind::kSql) return;
    const std::string& wanted = std::get<SqlSpec>(tool.spec.what).connection;
    std::vector<std::string> known;
    for (const ConnectionSpec& connection : draft_.connections) known.push_back(connection.name);
    if (!wanted.empty() && std::find(known.begin(), known.end(), wanted) == known.end()) {
      Fault(*tool.connection, "connection: there is no " + Quoted(wanted) + " in connections" +
                                  DidYouMean(wanted, known));
    }
    if (wanted.empty() && known.size() > 1) {
      Fault(*tool.node,
            "there are several connections: say which one the query asks (connection: " +
                known.front() + ")");
    }
  }

  void Misread(const TemplateUse& use, const std::string& root, const std::string& message) {
    const SourceLocation place = LocationOfWord(*use.node, text_, root, diagnostics_.file());
    diagnostics_.Add(place.line, place.column, message);
  }

  void CheckRead(const GraphUnit& unit, const TemplateUse& use, const std::string& path,
                 const std::vector<bool>& ancestors) {
    const std::string root = path.substr(0, path.find('.'));
    if (root == "row") return;
    if (use.rows_only) {
      return Misread(use, root,
                     "a number can be computed from 'row' only, not from " + Quoted(root) +
                         DidYouMean(root, {"row"}));
    }
    const GraphSource* source = graph_.Resolve(unit.node, root);
    if (source == nullptr) return Misread(use, root, UnknownName(root));
    if (source->unit == kNoUnit) return;
    const GraphUnit& producer = graph_.units[source->unit];
    if (unit.tool == nullptr && !ancestors[source->unit]) {
      return Misread(use, root,
                     Quoted(producer.id) + ", which gives " + Quoted(root) +
                         ", runs independently of " + Quoted(unit.id) + ": add " + Quoted(root) +
                         " to its inputs, or an edge");
    }
    const Operator& what = draft_.nodes[producer.node].llm.op;
    const bool is_text =
        producer.tool == nullptr && what.samples == 1 && !(what.schema && what.schema->is_json());
    if (is_text && path != root)
      Misread(use, root,
              Quoted(path) + ": what " + Quoted(producer.id) +
                  " says is text and has "
                  "no fields");
  }

  void CheckNode(GraphNodeDraft& node) {
    CheckOperatorKeys(node.llm, diagnostics_);
    if (node.has_messages && node.llm.prompt_layout) {
      Fault(*node.llm.prompt_layout->node,
            "prompt_layout has no effect on messages, whose order is written down: take it out");
    }
    if (node.llm.op.form == PromptForm::kInputs && node.inputs.empty() && node.tools.empty() &&
        node.llm.op.instruction == nullptr) {
      Fault(*node.node, "node " + Quoted(node.id) +
                            " has nothing to say to its model: give it "
                            "inputs, prompt or messages");
    }
  }

  // ---- Cycles

  void CheckCycles() {
    std::vector<size_t> waiting(graph_.units.size(), 0);
    std::vector<size_t> open;
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      for (const size_t on : graph_.units[u].dependencies)
        waiting[u] += graph_.IsBack(on, graph_.units[u]) ? 0 : 1;
      if (waiting[u] == 0) open.push_back(u);
    }
    size_t sorted = 0;
    while (!open.empty()) {
      const size_t next = open.back();
      open.pop_back();
      ++sorted;
      for (size_t u = 0; u < graph_.units.size(); ++u) {
        const auto& on = graph_.units[u].dependencies;
        const bool depends = std::binary_search(on.begin(), on.end(), next);
        if (depends && !graph_.IsBack(next, graph_.units[u]) && --waiting[u] == 0)
          open.push_back(u);
      }
    }
    if (sorted == graph_.units.size()) return;
    ReportCycle(waiting);
  }

  /// Walks against the edges among units that never became ready: that ends in a cycle.
  void ReportCycle(const std::vector<size_t>& waiting) {
    size_t at = 0;
    while (waiting[at] == 0) ++at;
    std::vector<size_t> path;
    while (std::find(path.begin(), path.end(), at) == path.end()) {
      path.push_back(at);
      for (const size_t on : graph_.units[at].dependencies) {
        if (waiting[on] == 0 || graph_.IsBack(on, graph_.units[at])) continue;
        at = on;
        break;
      }
    }
    const auto begin = std::find(path.begin(), path.end(), at);
    std::string names = graph_.units[at].id;
    for (auto step = path.end(); step != begin;) names += " -> " + graph_.units[*--step].id;
    const GraphNodeDraft& node = draft_.nodes[graph_.units[at].node];
    Fault(*node.node, "a cycle: " + names +
                          ": take an edge out, or put the nodes into a loop with "
                          "max_iterations");
  }

  GraphDraft& draft_;
  std::string_view text_;
  DiagnosticList& diagnostics_;
  GraphUnits graph_;
  std::map<std::string, size_t> node_by_id_;
  std::vector<std::string> node_ids_;
  std::map<size_t, size_t> main_unit_;            // node -> unit
  std::map<std::string, std::string> producers_;  // name -> who, for messages
  std::vector<std::string> name_list_;
  std::map<size_t, std::set<size_t>> edges_;  // target unit -> source units
};

}  // namespace

const GraphSource* GraphUnits::Resolve(size_t node, const std::string& name) const {
  const auto of_node = aliases.find(node);
  if (of_node != aliases.end()) {
    const auto alias = of_node->second.find(name);
    if (alias != of_node->second.end()) return &alias->second;
  }
  const auto found = names.find(name);
  return found == names.end() ? nullptr : &found->second;
}

bool GraphUnits::IsBack(size_t on, const GraphUnit& unit) const {
  return unit.loop != kNoUnit && units[on].loop == unit.loop && units[on].place >= unit.place;
}

const std::vector<TemplateUse>& GraphUnits::TemplatesOf(const GraphUnit& unit) const {
  return unit.tool != nullptr ? unit.tool->parameters : draft->nodes[unit.node].llm.templates;
}

size_t GraphUnits::IterationsOf(const GraphUnit& unit) const {
  return unit.loop == kNoUnit ? 1 : static_cast<size_t>(draft->loops[unit.loop].max_iterations);
}

std::string OperatorIdOf(const GraphUnit& unit, size_t iteration) {
  return unit.id + (iteration == 0 ? "" : "__iter" + std::to_string(iteration));
}

GraphUnits ReadGraphUnits(GraphDraft& draft, std::string_view text, DiagnosticList& diagnostics) {
  return GraphReader(draft, text, diagnostics).Read();
}

}  // namespace halo
