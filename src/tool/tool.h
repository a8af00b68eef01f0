#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"

namespace halo {

/// Names a call of a tool; chosen by the caller, never used twice.
using ToolCallId = uint64_t;

/// What a call does to the world. kPure: nothing, and its value depends on its arguments alone.
/// kRead: nothing. kWrite: something; never shared, and repeated only if it is idempotent.
enum class ToolEffect : uint8_t { kPure, kRead, kWrite };

/// What a bound value becomes. kAny: as the value is (text, number, bool, null; arrays and objects
/// as JSON).
enum class SqlParameterType : uint8_t {
  kAny,
  kText,
  kInteger,
  kDouble,
  kBoolean,
  kDecimal,
  kDate,
  kTime,
  kTimestamp,
  kUuid,
  kJson
};

/// One bound value.
struct SqlArgument {
  SqlParameterType type = SqlParameterType::kAny;
  bool is_list = false;  ///< `value` is an array (or null) of values of `type`
  /// What does not read as `type` fails the call ("bad_parameter"); decimals and dates are texts,
  /// or numbers where those are exact.
  nlohmann::ordered_json value;
  std::string name;  ///< what the workflow calls it, for messages; "": known by its place

  /// What is bound, whatever it is called.
  friend bool operator==(const SqlArgument& a, const SqlArgument& b) {
    return a.type == b.type && a.is_list == b.is_list && a.value == b.value;
  }
};

/// One statement with its values. Its result is {"rows": [{column: value}], "rowcount": n}; n
/// counts the rows, or what a write changed. Values are as in sql/sql_values.h, whatever the
/// server.
struct SqlCall {
  std::string connection;  ///< by the name under which the backend was given it
  std::string text;        ///< parameters are $1, $2, ...
  std::vector<SqlArgument> arguments;
  /// Settings of the server that hold for this statement alone (a plan hint), in order.
  std::vector<std::pair<std::string, std::string>> settings;
  int64_t most_rows = kMostRows;    ///< more fail the call ("result_too_large")
  int64_t most_bytes = kMostBytes;  ///< of the result as JSON, about; the same

  static constexpr int64_t kMostRows = 10'000;
  static constexpr int64_t kMostBytes = int64_t{8} << 20;

  friend bool operator==(const SqlCall&, const SqlCall&) = default;
};

/// A header of a request. Secret ones are left out when a redirect leaves scheme, host or port, and
/// never appear in a failure's message.
struct HttpHeader {
  std::string name, value;
  bool is_secret = false;

  friend bool operator==(const HttpHeader&, const HttpHeader&) = default;
};

/// kLive: the request is sent. kPadded: it is sent, and its answer held back until `latency_us`
/// have passed. kSimulated: nothing is sent; after `latency_us` the answer is {"status": "ok"}.
enum class HttpLatencyMode : uint8_t { kLive, kPadded, kSimulated };

/// One HTTP request. Its value is the body as JSON where it is JSON, else as text; null for a body
/// that is empty.
struct HttpCall {
  std::string method;  ///< upper case
  std::string url;     ///< complete, percent-encoded; http or https
  std::vector<HttpHeader> headers;
  std::optional<std::string> body;
  std::string response_path;  ///< dotted path into a JSON body ("choices.0.message.content"); ""
  int64_t most_bytes = kMostBytes;  ///< of the body, after decompression
  HttpLatencyMode latency_mode = HttpLatencyMode::kLive;
  int64_t latency_us = 0;

  static constexpr int64_t kMostBytes = int64_t{8} << 20;

  friend bool operator==(const HttpCall&, const HttpCall&) = default;
};

/// One call of a local function.
struct FunctionCall {
  std::string function;           ///< a built-in one, or "exec"
  nlohmann::ordered_json config;  ///< an object
  nlohmann::ordered_json inputs;  ///< an object: input name -> value, in their order
  std::vector<std::string> outputs;

  friend bool operator==(const FunctionCall&, const FunctionCall&) = default;
};

/// One call of a tool: a plain value.
struct ToolCall {
  ToolCallId id = 0;
  std::variant<SqlCall, HttpCall, FunctionCall> what;
  ToolEffect effect = ToolEffect::kRead;
  bool idempotent = false;  ///< a write that may be made twice
  int64_t order = 0;        ///< lower goes first where calls wait
  int64_t timeout_us = 0;   ///< of this attempt; 0: none. The scheduler makes a deadline of it.
  int64_t deadline_us = 0;  ///< on the run's clock; 0: none. Past it the call fails ("deadline").
  std::string script_operator;  ///< who asks, for simulated tools and traces
  std::string script_row;
  int32_t script_attempt = 0;  ///< 0: the first
};

/// The one answer to a call. Each submitted call gets exactly one, cancelled ones too
/// ("cancelled").
struct ToolCompletion {
  ToolCallId id = 0;
  /// Retriable: another attempt may do better. Whether one may be made depends on the effect.
  std::optional<Failure> failure;
  int64_t retry_after_us = 0;  ///< the other side asked for this much patience
  nlohmann::ordered_json value;
  int64_t started_us = 0, finished_us = 0;
  /// Processor time that it took on this machine; nothing: not known (a server's, a program's).
  std::optional<int64_t> cpu_us;
};

/// All tools of a run, as the scheduler sees them: one place to give calls to, and one to wait at.
/// One caller thread; no call blocks but Poll.
class ToolRunner {
 public:
  virtual ~ToolRunner() = default;
  /// Takes a call. Whatever is wrong with it comes back as its completion.
  virtual void Submit(ToolCall call) = 0;
  /// Ends a call early; its completion says "cancelled" unless it had finished.
  virtual void Cancel(ToolCallId id) = 0;
  /// What has finished, in order. Waits for the first until `deadline_us` on the run's clock; 0:
  /// does not wait.
  virtual std::vector<ToolCompletion> Poll(int64_t deadline_us) = 0;
  /// Calls submitted and not yet completed.
  virtual int64_t pending() const = 0;
  /// Of these, calls that wait because their host is asked only so often.
  virtual int64_t held_back() const { return 0; }
  /// For waiting on several things at once: a descriptor that is readable while Poll has something
  /// to give, the same over the runner's life. -1: there is none, and Poll has to be asked.
  virtual int ready_descriptor() const { return -1; }
};

}  // namespace halo
