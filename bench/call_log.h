#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace halo::bench {

/// A model's call in `halo run --dump-prompts`. Read by code of its own: the benchmarks share
/// nothing with what they judge.
struct Call {
  int64_t source = 0;
  std::string row;
  std::string op;
  std::string model;
  bool merged = false;          ///< answered by an equal call: no work of its own
  std::vector<int32_t> prompt;  ///< token ids
  std::vector<int32_t> output;  ///< sampled ids, the end token included
  std::string finish;           ///< end, stop, length or failed
  int64_t max_tokens = 0;
  double temperature = 0.0;
  double top_p = 1.0;

  bool failed() const { return finish == "failed"; }
};

/// A tool's call in the same file.
struct ToolCall {
  int64_t source = 0;
  std::string row;
  std::string op;
  std::string kind;        ///< http, sql or function
  std::string target;      ///< host, connection or function
  std::string request;     ///< equal for equal requests
  bool may_share = false;  ///< equal requests may share a result
  bool merged = false;     ///< answered by an equal call: no time of its own
  bool failed = false;
  bool drawn = false;           ///< the latency was drawn from a declared one
  double latency_s = 0.0;       ///< drawn, else measured
  std::optional<double> cpu_s;  ///< of this machine's processors; nothing: not known

  /// What `target` is among those of all kinds.
  std::string tool() const { return kind + " " + target; }
};

/// What a run did, each in the order in which calls ended.
struct CallLog {
  std::vector<Call> llm;
  std::vector<ToolCall> tools;
};

/// Throws std::runtime_error naming the file and the line.
CallLog ReadCallLog(const std::string& path);

/// Distinct models in order of appearance.
std::vector<std::string> ModelsOf(const std::vector<Call>& calls);

}  // namespace halo::bench
