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

void FindLongestChain(const std::vector<Call>& calls, const WorkflowGraph& graph,
                      const std::map<std::string, PromptTrie>& prompts, const Rates& rates,
                      LowerBound& bound) {
  std::map<RowKey, std::map<std::string, double>> rows;  // row -> operator -> seconds
  for (const Call& call : calls) {
    if (!graph.contains(call.op)) {
      throw std::runtime_error("the workflow has no operator '" + call.op + "', but the dump has");
    }
    rows[{call.source, call.row}][call.op] +=
        SingleCallSeconds(call, prompts.at(call.model), RatesOf(rates, call.model));
  }
  const std::vector<std::string> order = TopologicalOrder(graph);
  for (const auto& [row, seconds] : rows) {
    std::map<std::string, double> end;
    for (const std::string& op : order) {
      double start = 0.0;
      for (const std::string& input : graph.at(op)) start = std::max(start, end[input]);
      const auto own = seconds.find(op);
      end[op] = start + (own == seconds.end() ? 0.0 : own->second);
      if (end[op] > bound.chain_s) {
        bound.chain_s = end[op];
        bound.chain_row = row.second;
      }
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

LowerBound ComputeLowerBound(const std::vector<Call>& calls, const WorkflowGraph& graph,
                             const Rates& rates, int64_t memory_bytes) {
  LowerBound bound;
  const std::vector<Call> kept = CallsThatCount(calls);
  const Workload work = DescribeWorkload(calls);
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
  AddLoads(work, rates, memory_bytes, bound);
  FindLongestChain(kept, graph, prompts, rates, bound);
  bound.lower_bound_s = std::max(bound.machine_s, bound.chain_s);
  return bound;
}

}  // namespace halo::bench
