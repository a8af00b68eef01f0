#include "workflow/value_template.h"

#include "workflow/tool_spec.h"

namespace halo {

nlohmann::ordered_json ValueTemplate::Evaluate(
    const std::map<std::string, nlohmann::ordered_json>& values) const {
  switch (kind) {
    case Kind::kConstant:
      return constant;
    case Kind::kTemplate:
      return text->Evaluate(values);
    case Kind::kList: {
      nlohmann::ordered_json list = nlohmann::ordered_json::array();
      for (const ValueTemplate& item : items) list.push_back(item.Evaluate(values));
      return list;
    }
    case Kind::kMapping: {
      nlohmann::ordered_json mapping = nlohmann::ordered_json::object();
      for (const auto& [name, value] : fields) mapping[name] = value.Evaluate(values);
      return mapping;
    }
  }
  return nullptr;
}

void ValueTemplate::ForEachTemplate(const std::function<void(const Template&)>& visit) const {
  if (text != nullptr) visit(*text);
  for (const ValueTemplate& item : items) item.ForEachTemplate(visit);
  for (const auto& [name, value] : fields) value.ForEachTemplate(visit);
}

std::string TargetOf(const ToolSpec& tool) {
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) return "sql " + sql->connection;
  if (const auto* http = std::get_if<HttpSpec>(&tool.what)) return "http " + http->origin;
  return "function " + std::get<FunctionSpec>(tool.what).function;
}

void ForEachTemplate(const ToolSpec& tool, const std::function<void(const Template&)>& visit) {
  tool.timeout.ForEachTemplate(visit);
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) {
    for (const SqlParameterSpec& parameter : sql->parameters)
      parameter.value.ForEachTemplate(visit);
  }
  const auto* http = std::get_if<HttpSpec>(&tool.what);
  if (http == nullptr) return;
  if (http->path != nullptr) visit(*http->path);
  http->params.ForEachTemplate(visit);
  http->mean_latency.ForEachTemplate(visit);
  if (http->json) http->json->ForEachTemplate(visit);
  if (http->body) http->body->ForEachTemplate(visit);
  for (const auto& [name, value] : http->headers) {
    for (const SecretText::Piece& piece : value.pieces) {
      if (piece.text != nullptr) visit(*piece.text);
    }
  }
}

}  // namespace halo
