#include "plan/node_signature.h"

#include <algorithm>

namespace halo {
namespace {

class IdentityBuilder {
 public:
  explicit IdentityBuilder(const std::vector<OperatorIdentity>& known) : known_(known) {}

  void Text(std::string_view text) { signature_.Add(text); }
  void Number(int64_t number) { signature_.Add(number); }
  void Real(double number) { signature_.Add(number); }
  void TemplateText(const Template* text) {
    Text(text == nullptr ? std::string_view() : text->source());
  }
  void RowLimit(const RowNumber& number) {
    Number(number.constant);
    TemplateText(number.expression.get());
  }
  void Names(const std::vector<NameBinding>& names) {
    Number(static_cast<int64_t>(names.size()));
    for (const NameBinding& name : names) {
      Text(name.name);
      Text(name.column);
      Text(name.field);
      Number(name.required ? 1 : 0);
      Producers(name.producers);
    }
  }
  void Producers(const std::vector<OperatorIndex>& producers) {
    Number(static_cast<int64_t>(producers.size()));
    for (const OperatorIndex producer : producers) {
      signature_.Add(known_[static_cast<size_t>(producer)].signature);
    }
  }
  void When(const Condition& condition) {
    TemplateText(condition.expression.get());
    Names(condition.names);
  }
  void Value(const ValueTemplate& value) {
    Number(static_cast<int64_t>(value.kind));
    Text(value.constant.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
    TemplateText(value.text.get());
    Number(static_cast<int64_t>(value.items.size()));
    for (const ValueTemplate& item : value.items) Value(item);
    Number(static_cast<int64_t>(value.fields.size()));
    for (const ValueField& field : value.fields) {
      Text(field.name);
      Value(field.value);
    }
  }
  Signature Finish() { return signature_.Finish(); }

 private:
  SignatureBuilder signature_;
  const std::vector<OperatorIdentity>& known_;
};

void AddInference(const Operator& op, PromptLayout layout, const std::string& prompt_column,
                  IdentityBuilder& identity) {
  identity.Text(op.model.name);
  identity.Text(op.model.dtype);
  identity.Text(op.model.quantization);
  identity.Text(op.lora ? op.lora->file : "");
  identity.Real(op.lora ? op.lora->scale : 0.0);
  identity.TemplateText(op.instruction.get());
  identity.Number(static_cast<int64_t>(op.form));
  identity.TemplateText(op.body.get());
  identity.Number(static_cast<int64_t>(op.messages.size()));
  for (const MessageSpec& message : op.messages) {
    identity.Text(message.role);
    identity.TemplateText(message.content.get());
  }
  identity.Number(static_cast<int64_t>(op.history));
  identity.Number(static_cast<int64_t>(layout));
  // Which element of a list-valued row prompt it gets.
  if (op.form == PromptForm::kRowPrompt) identity.Number(op.depth);
  identity.Text(op.form == PromptForm::kRowPrompt ? prompt_column : "");
  const SamplingSpec& sampling = op.sampling;
  identity.Real(sampling.temperature);
  identity.Real(sampling.top_p);
  identity.Number(sampling.top_k);
  identity.Real(sampling.min_p);
  identity.RowLimit(sampling.max_tokens);
  identity.RowLimit(sampling.min_tokens);
  identity.Number(static_cast<int64_t>(sampling.stop.size()));
  for (const std::string& stop : sampling.stop) identity.Text(stop);
  identity.Number(op.samples);
  identity.Number(op.vote ? 1 : 0);
  identity.Text(op.schema ? op.schema->grammar() : "");
  identity.Number(op.max_model_len.value_or(0));
  identity.Number(op.use_chat_template ? 1 : 0);
}

void AddSql(const SqlSpec& sql, IdentityBuilder& identity) {
  identity.Text(sql.connection);
  identity.Text(sql.duckdb ? sql.duckdb->normalized : "");
  identity.Text(sql.postgres ? sql.postgres->normalized : "");
  for (const SqlParameterSpec& parameter : sql.parameters) {
    identity.Value(parameter.value);
    identity.Number(static_cast<int64_t>(parameter.type));
    identity.Number(parameter.is_list ? 1 : 0);
  }
  for (const std::string& required : sql.required_inputs) identity.Text(required);
  for (const auto& [output, path] : sql.result_mappings) identity.Text(path);
  identity.Number(sql.most_rows);
  identity.Number(sql.most_bytes);
}

void AddHttp(const HttpSpec& http, IdentityBuilder& identity) {
  identity.Text(http.method);
  identity.Text(http.origin);
  identity.TemplateText(http.path.get());
  identity.Value(http.params);
  for (const auto& [name, text] : http.headers) {
    identity.Text(name);
    for (const SecretText::Piece& piece : text.pieces) {
      identity.TemplateText(piece.text.get());
      identity.Text(piece.secret);
    }
  }
  identity.Value(http.json.value_or(ValueTemplate{}));
  identity.Value(http.body.value_or(ValueTemplate{}));
  identity.Text(http.response_path);
  identity.Number(static_cast<int64_t>(http.latency_mode));
  identity.Value(http.mean_latency);
  identity.Real(http.latency_unit_s);
  identity.Number(http.most_bytes);
}

void AddTool(const ToolSpec& tool, IdentityBuilder& identity) {
  identity.Number(static_cast<int64_t>(tool.what.index()));
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) AddSql(*sql, identity);
  if (const auto* http = std::get_if<HttpSpec>(&tool.what)) AddHttp(*http, identity);
  if (const auto* function = std::get_if<FunctionSpec>(&tool.what)) {
    identity.Text(function->function);
    identity.Text(function->config.dump());
    for (const std::string& input : function->inputs) identity.Text(input);
  }
  identity.Number(static_cast<int64_t>(tool.effect));
  identity.Value(tool.timeout);
  identity.Real(tool.timeout_unit_s);
}

bool Reads(const Template* text, const std::string& name) {
  if (text == nullptr) return false;
  return std::any_of(text->reads().begin(), text->reads().end(), [&](const std::string& path) {
    return path == name || path.starts_with(name + ".");
  });
}

bool IsNamed(const Operator& op, const std::string& name) {
  return Reads(op.instruction.get(), name) || Reads(op.body.get(), name) ||
         Reads(op.sampling.max_tokens.expression.get(), name) ||
         Reads(op.sampling.min_tokens.expression.get(), name) ||
         std::any_of(op.messages.begin(), op.messages.end(), [&](const MessageSpec& message) {
           return Reads(message.content.get(), name);
         });
}

/// What names mean without what nobody calls them: in `ops` every parent has one.
std::vector<NameBinding> NamesThatCount(const Operator& op) {
  std::vector<NameBinding> names;
  for (NameBinding name : op.names) {
    const bool is_called =
        !op.is_inference() || op.form == PromptForm::kInputs || IsNamed(op, name.name);
    if (!is_called && !name.required) continue;
    if (!is_called) name.name.clear();
    names.push_back(std::move(name));
  }
  return names;
}

bool IsVolatile(const std::optional<SqlStatement>& statement) {
  return statement && statement->is_volatile;
}

}  // namespace

bool MayShare(const Operator& op) {
  if (op.is_inference()) return op.sampling.temperature <= 0.0;
  if (op.tool->effect == ToolEffect::kWrite || !op.tool->coalesce) return false;
  const auto* sql = std::get_if<SqlSpec>(&op.tool->what);
  return sql == nullptr || (!IsVolatile(sql->duckdb) && !IsVolatile(sql->postgres));
}

std::vector<OperatorIdentity> IdentifyOperators(const LogicalPlan& plan,
                                                const std::string& prompt_column) {
  const Workflow& workflow = *plan.workflow;
  std::vector<OperatorIdentity> identities;
  for (const LogicalNode& node : plan.nodes) {
    const Operator& op = plan.operator_of(node.op);
    OperatorIdentity known;
    const bool is_function = !op.is_inference() && op.tool->effect == ToolEffect::kPure;
    known.varies = !MayShare(op) && !is_function;
    known.reaches = ReadsOf(workflow, node.op, prompt_column);
    for (const OperatorIndex producer : known.reaches.producers) {
      const OperatorIdentity& of = identities[static_cast<size_t>(producer)];
      known.varies = known.varies || of.varies;
      known.reaches.whole_row = known.reaches.whole_row || of.reaches.whole_row;
      known.reaches.columns.insert(of.reaches.columns.begin(), of.reaches.columns.end());
    }
    known.each_row = known.varies || !MayShare(op);
    IdentityBuilder identity(identities);
    identity.Number(static_cast<int64_t>(op.kind));
    if (op.is_inference()) {
      AddInference(op, node.layout, prompt_column, identity);
      identity.Producers(op.form == PromptForm::kRowPrompt ? op.inputs
                                                           : std::vector<OperatorIndex>{});
    } else {
      AddTool(*op.tool, identity);
    }
    identity.Names(NamesThatCount(op));
    identity.When(op.when);
    for (const Condition& until : op.over) identity.When(until);
    identity.Number(static_cast<int64_t>(op.on_error));
    identity.Number(op.retry.max);
    identity.Real(op.timeout_s);
    known.signature = identity.Finish();
    identities.push_back(std::move(known));
  }
  return identities;
}

}  // namespace halo
