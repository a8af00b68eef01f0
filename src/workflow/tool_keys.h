#pragma once

#include <string>
#include <vector>

#include "workflow/graph_keys.h"

namespace halo {

/// A list of names of the data flow, each once.
std::vector<WrittenName> ReadNameList(KeyContext& context, const YamlField& field);

/// An entry of `db_queries` of an inference node. Without a usable name the result has none.
ToolDraft ReadQuery(KeyContext& context, const YamlNode& node);

/// An entry of `tool_calls` of an inference node.
ToolDraft ReadToolCall(KeyContext& context, const YamlNode& node);

/// A node of type http, processor or db_query.
ToolDraft ReadToolNode(KeyContext& context, const YamlNode& node, const std::string& type);

/// The keys of a tool node, for the test that compares them with the published JSON Schema.
std::vector<std::string> ToolNodeKeyNames(OperatorKind kind);

/// `connections` of a graph: names to `duckdb:PATH`, `duckdb::memory:` or `postgres://...`, or to a
/// mapping of url and files.
std::vector<ConnectionSpec> ReadConnections(KeyContext& context, const YamlField& field);

/// `allow_hosts` of a graph: hosts, or mappings of host, concurrency and requests_per_second.
void ReadAllowedHosts(KeyContext& context, const YamlField& field, GraphDraft& graph);

}  // namespace halo
