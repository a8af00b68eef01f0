#include "workflow/tool_keys.h"

#include <algorithm>
#include <set>

#include "workflow/prompt_check.h"

namespace halo {
namespace {

/// Every text inside a value, at any depth, is a template.
void ReadTemplates(KeyContext& c, const std::string& name, const YamlNode& value, ToolDraft& tool) {
  if (value.IsText()) {
    auto parsed = ParseTemplateScalar(value, c.text, name, c.reader.diagnostics());
    if (parsed) tool.parameters.push_back({std::move(parsed), &value, false});
  }
  for (const YamlNode::Pointer& item : value.items) ReadTemplates(c, name, *item, tool);
  for (const auto& [key, inner] : value.entries) ReadTemplates(c, name, *inner, tool);
}

void ReadTemplateText(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (c.reader.Word(f)) ReadTemplates(c, f.name, *f.value, tool);
}

void ReadTemplateMapping(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
  ReadTemplates(c, f.name, *f.value, tool);
}

void ReadAnyTemplates(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  ReadTemplates(c, f.name, *f.value, tool);
}

/// A number of seconds or milliseconds, or a template that gives one.
void ReadDuration(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->IsText() && MeaningOf(*f.value) == PlainMeaning::kText)
    return ReadTemplates(c, f.name, *f.value, tool);
  const char* expected = "a number of at least 0, or a template";
  const auto number = c.reader.Number(f, expected);
  if (number && *number < 0) c.reader.Mismatch(f, expected);
}

void CheckBoolean(KeyContext& c, const YamlField& f, ToolDraft&) { c.reader.Boolean(f); }

void CheckRetry(KeyContext& c, const YamlField& f, ToolDraft&) {
  OperatorDraft unused;
  for (const KeySpec<OperatorDraft>& spec : OperatorKeys()) {
    if (f.name == spec.name) spec.read(c, f, unused);
  }
}

void ReadWhen(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (auto parsed = ReadCondition(c, f)) tool.parameters.push_back({parsed, f.value, false});
}

void CheckEffect(KeyContext& c, const YamlField& f, ToolDraft&) {
  c.reader.Choice(f, {"pure", "read", "write"});
}

void CheckCache(KeyContext& c, const YamlField& f, ToolDraft&) {
  const char* expected = "auto, off or a number of seconds";
  if (f.value->IsText() && (f.value->text == "auto" || f.value->text == "off")) return;
  const auto number = c.reader.Number(f, expected);
  if (number && *number < 0) c.reader.Mismatch(f, expected);
}

void Ignore(KeyContext&, const YamlField&, ToolDraft&) {}  // read by whoever knows what it is for

constexpr KeySpec<ToolDraft> kCommonKeys[] = {
    {"inputs",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) { d.inputs = ReadNameList(c, f); }},
    {"coalesce", CheckBoolean},
    {"timeout_s", ReadDuration},
    {"retry", CheckRetry},
    {"on_error", CheckRetry},
    {"cache", CheckCache},
    {"when", ReadWhen},
    {"effect", CheckEffect},
    {"idempotent", CheckBoolean},
};

constexpr KeySpec<ToolDraft> kNodeKeys[] = {
    {"id", Ignore},
    {"type", Ignore},
    {"engine", Ignore},
    {"outputs",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) { d.results = ReadNameList(c, f); }},
};

constexpr KeySpec<ToolDraft> kEmbeddedKeys[] = {
    {"name", [](KeyContext& c, const YamlField& f,
                ToolDraft& d) { d.name = c.reader.Word(f).value_or(""); }},
    {"post_llm", [](KeyContext& c, const YamlField& f,
                    ToolDraft& d) { d.after_llm = c.reader.Boolean(f).value_or(false); }},
};

constexpr KeySpec<ToolDraft> kHttpKeys[] = {
    {"url", ReadTemplateText},
    {"method",
     [](KeyContext& c, const YamlField& f, ToolDraft&) {
       c.reader.Choice(f, {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"});
     }},
    {"params", ReadTemplateMapping},
    {"query", ReadTemplateMapping},
    {"headers", ReadTemplateMapping},
    {"json", ReadAnyTemplates},
    {"body", ReadAnyTemplates},
    {"timeout_ms", ReadDuration},
    {"response_path", [](KeyContext& c, const YamlField& f, ToolDraft&) { c.reader.Word(f); }},
    {"sleep_s", ReadDuration},
    {"sleep_ms", ReadDuration},
    {"latency_s", ReadDuration},
    {"latency_ms", ReadDuration},
};

constexpr KeySpec<ToolDraft> kFunctionKeys[] = {
    {"processor", [](KeyContext& c, const YamlField& f, ToolDraft&) { c.reader.Word(f); }},
    {"config",
     [](KeyContext& c, const YamlField& f, ToolDraft&) {
       if (f.value->kind != YamlNode::Kind::kMapping) c.reader.Mismatch(f, "a mapping");
     }},
};

/// `sql`: a text, or one for each kind of connection.
void CheckSql(KeyContext& c, const YamlField& f, ToolDraft&) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    c.reader.Word(f);
    return;
  }
  if (f.value->entries.empty()) c.reader.Mismatch(f, "a text, or one for duckdb or postgres");
  for (const auto& [key, value] : f.value->entries) {
    if (key->text != "duckdb" && key->text != "postgres") {
      c.reader.diagnostics().Add(key->line, key->column,
                                 "sql: expected duckdb or postgres, got '" + key->text + "'");
      continue;
    }
    c.reader.Word({"sql." + key->text, key.get(), value.get()});
  }
}

void CheckParamTypes(KeyContext& c, const YamlField& f, ToolDraft&) {
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
  for (const auto& [key, value] : f.value->entries) {
    std::string type = value->text;
    if (type.ends_with("[]")) type.resize(type.size() - 2);
    static const std::set<std::string> kTypes = {
        "int",  "integer", "float", "double",    "text",    "string",  "str",
        "bool", "boolean", "json",  "date",      "time",    "numeric", "decimal",
        "uuid", "bigint",  "real",  "timestamp", "smallint"};
    if (value->IsText() && kTypes.contains(type)) continue;
    c.reader.Mismatch({"param_types." + key->text, key.get(), value.get()},
                      "the type of a parameter, such as int, text, date, numeric or text[]");
  }
}

void ReadResultMappings(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    return c.reader.Mismatch(f, "a mapping of output names to paths in the rows, such as 0.title");
  }
  for (const auto& [key, value] : f.value->entries) {
    if (c.reader.Word({"result_mappings." + key->text, key.get(), value.get()}))
      tool.results.push_back({key->text, key.get()});
  }
}

void CheckPlans(KeyContext& c, const YamlField& f, ToolDraft&) {
  if (f.value->kind != YamlNode::Kind::kSequence) return c.reader.Mismatch(f, "a list of plans");
  struct Plan {};
  static constexpr KeySpec<Plan> kKeys[] = {
      {"id", [](KeyContext& k, const YamlField& g, Plan&) { k.reader.Word(g); }},
      {"description", [](KeyContext& k, const YamlField& g, Plan&) { k.reader.Text(g); }},
      {"settings",
       [](KeyContext& k, const YamlField& g, Plan&) {
         if (g.value->kind != YamlNode::Kind::kMapping) k.reader.Mismatch(g, "a mapping");
       }},
  };
  for (const YamlNode::Pointer& item : f.value->items) {
    Plan plan;
    if (item->kind == YamlNode::Kind::kMapping) {
      ReadMapping<Plan>(c, *item, kKeys, "in a plan", plan);
    } else {
      c.reader.diagnostics().Add(item->line, item->column,
                                 "plans: expected a mapping, got " + DescribeNode(*item));
    }
  }
}

constexpr KeySpec<ToolDraft> kSqlKeys[] = {
    {"connection", [](KeyContext& c, const YamlField& f, ToolDraft&) { c.reader.Word(f); }},
    {"sql", CheckSql},
    {"parameters", ReadTemplateMapping},
    {"param_types", CheckParamTypes},
    {"required_inputs",
     [](KeyContext& c, const YamlField& f, ToolDraft&) { c.reader.TextList(f, "a path"); }},
    {"result_mappings", ReadResultMappings},
    {"plans", CheckPlans},
};

using ToolKeys = std::vector<KeySpec<ToolDraft>>;

template <size_t kCount>
void Add(ToolKeys& keys, const KeySpec<ToolDraft> (&more)[kCount]) {
  for (const KeySpec<ToolDraft>& key : more) keys.push_back(key);
}

ToolKeys KeysOf(OperatorKind kind) {
  ToolKeys keys;
  Add(keys, kCommonKeys);
  if (kind == OperatorKind::kSql) Add(keys, kSqlKeys);
  if (kind == OperatorKind::kHttp) Add(keys, kHttpKeys);
  if (kind == OperatorKind::kFunction) Add(keys, kFunctionKeys);
  return keys;
}

/// What a tool of this kind must say.
void RequireKeys(KeyContext& c, const std::set<std::string>& given, OperatorKind kind,
                 const YamlNode& node) {
  const auto require = [&](bool has, const char* message) {
    if (!has) c.reader.diagnostics().Add(node.line, node.column, message);
  };
  if (kind == OperatorKind::kSql) require(given.contains("sql"), "a query has no sql");
  if (kind == OperatorKind::kFunction)
    require(given.contains("processor"), "a function has no processor: add its name");
  const bool reaches = given.contains("url") || given.contains("sleep_s") ||
                       given.contains("sleep_ms") || given.contains("latency_s") ||
                       given.contains("latency_ms");
  if (kind == OperatorKind::kHttp)
    require(reaches, "an HTTP call has no url (or a declared latency to stand in for it)");
}

ToolDraft ReadTool(KeyContext& c, const YamlNode& node, OperatorKind kind, const ToolKeys& more,
                   const char* where) {
  ToolDraft tool;
  tool.kind = kind;
  tool.node = &node;
  ToolKeys keys = KeysOf(kind);
  keys.insert(keys.end(), more.begin(), more.end());
  const auto given = ReadMapping<ToolDraft>(c, node, keys, where, tool);
  RequireKeys(c, given, kind, node);
  return tool;
}

bool RequireMapping(KeyContext& c, const YamlNode& node, const char* what) {
  if (node.kind == YamlNode::Kind::kMapping) return true;
  c.reader.diagnostics().Add(node.line, node.column,
                             std::string(what) + ": expected a mapping, got " + DescribeNode(node));
  return false;
}

ToolDraft RequireName(KeyContext& c, const YamlNode& node, ToolDraft tool, const char* message) {
  if (tool.name.empty()) c.reader.diagnostics().Add(node.line, node.column, message);
  return tool;
}

}  // namespace

std::vector<WrittenName> ReadNameList(KeyContext& c, const YamlField& f) {
  std::vector<WrittenName> names;
  const auto texts = c.reader.TextList(f, "a name");
  if (!texts) return names;
  for (const YamlNode* node : *texts) {
    const bool twice = std::any_of(names.begin(), names.end(),
                                   [&](const auto& name) { return name.name == node->text; });
    const std::string fault = twice ? "'" + node->text + "' is listed twice"
                              : node->text == "row"
                                  ? "'row' is what templates read the row's columns by: choose "
                                    "another name"
                                  : "";
    if (!fault.empty()) {
      c.reader.diagnostics().Add(node->line, node->column, f.name + ": " + fault);
      continue;
    }
    names.push_back({node->text, node});
  }
  return names;
}

ToolDraft ReadQuery(KeyContext& c, const YamlNode& node) {
  if (!RequireMapping(c, node, "db_queries")) return {};
  ToolKeys more;
  Add(more, kEmbeddedKeys);
  return RequireName(c, node, ReadTool(c, node, OperatorKind::kSql, more, "in a query"),
                     "a query has no name: templates read its result by it");
}

ToolDraft ReadToolCall(KeyContext& c, const YamlNode& node) {
  if (!RequireMapping(c, node, "tool_calls")) return {};
  OperatorKind kind = OperatorKind::kHttp;
  for (const auto& [key, value] : node.entries) {
    if (key->text != "kind") continue;
    const auto word = c.reader.Choice({"kind", key.get(), value.get()}, {"http", "processor"});
    if (word && *word == "processor") kind = OperatorKind::kFunction;
  }
  ToolKeys more;
  Add(more, kEmbeddedKeys);
  more.push_back({"kind", Ignore});
  return RequireName(c, node, ReadTool(c, node, kind, more, "in a tool call"),
                     "a tool call has no name: templates read its result by it");
}

ToolDraft ReadToolNode(KeyContext& c, const YamlNode& node, const std::string& type) {
  const OperatorKind kind = type == "http"        ? OperatorKind::kHttp
                            : type == "processor" ? OperatorKind::kFunction
                                                  : OperatorKind::kSql;
  ToolKeys more;
  Add(more, kNodeKeys);
  return ReadTool(c, node, kind, more,
                  kind == OperatorKind::kHttp  ? "in an HTTP node"
                  : kind == OperatorKind::kSql ? "in a query"
                                               : "in a processor node");
}

std::vector<std::string> ToolNodeKeyNames(OperatorKind kind) {
  ToolKeys keys = KeysOf(kind);
  Add(keys, kNodeKeys);
  return NamesOf(std::span<const KeySpec<ToolDraft>>(keys));
}

void CheckConnections(KeyContext& c, const YamlField& f) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    return c.reader.Mismatch(f, "a mapping of names to connections");
  }
  for (const auto& [key, value] : f.value->entries) {
    const YamlField inner{"connections." + key->text, key.get(), value.get()};
    const auto text = c.reader.Word(inner);
    const bool known = text && (text->starts_with("duckdb:") || text->starts_with("postgres://") ||
                                text->starts_with("postgresql://") || text->starts_with("${env:") ||
                                text->starts_with("${file:"));
    if (text && !known) c.reader.Mismatch(inner, "duckdb:PATH, duckdb::memory: or postgres://...");
  }
}

}  // namespace halo
