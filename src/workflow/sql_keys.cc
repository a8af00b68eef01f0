// Keys of queries.
#include <algorithm>
#include <map>
#include <set>

#include "base/text.h"
#include "workflow/tool_value_keys.h"

namespace halo {
namespace {

/// `sql`: a text, or one for each kind of connection.
void ReadSql(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (RefuseSecrets(c, f.name, *f.value)) return;
  const auto read = [&](const YamlField& field, SqlDialect dialect) -> std::string {
    if (field.value->text.find("{{") != std::string::npos ||
        field.value->text.find("{%") != std::string::npos) {
      return "SQL is no template, values are bound: write :name where the value belongs, without "
             "quotes, and give it in `parameters`";
    }
    std::string fault;
    SqlStatement statement = ReadSqlStatement(field.value->text, dialect, fault);
    if (fault.empty())
      (dialect == SqlDialect::kDuckDb ? tool.sql.duckdb : tool.sql.postgres) = std::move(statement);
    return fault;
  };
  if (f.value->kind != YamlNode::Kind::kMapping) {
    if (!c.reader.Word(f)) return;
    const std::string fault = read(f, SqlDialect::kDuckDb);
    // What one of them understands is a statement; the connection's own rules count in the end.
    if (!read(f, SqlDialect::kPostgres).empty() && !fault.empty()) c.reader.Fault(f, fault);
    return;
  }
  if (f.value->entries.empty()) c.reader.Mismatch(f, "a text, or one for duckdb or postgres");
  for (const auto& [key, value] : f.value->entries) {
    if (key->text != "duckdb" && key->text != "postgres") {
      c.reader.diagnostics().Add(key->line, key->column,
                                 "sql: expected duckdb or postgres, got '" + key->text + "'");
      continue;
    }
    const YamlField field{"sql." + key->text, key.get(), value.get()};
    if (!c.reader.Word(field)) continue;
    const std::string fault =
        read(field, key->text == "duckdb" ? SqlDialect::kDuckDb : SqlDialect::kPostgres);
    if (!fault.empty()) c.reader.Fault(field, fault);
  }
}

void ReadParameters(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  ValueTemplate values = ReadMappingTemplate(c, f, tool);
  for (auto& [name, value] : values.fields) {
    SqlParameterSpec parameter;
    parameter.name = name;
    parameter.value = std::move(value);
    tool.sql.parameters.push_back(std::move(parameter));
  }
}

const std::map<std::string, SqlParameterType>& TypesByName() {
  static const std::map<std::string, SqlParameterType> types = {
      {"int", SqlParameterType::kInteger},     {"integer", SqlParameterType::kInteger},
      {"bigint", SqlParameterType::kInteger},  {"smallint", SqlParameterType::kInteger},
      {"float", SqlParameterType::kDouble},    {"double", SqlParameterType::kDouble},
      {"real", SqlParameterType::kDouble},     {"text", SqlParameterType::kText},
      {"string", SqlParameterType::kText},     {"str", SqlParameterType::kText},
      {"bool", SqlParameterType::kBoolean},    {"boolean", SqlParameterType::kBoolean},
      {"json", SqlParameterType::kJson},       {"date", SqlParameterType::kDate},
      {"time", SqlParameterType::kTime},       {"timestamp", SqlParameterType::kTimestamp},
      {"numeric", SqlParameterType::kDecimal}, {"decimal", SqlParameterType::kDecimal},
      {"uuid", SqlParameterType::kUuid}};
  return types;
}

/// Kept in the draft until the parameters are known, which may stand behind it in the file.
void ReadParameterTypes(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
  for (const auto& [key, value] : f.value->entries) {
    std::string type = value->text;
    const bool is_list = type.ends_with("[]");
    if (is_list) type.resize(type.size() - 2);
    const auto known = TypesByName().find(type);
    if (!value->IsText() || known == TypesByName().end()) {
      c.reader.Mismatch({"param_types." + key->text, key.get(), value.get()},
                        "the type of a parameter, such as int, text, date, numeric or text[]");
      continue;
    }
    tool.types.push_back({key->text, key.get(), known->second, is_list});
  }
}

void ReadResultMappings(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kMapping) {
    return c.reader.Mismatch(f, "a mapping of output names to paths in the rows, such as 0.title");
  }
  for (const auto& [key, value] : f.value->entries) {
    const auto path = c.reader.Word({"result_mappings." + key->text, key.get(), value.get()});
    if (!path) continue;
    tool.mapped.push_back({key->text, key.get()});
    tool.sql.result_mappings.emplace_back(key->text, *path);
  }
}

void ReadSettings(KeyContext& c, const YamlField& f, SqlPlanSpec& plan) {
  if (f.value->kind != YamlNode::Kind::kMapping) return c.reader.Mismatch(f, "a mapping");
  for (const auto& [key, value] : f.value->entries) {
    if (!value->IsText()) {
      c.reader.Mismatch({"settings." + key->text, key.get(), value.get()}, "a value");
      continue;
    }
    plan.settings.emplace_back(key->text, value->text);
  }
}

void ReadPlans(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  if (f.value->kind != YamlNode::Kind::kSequence) return c.reader.Mismatch(f, "a list of plans");
  static constexpr KeySpec<SqlPlanSpec> kKeys[] = {
      {"id", [](KeyContext& k, const YamlField& g,
                SqlPlanSpec& p) { p.id = k.reader.Word(g).value_or(""); }},
      {"description", [](KeyContext& k, const YamlField& g,
                         SqlPlanSpec& p) { p.description = k.reader.Text(g).value_or(""); }},
      {"settings", ReadSettings},
  };
  for (const YamlNode::Pointer& item : f.value->items) {
    if (item->kind != YamlNode::Kind::kMapping) {
      c.reader.diagnostics().Add(item->line, item->column,
                                 "plans: expected a mapping, got " + DescribeNode(*item));
      continue;
    }
    SqlPlanSpec plan;
    ReadMapping<SqlPlanSpec>(c, *item, kKeys, "in a plan", plan);
    if (plan.id.empty()) plan.id = "plan_" + std::to_string(tool.sql.plans.size());
    tool.sql.plans.push_back(std::move(plan));
  }
}

template <int64_t SqlSpec::*limit>
void ReadLimit(KeyContext& c, const YamlField& f, ToolDraft& tool) {
  constexpr int64_t kMost = int64_t{1} << 30;
  if (const auto most = c.reader.Whole(f, {1, kMost})) tool.sql.*limit = *most;
}

constexpr KeySpec<ToolDraft> kKeys[] = {
    {"connection",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       d.connection = f.value;
       d.sql.connection = c.reader.Word(f).value_or("");
     }},
    {"sql", ReadSql},
    {"parameters", ReadParameters},
    {"param_types", ReadParameterTypes},
    {"required_inputs",
     [](KeyContext& c, const YamlField& f, ToolDraft& d) {
       const auto paths = c.reader.TextList(f, "a path");
       if (!paths) return;
       for (const YamlNode* path : *paths) {
         d.sql.required_inputs.push_back(path->text);
         d.required.push_back({path->text, path});
       }
     }},
    {"result_mappings", ReadResultMappings},
    {"plans", ReadPlans},
    {"most_rows", ReadLimit<&SqlSpec::most_rows>},
    {"most_bytes", ReadLimit<&SqlSpec::most_bytes>},
};

/// Every `:name` of the texts has a value, and every value stands somewhere.
void CheckParameters(KeyContext& c, const YamlNode& node, ToolDraft& tool) {
  std::vector<std::string> given;
  for (const SqlParameterSpec& parameter : tool.sql.parameters) given.push_back(parameter.name);
  std::set<std::string> used;
  for (const auto* statement : {&tool.sql.duckdb, &tool.sql.postgres}) {
    if (!*statement) continue;
    used.insert((*statement)->parameters.begin(), (*statement)->parameters.end());
  }
  const auto fault = [&](const YamlNode& place, const std::string& message) {
    c.reader.diagnostics().Add(place.line, place.column, message);
  };
  for (const std::string& name : used) {
    if (std::find(given.begin(), given.end(), name) != given.end()) continue;
    fault(node, "the query reads :" + name + ", and parameters does not give it" +
                    DidYouMean(name, given));
  }
  for (const std::string& name : given) {
    if (!used.contains(name))
      fault(node,
            "parameters: the query has no :" + name + DidYouMean(name, {used.begin(), used.end()}));
  }
  for (const ParameterTypeDraft& type : tool.types) {
    const auto parameter =
        std::find_if(tool.sql.parameters.begin(), tool.sql.parameters.end(),
                     [&](const SqlParameterSpec& p) { return p.name == type.name; });
    if (parameter == tool.sql.parameters.end()) {
      fault(*type.node, "param_types: there is no parameter '" + type.name + "'" +
                            DidYouMean(type.name, given));
      continue;
    }
    parameter->type = type.type;
    parameter->is_list = type.is_list;
  }
}

}  // namespace

std::span<const KeySpec<ToolDraft>> SqlKeys() { return kKeys; }

void FinishSql(KeyContext& c, const YamlNode& node, ToolDraft& tool) {
  if (tool.sql.duckdb || tool.sql.postgres) CheckParameters(c, node, tool);
  const bool writes = (tool.sql.duckdb && tool.sql.duckdb->writes) ||
                      (tool.sql.postgres && tool.sql.postgres->writes);
  if (writes && tool.spec.effect != ToolEffect::kWrite) {
    c.reader.diagnostics().Add(node.line, node.column,
                               "the statement may write, and queries only read unless they say "
                               "otherwise: add effect: write if it shall");
  }
}

}  // namespace halo
