// The logical plan as a person reads it.
#include <fmt/format.h>

#include <iterator>

#include "base/text.h"
#include "plan/logical_plan.h"

namespace halo {
namespace {

std::string Sampling(const SamplingSpec& sampling) {
  std::string text =
      sampling.temperature == 0.0
          ? "greedy"
          : fmt::format("temperature {:g}, top_p {:g}", sampling.temperature, sampling.top_p);
  if (sampling.top_k > 0) text += fmt::format(", top_k {}", sampling.top_k);
  if (sampling.min_p > 0.0) text += fmt::format(", min_p {:g}", sampling.min_p);
  text += sampling.max_tokens.expression
              ? fmt::format(", up to {} tokens", sampling.max_tokens.expression->source())
              : fmt::format(", up to {} tokens", sampling.max_tokens.constant);
  if (!sampling.stop.empty()) text += fmt::format(", {} stop strings", sampling.stop.size());
  return text;
}

/// What an operator's prompt takes up, for EXPLAIN.
std::string WhatItReads(const Workflow& workflow, const Operator& op) {
  std::string reads;
  if (op.form == PromptForm::kRowPrompt) {
    reads = "row prompt";
    if (op.inputs.empty()) return reads;
    reads = op.history == History::kContinue     ? "conversation of"
            : op.history == History::kTranscript ? "row prompt and transcripts of"
                                                 : "row prompt and answers of";
    for (const OperatorIndex input : op.inputs) reads += " " + workflow.at(input).id;
    return reads;
  }
  for (const NameBinding& name : op.names) {
    reads += (reads.empty() ? "" : ", ") + name.name;
    if (!name.column.empty()) {
      reads += " (column)";
    } else if (name.producers.empty()) {
      reads += " (nothing yet)";
    } else if (workflow.at(name.producers.front()).id != name.name) {
      reads += " of " + workflow.at(name.producers.front()).id;
    }
  }
  return reads.empty() ? "nothing" : reads;
}

/// When an operator runs and what it does with failures, for EXPLAIN; "" for the defaults.
std::string Conditions(const Operator& op) {
  std::vector<std::string> parts;
  if (op.when.expression) parts.push_back("when " + op.when.expression->source());
  if (!op.over.empty())
    parts.push_back("until " + op.over.back().expression->source() + " before it");
  if (op.samples > 1)
    parts.push_back(fmt::format("{} samples{}", op.samples, op.vote ? " and a vote" : ""));
  if (op.on_error != OnError::kFail)
    parts.push_back(op.on_error == OnError::kNull ? "on error null" : "on error skip");
  if (op.retry.max > 0) parts.push_back(fmt::format("up to {} retries", op.retry.max));
  if (op.timeout_s > 0.0) parts.push_back(fmt::format("at most {:g} s", op.timeout_s));
  return fmt::format("{}", fmt::join(parts, "; "));
}

/// "[model]" or "[model + file, scale 0.5]".
std::string ModelAndAdapter(const Operator& op) {
  if (!op.lora) return fmt::format("[{}]", op.model.name);
  const std::string scale =
      op.lora->scale == 1.0 ? "" : fmt::format(", scale {:g}", op.lora->scale);
  return fmt::format("[{} + {}{}]", op.model.name, op.lora->file, scale);
}

const char* KindName(OperatorKind kind) {
  switch (kind) {
    case OperatorKind::kInference:
      return "LLM";
    case OperatorKind::kSql:
      return "SQL";
    case OperatorKind::kHttp:
      return "HTTP";
    case OperatorKind::kFunction:
      return "FN";
  }
  return "?";
}

/// The first line's worth of a text.
std::string Shortened(const std::string& text) {
  constexpr size_t kMost = 96;
  return text.size() <= kMost ? text : text.substr(0, kMost - 3) + "...";
}

const SqlStatement& AnyStatement(const SqlSpec& sql) {
  return sql.duckdb ? *sql.duckdb : *sql.postgres;
}

/// Whom a tool asks, in brackets.
std::string Target(const ToolSpec& tool) {
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what)) return sql->connection;
  if (const auto* function = std::get_if<FunctionSpec>(&tool.what)) return function->function;
  const auto& http = std::get<HttpSpec>(tool.what);
  return http.origin.empty() ? "a declared latency" : http.origin;
}

/// What a tool asks, in a line; nothing where the target says it.
std::string Question(const ToolSpec& tool) {
  if (const auto* sql = std::get_if<SqlSpec>(&tool.what))
    return Shortened(AnyStatement(*sql).normalized);
  if (std::holds_alternative<FunctionSpec>(tool.what)) return "";
  const auto& http = std::get<HttpSpec>(tool.what);
  std::string text = http.method + " " + (http.path == nullptr ? "" : http.path->source());
  for (const auto& [name, value] : http.params.fields) {
    const char* sign = text.find('?') == std::string::npos ? "?" : "&";
    text += sign + name + "=" +
            (value.text != nullptr        ? value.text->source()
             : value.constant.is_string() ? value.constant.get<std::string>()
                                          : value.constant.dump());
  }
  return Shortened(text);
}

std::string Sharing(const ToolSpec& tool) {
  if (tool.effect == ToolEffect::kWrite)
    return tool.idempotent ? "writes, once for each row; may be tried twice"
                           : "writes, once for each row";
  if (!tool.coalesce) return "made for each row";
  const auto* sql = std::get_if<SqlSpec>(&tool.what);
  if (sql != nullptr && AnyStatement(*sql).is_volatile) return "made for each row: it is volatile";
  return "equal calls are made once";
}

/// What has to end before an operator can begin.
std::string Start(const Workflow& workflow, const Operator& op) {
  if (op.inputs.empty()) return "with its row";
  std::string after = "after";
  for (const OperatorIndex input : op.inputs)
    after += (after == "after" ? " " : ", ") + workflow.at(input).id;
  return after;
}

void PrintTool(const Workflow& workflow, const Operator& op, std::string& text) {
  const std::string question = Question(*op.tool);
  if (!question.empty()) text += fmt::format("       asks    {}\n", question);
  text += fmt::format("       starts  {}\n", Start(workflow, op));
  text += fmt::format("       shares  {}\n", Sharing(*op.tool));
  const std::string conditions = Conditions(op);
  if (!conditions.empty()) text += fmt::format("       runs    {}\n", conditions);
}

void PrintInference(const LogicalPlan& plan, const LogicalNode& node, std::string& text) {
  const Workflow& workflow = *plan.workflow;
  const Operator& op = plan.operator_of(node.op);
  const std::string conditions = Conditions(op);
  text += fmt::format("       reads   {}\n", WhatItReads(workflow, op));
  if (op.history != History::kContinue)
    text += fmt::format("       prompt  {}\n", PromptLayoutName(node.layout));
  text += fmt::format("       sample  {}\n", Sampling(op.sampling));
  if (!conditions.empty()) text += fmt::format("       runs    {}\n", conditions);
  if (node.kv_source >= 0) {
    text +=
        fmt::format("       KV      begins with that of {} ({})\n", workflow.at(node.kv_source).id,
                    node.kv_source_answer ? "prompt and answer" : node.kv_shared);
  }
  if (node.kv_consumers > 0)
    text += fmt::format("       keeps   KV for {}\n", Counted(node.kv_consumers, "operator"));
}

}  // namespace

std::string PrintOperator(const LogicalPlan& plan, const LogicalNode& node) {
  const Operator& op = plan.operator_of(node.op);
  const std::string target =
      op.is_inference() ? ModelAndAdapter(op) : fmt::format("[{}]", Target(*op.tool));
  std::string text = fmt::format("{:>3}  {} {}  {}{}\n", node.op, KindName(op.kind), op.id, target,
                                 op.is_end ? "  -> output" : "");
  if (op.is_inference()) {
    PrintInference(plan, node, text);
  } else {
    PrintTool(*plan.workflow, op, text);
  }
  return text;
}

std::string TargetOf(const LogicalPlan& plan, OperatorIndex index) {
  const Operator& op = plan.operator_of(index);
  return op.is_inference() ? op.model.name : Target(*op.tool);
}

std::string PrintLogicalPlan(const LogicalPlan& plan) {
  std::string text = fmt::format("workflow {}: {}, {}\n", plan.workflow->name,
                                 Counted(std::ssize(plan.nodes), "operator"),
                                 Counted(std::ssize(plan.models), "model"));
  for (const LogicalNode& node : plan.nodes) text += PrintOperator(plan, node);
  return text;
}

}  // namespace halo
