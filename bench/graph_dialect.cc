#include "bench/graph_dialect.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <optional>
#include <stdexcept>
#include <vector>

namespace halo::bench {
namespace {

bool IsWordPart(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

/// Adds the words of one expression, [begin, end) of a text.
void AddWords(const std::string& text, size_t begin, size_t end, std::set<std::string>& words) {
  for (size_t at = begin; at < end;) {
    const char c = text[at];
    if (c == '\'' || c == '"') {
      for (++at; at < end && text[at] != c; ++at) {
        if (text[at] == '\\') ++at;
      }
      ++at;
    } else if (IsWordPart(c)) {
      const size_t from = at;
      while (at < end && IsWordPart(text[at])) ++at;
      if (from == begin || text[from - 1] != '.') words.insert(text.substr(from, at - from));
    } else {
      ++at;
    }
  }
}

std::vector<std::string> Texts(const YAML::Node& list) {
  std::vector<std::string> texts;
  for (const auto& item : list) texts.push_back(item.as<std::string>());
  return texts;
}

std::vector<std::string> Keys(const YAML::Node& mapping) {
  std::vector<std::string> keys;
  for (const auto& entry : mapping) keys.push_back(entry.first.as<std::string>());
  return keys;
}

/// An operator before its inputs are known.
struct Unit {
  std::string id;
  std::string node;
  YAML::Node said;  // the keys of a node or of an embedded tool
  bool is_tool = false;
  bool is_embedded = false;
  bool is_behind = false;           // an embedded tool behind its node's call
  std::vector<std::string> inputs;  // names
  std::vector<std::string> outputs;
};

class GraphReader {
 public:
  explicit GraphReader(const YAML::Node& graph) : graph_(graph) {
    for (const auto& node : graph["nodes"]) AddNode(node);
    for (const Unit& unit : units_) {
      for (const std::string& output : unit.outputs) producers_[output] = unit.id;
    }
    ReadMappings();
  }

  WorkflowGraph Connect() const {
    WorkflowGraph connected;
    for (const Unit& unit : units_) {
      std::set<std::string> ids;
      for (const std::string& name : NamesReadBy(unit)) {
        if (const auto producer = ProducerOf(unit.node, name)) ids.insert(*producer);
      }
      for (const Unit& other : units_) {
        const bool own = other.is_embedded && other.node == unit.node;
        if (own && !unit.is_embedded && !other.is_behind) ids.insert(other.id);
      }
      if (unit.is_behind) ids.insert(unit.node);
      if (!unit.is_embedded) AddEdges(unit, ids);
      ids.erase(unit.id);
      connected[unit.id] = {ids.begin(), ids.end()};
    }
    return connected;
  }

 private:
  void AddNode(const YAML::Node& node) {
    Unit unit;
    unit.id = unit.node = node["id"].as<std::string>();
    unit.said = node;
    const std::string type = node["type"] ? node["type"].as<std::string>() : "inference";
    if (type == "input") return;
    unit.is_tool = type != "inference";
    if (node["inputs"]) unit.inputs = Texts(node["inputs"]);
    if (node["outputs"]) unit.outputs = Texts(node["outputs"]);
    if (unit.outputs.empty()) unit.outputs.push_back(unit.id);
    AddKeys(node["result_mappings"], unit.outputs);
    units_.push_back(unit);
    for (const char* key : {"db_queries", "tool_calls"}) {
      for (const auto& tool : node[key]) AddEmbedded(unit, tool, key);
    }
  }

  void AddEmbedded(const Unit& host, const YAML::Node& said, const std::string& key) {
    Unit unit;
    unit.node = host.id;
    unit.said = said;
    unit.is_tool = unit.is_embedded = true;
    unit.is_behind = said["post_llm"] && said["post_llm"].as<bool>();
    const auto name = said["name"].as<std::string>();
    unit.id = host.id + (unit.is_behind ? "__post__" : "__pre__") + name;
    while (std::any_of(units_.begin(), units_.end(),
                       [&](const Unit& other) { return other.id == unit.id; }))
      unit.id += "_1";
    unit.outputs = {name};
    AddKeys(said["result_mappings"], unit.outputs);
    if (said["inputs"]) unit.inputs = Texts(said["inputs"]);
    const bool is_function =
        key == "tool_calls" && said["kind"] && said["kind"].as<std::string>() == "processor";
    // A function that names no inputs reads its node's.
    if (is_function && unit.inputs.empty()) unit.inputs = host.inputs;
    units_.push_back(unit);
  }

  static void AddKeys(const YAML::Node& mapping, std::vector<std::string>& names) {
    if (!mapping) return;
    const std::vector<std::string> keys = Keys(mapping);
    names.insert(names.end(), keys.begin(), keys.end());
  }

  /// `mapping: {name in target: name in source}` of an edge holds for its target alone.
  void ReadMappings() {
    for (const auto& edge : graph_["edges"]) {
      for (const auto& alias : edge["mapping"]) {
        aliases_[{edge["to"].as<std::string>(), alias.first.as<std::string>()}] =
            alias.second.as<std::string>();
      }
    }
  }

  void AddEdges(const Unit& unit, std::set<std::string>& ids) const {
    for (const auto& edge : graph_["edges"]) {
      if (edge["to"].as<std::string>() != unit.id) continue;
      const auto from = edge["from"].as<std::string>();
      const bool runs = std::any_of(units_.begin(), units_.end(),
                                    [&](const Unit& other) { return other.id == from; });
      if (runs) ids.insert(from);
    }
  }

  std::set<std::string> NamesReadBy(const Unit& unit) const {
    std::set<std::string> names(unit.inputs.begin(), unit.inputs.end());
    if (!unit.is_tool) return names;  // its templates read what these or edges put before it
    for (const auto& entry : unit.said) {
      const auto key = entry.first.as<std::string>();
      // Not templates: statements bind values, and functions are given theirs as inputs.
      static const std::set<std::string> kPlain = {"id", "name", "sql", "config", "outputs"};
      if (!kPlain.contains(key)) AddNames(entry.second, key == "when", names);
    }
    for (const auto& path : unit.said["required_inputs"]) {
      const auto text = path.as<std::string>();
      names.insert(text.substr(0, text.find('.')));
    }
    return names;
  }

  static void AddNames(const YAML::Node& value, bool is_expression, std::set<std::string>& names) {
    if (value.IsScalar()) {
      names.merge(WordsOf(value.as<std::string>(), is_expression));
    } else if (value.IsSequence()) {
      for (const auto& item : value) AddNames(item, is_expression, names);
    } else if (value.IsMap()) {
      for (const auto& entry : value) AddNames(entry.second, is_expression, names);
    }
  }

  std::optional<std::string> ProducerOf(const std::string& node, const std::string& name) const {
    const auto alias = aliases_.find({node, name});
    const auto found = producers_.find(alias == aliases_.end() ? name : alias->second);
    if (found == producers_.end()) return std::nullopt;  // a column, or no name at all
    return found->second;
  }

  const YAML::Node& graph_;
  std::vector<Unit> units_;
  std::map<std::string, std::string> producers_;                        // output -> operator
  std::map<std::pair<std::string, std::string>, std::string> aliases_;  // (node, name) -> name
};

}  // namespace

std::set<std::string> WordsOf(const std::string& text, bool is_expression) {
  std::set<std::string> words;
  if (is_expression) {
    AddWords(text, 0, text.size(), words);
    return words;
  }
  for (size_t at = text.find('{'); at != std::string::npos; at = text.find('{', at + 1)) {
    if (at + 1 >= text.size() || (text[at + 1] != '{' && text[at + 1] != '%')) continue;
    const size_t end = text.find(text[at + 1] == '{' ? "}}" : "%}", at + 2);
    if (end == std::string::npos) break;
    AddWords(text, at + 2, end, words);
    at = end;
  }
  return words;
}

WorkflowGraph ReadGraphDialect(const YAML::Node& graph) {
  if (graph["loops"] && graph["loops"].size() > 0)
    throw std::runtime_error("graphs with loops are not read here");
  if (!graph["nodes"] || !graph["nodes"].IsSequence())
    throw std::runtime_error("'graph' has no list 'nodes'");
  return GraphReader(graph).Connect();
}

}  // namespace halo::bench
