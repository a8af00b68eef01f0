#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/call_log.h"
#include "bench/workflow_graph.h"

namespace halo::bench {

/// The work of one model in a run, as the bound sees it.
struct ModelWork {
  int64_t calls = 0;
  int64_t equal_calls = 0;  ///< deterministic repetitions of another call, left out of all else
  int64_t unique_prompt_tokens = 0;
  int64_t output_tokens = 0;
  double mean_prompt_tokens = 0.0;
  double mean_output_tokens = 0.0;
  double mean_decode_context = 0.0;  ///< tokens before the one being decoded, over output tokens
};
using Workload = std::map<std::string, ModelWork>;

/// Calls without failed and merged ones, and without all but the first of equal calls at
/// temperature 0.
std::vector<Call> CallsThatCount(const std::vector<Call>& calls);
Workload DescribeWorkload(const std::vector<Call>& calls);

/// One measured rate: seconds a token of the whole machine.
struct Rate {
  bool decode = false;  ///< else prefill
  std::string layout;   ///< split, unified, or exact: split with the exact kernels
  int32_t batch = 0;    ///< sequences
  double token_s = 0.0;
};

/// What was measured for one model.
struct ModelRates {
  std::vector<Rate> rates;
  double sampling_s = 0.0;  ///< a token, whole machine
  double load_s = 0.0;      ///< reading the file once
  int64_t file_bytes = 0;
  int64_t vocabulary = 0;

  /// The fastest at any batch size and layout.
  const Rate& Best(bool decode) const;
  /// The fastest for one sequence alone.
  const Rate& Single(bool decode) const;
};
using Rates = std::map<std::string, ModelRates>;

nlohmann::ordered_json ToJson(const Rates& rates);
Rates RatesFromJson(const nlohmann::json& json);
/// Point by point the median. Points that are not in every measurement are left out.
Rates MedianRates(const std::vector<Rates>& measurements);

/// What a bound is for.
struct BoundSettings {
  int64_t memory_bytes = 0;  ///< room for weights; 0: everything fits
  double threads = 1.0;      ///< of the machine, over which the tools' processor time is spread
  double tool_concurrency = 32.0;  ///< calls of one tool at once, the same for every system
  /// Drawn latencies count so many times: those of a run that had them scaled down.
  double latency_scale = 1.0;
  /// The run shares results of equal requests: these count once, with the least that was drawn.
  bool shares_tool_calls = false;
};

/// The work of one tool (a host, a connection, a function) in a run.
struct ToolTime {
  int64_t calls = 0;
  int64_t equal_calls = 0;  ///< repetitions of another call's request, left out of the rest
  double latency_s = 0.0;   ///< of all calls, one after the other
  double cpu_s = 0.0;       ///< of this machine's processors
};
using ToolTimes = std::map<std::string, ToolTime>;

/// Calls that failed or were merged are left out.
ToolTimes DescribeTools(const std::vector<ToolCall>& calls, const BoundSettings& settings);

/// The lower bound of contract section 7, with every ingredient.
struct LowerBound {
  double machine_s = 0.0;      ///< (a)
  double tools_s = 0.0;        ///< (b)
  std::string slowest_tool;    ///< of (b)
  double chain_s = 0.0;        ///< (c)
  std::string chain_row;       ///< the row of the longest chain
  double lower_bound_s = 0.0;  ///< the largest of the three
  /// As machine_s, but the first token of each answer, which prefill yields, costs no decode step.
  double machine_without_first_tokens_s = 0.0;
  int64_t model_loads = 0;  ///< models that do not fit beside the others
};

/// `log`: of a --naive run.
LowerBound ComputeLowerBound(const CallLog& log, const WorkflowGraph& graph, const Rates& rates,
                             const BoundSettings& settings);

}  // namespace halo::bench
