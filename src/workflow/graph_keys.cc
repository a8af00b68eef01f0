#include "workflow/graph_keys.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/text.h"
#include "workflow/prompt_check.h"
#include "workflow/tool_keys.h"

namespace halo {
namespace {

constexpr int64_t kMostIterations = 1000;
constexpr size_t kMostNodes = 10'000;

// ---- Inference nodes

void ReadSystemPrompt(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  if (!c.reader.Text(f)) return;
  d.llm.op.instruction = ParseTemplateScalar(*f.value, c.text, f.name, c.reader.diagnostics());
  if (d.llm.op.instruction) d.llm.templates.push_back({d.llm.op.instruction, f.value, false});
}

void ReadBody(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  d.has_prompt = true;
  if (!c.reader.Text(f)) return;
  d.llm.op.form = PromptForm::kBody;
  d.llm.op.body = ParseTemplateScalar(*f.value, c.text, f.name, c.reader.diagnostics());
  if (d.llm.op.body) d.llm.templates.push_back({d.llm.op.body, f.value, false});
}

/// One of `messages`, while it is read.
struct MessageDraft {
  MessageSpec message;
  const YamlNode* content = nullptr;
};

constexpr KeySpec<MessageDraft> kMessageKeys[] = {
    {"role",
     [](KeyContext& c, const YamlField& f, MessageDraft& d) {
       d.message.role = c.reader.Choice(f, {"system", "user", "assistant"}).value_or("");
     }},
    {"content",
     [](KeyContext& c, const YamlField& f, MessageDraft& d) {
       if (!c.reader.Text(f)) return;
       d.content = f.value;
       d.message.content = ParseTemplateScalar(*f.value, c.text, "content", c.reader.diagnostics());
     }},
};

void ReadMessages(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  d.has_messages = true;
  DiagnosticList& diagnostics = c.reader.diagnostics();
  if (f.value->kind != YamlNode::Kind::kSequence || f.value->items.empty()) {
    c.reader.Mismatch(f, "a list of messages, each with role and content");
    return;
  }
  d.llm.op.form = PromptForm::kMessages;
  for (const YamlNode::Pointer& item : f.value->items) {
    if (item->kind != YamlNode::Kind::kMapping) {
      diagnostics.Add(
          item->line, item->column,
          "messages: expected a mapping with role and content, got " + DescribeNode(*item));
      continue;
    }
    MessageDraft draft;
    const auto given = ReadMapping<MessageDraft>(c, *item, kMessageKeys, "in a message", draft);
    for (const char* key : {"role", "content"}) {
      if (!given.contains(key))
        diagnostics.Add(item->line, item->column, "a message has no " + std::string(key));
    }
    if (draft.message.content == nullptr) continue;
    d.llm.templates.push_back({draft.message.content, draft.content, false});
    d.llm.op.messages.push_back(std::move(draft.message));
  }
  if (!d.llm.op.messages.empty() && d.llm.op.messages.back().role == "assistant") {
    c.reader.Fault(f,
                   "the last message is the assistant's: end with the user's turn, which the "
                   "model answers");
  }
}

void ReadInferenceEngine(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  const auto engine = c.reader.Choice(f, {"vllm", "sglang", "llama"});
  d.uses_foreign_engine = engine && *engine != "llama";
}

void ReadStructured(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  d.structured = c.reader.Boolean(f).value_or(false);
}

void ReadToolList(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  const bool is_sql = f.name == "db_queries";
  if (f.value->kind != YamlNode::Kind::kSequence) {
    c.reader.Mismatch(f, is_sql ? "a list of queries" : "a list of tool calls");
    return;
  }
  for (const YamlNode::Pointer& item : f.value->items) {
    ToolDraft tool = is_sql ? ReadQuery(c, *item) : ReadToolCall(c, *item);
    if (!tool.name.empty()) d.tools.push_back(std::move(tool));
  }
}

void Ignore(KeyContext&, const YamlField&, GraphNodeDraft&) {}  // read before the table

void ReadNames(KeyContext& c, const YamlField& f, std::vector<WrittenName>& names) {
  names = ReadNameList(c, f);
}

constexpr KeySpec<GraphNodeDraft> kCommonKeys[] = {
    {"id", Ignore},
    {"type", Ignore},
    {"inputs",
     [](KeyContext& c, const YamlField& f, GraphNodeDraft& d) { ReadNames(c, f, d.inputs); }},
    {"outputs",
     [](KeyContext& c, const YamlField& f, GraphNodeDraft& d) { ReadNames(c, f, d.outputs); }},
};

constexpr KeySpec<GraphNodeDraft> kInferenceKeys[] = {
    {"engine", ReadInferenceEngine},
    {"system_prompt", ReadSystemPrompt},
    {"prompt", ReadBody},
    {"messages", ReadMessages},
    {"structured", ReadStructured},
    {"db_queries", ReadToolList},
    {"tool_calls", ReadToolList},
};

/// Keys of an `ops` operator that mean the same in an inference node.
bool IsShared(std::string_view key) {
  static constexpr std::array<std::string_view, 5> kOther = {"prompt", "input_ops", "output_ops",
                                                             "history", "keep_cache"};
  return std::find(kOther.begin(), kOther.end(), key) == kOther.end();
}

void ReadSharedKey(KeyContext& c, const YamlField& f, GraphNodeDraft& d) {
  for (const KeySpec<OperatorDraft>& spec : OperatorKeys()) {
    if (f.name == spec.name) return spec.read(c, f, d.llm);
  }
}

std::vector<KeySpec<GraphNodeDraft>> InferenceNodeKeys() {
  std::vector<KeySpec<GraphNodeDraft>> keys(std::begin(kCommonKeys), std::end(kCommonKeys));
  keys.insert(keys.end(), std::begin(kInferenceKeys), std::end(kInferenceKeys));
  for (const KeySpec<OperatorDraft>& spec : OperatorKeys()) {
    if (IsShared(spec.name)) keys.push_back({spec.name, ReadSharedKey});
  }
  return keys;
}

// ---- Nodes

const YamlField FieldOf(const YamlNode& mapping, const char* name) {
  for (const auto& [key, value] : mapping.entries) {
    if (key->text == name) return {name, key.get(), value.get()};
  }
  return {};
}

/// Several outputs are the fields of an object. Without a schema of its own each is a text or a
/// list of texts.
void StructureAnswer(GraphNodeDraft& draft, DiagnosticList& diagnostics) {
  if (draft.llm.schema != nullptr) {
    if (draft.llm.op.schema != nullptr && !draft.llm.op.schema->is_json()) {
      diagnostics.Add(draft.llm.schema->line, draft.llm.schema->column,
                      "schema: the outputs are fields of an object, so it must be a JSON Schema");
    }
    return;
  }
  using Json = nlohmann::ordered_json;
  const Json text = {{"type", "string"}};
  const Json field = {{"anyOf", Json::array({text, {{"type", "array"}, {"items", text}}})}};
  Json schema = {{"type", "object"},
                 {"properties", Json::object()},
                 {"required", Json::array()},
                 {"additionalProperties", false}};
  for (const WrittenName& output : draft.outputs) {
    schema["properties"][output.name] = field;
    schema["required"].push_back(output.name);
  }
  std::vector<SchemaFault> faults;
  draft.llm.op.schema = OutputSchema::OfJsonSchema(schema, faults);
  for (const SchemaFault& fault : faults)
    diagnostics.Add(draft.node->line, draft.node->column,
                    "node '" + draft.id + "': its outputs: " + fault.message);
}

void ReadInferenceNode(KeyContext& c, const YamlNode& node, GraphNodeDraft& draft) {
  static const std::vector<KeySpec<GraphNodeDraft>> keys = InferenceNodeKeys();
  const auto given = ReadMapping<GraphNodeDraft>(c, node, keys, "in an inference node", draft);
  DiagnosticList& diagnostics = c.reader.diagnostics();
  const std::string who = "node '" + draft.id + "'";
  if (!given.contains("model")) {
    diagnostics.Add(draft.node->line, draft.node->column, who + " has no model: add 'model: NAME'");
  }
  if (draft.has_prompt && draft.has_messages) {
    diagnostics.Add(draft.node->line, draft.node->column,
                    who + " has both prompt and messages: keep one of them");
  }
  if (draft.has_messages && draft.llm.op.instruction != nullptr) {
    diagnostics.Add(draft.node->line, draft.node->column,
                    who +
                        " has both system_prompt and messages: make the system prompt the first "
                        "message");
  }
  if (!draft.has_prompt && !draft.has_messages) draft.llm.op.form = PromptForm::kInputs;
  if (draft.outputs.empty() && !given.contains("outputs")) {
    // The seed's files name outputs always; without them a node is known by its id.
    draft.outputs.push_back({draft.id, draft.node});
  }
  draft.structured = draft.structured || draft.outputs.size() > 1;
  if (draft.structured) StructureAnswer(draft, diagnostics);
}

void ReadInputNode(KeyContext& c, const YamlNode& node, GraphNodeDraft& draft) {
  ReadMapping<GraphNodeDraft>(c, node, kCommonKeys, "in an input node", draft);
  DiagnosticList& diagnostics = c.reader.diagnostics();
  if (draft.outputs.empty()) {
    diagnostics.Add(draft.node->line, draft.node->column,
                    "input node '" + draft.id +
                        "' has no outputs: name the columns of the rows "
                        "that the graph reads");
  }
  for (const WrittenName& input : draft.inputs) {
    diagnostics.Add(input.node->line, input.node->column,
                    "an input node has no inputs: its outputs are columns of the rows");
  }
}

void ReadNode(KeyContext& c, const YamlNode& node, GraphDraft& graph) {
  DiagnosticList& diagnostics = c.reader.diagnostics();
  if (node.kind != YamlNode::Kind::kMapping) {
    diagnostics.Add(node.line, node.column, "nodes: expected a mapping, got " + DescribeNode(node));
    return;
  }
  GraphNodeDraft draft;
  draft.node = &node;
  const YamlField id = FieldOf(node, "id");
  if (id.value == nullptr) {
    diagnostics.Add(node.line, node.column, "a node has no id: add 'id: NAME'");
  } else if (const auto word = c.reader.Word(id)) {
    draft.id = *word;
    draft.node = id.value;
    const std::string fault = OperatorIdFault(draft.id);
    if (!fault.empty()) diagnostics.Add(id.value->line, id.value->column, fault);
  }
  draft.llm.key = draft.node;
  draft.llm.op.id = draft.id;
  draft.llm.op.location = {diagnostics.file(), draft.node->line, draft.node->column};
  const YamlField type = FieldOf(node, "type");
  std::string kind = "inference";
  if (type.value != nullptr) {
    const auto word =
        c.reader.Choice(type, {"input", "inference", "http", "processor", "db_query"});
    if (!word) return;
    kind = *word;
  }
  if (kind == "input") {
    draft.kind = GraphNodeKind::kInput;
    ReadInputNode(c, node, draft);
  } else if (kind == "inference") {
    ReadInferenceNode(c, node, draft);
  } else {
    draft.kind = GraphNodeKind::kTool;
    ToolDraft tool = ReadToolNode(c, node, kind);
    draft.inputs = tool.inputs;
    draft.outputs = tool.outputs;
    if (tool.kind == OperatorKind::kSql) {
      if (draft.outputs.empty() && !draft.id.empty())
        draft.outputs.push_back({draft.id, draft.node});
      if (draft.outputs.size() > 1) {
        diagnostics.Add(draft.outputs[1].node->line, draft.outputs[1].node->column,
                        "outputs: a query has one result: name parts of it in result_mappings");
      }
      draft.outputs.insert(draft.outputs.end(), tool.mapped.begin(), tool.mapped.end());
    }
    draft.tools.push_back(std::move(tool));
  }
  if (!draft.id.empty()) graph.nodes.push_back(std::move(draft));
}

void ReadNodes(KeyContext& c, const YamlField& f, GraphDraft& graph) {
  if (f.value->kind != YamlNode::Kind::kSequence) return c.reader.Mismatch(f, "a list of nodes");
  if (f.value->items.empty()) {
    return c.reader.Fault(f, "expected at least one node, got an empty list");
  }
  if (f.value->items.size() > kMostNodes) return c.reader.Fault(f, "more than 10000 nodes");
  for (const YamlNode::Pointer& node : f.value->items) ReadNode(c, *node, graph);
}

// ---- Edges

void ReadMappingOfEdge(KeyContext& c, const YamlField& f, GraphEdgeDraft& edge) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    c.reader.Mismatch(f, "a mapping of names in the target to names in the source");
    return;
  }
  for (const auto& [key, value] : f.value->entries) {
    if (!key->IsText()) continue;
    const YamlField inner{"mapping." + key->text, key.get(), value.get()};
    if (const auto name = c.reader.Word(inner))
      edge.mapping.push_back({{key->text, key.get()}, {*name, value.get()}});
  }
}

constexpr KeySpec<GraphEdgeDraft> kEdgeKeys[] = {
    {"from",
     [](KeyContext& c, const YamlField& f, GraphEdgeDraft& d) {
       d.from = c.reader.Word(f).value_or("");
       d.from_node = f.value;
     }},
    {"to",
     [](KeyContext& c, const YamlField& f, GraphEdgeDraft& d) {
       d.to = c.reader.Word(f).value_or("");
       d.to_node = f.value;
     }},
    {"mapping", ReadMappingOfEdge},
};

void ReadEdges(KeyContext& c, const YamlField& f, GraphDraft& graph) {
  if (f.value->kind != YamlNode::Kind::kSequence) {
    c.reader.Mismatch(f, "a list of edges, each with from and to");
    return;
  }
  for (const YamlNode::Pointer& item : f.value->items) {
    if (item->kind != YamlNode::Kind::kMapping) {
      c.reader.diagnostics().Add(
          item->line, item->column,
          "edges: expected a mapping with from and to, got " + DescribeNode(*item));
      continue;
    }
    GraphEdgeDraft edge;
    const auto given = ReadMapping<GraphEdgeDraft>(c, *item, kEdgeKeys, "in an edge", edge);
    for (const char* key : {"from", "to"}) {
      if (!given.contains(key))
        c.reader.diagnostics().Add(item->line, item->column,
                                   "an edge has no '" + std::string(key) + "'");
    }
    if (!edge.from.empty() && !edge.to.empty()) graph.edges.push_back(std::move(edge));
  }
}

// ---- Loops

constexpr KeySpec<GraphLoopDraft> kLoopKeys[] = {
    {"nodes",
     [](KeyContext& c, const YamlField& f, GraphLoopDraft& d) { d.nodes = ReadNameList(c, f); }},
    {"max_iterations",
     [](KeyContext& c, const YamlField& f, GraphLoopDraft& d) {
       if (const auto n = c.reader.Whole(f, {1, kMostIterations}))
         d.max_iterations = static_cast<int32_t>(*n);
     }},
    {"until",
     [](KeyContext& c, const YamlField& f, GraphLoopDraft& d) {
       if (auto parsed = ReadCondition(c, f)) d.until = TemplateUse{parsed, f.value, false};
     }},
};

void ReadLoops(KeyContext& c, const YamlField& f, GraphDraft& graph) {
  if (f.value->kind != YamlNode::Kind::kSequence) {
    c.reader.Mismatch(f, "a list of loops, each with nodes and max_iterations");
    return;
  }
  for (const YamlNode::Pointer& item : f.value->items) {
    if (item->kind != YamlNode::Kind::kMapping) {
      c.reader.diagnostics().Add(
          item->line, item->column,
          "loops: expected a mapping with nodes and max_iterations, got " + DescribeNode(*item));
      continue;
    }
    GraphLoopDraft loop;
    loop.node = item.get();
    const auto given = ReadMapping<GraphLoopDraft>(c, *item, kLoopKeys, "in a loop", loop);
    for (const char* key : {"nodes", "max_iterations"}) {
      if (!given.contains(key))
        c.reader.diagnostics().Add(item->line, item->column,
                                   "a loop has no '" + std::string(key) + "'");
    }
    if (given.contains("nodes") && loop.nodes.empty())
      c.reader.diagnostics().Add(item->line, item->column, "a loop has no nodes in its body");
    if (!loop.nodes.empty() && loop.max_iterations > 0) graph.loops.push_back(std::move(loop));
  }
}

// ---- The graph

/// Settings of inference nodes that do not say otherwise: merged into each node before it is read.
void CheckDefaults(KeyContext& c, const YamlField& f, GraphDraft&) {
  if (f.value->kind != YamlNode::Kind::kMapping)
    c.reader.Mismatch(f, "a mapping of settings of inference nodes");
}

constexpr KeySpec<GraphDraft> kGraphKeys[] = {
    {"name",
     [](KeyContext& c, const YamlField& f, GraphDraft& d) { d.name = ReadWorkflowNameText(c, f); }},
    {"description", [](KeyContext& c, const YamlField& f,
                       GraphDraft& d) { d.description = c.reader.Text(f).value_or(""); }},
    {"version",
     [](KeyContext& c, const YamlField& f, GraphDraft&) {
       if (!f.value->IsText()) c.reader.Mismatch(f, "a version, as a number or text");
     }},
    {"connections", [](KeyContext& c, const YamlField& f,
                       GraphDraft& d) { d.connections = ReadConnections(c, f); }},
    {"allow_hosts",
     [](KeyContext& c, const YamlField& f, GraphDraft& d) { ReadAllowedHosts(c, f, d); }},
    {"defaults", CheckDefaults},
    {"nodes", ReadNodes},
    {"edges", ReadEdges},
    {"loops", ReadLoops},
};

bool TakesDefaults(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kMapping) return false;
  const YamlField type = FieldOf(node, "type");
  return type.value == nullptr || type.value->text == "inference";
}

/// The graph with `defaults` written into every inference node that lacks them.
YamlNode WithDefaults(const YamlNode& graph) {
  YamlNode result = graph;
  const YamlField defaults = FieldOf(graph, "defaults");
  if (defaults.value == nullptr || defaults.value->kind != YamlNode::Kind::kMapping) return result;
  for (auto& [key, value] : result.entries) {
    if (key->text != "nodes" || value->kind != YamlNode::Kind::kSequence) continue;
    auto nodes = std::make_shared<YamlNode>(*value);
    for (YamlNode::Pointer& item : nodes->items) {
      if (!TakesDefaults(*item)) continue;
      auto node = std::make_shared<YamlNode>(*item);
      for (const auto& entry : defaults.value->entries) {
        const bool own = std::any_of(item->entries.begin(), item->entries.end(), [&](auto& mine) {
          return mine.first->text == entry.first->text;
        });
        if (!own) node->entries.push_back(entry);
      }
      item = std::move(node);
    }
    value = std::move(nodes);
  }
  return result;
}

}  // namespace

GraphDraft ReadGraph(const YamlNode& graph, std::string_view text,
                     const std::set<std::string>& host_functions, DiagnosticList& diagnostics,
                     YamlNode& storage) {
  ValueReader reader(diagnostics);
  KeyContext context{reader, text, &host_functions};
  GraphDraft draft;
  if (graph.kind != YamlNode::Kind::kMapping) {
    diagnostics.Add(graph.line, graph.column,
                    "graph: expected a mapping with nodes, got " + DescribeNode(graph));
    return draft;
  }
  storage = WithDefaults(graph);
  const auto given = ReadMapping<GraphDraft>(context, storage, kGraphKeys, "in a graph", draft);
  if (!given.contains("nodes"))
    diagnostics.Add(graph.line, graph.column, "the key 'nodes' is missing");
  return draft;
}

std::vector<std::string> GraphKeyNames() {
  return NamesOf(std::span<const KeySpec<GraphDraft>>(kGraphKeys));
}

std::vector<std::string> InferenceNodeKeyNames() {
  const std::vector<KeySpec<GraphNodeDraft>> keys = InferenceNodeKeys();
  return NamesOf(std::span<const KeySpec<GraphNodeDraft>>(keys));
}

}  // namespace halo
