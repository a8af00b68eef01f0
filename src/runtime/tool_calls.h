#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/hash.h"
#include "model/vocabulary.h"
#include "tool/tool.h"
#include "workflow/workflow.h"

namespace halo {

/// A connection as a run knows it.
struct ConnectionSetup {
  SqlDialect dialect = SqlDialect::kDuckDb;
  /// From its catalogue, of the names that statements use: functions and views whose value may
  /// differ between two calls.
  std::set<SqlName> volatile_functions, volatile_relations;
  /// A write to one table may change what another, or a view, shows.
  bool writes_spread = true;
  int32_t at_once = 0;  ///< statements that it runs at once; 0: ToolSetup::concurrency
};

/// True if a statement may give another value at another time though no table has changed.
bool MayDiffer(const SqlStatement& statement, const ConnectionSetup& connection);

/// What the calls of tools are made with, besides rows.
struct ToolSetup {
  std::map<std::string, ConnectionSetup> connections;
  std::map<std::string, std::string> secrets;  ///< "env:NAME", "file:PATH" -> value
  /// Which of SqlSpec::plans queries run under that have several; others under the first.
  std::map<const ToolSpec*, size_t> plans;
  double latency_scale = 1.0;  ///< of declared latencies
  bool share = true;           ///< equal calls may share a result
  int32_t concurrency = 32;    ///< calls of one target (connection, host) given out
};

/// A call that is ready to be made.
struct BuiltToolCall {
  ToolCall call;
  Signature request;       ///< equal for calls that ask the same
  bool may_share = false;  ///< equal calls may share a result
};

/// Makes the calls of one tool operator. Pure.
class ToolCallBuilder {
 public:
  /// `op` and `setup` outlive it. The setup knows the operator's connection and secrets.
  ToolCallBuilder(const Operator& op, const ToolSetup& setup);

  /// `values`: the row and what the operator's names stand for. `draw_key`: of the stream that a
  /// declared latency is drawn from. Throws Failure where a value is missing or does not fit.
  BuiltToolCall Build(const std::map<std::string, nlohmann::ordered_json>& values,
                      uint64_t draw_key) const;

  /// The operator may change what is read from these tables of its connection; nothing: any.
  const std::vector<SqlName>* written() const;
  /// Relations that a query reads.
  const std::vector<SqlName>& read() const;
  /// Calls that its target works on at once. More than a few beyond them only wait there, while the
  /// time limit of each runs.
  int32_t at_once() const { return at_once_; }
  /// What it asks: a connection, "http" and its host, or "function".
  const std::string& target() const { return target_; }

 private:
  const SqlStatement& Statement() const;
  BuiltToolCall BuildSql(const SqlSpec& sql,
                         const std::map<std::string, nlohmann::ordered_json>& values) const;
  BuiltToolCall BuildHttp(const HttpSpec& http,
                          const std::map<std::string, nlohmann::ordered_json>& values,
                          uint64_t draw_key) const;
  BuiltToolCall BuildFunction(const FunctionSpec& function,
                              const std::map<std::string, nlohmann::ordered_json>& values) const;

  const Operator& op_;
  const ToolSetup& setup_;
  const ConnectionSetup* connection_ = nullptr;  // of a query
  bool may_share_ = false;
  std::string target_;
  int32_t at_once_ = 1;
};

/// The output `name` of a tool whose call had this result; null where the result has no such part.
nlohmann::ordered_json ToolOutput(const ToolSpec& tool, const nlohmann::ordered_json& result,
                                  const std::string& name);

/// What a prompt shows of a tool's output (contract 3.2): lists and texts inside it are cut to the
/// limits, which the value then says. `vocabulary` counts its tokens; null: four bytes are one.
nlohmann::ordered_json ShownInPrompt(const nlohmann::ordered_json& output,
                                     const PromptLimits& limits, const Vocabulary* vocabulary);

}  // namespace halo
