#include "workflow/graph_workflow.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <queue>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "workflow/graph_units.h"

namespace halo {
namespace {

constexpr size_t kMostOperators = 10'000;

/// Makes the operators: iteration i of a unit is one of its own, its names are bound to those that
/// it means.
class GraphUnroller {
 public:
  GraphUnroller(const GraphUnits& graph, DiagnosticList& diagnostics)
      : graph_(graph), draft_(*graph.draft), diagnostics_(diagnostics) {}

  Workflow Build() {
    Unroll();
    return Assemble();
  }

 private:
  void Fault(const YamlNode& place, std::string message) {
    diagnostics_.Add(place.line, place.column, std::move(message));
  }

  // ---- Unrolling

  size_t Instance(size_t unit, size_t iteration) const { return first_[unit] + iteration; }

  /// The instances that a dependency of (unit, iteration) on `on` means, the latest first.
  std::vector<size_t> InstancesOf(size_t on, const GraphUnit& unit, size_t iteration) const {
    const GraphUnit& producer = graph_.units[on];
    if (unit.loop != kNoUnit && producer.loop == unit.loop) {
      if (!graph_.IsBack(on, unit)) return {Instance(on, iteration)};
      return iteration == 0 ? std::vector<size_t>{}
                            : std::vector<size_t>{Instance(on, iteration - 1)};
    }
    return AllInstancesOf(on);
  }

  std::vector<size_t> AllInstancesOf(size_t unit) const {
    std::vector<size_t> all;
    for (size_t i = graph_.IterationsOf(graph_.units[unit]); i > 0; --i)
      all.push_back(Instance(unit, i - 1));
    return all;
  }

  /// The sources that a loop's condition reads, by name.
  std::map<std::string, GraphSource> UntilReads(const GraphLoopDraft& loop) const {
    std::map<std::string, GraphSource> reads;
    for (const std::string& path : loop.until->parsed->reads()) {
      const auto found = graph_.names.find(path.substr(0, path.find('.')));
      if (found != graph_.names.end()) reads.emplace(found->first, found->second);
    }
    return reads;
  }

  void Unroll() {
    size_t count = 0;
    for (const GraphUnit& unit : graph_.units) {
      first_.push_back(count);
      count += graph_.IterationsOf(unit);
    }
    if (count > kMostOperators) {
      Fault(*draft_.nodes.front().node, "the graph has " + std::to_string(count) +
                                            " operators with its loops unrolled, more than 10000");
      diagnostics_.ThrowIfAny(ErrorCode::kWorkflow);
    }
    before_.resize(count);
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      const GraphUnit& unit = graph_.units[u];
      for (size_t i = 0; i < graph_.IterationsOf(unit); ++i) {
        std::set<size_t>& before = before_[Instance(u, i)];
        for (const size_t on : unit.dependencies) {
          const std::vector<size_t> instances = InstancesOf(on, unit, i);
          before.insert(instances.begin(), instances.end());
        }
        if (i == 0 || unit.loop == kNoUnit || !draft_.loops[unit.loop].until) continue;
        for (const auto& [name, source] : UntilReads(draft_.loops[unit.loop])) {
          if (source.unit == kNoUnit) continue;
          const bool inside = graph_.units[source.unit].loop == unit.loop;
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
    std::vector<const GraphUnit*> unit_of(order_.size());
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      for (size_t i = 0; i < graph_.IterationsOf(graph_.units[u]); ++i)
        unit_of[Instance(u, i)] = &graph_.units[u];
    }
    size_t last = kNoUnit;
    for (const size_t at : order_) {
      const ToolDraft* tool = unit_of[at]->tool;
      if (tool == nullptr || tool->spec.effect != ToolEffect::kWrite) continue;
      if (last != kNoUnit) before_[at].insert(last);
      last = at;
    }
  }

  // ---- The workflow

  NameBinding Bind(const std::string& name, const GraphSource& source,
                   std::vector<size_t> instances, bool required) const {
    NameBinding binding{name, source.column, {}, source.field, required};
    for (const size_t instance : instances) binding.producers.push_back(position_[instance]);
    return binding;
  }

  NameBinding BindFor(const GraphUnit& unit, size_t iteration, const std::string& name,
                      bool required) const {
    const GraphSource& source = *graph_.Resolve(unit.node, name);
    std::vector<size_t> instances;
    if (source.unit != kNoUnit) instances = InstancesOf(source.unit, unit, iteration);
    return Bind(name, source, std::move(instances), required);
  }

  void BindNames(const GraphUnit& unit, size_t u, size_t iteration, Operator& op) const {
    std::set<std::string> bound;
    for (const WrittenName& input : unit.inputs) {
      bound.insert(input.name);
      op.names.push_back(BindFor(unit, iteration, input.name, true));
      op.names.back().declared = true;
    }
    for (size_t t = 0; t < graph_.units.size(); ++t) {
      if (graph_.units[t].host != u || graph_.units[t].after_host) continue;
      for (const WrittenName& output : graph_.units[t].outputs) {
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
    for (const TemplateUse& use : graph_.TemplatesOf(unit)) {
      const bool is_when = use.parsed == op.when.expression;
      std::set<std::string> of_condition;
      for (const std::string& path : use.parsed->reads()) {
        const std::string root = path.substr(0, path.find('.'));
        if (root == "row" || !(is_when ? of_condition : bound).insert(root).second) continue;
        (is_when ? op.when.names : op.names).push_back(BindFor(unit, iteration, root, false));
      }
    }
  }

  void AddUntil(const GraphUnit& unit, size_t iteration, Operator& op) const {
    if (unit.loop == kNoUnit || !draft_.loops[unit.loop].until) return;
    const GraphLoopDraft& loop = draft_.loops[unit.loop];
    for (size_t earlier = 0; earlier < iteration; ++earlier) {
      Condition until{loop.until->parsed, {}};
      for (const auto& [name, source] : UntilReads(loop)) {
        std::vector<size_t> instances;
        if (source.unit != kNoUnit) {
          const bool inside = graph_.units[source.unit].loop == unit.loop;
          instances = inside ? std::vector<size_t>{Instance(source.unit, earlier)}
                             : AllInstancesOf(source.unit);
        }
        until.names.push_back(Bind(name, source, std::move(instances), false));
      }
      op.over.push_back(std::move(until));
    }
  }

  /// A tool's operator, without its id.
  Operator MakeToolOperator(const GraphUnit& unit) const {
    const ToolDraft& draft = *unit.tool;
    Operator op;
    op.kind = draft.kind;
    op.location = {diagnostics_.file(), draft.node->line, draft.node->column};
    op.is_end = unit.is_end;
    op.when = draft.common.op.when;
    op.retry = draft.common.op.retry;
    op.on_error = draft.common.op.on_error;
    op.cache = draft.common.op.cache;
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
    const GraphUnit& unit = graph_.units[u];
    const GraphNodeDraft& node = draft_.nodes[unit.node];
    Operator op = node.llm.op;
    op.id = OperatorIdOf(unit, iteration);
    op.is_end = unit.is_end;
    if (unit.tool != nullptr) {
      op = MakeToolOperator(unit);
      op.id = OperatorIdOf(unit, iteration);
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
    for (size_t u = 0; u < graph_.units.size(); ++u) {
      for (size_t i = 0; i < graph_.IterationsOf(graph_.units[u]); ++i)
        place[Instance(u, i)] = {u, i};
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
    for (const GraphUnit& unit : graph_.units) {
      for (const WrittenName& output : unit.outputs) {
        const GraphSource& source = graph_.names.at(output.name);
        NameBinding binding = Bind(output.name, source, AllInstancesOf(source.unit), false);
        if (unit.is_end) workflow.outputs.push_back(binding);
        workflow.all_outputs.push_back(std::move(binding));
      }
    }
    for (const auto& [name, source] : graph_.names) {
      if (source.unit == kNoUnit) workflow.columns.push_back(source.column);
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

  /// The connection of a query: the one it names, else the only one; without any the one that is
  /// given as --connect default=URL.
  std::string ConnectionOf(const SqlSpec& sql) const {
    if (!sql.connection.empty()) return sql.connection;
    return draft_.connections.empty() ? "default" : draft_.connections.front().name;
  }

  const GraphUnits& graph_;
  const GraphDraft& draft_;
  DiagnosticList& diagnostics_;
  std::vector<size_t> first_;             // [units] its first instance
  std::vector<std::set<size_t>> before_;  // [instances]
  std::vector<OperatorIndex> position_;   // [instances]
  std::vector<size_t> order_;             // instances
};

}  // namespace

Workflow ParseGraph(const YamlNode& graph, std::string_view text,
                    const std::set<std::string>& host_functions, DiagnosticList& diagnostics) {
  YamlNode storage;
  GraphDraft draft = ReadGraph(graph, text, host_functions, diagnostics, storage);
  const GraphUnits units = ReadGraphUnits(draft, text, diagnostics);
  return GraphUnroller(units, diagnostics).Build();
}

}  // namespace halo
