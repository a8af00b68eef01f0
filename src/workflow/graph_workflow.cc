#include "workflow/graph_workflow.h"

#include <algorithm>
#include <map>
#include <queue>
#include <set>
#include <tuple>

#include "base/text.h"
#include "workflow/graph_keys.h"
#include "workflow/prompt_check.h"

namespace halo {
namespace {

constexpr size_t kMostOperators = 10'000;
constexpr size_t kNone = static_cast<size_t>(-1);

/// What runs: an inference node, a tool node, or a tool that is embedded in an inference node.
/// Loops are not unrolled yet.
struct Unit {
  std::string id;
  size_t node = 0;                  // position in GraphDraft::nodes
  const ToolDraft* tool = nullptr;  // null: inference
  size_t host = kNone;              // of an embedded tool: the unit of its node
  bool after_host = false;
  size_t loop = kNone;
  size_t place = 0;  // in the body of its loop; tools stand before or behind their node
  std::vector<WrittenName> inputs;  // declared: required
  std::vector<WrittenName> outputs;
  std::vector<size_t>
      dependencies;  // units, ascending; a dependency on a later place is a back edge
  bool is_end = true;
};

/// What a name stands for, before loops are unrolled.
struct Source {
  size_t unit = kNone;  // kNone: a column
  std::string column;
  std::string field;  // of a structured answer
};

struct Loop {
  const GraphLoopDraft* draft = nullptr;
};

std::string Quoted(const std::string& text) { return "'" + text + "'"; }

class GraphBuilder {
 public:
  GraphBuilder(GraphDraft& draft, std::string_view text, DiagnosticList& diagnostics)
      : draft_(draft), text_(text), diagnostics_(diagnostics) {}

  Workflow Build() {
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
    Unroll();
    return Assemble();
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
      for (const size_t tool : before) units_[tool].host = host;
      for (const ToolDraft& tool : node.tools) {
        if (!tool.after_llm) continue;
        const size_t unit = AddEmbedded(n, tool);
        units_[unit].host = host;
        units_[unit].after_host = true;
      }
    }
  }

  size_t AddUnit(std::string id, size_t node, const ToolDraft* tool) {
    Unit unit;
    unit.id = std::move(id);
    unit.node = node;
    unit.tool = tool;
    unit.inputs = draft_.nodes[node].inputs;
    unit.outputs = draft_.nodes[node].outputs;
    if (unit.outputs.empty()) unit.outputs.push_back({unit.id, draft_.nodes[node].node});
    main_unit_[node] = units_.size();
    units_.push_back(std::move(unit));
    return units_.size() - 1;
  }

  size_t AddEmbedded(size_t node, const ToolDraft& tool) {
    Unit unit;
    unit.id = draft_.nodes[node].id + (tool.after_llm ? "__post__" : "__pre__") + tool.name;
    while (std::any_of(units_.begin(), units_.end(),
                       [&](const Unit& other) { return other.id == unit.id; }))
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
    units_.push_back(std::move(unit));
    return units_.size() - 1;
  }

  // ---- Loops

  void ReadLoops() {
    constexpr size_t kPlaces = 3;  // tools before a node, the node, tools behind it
    for (const GraphLoopDraft& loop : draft_.loops) {
      const size_t index = loops_.size();
      loops_.push_back({&loop});
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
        for (Unit& unit : units_) {
          if (unit.node != node->second) continue;
          if (unit.loop != kNone && unit.loop != index) {
            Fault(*name.node, "loops: " + Quoted(name.name) + " is in another loop already");
            break;
          }
          unit.loop = index;
          const size_t side = unit.host == kNone ? 1 : unit.after_host ? 2 : 0;
          unit.place = place * kPlaces + side;
        }
      }
    }
  }

  static std::string IdOf(const Unit& unit, size_t iteration) {
    return unit.id + (iteration == 0 ? "" : "__iter" + std::to_string(iteration));
  }

  /// Draws, errors and counts go by the ids of operators, and each iteration is one.
  void CheckIterationIds() {
    std::map<std::string, const Unit*> by_id;
    for (const Unit& unit : units_) by_id.emplace(unit.id, &unit);
    for (const Unit& unit : units_) {
      for (size_t i = 1; i < IterationsOf(unit); ++i) {
        const auto found = by_id.find(IdOf(unit, i));
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
        Declare(output, {kNone, output.name, ""}, "input node " + Quoted(node.id));
    }
    for (size_t u = 0; u < units_.size(); ++u) {
      const Unit& unit = units_[u];
      const bool fields = unit.tool != nullptr || draft_.nodes[unit.node].structured;
      for (const WrittenName& output : unit.outputs)
        Declare(output, {u, "", fields ? output.name : ""}, Quoted(unit.id));
    }
  }

  void Declare(const WrittenName& output, Source source, const std::string& who) {
    const auto [found, is_new] = names_.emplace(output.name, source);
    if (is_new) {
      producers_[output.name] = who;
      name_list_.push_back(output.name);
      return;
    }
    Fault(*output.node, who + " gives the name " + Quoted(output.name) + ", which " +
                            producers_[output.name] + " gives already: choose another");
  }

  /// What `name` stands for in the node's templates and inputs.
  const Source* Resolve(size_t node, const std::string& name) const {
    const auto aliases = aliases_.find(node);
    if (aliases != aliases_.end()) {
      const auto alias = aliases->second.find(name);
      if (alias != aliases->second.end()) return &alias->second;
    }
    const auto found = names_.find(name);
    return found == names_.end() ? nullptr : &found->second;
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
      const auto found = names_.find(in_source.name);
      const bool of_source =
          found != names_.end() &&
          (found->second.unit == kNone
               ? from.kind == GraphNodeKind::kInput &&
                     std::any_of(from.outputs.begin(), from.outputs.end(),
                                 [&](const auto& o) { return o.name == in_source.name; })
               : units_[found->second.unit].node == source);
      if (!of_source) {
        std::vector<std::string> there;
        for (const WrittenName& output : from.outputs) there.push_back(output.name);
        Fault(*in_source.node, "mapping: " + Quoted(edge.from) + " has no output " +
                                   Quoted(in_source.name) + DidYouMean(in_source.name, there));
        continue;
      }
      const bool is_new = aliases_[target].emplace(in_target.name, found->second).second;
      if (!is_new)
        Fault(*in_target.node,
              "mapping: " + Quoted(in_target.name) + " in " + Quoted(edge.to) + " is mapped twice");
    }
  }

  // ---- Dependencies

  const std::vector<TemplateUse>& TemplatesOf(const Unit& unit) const {
    return unit.tool != nullptr ? unit.tool->parameters : draft_.nodes[unit.node].llm.templates;
  }

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
    for (size_t u = 0; u < units_.size(); ++u) {
      Unit& unit = units_[u];
      std::set<size_t> on = edges_[u];
      for (const WrittenName& input : unit.inputs) {
        const Source* source = Resolve(unit.node, input.name);
        if (source == nullptr) {
          Fault(*input.node, "inputs: nothing produces " + Quoted(input.name) +
                                 DidYouMean(input.name, name_list_));
        } else {
          if (source->unit != kNone) on.insert(source->unit);
        }
      }
      // A tool waits for what its parameters read, and for nothing else.
      if (unit.tool != nullptr) {
        for (const std::string& name : NamesReadBy(*unit.tool)) {
          const Source* source = Resolve(unit.node, name);
          if (source != nullptr && source->unit != kNone) on.insert(source->unit);
        }
        if (unit.after_host) on.insert(unit.host);
      }
      for (size_t t = 0; t < units_.size(); ++t) {
        if (units_[t].host == u && !units_[t].after_host) on.insert(t);
      }
      unit.dependencies.assign(on.begin(), on.end());
    }
    for (const Unit& unit : units_) {
      for (const size_t on : unit.dependencies) {
        const bool own_tool = unit.host == on;
        if (!IsBack(on, unit) && !own_tool) units_[on].is_end = false;
      }
    }
  }

  /// A dependency inside a loop on what stands there or later: on the iteration before.
  bool IsBack(size_t on, const Unit& unit) const {
    return unit.loop != kNone && units_[on].loop == unit.loop && units_[on].place >= unit.place;
  }

  // ---- Templates

  std::vector<bool> AncestorsOf(size_t u) const {
    std::vector<bool> found(units_.size(), false);
    std::vector<size_t> open = units_[u].dependencies;
    while (!open.empty()) {
      const size_t next = open.back();
      open.pop_back();
      if (found[next]) continue;
      found[next] = true;
      open.insert(open.end(), units_[next].dependencies.begin(), units_[next].dependencies.end());
    }
    // Inside a loop everything has an iteration before.
    for (size_t other = 0; other < units_.size(); ++other) {
      if (units_[u].loop != kNone && units_[other].loop == units_[u].loop) found[other] = true;
    }
    return found;
  }

  void CheckReads() {
    for (size_t u = 0; u < units_.size(); ++u) {
      const std::vector<bool> ancestors = AncestorsOf(u);
      for (const TemplateUse& use : TemplatesOf(units_[u])) {
        for (const std::string& path : use.parsed->reads())
          CheckRead(units_[u], use, path, ancestors);
      }
      if (units_[u].tool != nullptr) CheckTool(units_[u]);
    }
    for (const Loop& loop : loops_) {
      if (!loop.draft->until) continue;
      for (const std::string& path : loop.draft->until->parsed->reads()) {
        const std::string root = path.substr(0, path.find('.'));
        if (root != "row" && !names_.contains(root))
          Misread(*loop.draft->until, root, UnknownName(root));
      }
    }
  }

  void CheckTool(const Unit& unit) {
    const ToolDraft& tool = *unit.tool;
    for (const WrittenName& path : tool.required) {
      const std::string root = path.name.substr(0, path.name.find('.'));
      if (root != "row" && Resolve(unit.node, root) == nullptr)
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

  /// The connection of a query: the one it names, else the only one; without any the one that is
  /// given as --connect default=URL.
  std::string ConnectionOf(const SqlSpec& sql) const {
    if (!sql.connection.empty()) return sql.connection;
    return draft_.connections.empty() ? "default" : draft_.connections.front().name;
  }

  void Misread(const TemplateUse& use, const std::string& root, const std::string& message) {
    const SourceLocation place = LocationOfWord(*use.node, text_, root, diagnostics_.file());
    diagnostics_.Add(place.line, place.column, message);
  }

  void CheckRead(const Unit& unit, const TemplateUse& use, const std::string& path,
                 const std::vector<bool>& ancestors) {
    const std::string root = path.substr(0, path.find('.'));
    if (root == "row") return;
    if (use.rows_only) {
      return Misread(use, root,
                     "a number can be computed from 'row' only, not from " + Quoted(root) +
                         DidYouMean(root, {"row"}));
    }
    const Source* source = Resolve(unit.node, root);
    if (source == nullptr) return Misread(use, root, UnknownName(root));
    if (source->unit == kNone) return;
    const Unit& producer = units_[source->unit];
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
    std::vector<size_t> waiting(units_.size(), 0);
    std::vector<size_t> open;
    for (size_t u = 0; u < units_.size(); ++u) {
      for (const size_t on : units_[u].dependencies) waiting[u] += IsBack(on, units_[u]) ? 0 : 1;
      if (waiting[u] == 0) open.push_back(u);
    }
    size_t sorted = 0;
    while (!open.empty()) {
      const size_t next = open.back();
      open.pop_back();
      ++sorted;
      for (size_t u = 0; u < units_.size(); ++u) {
        const auto& on = units_[u].dependencies;
        const bool depends = std::binary_search(on.begin(), on.end(), next);
        if (depends && !IsBack(next, units_[u]) && --waiting[u] == 0) open.push_back(u);
      }
    }
    if (sorted == units_.size()) return;
    ReportCycle(waiting);
  }

  /// Walks against the edges among units that never became ready: that ends in a cycle.
  void ReportCycle(const std::vector<size_t>& waiting) {
    size_t at = 0;
    while (waiting[at] == 0) ++at;
    std::vector<size_t> path;
    while (std::find(path.begin(), path.end(), at) == path.end()) {
      path.push_back(at);
      for (const size_t on : units_[at].dependencies) {
        if (waiting[on] == 0 || IsBack(on, units_[at])) continue;
        at = on;
        break;
      }
    }
    const auto begin = std::find(path.begin(), path.end(), at);
    std::string names = units_[at].id;
    for (auto step = path.end(); step != begin;) names += " -> " + units_[*--step].id;
    const GraphNodeDraft& node = draft_.nodes[units_[at].node];
    Fault(*node.node, "a cycle: " + names +
                          ": take an edge out, or put the nodes into a loop with "
                          "max_iterations");
  }

  // ---- Unrolling

  size_t IterationsOf(const Unit& unit) const {
    return unit.loop == kNone ? 1 : static_cast<size_t>(loops_[unit.loop].draft->max_iterations);
  }

  size_t Instance(size_t unit, size_t iteration) const { return first_[unit] + iteration; }

  /// The instances that a dependency of (unit, iteration) on `on` means, the latest first.
  std::vector<size_t> InstancesOf(size_t on, const Unit& unit, size_t iteration) const {
    const Unit& producer = units_[on];
    if (unit.loop != kNone && producer.loop == unit.loop) {
      if (!IsBack(on, unit)) return {Instance(on, iteration)};
      return iteration == 0 ? std::vector<size_t>{}
                            : std::vector<size_t>{Instance(on, iteration - 1)};
    }
    return AllInstancesOf(on);
  }

  std::vector<size_t> AllInstancesOf(size_t unit) const {
    std::vector<size_t> all;
    for (size_t i = IterationsOf(units_[unit]); i > 0; --i) all.push_back(Instance(unit, i - 1));
    return all;
  }

  /// The sources that a loop's condition reads, by name.
  std::map<std::string, Source> UntilReads(const Loop& loop) const {
    std::map<std::string, Source> reads;
    for (const std::string& path : loop.draft->until->parsed->reads()) {
      const auto found = names_.find(path.substr(0, path.find('.')));
      if (found != names_.end()) reads.emplace(found->first, found->second);
    }
    return reads;
  }

  void Unroll() {
    size_t count = 0;
    for (const Unit& unit : units_) {
      first_.push_back(count);
      count += IterationsOf(unit);
    }
    if (count > kMostOperators) {
      Fault(*draft_.nodes.front().node, "the graph has " + std::to_string(count) +
                                            " operators with its loops unrolled, more than 10000");
      diagnostics_.ThrowIfAny(ErrorCode::kWorkflow);
    }
    before_.resize(count);
    for (size_t u = 0; u < units_.size(); ++u) {
      const Unit& unit = units_[u];
      for (size_t i = 0; i < IterationsOf(unit); ++i) {
        std::set<size_t>& before = before_[Instance(u, i)];
        for (const size_t on : unit.dependencies) {
          const std::vector<size_t> instances = InstancesOf(on, unit, i);
          before.insert(instances.begin(), instances.end());
        }
        if (i == 0 || unit.loop == kNone || !loops_[unit.loop].draft->until) continue;
        for (const auto& [name, source] : UntilReads(loops_[unit.loop])) {
          if (source.unit == kNone) continue;
          const bool inside = units_[source.unit].loop == unit.loop;
          const std::vector<size_t> read = inside
                                               ? std::vector<size_t>{Instance(source.unit, i - 1)}
                                               : AllInstancesOf(source.unit);
          before.insert(read.begin(), read.end());
        }
      }
    }
    Sort(count);
  }

  /// Topological order of the instances, ties by place in the file, then by iteration.
  void Sort(size_t count) {
    std::vector<size_t> waiting(count);
    std::vector<std::vector<size_t>> behind(count);
    std::priority_queue<size_t, std::vector<size_t>, std::greater<>> open;
    for (size_t at = 0; at < count; ++at) {
      waiting[at] = before_[at].size();
      for (const size_t on : before_[at]) behind[on].push_back(at);
      if (waiting[at] == 0) open.push(at);
    }
    position_.resize(count);
    while (!open.empty()) {
      const size_t at = open.top();
      open.pop();
      position_[at] = static_cast<OperatorIndex>(order_.size());
      order_.push_back(at);
      for (const size_t next : behind[at]) {
        if (--waiting[next] == 0) open.push(next);
      }
    }
    if (order_.size() == count) return OrderWrites();
    // A loop's body waits for what waits for the loop.
    Fault(*draft_.loops.front().node,
          "a loop cannot be unrolled: a node of its body reads a node outside that reads the loop: "
          "put that node into the loop too");
    diagnostics_.ThrowIfAny(ErrorCode::kWorkflow);
  }

  /// Writes of a row happen in the order of the operators, whatever they read (contract 4).
  void OrderWrites() {
    std::vector<const Unit*> unit_of(order_.size());
    for (size_t u = 0; u < units_.size(); ++u) {
      for (size_t i = 0; i < IterationsOf(units_[u]); ++i) unit_of[Instance(u, i)] = &units_[u];
    }
    size_t last = kNone;
    for (const size_t at : order_) {
      const ToolDraft* tool = unit_of[at]->tool;
      if (tool == nullptr || tool->spec.effect != ToolEffect::kWrite) continue;
      if (last != kNone) before_[at].insert(last);
      last = at;
    }
  }

  // ---- The workflow

  NameBinding Bind(const std::string& name, const Source& source, std::vector<size_t> instances,
                   bool required) const {
    NameBinding binding{name, source.column, {}, source.field, required};
    for (const size_t instance : instances) binding.producers.push_back(position_[instance]);
    return binding;
  }

  NameBinding BindFor(const Unit& unit, size_t iteration, const std::string& name,
                      bool required) const {
    const Source& source = *Resolve(unit.node, name);
    std::vector<size_t> instances;
    if (source.unit != kNone) instances = InstancesOf(source.unit, unit, iteration);
    return Bind(name, source, std::move(instances), required);
  }

  void BindNames(const Unit& unit, size_t u, size_t iteration, Operator& op) const {
    std::set<std::string> bound;
    for (const WrittenName& input : unit.inputs) {
      bound.insert(input.name);
      op.names.push_back(BindFor(unit, iteration, input.name, true));
    }
    for (size_t t = 0; t < units_.size(); ++t) {
      if (units_[t].host != u || units_[t].after_host) continue;
      for (const WrittenName& output : units_[t].outputs) {
        if (bound.insert(output.name).second)
          op.names.push_back(BindFor(unit, iteration, output.name, true));
      }
    }
    if (unit.tool != nullptr) {
      for (const WrittenName& path : unit.tool->required) {
        const std::string root = path.name.substr(0, path.name.find('.'));
        if (root != "row" && bound.insert(root).second)
          op.names.push_back(BindFor(unit, iteration, root, false));
      }
    }
    for (const TemplateUse& use : TemplatesOf(unit)) {
      const bool is_when = use.parsed == op.when.expression;
      std::set<std::string> of_condition;
      for (const std::string& path : use.parsed->reads()) {
        const std::string root = path.substr(0, path.find('.'));
        if (root == "row" || !(is_when ? of_condition : bound).insert(root).second) continue;
        (is_when ? op.when.names : op.names).push_back(BindFor(unit, iteration, root, false));
      }
    }
  }

  void AddUntil(const Unit& unit, size_t iteration, Operator& op) const {
    if (unit.loop == kNone || !loops_[unit.loop].draft->until) return;
    const Loop& loop = loops_[unit.loop];
    for (size_t earlier = 0; earlier < iteration; ++earlier) {
      Condition until{loop.draft->until->parsed, {}};
      for (const auto& [name, source] : UntilReads(loop)) {
        std::vector<size_t> instances;
        if (source.unit != kNone) {
          const bool inside = units_[source.unit].loop == unit.loop;
          instances = inside ? std::vector<size_t>{Instance(source.unit, earlier)}
                             : AllInstancesOf(source.unit);
        }
        until.names.push_back(Bind(name, source, std::move(instances), false));
      }
      op.over.push_back(std::move(until));
    }
  }

  /// A tool's operator, without its id.
  Operator MakeToolOperator(const Unit& unit) const {
    const ToolDraft& draft = *unit.tool;
    Operator op;
    op.kind = draft.kind;
    op.location = {diagnostics_.file(), draft.node->line, draft.node->column};
    op.is_end = unit.is_end;
    op.when = draft.common.op.when;
    op.retry = draft.common.op.retry;
    op.on_error = draft.common.op.on_error;
    auto spec = std::make_shared<ToolSpec>(draft.spec);
    for (const WrittenName& output : unit.outputs) spec->outputs.push_back(output.name);
    if (auto* sql = std::get_if<SqlSpec>(&spec->what)) sql->connection = ConnectionOf(*sql);
    if (auto* function = std::get_if<FunctionSpec>(&spec->what)) {
      for (const WrittenName& input : unit.inputs) function->inputs.push_back(input.name);
    }
    op.tool = std::move(spec);
    return op;
  }

  Operator MakeOperator(size_t u, size_t iteration) const {
    const Unit& unit = units_[u];
    const GraphNodeDraft& node = draft_.nodes[unit.node];
    Operator op = node.llm.op;
    op.id = IdOf(unit, iteration);
    op.is_end = unit.is_end;
    if (unit.tool != nullptr) {
      op = MakeToolOperator(unit);
      op.id = IdOf(unit, iteration);
    } else if (node.llm.prompt_layout) {
      op.prompt_layout = node.llm.prompt_layout->value;
    }
    if (!op.instruction)
      op.instruction = std::make_shared<const Template>(Template::Parse("", op.location));
    BindNames(unit, u, iteration, op);
    AddUntil(unit, iteration, op);
    for (const size_t on : before_[Instance(u, iteration)]) op.inputs.push_back(position_[on]);
    std::sort(op.inputs.begin(), op.inputs.end());
    op.is_start = op.inputs.empty();
    return op;
  }

  Workflow Assemble() {
    Workflow workflow;
    workflow.is_graph = true;
    workflow.name = draft_.name;
    workflow.connections = draft_.connections;
    workflow.allow_hosts = draft_.allow_hosts;
    workflow.host_limits = draft_.host_limits;
    workflow.description = draft_.description;
    std::vector<std::pair<size_t, size_t>> place(order_.size());  // instance -> (unit, iteration)
    for (size_t u = 0; u < units_.size(); ++u) {
      for (size_t i = 0; i < IterationsOf(units_[u]); ++i) place[Instance(u, i)] = {u, i};
    }
    for (const size_t instance : order_)
      workflow.operators.push_back(MakeOperator(place[instance].first, place[instance].second));
    for (size_t i = 0; i < workflow.operators.size(); ++i) {
      for (const OperatorIndex input : workflow.operators[i].inputs) {
        Operator& producer = workflow.operators[static_cast<size_t>(input)];
        producer.consumers.push_back(static_cast<OperatorIndex>(i));
        producer.keep_cache = producer.keep_cache || producer.SharesKvWith(workflow.operators[i]);
      }
    }
    for (const Unit& unit : units_) {
      for (const WrittenName& output : unit.outputs) {
        const Source& source = names_.at(output.name);
        NameBinding binding = Bind(output.name, source, AllInstancesOf(source.unit), false);
        if (unit.is_end) workflow.outputs.push_back(binding);
        workflow.all_outputs.push_back(std::move(binding));
      }
    }
    for (const auto& [name, source] : names_) {
      if (source.unit == kNone) workflow.columns.push_back(source.column);
    }
    AddNotices(workflow);
    return workflow;
  }

  void AddNotices(Workflow& workflow) const {
    std::string nodes;
    for (const GraphNodeDraft& node : draft_.nodes) {
      if (node.uses_foreign_engine) nodes += (nodes.empty() ? "" : ", ") + node.id;
    }
    if (!nodes.empty()) {
      workflow.notices.push_back(
          "engine: vllm or sglang (" + nodes +
          ") is taken to mean an LLM engine: no server is connected, so the embedded one is used");
    }
  }

  GraphDraft& draft_;
  std::string_view text_;
  DiagnosticList& diagnostics_;
  std::vector<Unit> units_;
  std::vector<Loop> loops_;
  std::map<std::string, size_t> node_by_id_;
  std::vector<std::string> node_ids_;
  std::map<size_t, size_t> main_unit_;            // node -> unit
  std::map<std::string, Source> names_;           // of the whole graph
  std::map<std::string, std::string> producers_;  // name -> who, for messages
  std::vector<std::string> name_list_;
  std::map<size_t, std::map<std::string, Source>> aliases_;  // [node] by edges' mappings
  std::map<size_t, std::set<size_t>> edges_;                 // target unit -> source units
  std::vector<size_t> first_;                                // [units] its first instance
  std::vector<std::set<size_t>> before_;                     // [instances]
  std::vector<OperatorIndex> position_;                      // [instances]
  std::vector<size_t> order_;                                // instances
};

}  // namespace

Workflow ParseGraph(const YamlNode& graph, std::string_view text, DiagnosticList& diagnostics) {
  YamlNode storage;
  GraphDraft draft = ReadGraph(graph, text, diagnostics, storage);
  return GraphBuilder(draft, text, diagnostics).Build();
}

}  // namespace halo
