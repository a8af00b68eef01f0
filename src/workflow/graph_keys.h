#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "workflow/operator_keys.h"

namespace halo {

/// A name of the data flow and where it is written.
struct WrittenName {
  std::string name;
  const YamlNode* node = nullptr;
};

/// An entry of `param_types`.
struct ParameterTypeDraft {
  std::string name;
  const YamlNode* node = nullptr;
  SqlParameterType type = SqlParameterType::kAny;
  bool is_list = false;
};

/// A tool as it was written: a node of its own or embedded in an inference node.
struct ToolDraft {
  OperatorKind kind = OperatorKind::kHttp;
  std::string name;        ///< embedded: the name of its result
  bool after_llm = false;  ///< embedded: `post_llm`
  const YamlNode* node = nullptr;
  std::vector<WrittenName> outputs;     ///< of a node: `outputs`
  std::vector<WrittenName> mapped;      ///< of a query: result_mappings
  std::vector<WrittenName> inputs;      ///< declared ones
  std::vector<TemplateUse> parameters;  ///< what it reads
  OperatorDraft common;                 ///< when, retry and on_error
  ToolSpec spec;                        ///< `what` is one of the following, by kind
  SqlSpec sql;
  HttpSpec http;
  FunctionSpec function;
  std::vector<ParameterTypeDraft> types;
  std::vector<WrittenName> required;     ///< of a query: required_inputs
  const YamlNode* connection = nullptr;  ///< of a query: where it is written
  const YamlNode* config = nullptr;      ///< of a function: where it is written
  std::optional<bool> coalesce;
  bool has_retry = false;
  bool has_effect = false;
};

enum class GraphNodeKind : uint8_t { kInput, kInference, kTool };

/// One of `nodes` as it was written.
struct GraphNodeDraft {
  GraphNodeKind kind = GraphNodeKind::kInference;
  std::string id;
  const YamlNode* node = nullptr;  ///< of the id, else the node
  std::vector<WrittenName> inputs;
  std::vector<WrittenName> outputs;
  /// kInference: sampling, conditions and the templates; inputs and names are still missing.
  OperatorDraft llm;
  bool has_prompt = false, has_messages = false;
  std::vector<ToolDraft> tools;      ///< embedded in an inference node; of kTool: itself
  bool uses_foreign_engine = false;  ///< `engine: vllm` or `sglang`
  bool structured = false;           ///< answers are objects whose fields are the outputs
};

struct GraphEdgeDraft {
  std::string from, to;
  const YamlNode* from_node = nullptr;
  const YamlNode* to_node = nullptr;
  std::vector<std::pair<WrittenName, WrittenName>> mapping;  ///< (in target, in source)
};

struct GraphLoopDraft {
  std::vector<WrittenName> nodes;
  int32_t max_iterations = 0;
  std::optional<TemplateUse> until;
  const YamlNode* node = nullptr;
};

/// The mapping under `graph` as it was written.
struct GraphDraft {
  std::string name;
  std::string description;
  std::vector<GraphNodeDraft> nodes;
  std::vector<GraphEdgeDraft> edges;
  std::vector<GraphLoopDraft> loops;
  std::vector<ConnectionSpec> connections;
  std::vector<std::string> allow_hosts;
  std::vector<HostLimitSpec> host_limits;
};

/// Reads every key of a file in the `graph` dialect by its own rules (contract 3.2). Faults go to
/// the diagnostics; what had a fault keeps its default. The draft points into `storage`, which is
/// the graph with `defaults` written into its nodes.
GraphDraft ReadGraph(const YamlNode& graph, std::string_view text,
                     const std::set<std::string>& host_functions, DiagnosticList& diagnostics,
                     YamlNode& storage);

/// The keys that the dialect knows, for the test that compares them with the published JSON Schema.
std::vector<std::string> GraphKeyNames();
std::vector<std::string> InferenceNodeKeyNames();

}  // namespace halo
