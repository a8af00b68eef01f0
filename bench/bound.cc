// bound: the lower bound of a run (contract section 7), from the calls of a --naive run and from
// rates that llama-batched-bench measures on this machine. Shares no code with Halo.
#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/call_log.h"
#include "bench/lower_bound.h"
#include "bench/rate_measurement.h"
#include "bench/workflow_graph.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string dump, workflow, levels, focus, output;
  std::vector<std::string> models, rates;
  BoundSettings bound;
  bool rates_only = false;
  MeasurementSetup setup;
};

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return nlohmann::json::parse(file);
}

std::map<std::string, std::string> ModelFiles(const std::vector<std::string>& flags) {
  std::map<std::string, std::string> files;
  for (const std::string& flag : flags) {
    const size_t at = flag.find('=');
    if (at == std::string::npos || at == 0 || at + 1 == flag.size()) {
      throw std::invalid_argument("--model: expected NAME=FILE.gguf, got '" + flag + "'");
    }
    files[flag.substr(0, at)] = flag.substr(at + 1);
  }
  return files;
}

Rates Measure(const Flags& flags, const Workload& work) {
  if (flags.setup.batched_bench.empty()) {
    throw std::invalid_argument("--batched-bench: needed to measure rates");
  }
  const std::map<std::string, std::string> files = ModelFiles(flags.models);
  for (const auto& [name, model] : work) {
    if (!files.contains(name))
      throw std::invalid_argument("--model " + name + "=FILE.gguf: missing");
  }
  Rates focus;
  if (!flags.focus.empty()) focus = RatesFromJson(ReadJson(flags.focus));
  std::vector<Rates> measurements(static_cast<size_t>(flags.setup.repeat));
  for (Rates& measurement : measurements) {
    for (const auto& [name, model] : work) {
      std::optional<ModelRates> points;
      if (focus.contains(name)) points = focus.at(name);
      measurement[name] = MeasureRates(files.at(name), model, flags.setup, points);
    }
  }
  return MedianRates(measurements);
}

Json WorkJson(const Workload& work) {
  Json json = Json::object();
  for (const auto& [name, model] : work) {
    json[name] = {{"calls", model.calls},
                  {"equal_calls_left_out", model.equal_calls},
                  {"unique_prompt_tokens", model.unique_prompt_tokens},
                  {"output_tokens", model.output_tokens},
                  {"mean_prompt_tokens", model.mean_prompt_tokens},
                  {"mean_output_tokens", model.mean_output_tokens},
                  {"mean_decode_context", model.mean_decode_context}};
  }
  return json;
}

Json RateJson(const Rate& rate) {
  return {{"layout", rate.layout}, {"batch", rate.batch}, {"tokens_per_s", 1.0 / rate.token_s}};
}

Json ToolsJson(const ToolTimes& tools) {
  Json json = Json::object();
  for (const auto& [name, time] : tools) {
    json[name] = {{"calls", time.calls},
                  {"equal_calls_left_out", time.equal_calls},
                  {"latency_s", time.latency_s},
                  {"cpu_s", time.cpu_s}};
  }
  return json;
}

Json BoundJson(const Flags& flags, const CallLog& log, const Workload& work, const Rates& rates) {
  WorkflowGraph graph;
  if (!flags.workflow.empty()) {
    graph = ReadWorkflowGraph(flags.workflow);
  } else {
    graph = GraphFromLevels(flags.levels);
  }
  BoundSettings settings = flags.bound;
  settings.threads = flags.setup.threads;
  const LowerBound bound = ComputeLowerBound(log, graph, rates, settings);
  Json best = Json::object();
  for (const auto& [name, model] : work) {
    const ModelRates& measured = rates.at(name);
    best[name] = {{"prefill", RateJson(measured.Best(false))},
                  {"decode", RateJson(measured.Best(true))},
                  {"single_prefill", RateJson(measured.Single(false))},
                  {"single_decode", RateJson(measured.Single(true))},
                  {"sampling_us", measured.sampling_s * 1e6}};
  }
  return {{"lower_bound_s", bound.lower_bound_s},
          {"machine_s", bound.machine_s},
          {"machine_without_first_tokens_s", bound.machine_without_first_tokens_s},
          {"tools_s", bound.tools_s},
          {"slowest_tool", bound.slowest_tool},
          {"chain_s", bound.chain_s},
          {"chain_row", bound.chain_row},
          {"model_loads", bound.model_loads},
          {"workload", WorkJson(work)},
          {"tools", ToolsJson(DescribeTools(log.tools, settings))},
          {"best_rates", best},
          {"rates", ToJson(rates)},
          {"threads", flags.setup.threads}};
}

void Run(const Flags& flags) {
  if (!flags.rates_only && flags.workflow.empty() && flags.levels.empty()) {
    throw std::invalid_argument("--workflow or --levels: one is needed for the longest chain");
  }
  const CallLog log = ReadCallLog(flags.dump);
  const Workload work = DescribeWorkload(log.llm);
  if (work.empty()) throw std::runtime_error(flags.dump + ": has no calls of models");
  Rates rates;
  if (flags.rates.empty()) {
    rates = Measure(flags, work);
  } else {
    std::vector<Rates> given;
    for (const std::string& path : flags.rates) given.push_back(RatesFromJson(ReadJson(path)));
    rates = MedianRates(given);
  }
  Json result = ToJson(rates);
  if (!flags.rates_only) result = BoundJson(flags, log, work, rates);
  if (flags.output.empty()) {
    std::cout << result.dump(2) << "\n";
    return;
  }
  std::ofstream file(flags.output);
  file << result.dump(2) << "\n";
  if (!file.flush()) throw std::runtime_error(flags.output + ": cannot be written");
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--dump", flags.dump, "--dump-prompts file of a --naive run")->required();
  app.add_option("--workflow", flags.workflow,
                 "Workflow file (either dialect, without loops), for the longest chain");
  app.add_option("--levels", flags.levels,
                 "In place of --workflow: a,b/c means c waits for a and b");
  app.add_option("--model", flags.models, "NAME=FILE.gguf (repeatable)");
  app.add_option("--batched-bench", flags.setup.batched_bench, "Path of llama-batched-bench");
  app.add_option("--threads", flags.setup.threads, "Threads of the whole machine")
      ->check(CLI::Range(1, 1024));
  app.add_option("--batches", flags.setup.batches, "Batch sizes to try")->delimiter(',');
  app.add_option(
         "--layouts", flags.setup.layouts,
         "KV layouts and kernels to try: split, exact (split with the exact kernels), unified")
      ->delimiter(',')
      ->check(CLI::IsMember({"split", "exact", "unified"}));
  app.add_option("--most-unified-batch", flags.setup.most_unified_batch,
                 "Largest batch tried in the unified layout (default 16)");
  app.add_option("--repeat", flags.setup.repeat, "Measure so many times and take medians")
      ->check(CLI::Range(1, 1000));
  app.add_flag("--rates-only", flags.rates_only, "Measure rates and write them, no bound");
  app.add_option("--rates", flags.rates,
                 "Files of --rates-only: take their medians, measure nothing");
  app.add_option("--focus", flags.focus,
                 "File of --rates-only: measure only its best points of each kind again");
  app.add_option("--memory", flags.bound.memory_bytes,
                 "Bytes of room for weights; each model that does not fit is loaded once");
  app.add_option("--latency-scale", flags.bound.latency_scale,
                 "Multiplies drawn latencies: 1000 for a run with --set latency_scale=0.001")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--tool-concurrency", flags.bound.tool_concurrency,
                 "Calls of one tool at once (default 32)")
      ->check(CLI::PositiveNumber);
  app.add_flag("--share-tool-calls", flags.bound.shares_tool_calls,
               "The bound of a run that makes equal tool calls once");
  app.add_option("-o,--output", flags.output, "JSON file to write (default: standard output)");
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "The lower bound of a run, from the calls of a --naive run and rates measured with\n"
      "llama-batched-bench: max(machine time, calls of the busiest tool, longest chain of a row). "
      "Prints JSON.");
  halo::bench::Flags flags;
  halo::bench::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Run(flags);
  } catch (const std::invalid_argument& error) {
    std::cerr << "bound: " << error.what() << "\n";
    return 2;
  } catch (const std::exception& error) {
    std::cerr << "bound: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
