#include "bench/lower_bound.h"

#include <algorithm>
#include <set>
#include <stdexcept>
#include <tuple>

#include "bench/prompt_trie.h"
#include "bench/statistics.h"

namespace halo::bench {
namespace {

using RowKey = std::pair<int64_t, std::string>;

const Rate& Fastest(const std::vector<Rate>& rates, bool decode, bool alone) {
  const Rate* best = nullptr;
  for (const Rate& rate : rates) {
    if (rate.decode != decode || (alone && rate.batch != 1)) continue;
    if (best == nullptr || rate.token_s < best->token_s) best = &rate;
  }
  if (best == nullptr) {
    throw std::runtime_error(std::string("no ") + (decode ? "decode" : "prefill") + " rate" +
                             (alone ? " for one sequence" : "") + " was measured");
  }
  return *best;
}

const ModelRates& RatesOf(const Rates& rates, const std::string& model) {
  const auto found = rates.find(model);
  if (found == rates.end()) throw std::runtime_error("no rates of the model " + model);
  return found->second;
}

/// Seconds that a call takes alone on the machine when all that others share with it is resident.
double SingleCallSeconds(const Call& call, const PromptTrie& prompts, const ModelRates& rates) {
  const auto own = static_cast<double>(prompts.OwnPromptTokens(call));
  const auto output = static_cast<double>(call.output.size());
  return own * rates.Single(false).token_s +
         output * (rates.Single(true).token_s + rates.sampling_s);
}

/// Seconds that a tool's call takes when nothing else happens.
double SingleCallSeconds(const ToolCall& call, const BoundSettings& settings) {
  if (call.drawn) return call.latency_s * settings.latency_scale;
  // Processor time does not depend on what else the machine did meanwhile.
  return call.cpu_s.value_or(call.latency_s);
}

/// One row's calls, for the longest chain.
struct RowCalls {
  std::map<std::string, double> seconds;          // operator -> of calls that are the row's own
  std::map<std::string, const ToolCall*> shared;  // operator -> a call that equal ones may answer
};

/// Request -> when its result is there at the earliest, whichever row asks first.
using SharedResults = std::map<std::string, double>;

/// When each operator of a row ends at the earliest. `known` null: shared calls take no time.
std::map<std::string, double> EarliestEnds(const RowCalls& row, const WorkflowGraph& graph,
                                           const std::vector<std::string>& order,
                                           const SharedResults* known) {
  std::map<std::string, double> end;
  for (const std::string& op : order) {
    double start = 0.0;
    for (const std::string& input : graph.at(op)) start = std::max(start, end[input]);
    const auto own = row.seconds.find(op);
    end[op] = start + (own == row.seconds.end() ? 0.0 : own->second);
    const auto shared = row.shared.find(op);
    if (known == nullptr || shared == row.shared.end()) continue;
    const auto result = known->find(shared->second->request);
    if (result != known->end()) end[op] = std::max(end[op], result->second);
  }
  return end;
}

std::map<RowKey, RowCalls> CallsByRow(const std::vector<Call>& calls,
                                      const std::vector<ToolCall>& tools,
                                      const WorkflowGraph& graph,
                                      const std::map<std::string, PromptTrie>& prompts,
                                      const Rates& rates, const BoundSettings& settings) {
  const auto check = [&](const std::string& op) {
    if (graph.contains(op)) return;
    throw std::runtime_error("the workflow has no operator '" + op + "', but the dump has");
  };
  std::map<RowKey, RowCalls> rows;
  for (const Call& call : calls) {
    check(call.op);
    rows[{call.source, call.row}].seconds[call.op] +=
        SingleCallSeconds(call, prompts.at(call.model), RatesOf(rates, call.model));
  }
  for (const ToolCall& call : tools) {
    check(call.op);
    if (call.failed) continue;
    RowCalls& row = rows[{call.source, call.row}];
    if (settings.shares_tool_calls && call.may_share) {
      row.shared[call.op] = &call;
    } else if (!call.merged) {
      row.seconds[call.op] += SingleCallSeconds(call, settings);
    }
  }
  return rows;
}

void FindLongestChain(const std::map<RowKey, RowCalls>& rows, const WorkflowGraph& graph,
                      const BoundSettings& settings, LowerBound& bound) {
  const std::vector<std::string> order = TopologicalOrder(graph);
  // A shared result is there when the luckiest of those who ask for it could have it.
  SharedResults results;
  for (const auto& [key, row] : rows) {
    const std::map<std::string, double> least = EarliestEnds(row, graph, order, nullptr);
    for (const auto& [op, call] : row.shared) {
      if (call->merged) continue;
      const double end_s = least.at(op) + SingleCallSeconds(*call, settings);
      const auto [result, is_new] = results.emplace(call->request, end_s);
      if (!is_new) result->second = std::min(result->second, end_s);
    }
  }
  for (const auto& [key, row] : rows) {
    for (const auto& [op, end_s] : EarliestEnds(row, graph, order, &results)) {
      if (end_s <= bound.chain_s) continue;
      bound.chain_s = end_s;
      bound.chain_row = key.second;
    }
  }
}

/// The largest models stay, each that does not fit beside them is loaded once.
void AddLoads(const Workload& work, const Rates& rates, int64_t memory_bytes, LowerBound& bound) {
  if (memory_bytes <= 0) return;
  std::vector<const ModelRates*> models;
  for (const auto& [name, model] : work) models.push_back(&RatesOf(rates, name));
  std::sort(models.begin(), models.end(),
            [](const ModelRates* a, const ModelRates* b) { return a->file_bytes > b->file_bytes; });
  int64_t left = memory_bytes;
  for (const ModelRates* model : models) {
    if (model->file_bytes <= left) {
      left -= model->file_bytes;
      continue;
    }
    ++bound.model_loads;
    bound.machine_s += model->load_s;
    bound.machine_without_first_tokens_s += model->load_s;
  }
}

}  // namespace

const Rate& ModelRates::Best(bool decode) const { return Fastest(rates, decode, false); }
const Rate& ModelRates::Single(bool decode) const { return Fastest(rates, decode, true); }

std::vector<Call> CallsThatCount(const std::vector<Call>& calls) {
  std::vector<Call> kept;
  std::set<std::tuple<std::string, std::vector<int32_t>, int64_t, std::vector<int32_t>>> seen;
  for (const Call& call : calls) {
    if (call.merged || call.failed()) continue;
    if (call.temperature == 0.0 &&
        !seen.emplace(call.model, call.prompt, call.max_tokens, call.output).second) {
      continue;
    }
    kept.push_back(call);
  }
  return kept;
}

Workload DescribeWorkload(const std::vector<Call>& calls) {
  Workload work;
  for (const Call& call : calls) {
    if (!call.merged && !call.failed()) ++work[call.model].equal_calls;
  }
  const std::vector<Call> kept = CallsThatCount(calls);
  for (const Call& call : kept) {
    ModelWork& model = work[call.model];
    ++model.calls;
    --model.equal_calls;
    const auto prompt = static_cast<double>(call.prompt.size());
    const auto output = static_cast<double>(call.output.size());
    model.output_tokens += static_cast<int64_t>(call.output.size());
    model.mean_prompt_tokens += prompt;
    model.mean_decode_context += output * (prompt + 0.5 * (output - 1.0));
  }
  for (auto& [name, model] : work) {
    model.unique_prompt_tokens = PromptTrie(kept, name).count().unique_prompt_tokens;
    const double some_output = std::max(1.0, static_cast<double>(model.output_tokens));
    model.mean_prompt_tokens /= static_cast<double>(model.calls);
    model.mean_output_tokens = some_output / static_cast<double>(model.calls);
    model.mean_decode_context /= some_output;
  }
  return work;
}

nlohmann::ordered_json ToJson(const Rates& rates) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [name, model] : rates) {
    nlohmann::ordered_json list = nlohmann::ordered_json::array();
    for (const Rate& rate : model.rates) {
      list.push_back({{"kind", rate.decode ? "decode" : "prefill"},
                      {"layout", rate.layout},
                      {"batch", rate.batch},
                      {"token_s", rate.token_s},
                      {"tokens_per_s", 1.0 / rate.token_s}});
    }
    json[name] = {{"rates", list},
                  {"sampling_s", model.sampling_s},
                  {"load_s", model.load_s},
                  {"file_bytes", model.file_bytes},
                  {"vocabulary", model.vocabulary}};
  }
  return {{"models", json}};
}

Rates RatesFromJson(const nlohmann::json& json) {
  Rates rates;
  for (const auto& [name, model] : json.at("models").items()) {
    ModelRates& mine = rates[name];
    for (const auto& rate : model.at("rates")) {
      mine.rates.push_back({rate.at("kind") == "decode", rate.at("layout").get<std::string>(),
                            rate.at("batch").get<int32_t>(), rate.at("token_s").get<double>()});
    }
    mine.sampling_s = model.at("sampling_s").get<double>();
    mine.load_s = model.at("load_s").get<double>();
    mine.file_bytes = model.at("file_bytes").get<int64_t>();
    mine.vocabulary = model.at("vocabulary").get<int64_t>();
  }
  return rates;
}

Rates MedianRates(const std::vector<Rates>& measurements) {
  if (measurements.empty()) throw std::invalid_argument("no rates");
  Rates medians;
  for (const auto& [name, first] : measurements.front()) {
    std::map<std::tuple<bool, std::string, int32_t>, std::vector<double>> points;
    std::vector<double> sampling, load;
    for (const Rates& measurement : measurements) {
      const ModelRates& model = RatesOf(measurement, name);
      for (const Rate& rate : model.rates) {
        points[{rate.decode, rate.layout, rate.batch}].push_back(rate.token_s);
      }
      sampling.push_back(model.sampling_s);
      load.push_back(model.load_s);
    }
    ModelRates& model = medians[name] = first;
    model.rates.clear();
    model.sampling_s = Median(sampling);
    model.load_s = Median(load);
    for (const auto& [point, seconds] : points) {
      if (seconds.size() < measurements.size()) continue;
      const auto& [decode, layout, batch] = point;
      model.rates.push_back({decode, layout, batch, Median(seconds)});
    }
  }
  return medians;
}

ToolTimes DescribeTools(const std::vector<ToolCall>& calls, const BoundSettings& settings) {
  ToolTimes times;
  // Of equal calls the one with the least latency.
  std::map<std::pair<std::string, std::string>, const ToolCall*> shared;
  const auto count = [&](const ToolCall& call) {
    ToolTime& time = times[call.tool()];
    ++time.calls;
    time.latency_s += SingleCallSeconds(call, settings);
    time.cpu_s += call.cpu_s.value_or(0.0);
  };
  for (const ToolCall& call : calls) {
    if (call.merged || call.failed) continue;
    if (!settings.shares_tool_calls || !call.may_share) {
      count(call);
      continue;
    }
    const auto [least, is_new] = shared.emplace(std::pair(call.tool(), call.request), &call);
    if (is_new) continue;
    ++times[call.tool()].equal_calls;
    if (SingleCallSeconds(call, settings) < SingleCallSeconds(*least->second, settings))
      least->second = &call;
  }
  for (const auto& [request, call] : shared) count(*call);
  return times;
}

LowerBound ComputeLowerBound(const CallLog& log, const WorkflowGraph& graph, const Rates& rates,
                             const BoundSettings& settings) {
  LowerBound bound;
  const std::vector<Call> kept = CallsThatCount(log.llm);
  const Workload work = DescribeWorkload(log.llm);
  std::map<std::string, PromptTrie> prompts;
  for (const auto& [name, model] : work) {
    prompts.emplace(name, PromptTrie(kept, name));
    const ModelRates& measured = RatesOf(rates, name);
    const double prefill_s =
        static_cast<double>(model.unique_prompt_tokens) * measured.Best(false).token_s;
    const auto output = static_cast<double>(model.output_tokens);
    const double decode_s = measured.Best(true).token_s;
    bound.machine_s += prefill_s + output * (decode_s + measured.sampling_s);
    bound.machine_without_first_tokens_s += prefill_s +
                                            (output - static_cast<double>(model.calls)) * decode_s +
                                            output * measured.sampling_s;
  }
  AddLoads(work, rates, settings.memory_bytes, bound);
  for (const auto& [tool, time] : DescribeTools(log.tools, settings)) {
    bound.machine_s += time.cpu_s / settings.threads;
    bound.machine_without_first_tokens_s += time.cpu_s / settings.threads;
    const double all_s = time.latency_s / settings.tool_concurrency;
    if (all_s <= bound.tools_s) continue;
    bound.tools_s = all_s;
    bound.slowest_tool = tool;
  }
  FindLongestChain(CallsByRow(kept, log.tools, graph, prompts, rates, settings), graph, settings,
                   bound);
  bound.lower_bound_s = std::max({bound.machine_s, bound.tools_s, bound.chain_s});
  return bound;
}

}  // namespace halo::bench
