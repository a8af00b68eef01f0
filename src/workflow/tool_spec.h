#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "sql/statement.h"
#include "tool/tool.h"
#include "workflow/value_template.h"

namespace halo {

/// A bind parameter of a query: what stands for `:name` in its text.
struct SqlParameterSpec {
  std::string name;
  ValueTemplate value;
  SqlParameterType type = SqlParameterType::kAny;
  bool is_list = false;
};

/// One of `plans`: settings of the server under which it is to plan a query.
struct SqlPlanSpec {
  std::string id, description;
  std::vector<std::pair<std::string, std::string>> settings;
};

/// A query as a workflow writes it. Values are bound; they never become text of the statement.
struct SqlSpec {
  std::string connection;  ///< an entry of Workflow::connections
  /// One for each kind of connection; what the file does not give for a kind is empty.
  std::optional<SqlStatement> duckdb, postgres;
  std::vector<SqlParameterSpec> parameters;
  std::vector<std::string> required_inputs;  ///< paths that must be there and not null
  std::vector<std::pair<std::string, std::string>> result_mappings;  ///< output -> path in the rows
  /// PostgreSQL runs it under one of them, if there is one: of several the cheapest by EXPLAIN, or
  /// the first where it cannot be asked.
  std::vector<SqlPlanSpec> plans;
  int64_t most_rows = SqlCall::kMostRows;
  int64_t most_bytes = SqlCall::kMostBytes;

  const std::optional<SqlStatement>& For(SqlDialect dialect) const {
    return dialect == SqlDialect::kDuckDb ? duckdb : postgres;
  }
};

/// Text with secrets in it: pieces of templates and names of secrets, in order. A secret is written
/// ${env:NAME} or ${file:PATH}; it is looked up before a run and never stands in a key or a
/// message.
struct SecretText {
  struct Piece {
    std::shared_ptr<const Template> text;  ///< shared as ValueTemplate::text; null: a secret
    std::string secret;                    ///< "env:NAME" or "file:PATH"
  };
  std::vector<Piece> pieces;

  bool has_secret() const {
    for (const Piece& piece : pieces) {
      if (piece.text == nullptr) return true;
    }
    return false;
  }
};

/// An HTTP call as a workflow writes it. Scheme, host and port are constant; what templates print
/// into the path is percent-encoded.
struct HttpSpec {
  std::string method;                    ///< "": POST with a body, else GET
  std::string origin;                    ///< "https://host:port"; "": nothing is sent
  std::shared_ptr<const Template> path;  ///< shared as ValueTemplate::text; path and query
  ValueTemplate params;                  ///< a mapping; lists repeat their key
  std::vector<std::pair<std::string, SecretText>> headers;
  std::optional<ValueTemplate> json;
  std::optional<ValueTemplate> body;  ///< text as it is, anything else as JSON
  std::string response_path;
  HttpLatencyMode latency_mode = HttpLatencyMode::kLive;
  ValueTemplate mean_latency;   ///< in `latency_unit_s`; drawn from a chi-square of that mean
  double latency_unit_s = 1.0;  ///< 0.001 for `latency_ms` and `sleep_ms`
  int64_t most_bytes = HttpCall::kMostBytes;
};

/// A local function as a workflow names it.
struct FunctionSpec {
  std::string function;
  nlohmann::ordered_json config = nlohmann::ordered_json::object();
  std::vector<std::string> inputs;  ///< names that it is given, in order
};

/// How much of a tool's result a prompt shows (contract 3.2). Parameters of other tools, conditions
/// and the row's outputs see all of it.
struct PromptLimits {
  int32_t rows = 5;       ///< elements of each list
  int32_t chars = 400;    ///< of each text inside the result
  int32_t tokens = 1500;  ///< of the result
};

/// What an operator that is no LLM call does.
struct ToolSpec {
  std::variant<SqlSpec, HttpSpec, FunctionSpec> what;
  ToolEffect effect = ToolEffect::kRead;
  bool idempotent = false;           ///< a write that may be made twice
  bool coalesce = false;             ///< equal calls may share one result
  ValueTemplate timeout;             ///< of one attempt, in `timeout_unit_s`; null: none of its own
  double timeout_unit_s = 1.0;       ///< 0.001 for `timeout_ms`
  std::vector<std::string> outputs;  ///< names that it gives: of a query its own, then the mapped
  PromptLimits prompt;
};

/// What bounds how many of its calls run at once: the connection, the host, or the function.
std::string TargetOf(const ToolSpec& tool);

/// Every template of a tool.
void ForEachTemplate(const ToolSpec& tool, const std::function<void(const Template&)>& visit);

}  // namespace halo
