#include "workflow/tool_keys.h"

#include <algorithm>
#include <set>

#include "base/text.h"
#include "tool/function/local_function.h"
#include "workflow/prompt_check.h"
#include "workflow/schema_key.h"
#include "workflow/tool_value_keys.h"

namespace halo {
namespace {

void ReadCommon(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  for (const KeySpec<OperatorDraft>& spec : OperatorKeys()) {
    if (f.name == spec.name) spec.read(c, f, tool.common);
  }
  tool.has_retry = tool.has_retry || f.name == "retry";
}

void ReadWhen(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  tool.common.op.when.expression = ReadCondition(c, f);
  if (tool.common.op.when.expression)
    tool.parameters.push_back({tool.common.op.when.expression, f.value, false});
}

void ReadEffect(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  const auto word = c.reader.Choice(f, {"pure", "read", "write"});
  if (!word) return;
  tool.has_effect = true;
  tool.spec.effect = *word == "pure"   ? ToolEffect::kPure
                     : *word == "read" ? ToolEffect::kRead
                                       : ToolEffect::kWrite;
}

void ReadCoalesce(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  tool.coalesce = c.reader.Boolean(f);
}

/// `off`: nothing is shared, within a run neither.
void ReadCache(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  ReadCachePolicy(c, f, tool.common.op.cache);
}

void ReadTimeout(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  tool.spec.timeout = ReadDurationTemplate(c, f, tool);
  tool.spec.timeout_unit_s = 1.0;
}

template <int32_t PromptLimits::*limit>
void ReadPromptLimit(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  constexpr int64_t kMost = 1 << 20;
  if (const auto most = c.reader.Whole(f, {1, kMost}))
    tool.spec.prompt.*limit = static_cast<int32_t>(*most);
}

void Ignore(KeyContext&, const YamlField&, ToolDraft&) {}  // read by whoever knows what it is for

constexpr KeySpec<ToolDraft> kCommonKeys[] = {
    {"inputs",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) { d.inputs = ReadNameList(c, f); }},
    {"coalesce", ReadCoalesce},
    {"timeout_s", ReadTimeout},
    {"retry", ReadCommon},
    {"on_error", ReadCommon},
    {"cache", ReadCache},
    {"when", ReadWhen},
    {"effect", ReadEffect},
    {"idempotent", [](KeyContext& c, const YamlField& f,
                      ToolDraft& d) { d.spec.idempotent = c.reader.Boolean(f).value_or(false); }},
    {"prompt_rows", ReadPromptLimit<&PromptLimits::rows>},
    {"prompt_chars", ReadPromptLimit<&PromptLimits::chars>},
    {"prompt_tokens", ReadPromptLimit<&PromptLimits::tokens>},
};

constexpr KeySpec<ToolDraft> kNodeKeys[] = {
    {"id", Ignore},
    {"type", Ignore},
    {"engine", Ignore},
    {"outputs",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) { d.outputs = ReadNameList(c, f); }},
};

constexpr KeySpec<ToolDraft> kEmbeddedKeys[] = {
    {"name", [](KeyContext& c, const YamlField& f,
                ToolDraft& d) { d.name = c.reader.Word(f).value_or(""); }},
    {"post_llm", [](KeyContext& c, const YamlField& f,
                    ToolDraft& d) { d.after_llm = c.reader.Boolean(f).value_or(false); }},
};

constexpr KeySpec<ToolDraft> kFunctionKeys[] = {
    {"processor",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       const auto name = c.reader.Word(f);
       if (!name) return;
       d.function.function = *name;
       const bool is_host = c.host_functions != nullptr && c.host_functions->contains(*name);
       if (is_host || FindLocalFunction(*name) != nullptr) return;
       std::vector<std::string> known = LocalFunctionNames();
       if (c.host_functions != nullptr)
         known.insert(known.end(), c.host_functions->begin(), c.host_functions->end());
       c.reader.Fault(f, "there is no function '" + *name + "'" + DidYouMean(*name, known));
     }},
    {"config",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
       RefuseSecrets(c, f.name, *f.value);
       d.config = f.value;
       d.function.config = JsonOfYaml(*f.value);
     }},
};

using ToolKeys = std::vector<KeySpec<ToolDraft>>;

template <size_t kCount>
void Add(ToolKeys& keys, const KeySpec<ToolDraft> (&more)[kCount]) {
  for (const KeySpec<ToolDraft>& key : more) keys.push_back(key);
}

ToolKeys KeysOf(OperatorKind kind) {
  ToolKeys keys;
  Add(keys, kCommonKeys);
  const auto add = [&](std::span<const KeySpec<ToolDraft>> more) {
    keys.insert(keys.end(), more.begin(), more.end());
  };
  if (kind == OperatorKind::kSql) add(SqlKeys());
  if (kind == OperatorKind::kHttp) add(HttpKeys());
  if (kind == OperatorKind::kFunction) add(kFunctionKeys);
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

/// SQL by its text, HTTP by its method, functions pure; only reads are shared, and only those of
/// SQL without being asked for.
void ResolveEffect(ToolDraft& tool) {
  ToolSpec& spec = tool.spec;
  const bool http_reads = tool.http.method == "GET" || tool.http.method == "HEAD";
  if (!tool.has_effect) {
    spec.effect = tool.kind == OperatorKind::kFunction              ? ToolEffect::kPure
                  : tool.kind == OperatorKind::kHttp && !http_reads ? ToolEffect::kWrite
                                                                    : ToolEffect::kRead;
  }
  const bool by_default = tool.kind == OperatorKind::kSql;
  spec.coalesce = tool.coalesce.value_or(by_default) && !tool.common.op.cache.off &&
                  spec.effect != ToolEffect::kWrite;
}

/// Reads and idempotent writes over a network are tried again unless the file says otherwise.
void ResolveRetry(ToolDraft& tool) {
  constexpr RetryPolicy kOverNetwork{3, 0.5};
  const bool repeatable = tool.spec.effect != ToolEffect::kWrite || tool.spec.idempotent;
  if (!repeatable) {
    tool.common.op.retry = {};
  } else if (!tool.has_retry && tool.kind != OperatorKind::kFunction) {
    tool.common.op.retry = kOverNetwork;
  }
}

void FinishFunction(KeyContext& c, const YamlNode& node, ToolDraft& tool) {
  const LocalFunction* function = FindLocalFunction(tool.function.function);
  if (function == nullptr) return;
  const YamlNode& place = tool.config == nullptr ? node : *tool.config;
  for (const std::string& fault : function->check(tool.function.config))
    c.reader.diagnostics().Add(place.line, place.column, tool.function.function + ": " + fault);
}

void CheckSharing(KeyContext& c, const YamlNode& node, const ToolDraft& tool) {
  const auto fault = [&](const char* message) {
    c.reader.diagnostics().Add(node.line, node.column, message);
  };
  const bool writes = tool.spec.effect == ToolEffect::kWrite;
  if (writes && tool.coalesce.value_or(false))
    fault("coalesce: a write is never shared: take it out, or declare effect: read");
  if (writes && tool.common.op.cache.most_s)
    fault("cache: what a write did is not kept: take it out, or declare effect: read");
  if (writes && !tool.spec.idempotent && tool.common.op.retry.max > 0)
    fault(
        "retry: a write is made again only if it may be made twice: add idempotent: true, or "
        "take retry out");
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
  if (kind == OperatorKind::kSql) FinishSql(c, node, tool);
  if (kind == OperatorKind::kHttp) FinishHttp(c, node, tool);
  if (kind == OperatorKind::kFunction) FinishFunction(c, node, tool);
  ResolveEffect(tool);
  CheckSharing(c, node, tool);
  ResolveRetry(tool);
  if (kind == OperatorKind::kSql) tool.spec.what = std::move(tool.sql);
  if (kind == OperatorKind::kHttp) tool.spec.what = std::move(tool.http);
  if (kind == OperatorKind::kFunction) tool.spec.what = std::move(tool.function);
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

namespace {

/// `files` of a connection: tables that are CSV, JSON or Parquet files.
void ReadFiles(KeyContext& c, const YamlField& f, ConnectionSpec& connection) {
  if (f.value->kind != YamlNode::Kind::kMapping)
    return c.reader.Mismatch(f, "a mapping of tables to CSV, JSON or Parquet files");
  for (const auto& [key, value] : f.value->entries) {
    const YamlField file{f.name + "." + key->text, key.get(), value.get()};
    const auto path = c.reader.Word(file);
    if (!path) continue;
    static const std::vector<std::string> kEndings = {".csv", ".json", ".jsonl", ".parquet"};
    const bool known = std::any_of(kEndings.begin(), kEndings.end(),
                                   [&](const std::string& e) { return path->ends_with(e); });
    if (!known) c.reader.Mismatch(file, "a file that ends in .csv, .json, .jsonl or .parquet");
    connection.files.emplace_back(key->text, *path);
  }
}

void ReadConnectionUrl(KeyContext& c, const YamlField& f, ConnectionSpec& connection) {
  const auto text = c.reader.Word(f);
  if (!text) return;
  ReadSecrets(c, f);
  const bool known = text->starts_with("duckdb:") || text->starts_with("postgres://") ||
                     text->starts_with("postgresql://") || text->starts_with("${");
  if (!known) c.reader.Mismatch(f, "duckdb:PATH, duckdb::memory: or postgres://...");
  connection.url = *text;
}

constexpr KeySpec<ConnectionSpec> kConnectionKeys[] = {{"url", ReadConnectionUrl},
                                                       {"files", ReadFiles}};

}  // namespace

std::vector<ConnectionSpec> ReadConnections(KeyContext& c, const YamlField& f) {
  std::vector<ConnectionSpec> connections;
  if (f.value->kind != YamlNode::Kind::kMapping) {
    c.reader.Mismatch(f, "a mapping of names to connections");
    return connections;
  }
  for (const auto& [key, value] : f.value->entries) {
    ConnectionSpec connection;
    connection.name = key->text;
    connection.location = {c.reader.diagnostics().file(), value->line, value->column};
    const YamlField inner{"connections." + key->text, key.get(), value.get()};
    if (value->kind == YamlNode::Kind::kMapping) {
      const auto given =
          ReadMapping<ConnectionSpec>(c, *value, kConnectionKeys, "in a connection", connection);
      if (!given.contains("url")) connection.url = "duckdb::memory:";
      if (!connection.files.empty() && !connection.url.starts_with("duckdb:"))
        c.reader.Fault(inner, "files are read by DuckDB: only a duckdb connection can have them");
    } else {
      ReadConnectionUrl(c, inner, connection);
    }
    connections.push_back(std::move(connection));
  }
  return connections;
}

namespace {

void ReadHost(KeyContext& c, const YamlField& f, HostLimitSpec& limit) {
  const auto host = c.reader.Word(f);
  if (!host) return;
  if (host->find_first_of("/@ ") == std::string::npos) {
    limit.host = *host;
  } else {
    c.reader.Mismatch(f, "a host such as example.com, example.com:8443 or *.example.com");
  }
}

constexpr KeySpec<HostLimitSpec> kHostKeys[] = {
    {"host", ReadHost},
    {"concurrency",
     [](KeyContext& c, const YamlField& f, HostLimitSpec& limit) {
       constexpr int64_t kMost = 1024;
       limit.concurrency = static_cast<int32_t>(c.reader.Whole(f, {1, kMost}).value_or(0));
     }},
    {"requests_per_second",
     [](KeyContext& c, const YamlField& f, HostLimitSpec& limit) {
       const char* expected = "a number above 0";
       const auto number = c.reader.Number(f, expected);
       if (number && *number <= 0) c.reader.Mismatch(f, expected);
       limit.requests_per_second = number.value_or(0.0);
     }},
};

}  // namespace

void ReadAllowedHosts(KeyContext& c, const YamlField& f, GraphDraft& graph) {
  if (f.value->kind != YamlNode::Kind::kSequence) return c.reader.Mismatch(f, "a list of hosts");
  for (const YamlNode::Pointer& item : f.value->items) {
    HostLimitSpec limit;
    if (item->kind == YamlNode::Kind::kMapping) {
      const auto given = ReadMapping<HostLimitSpec>(c, *item, kHostKeys, "in allow_hosts", limit);
      if (!given.contains("host"))
        c.reader.diagnostics().Add(item->line, item->column, "allow_hosts: an entry has no host");
    } else {
      ReadHost(c, {"allow_hosts", item.get(), item.get()}, limit);
    }
    if (limit.host.empty()) continue;
    graph.allow_hosts.push_back(limit.host);
    if (limit.concurrency > 0 || limit.requests_per_second > 0)
      graph.host_limits.push_back(std::move(limit));
  }
}

}  // namespace halo
