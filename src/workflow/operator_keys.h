#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "workflow/key_table.h"
#include "workflow/value_reader.h"
#include "workflow/workflow.h"

namespace halo {

/// The id of an operator where a list names it.
struct OperatorReference {
  std::string id;
  const YamlNode* node = nullptr;
};

/// A list of operator ids.
struct ReferenceList {
  std::vector<OperatorReference> value;
  const YamlNode* node = nullptr;  ///< the key
  bool complete = true;            ///< false if an item was no id at all, and was left out
};

/// A template of an operator and the scalar it came from.
struct TemplateUse {
  std::shared_ptr<const Template> parsed;
  const YamlNode* node = nullptr;
  bool rows_only = false;  ///< a number: may read the row, not what operators said
};

/// A key that the author wrote, with its place for faults found later.
template <typename Value>
struct Written {
  Value value{};
  const YamlNode* node = nullptr;
};

/// One entry of `ops` as it was written: what the file says about this operator alone.
struct OperatorDraft {
  Operator op;  ///< inputs, consumers, depth and the resolved defaults are still missing
  const YamlNode* key = nullptr;
  std::optional<ReferenceList> input_ops;
  std::optional<ReferenceList> output_ops;
  std::optional<bool> keep_cache;
  std::optional<Written<History>> history;
  std::optional<Written<PromptLayout>> prompt_layout;
  const YamlNode* min_tokens = nullptr;
  const YamlNode* vote = nullptr;
  const YamlNode* schema = nullptr;  ///< the key
  const YamlNode* repair = nullptr;  ///< the same
  std::vector<TemplateUse> templates;
};

/// A whole file as it was written.
struct WorkflowDraft {
  std::string name;
  std::string dataset;
  std::string column;
  std::optional<ReferenceList> start_ops;
  std::optional<ReferenceList> end_ops;
  std::vector<OperatorDraft> operators;  ///< in file order
};

/// Reads every key of a file in the `ops` dialect by its own rules (contract 3.1): names, types,
/// ranges. Faults go to the diagnostics; what had a fault keeps its default. `text` is the file
/// that `root` was read from.
WorkflowDraft ReadOpsFile(const YamlNode& root, std::string_view text, DiagnosticList& diagnostics);

/// A workflow's name. It becomes that of a file where several workflows run as one batch, so it
/// must not lead elsewhere.
std::string ReadWorkflowNameText(KeyContext& context, const YamlField& field);

/// `cache`: auto, off or a number of seconds, of which 0 is off. Faults go to the diagnostics.
void ReadCachePolicy(KeyContext& context, const YamlField& field, CachePolicy& policy);

/// A Jinja expression (`when`, `until`), with or without the braces around it. Faults go to the
/// diagnostics and give nullptr.
std::shared_ptr<const Template> ReadCondition(KeyContext& context, const YamlField& field);

/// How each key of an operator is read; inference nodes of the `graph` dialect take most of them.
std::span<const KeySpec<OperatorDraft>> OperatorKeys();

/// Checks the keys of one operator against each other. Faults go to the diagnostics.
void CheckOperatorKeys(const OperatorDraft& draft, DiagnosticList& diagnostics);

/// Why `id` cannot name an operator, or "".
std::string OperatorIdFault(const std::string& id);

/// The keys that the dialect knows, for the test that compares them with the published JSON Schema.
std::vector<std::string> WorkflowKeyNames();
std::vector<std::string> OperatorKeyNames();

}  // namespace halo
