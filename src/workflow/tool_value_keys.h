#pragma once

#include <optional>
#include <string>

#include "workflow/graph_keys.h"

namespace halo {

/// Adds a fault for each text of a value that has a secret in it. True if there was one.
bool RefuseSecrets(KeyContext& context, const std::string& name, const YamlNode& value);

/// A value with templates at any depth; each becomes one of the tool's parameters.
ValueTemplate ReadValueTemplate(KeyContext& context, const std::string& name, const YamlNode& value,
                                ToolDraft& tool);

/// The same for a key that takes a mapping.
ValueTemplate ReadMappingTemplate(KeyContext& context, const YamlField& field, ToolDraft& tool);

/// A number of at least 0, or a template that gives one.
ValueTemplate ReadDurationTemplate(KeyContext& context, const YamlField& field, ToolDraft& tool);

/// A template with secrets in it, for headers.
SecretText ReadSecretText(KeyContext& context, const YamlField& field, ToolDraft& tool);

/// The secrets of a text that is no template ("env:NAME", "file:PATH"), in order. A "${" that
/// begins none is a fault.
std::vector<std::string> ReadSecrets(KeyContext& context, const YamlField& field);

/// Keys of queries and of HTTP calls.
std::span<const KeySpec<ToolDraft>> SqlKeys();
std::span<const KeySpec<ToolDraft>> HttpKeys();

/// What the keys of a query, or of an HTTP call, mean together. `node` is where its faults are.
void FinishSql(KeyContext& context, const YamlNode& node, ToolDraft& tool);
void FinishHttp(KeyContext& context, const YamlNode& node, ToolDraft& tool);

}  // namespace halo
