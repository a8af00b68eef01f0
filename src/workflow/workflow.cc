#include "workflow/workflow.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/text.h"
#include "workflow/graph_workflow.h"
#include "workflow/operator_graph.h"
#include "workflow/operator_keys.h"
#include "workflow/prompt_check.h"
#include "workflow/yaml_tree.h"

namespace halo {
namespace {

constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

History DefaultHistory(size_t parents) {
  if (parents == 0) return History::kNone;
  return parents == 1 ? History::kContinue : History::kOutputs;
}

/// `history` against the number of parents, and what depends on it.
void ResolveHistory(OperatorDraft& draft, size_t parents, DiagnosticList& diagnostics) {
  draft.op.history = DefaultHistory(parents);
  if (draft.history) {
    const YamlNode& node = *draft.history->node;
    draft.op.history = draft.history->value;
    if (parents == 0) {
      diagnostics.Add(node.line, node.column,
                      "history: '" + draft.op.id + "' has no inputs to take up: take history out");
    } else if (draft.history->value == History::kContinue && parents != 1) {
      diagnostics.Add(node.line, node.column,
                      "history: continue needs exactly one input, and '" + draft.op.id + "' has " +
                          std::to_string(parents) + ": use outputs or transcript");
    }
  }
  if (!draft.prompt_layout) return;
  draft.op.prompt_layout = draft.prompt_layout->value;
  if (draft.op.history == History::kContinue) {
    const YamlNode& node = *draft.prompt_layout->node;
    diagnostics.Add(node.line, node.column,
                    "prompt_layout has no effect on an operator that continues a conversation: "
                    "take it out, or set history to outputs or transcript");
  }
}

/// Conversations go on from one answer: not from several samples, and not from none.
void CheckSamples(const WorkflowDraft& draft, const OperatorGraph& graph,
                  DiagnosticList& diagnostics) {
  for (size_t i = 0; i < draft.operators.size(); ++i) {
    const OperatorDraft& consumer = draft.operators[i];
    const History history = consumer.op.history;
    if (history != History::kContinue && history != History::kTranscript) continue;
    for (const size_t input : graph.inputs[i]) {
      const Operator& parent = draft.operators[input].op;
      const std::string takes_up =
          "'" + consumer.op.id + "' takes up the conversation of '" + parent.id + "', which ";
      if (parent.samples > 1 && !parent.vote) {
        diagnostics.Add(consumer.key->line, consumer.key->column,
                        takes_up + "has several answers: give '" + parent.id +
                            "' vote: true, or '" + consumer.op.id + "' history: outputs");
      }
      if (parent.on_error == OnError::kNull) {
        diagnostics.Add(consumer.key->line, consumer.key->column,
                        takes_up +
                            "may have no answer (on_error: null): use on_error: skip, or "
                            "history: outputs");
      }
    }
  }
}

/// True if one of the paths that a template reads begins with `name`.
bool Reads(const std::shared_ptr<const Template>& reader, const std::string& name) {
  if (reader == nullptr) return false;
  const std::set<std::string>& reads = reader->reads();
  const auto field = reads.lower_bound(name + ".");
  return reads.contains(name) || (field != reads.end() && field->starts_with(name + "."));
}

/// In the `ops` dialect a name is the id of an operator before this one.
void BindNames(Workflow& workflow, OperatorIndex index) {
  Operator& op = workflow.operators[static_cast<size_t>(index)];
  for (OperatorIndex other = 0; other < index; ++other) {
    const std::string& id = workflow.at(other).id;
    const bool is_input = std::find(op.inputs.begin(), op.inputs.end(), other) != op.inputs.end();
    if (is_input || Reads(op.instruction, id)) op.names.push_back({id, "", {other}, "", is_input});
    if (Reads(op.when.expression, id)) op.when.names.push_back({id, "", {other}, "", false});
  }
}

/// Puts the checked operators into topological order, with indices for references.
void Assemble(WorkflowDraft& draft, const OperatorGraph& graph, Workflow& workflow) {
  std::vector<OperatorIndex> position(draft.operators.size());
  for (size_t i = 0; i < graph.order.size(); ++i) {
    position[graph.order[i]] = static_cast<OperatorIndex>(i);
  }
  for (const size_t from : graph.order) {
    OperatorDraft& source = draft.operators[from];
    Operator op = std::move(source.op);
    op.depth = graph.depth[from];
    op.is_start = graph.is_start[from];
    op.is_end = graph.is_end[from];
    for (const size_t input : graph.inputs[from]) op.inputs.push_back(position[input]);
    for (const size_t consumer : graph.consumers[from]) op.consumers.push_back(position[consumer]);
    std::sort(op.consumers.begin(), op.consumers.end());
    if (!op.instruction) {
      op.instruction = std::make_shared<const Template>(Template::Parse("", op.location));
    }
    op.keep_cache = source.keep_cache.value_or(false);
    workflow.operators.push_back(std::move(op));
  }
  for (size_t i = 0; i < graph.order.size(); ++i) {
    if (draft.operators[graph.order[i]].keep_cache) continue;
    Operator& op = workflow.operators[i];
    op.keep_cache =
        std::any_of(op.consumers.begin(), op.consumers.end(),
                    [&](OperatorIndex consumer) { return workflow.at(consumer).SharesKvWith(op); });
  }
  for (size_t i = 0; i < workflow.operators.size(); ++i) {
    const auto index = static_cast<OperatorIndex>(i);
    BindNames(workflow, index);
    workflow.all_outputs.push_back({workflow.operators[i].id, "", {index}, "", false});
  }
  for (const size_t end : graph.end_operators)
    workflow.outputs.push_back(workflow.all_outputs[static_cast<size_t>(position[end])]);
}

/// The `graph` mapping of a file, null if the file is in the `ops` dialect.
const YamlNode* FindGraph(const YamlNode& root, DiagnosticList& diagnostics) {
  if (root.kind != YamlNode::Kind::kMapping) {
    diagnostics.Add(root.line, root.column,
                    "expected a mapping with start_ops, end_ops and ops, or with graph, got " +
                        DescribeNode(root));
    diagnostics.ThrowIfAny(ErrorCode::kWorkflow);
  }
  const YamlNode* graph = nullptr;
  for (const auto& [key, value] : root.entries) {
    if (key->text == "ops") return nullptr;
    if (key->text == "graph" && graph == nullptr) graph = value.get();
  }
  if (graph == nullptr) return nullptr;
  for (const auto& [key, value] : root.entries) {
    if (key->text == "graph" || !key->IsText()) continue;
    diagnostics.Add(key->line, key->column,
                    "unknown key '" + key->text +
                        "' beside graph: what belongs to the graph goes "
                        "under it");
  }
  return graph;
}

std::string ReadWorkflowFile(const std::string& path) {
  const auto refuse = [&](const std::string& why) {
    throw Error(ErrorCode::kWorkflow, {{{path, 0, 0}, "cannot read the workflow: " + why}});
  };
  // O_NONBLOCK: opening a FIFO would wait for a writer.
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) refuse(std::strerror(errno));
  struct stat status {};
  const bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  std::string text;
  int fault = 0;
  while (regular &&
         text.size() <= kMaxYamlBytes) {  // one buffer too many says that it is too large
    char buffer[1 << 16];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fault = errno;
    if (got <= 0) break;
    text.append(buffer, static_cast<size_t>(got));
  }
  close(fd);
  if (!regular) refuse("it is not a regular file");
  if (fault != 0) refuse(std::strerror(fault));
  if (text.size() > kMaxYamlBytes) {
    refuse("it has " + std::to_string(status.st_size) + " bytes, and a workflow has at most " +
           std::to_string(kMaxYamlBytes) + " (16 MiB)");
  }
  return text;
}

void AddColumns(const Template& reader, std::set<std::string>& columns) {
  constexpr std::string_view kPrefix = "row.";
  for (const std::string& path : reader.reads()) {
    if (!path.starts_with(kPrefix)) continue;
    columns.insert(path.substr(kPrefix.size(), path.find('.', kPrefix.size()) - kPrefix.size()));
  }
}

}  // namespace

const char* OperatorKindName(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::kInference:
      return "llm";
    case OperatorKind::kSql:
      return "sql";
    case OperatorKind::kHttp:
      return "http";
    case OperatorKind::kFunction:
      return "function";
  }
  return "?";
}

std::optional<OperatorIndex> Workflow::Find(const std::string& operator_id) const {
  for (size_t i = 0; i < operators.size(); ++i) {
    if (operators[i].id == operator_id) return static_cast<OperatorIndex>(i);
  }
  return std::nullopt;
}

Workflow ParseWorkflow(const std::string& text, const std::string& path,
                       const std::set<std::string>& host_functions) {
  DiagnosticList diagnostics(path);
  std::string_view body = text;
  if (body.starts_with(kByteOrderMark)) body.remove_prefix(kByteOrderMark.size());
  const YamlNode::Pointer root = ParseYaml(body, diagnostics);
  if (const YamlNode* graph_node = FindGraph(*root, diagnostics)) {
    Workflow graph = ParseGraph(*graph_node, body, host_functions, diagnostics);
    graph.path = path;
    if (graph.name.empty()) graph.name = std::filesystem::path(path).stem().string();
    graph.source_text = text;
    return graph;
  }
  WorkflowDraft draft = ReadOpsFile(*root, body, diagnostics);
  const OperatorGraph graph = ConnectOperators(draft, diagnostics);
  CheckTemplateReads(draft.operators, graph.inputs, body, diagnostics);
  for (size_t i = 0; i < draft.operators.size(); ++i) {
    ResolveHistory(draft.operators[i], graph.inputs[i].size(), diagnostics);
    CheckOperatorKeys(draft.operators[i], diagnostics);
  }
  CheckSamples(draft, graph, diagnostics);
  diagnostics.ThrowIfAny(ErrorCode::kWorkflow);

  Workflow workflow;
  workflow.path = path;
  workflow.name = draft.name.empty() ? std::filesystem::path(path).stem().string() : draft.name;
  workflow.dataset = draft.dataset;
  workflow.column = draft.column;
  workflow.source_text = text;
  Assemble(draft, graph, workflow);
  return workflow;
}

Workflow LoadWorkflow(const std::string& path, const std::set<std::string>& host_functions) {
  return ParseWorkflow(ReadWorkflowFile(path), path, host_functions);
}

std::vector<std::string> RequiredColumns(const Workflow& workflow,
                                         const std::string& prompt_column) {
  std::set<std::string> columns(workflow.columns.begin(), workflow.columns.end());
  if (!workflow.is_graph) columns.insert(prompt_column);
  for (const Operator& op : workflow.operators) {
    std::vector<const Template*> readers = {
        op.instruction.get(), op.body.get(), op.when.expression.get(),
        op.sampling.max_tokens.expression.get(), op.sampling.min_tokens.expression.get()};
    for (const MessageSpec& message : op.messages) readers.push_back(message.content.get());
    for (const Condition& until : op.over) readers.push_back(until.expression.get());
    for (const Template* reader : readers) {
      if (reader != nullptr) AddColumns(*reader, columns);
    }
    if (op.tool != nullptr)
      ForEachTemplate(*op.tool, [&](const Template& reader) { AddColumns(reader, columns); });
  }
  return {columns.begin(), columns.end()};
}

std::string ResolveColumn(const Workflow& workflow, const std::string& flag) {
  if (!flag.empty()) return flag;
  return workflow.column.empty() ? "prompt" : workflow.column;
}

}  // namespace halo
