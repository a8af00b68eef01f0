#include "workflow/operator_graph.h"

#include <algorithm>
#include <functional>
#include <queue>
#include <set>
#include <unordered_map>

#include "base/text.h"

namespace halo {
namespace {

class GraphBuilder {
 public:
  GraphBuilder(const WorkflowDraft& workflow, DiagnosticList& diagnostics)
      : workflow_(workflow), operators_(workflow.operators), diagnostics_(diagnostics) {
    const size_t count = operators_.size();
    graph_.inputs.resize(count);
    graph_.consumers.resize(count);
    graph_.depth.assign(count, 0);
    graph_.is_start.assign(count, false);
    graph_.is_end.assign(count, false);
    inputs_in_doubt_.assign(count, false);
    consumers_in_doubt_.assign(count, false);
    listed_inputs_.resize(count);
    listed_outputs_.resize(count);
    for (size_t i = 0; i < count; ++i) {
      ids_.push_back(operators_[i].op.id);
      by_id_.emplace(operators_[i].op.id, i);
    }
  }

  OperatorGraph Build() {
    for (size_t i = 0; i < operators_.size(); ++i) {
      ResolveReferences(i, operators_[i].input_ops, "input_ops", listed_inputs_[i]);
      ResolveReferences(i, operators_[i].output_ops, "output_ops", listed_outputs_[i]);
    }
    CheckAgreement();
    Connect();
    const bool starts_known = MarkEnds(workflow_.start_ops, "start_ops", graph_.is_start, nullptr);
    const bool ends_known =
        MarkEnds(workflow_.end_ops, "end_ops", graph_.is_end, &graph_.end_operators);
    CheckEnds(starts_known && !any_in_doubt_, ends_known && !any_in_doubt_);
    Sort();
    ReportCycles();
    return std::move(graph_);
  }

 private:
  using References = std::optional<ReferenceList>;
  /// Operator -> the node that names it.
  using Listed = std::unordered_map<size_t, const YamlNode*>;

  void Fault(const YamlNode& node, std::string message) {
    diagnostics_.Add(node.line, node.column, std::move(message));
  }

  std::optional<size_t> Find(const OperatorReference& reference, const char* key) {
    const auto found = by_id_.find(reference.id);
    if (found != by_id_.end()) return found->second;
    Fault(*reference.node, std::string(key) + ": unknown operator '" + reference.id + "'" +
                               DidYouMean(reference.id, ids_));
    return std::nullopt;
  }

  void ResolveReferences(size_t self, const References& references, const char* key,
                         Listed& listed) {
    if (!references) return;
    const bool is_input = &listed == &listed_inputs_[self];
    std::vector<bool>& in_doubt = is_input ? inputs_in_doubt_ : consumers_in_doubt_;
    // Which operator a wrong name meant is not known, so nothing is concluded from what seems to be
    // missing.
    in_doubt[self] = !references->complete;
    for (const OperatorReference& reference : references->value) {
      const std::optional<size_t> other = Find(reference, key);
      if (!other) {
        in_doubt[self] = true;
      } else if (*other == self) {
        Fault(*reference.node, std::string(key) + ": '" + reference.id + "' names itself");
      } else {
        listed.emplace(*other, reference.node);
      }
    }
    any_in_doubt_ = any_in_doubt_ || in_doubt[self];
  }

  /// Where both sides of an edge list their neighbours, both must have it.
  void CheckAgreement() {
    for (size_t i = 0; i < operators_.size(); ++i) {
      for (const auto& [producer, node] : listed_inputs_[i]) {
        const References& outputs = operators_[producer].output_ops;
        if (!outputs || listed_outputs_[producer].contains(i) || consumers_in_doubt_[producer]) {
          continue;
        }
        Fault(*node, "input_ops: '" + ids_[i] + "' takes from '" + ids_[producer] +
                         "', but output_ops of '" + ids_[producer] + "' in line " +
                         std::to_string(outputs->node->line) + " does not list '" + ids_[i] +
                         "': add it there, or leave output_ops out");
        inputs_in_doubt_[i] = consumers_in_doubt_[producer] = true;
      }
      for (const auto& [consumer, node] : listed_outputs_[i]) {
        const References& inputs = operators_[consumer].input_ops;
        if (!inputs || listed_inputs_[consumer].contains(i) || inputs_in_doubt_[consumer]) continue;
        Fault(*node, "output_ops: '" + ids_[i] + "' gives to '" + ids_[consumer] +
                         "', but input_ops of '" + ids_[consumer] + "' in line " +
                         std::to_string(inputs->node->line) + " does not list '" + ids_[i] +
                         "': add it there, or leave input_ops out");
        inputs_in_doubt_[consumer] = consumers_in_doubt_[i] = true;
      }
    }
  }

  void Connect() {
    for (size_t i = 0; i < operators_.size(); ++i) {
      if (!operators_[i].input_ops) continue;
      for (const OperatorReference& reference : operators_[i].input_ops->value) {
        const auto found = by_id_.find(reference.id);
        if (found != by_id_.end() && found->second != i) {
          graph_.inputs[i].push_back(found->second);
        }
      }
    }
    for (size_t i = 0; i < operators_.size(); ++i) {  // file order gives the order of the inputs
      for (const auto& [consumer, node] : listed_outputs_[i]) {
        if (!operators_[consumer].input_ops) graph_.inputs[consumer].push_back(i);
      }
    }
    for (size_t i = 0; i < operators_.size(); ++i) {
      for (const size_t producer : graph_.inputs[i]) graph_.consumers[producer].push_back(i);
    }
  }

  /// Returns whether the list is there and every name in it is known.
  bool MarkEnds(const References& references, const char* key, std::vector<bool>& marked,
                std::vector<size_t>* in_order) {
    if (!references) return false;
    bool all_known = references->complete;
    for (const OperatorReference& reference : references->value) {
      const std::optional<size_t> found = Find(reference, key);
      if (!found) {
        all_known = false;
        continue;
      }
      marked[*found] = true;
      if (in_order) in_order->push_back(*found);
    }
    return all_known;
  }

  /// What is not in `start_ops` or `end_ops` is a fault only where the lists are known: a wrong
  /// name in them, or in anyone's references, may have meant this operator.
  void CheckEnds(bool starts_known, bool ends_known) {
    for (size_t i = 0; i < operators_.size(); ++i) {
      const YamlNode& key = *operators_[i].key;
      if (graph_.is_start[i] && !graph_.inputs[i].empty()) {
        Fault(key, "'" + ids_[i] + "' is in start_ops, but takes from '" +
                       ids_[graph_.inputs[i].front()] +
                       "': take it out of start_ops, or its inputs away");
      }
      if (starts_known && !graph_.is_start[i] && graph_.inputs[i].empty() && !inputs_in_doubt_[i]) {
        Fault(key, "'" + ids_[i] +
                       "' has no inputs and is not in start_ops: add it to start_ops, "
                       "or give it input_ops");
      }
      if (ends_known && !graph_.is_end[i] && graph_.consumers[i].empty() &&
          !consumers_in_doubt_[i]) {
        Fault(key, "nothing reads the output of '" + ids_[i] +
                       "' and it is not in end_ops: add it "
                       "to end_ops, or remove the operator");
      }
    }
  }

  /// Kahn's algorithm; the smallest position goes first.
  void Sort() {
    std::vector<size_t> missing(operators_.size());
    std::priority_queue<size_t, std::vector<size_t>, std::greater<>> ready;
    for (size_t i = 0; i < operators_.size(); ++i) {
      missing[i] = graph_.inputs[i].size();
      if (missing[i] == 0) ready.push(i);
    }
    while (!ready.empty()) {
      const size_t next = ready.top();
      ready.pop();
      graph_.order.push_back(next);
      for (const size_t consumer : graph_.consumers[next]) {
        graph_.depth[consumer] = std::max(graph_.depth[consumer], graph_.depth[next] + 1);
        if (--missing[consumer] == 0) ready.push(consumer);
      }
    }
  }

  /// Names each cycle of what Kahn's algorithm left over, at most once an operator.
  void ReportCycles() {
    std::vector<bool> done(operators_.size(), false);
    for (const size_t i : graph_.order) done[i] = true;
    for (size_t start = 0; start < operators_.size(); ++start) {
      if (done[start]) continue;
      // Walking to unfinished inputs ends on a cycle, or on an operator whose cycle was reported
      // before.
      std::vector<size_t> path;
      std::set<size_t> on_path;
      size_t at = start;
      bool known = false;
      while (on_path.insert(at).second) {
        path.push_back(at);
        const auto next = std::find_if(graph_.inputs[at].begin(), graph_.inputs[at].end(),
                                       [&](size_t input) { return !done[input]; });
        known = next == graph_.inputs[at].end();
        if (known) break;
        at = *next;
      }
      for (const size_t i : path) done[i] = true;
      if (known) continue;
      path.erase(path.begin(), std::find(path.begin(), path.end(), at));
      ReportCycle(std::move(path));
    }
  }

  /// `path` goes against the edges; the message goes along them, from the operator that stands
  /// first in the file.
  void ReportCycle(std::vector<size_t> path) {
    std::reverse(path.begin(), path.end());
    std::rotate(path.begin(), std::min_element(path.begin(), path.end()), path.end());
    std::string names;
    for (const size_t i : path) names += ids_[i] + " -> ";
    Fault(*operators_[path.front()].key,
          "the operators wait for each other in a cycle: " + names + ids_[path.front()]);
  }

  const WorkflowDraft& workflow_;
  const std::vector<OperatorDraft>& operators_;
  DiagnosticList& diagnostics_;
  OperatorGraph graph_;
  std::vector<std::string> ids_;
  std::unordered_map<std::string, size_t> by_id_;
  std::vector<Listed> listed_inputs_;
  std::vector<Listed> listed_outputs_;
  std::vector<bool> inputs_in_doubt_;     ///< its input_ops have a fault
  std::vector<bool> consumers_in_doubt_;  ///< its output_ops have a fault
  bool any_in_doubt_ = false;
};

}  // namespace

OperatorGraph ConnectOperators(const WorkflowDraft& workflow, DiagnosticList& diagnostics) {
  return GraphBuilder(workflow, diagnostics).Build();
}

}  // namespace halo
