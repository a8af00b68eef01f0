// engine_bench: the embedded engine beside llama-batched-bench on the same sizes, in turns (A B A B
// ...).
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "bench/batched_bench.h"
#include "bench/statistics.h"
#include "engine/llama/llama_engine.h"
#include "model/vocabulary.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string model, batched_bench, layout = "auto";
  std::vector<std::string> peer_layouts = {"split", "exact", "unified"};
  bool stock = false;
  int32_t requests = 64, prompt_tokens = 256, output_tokens = 32, sequences = 64;
  int32_t threads = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  int32_t repeat = 5;
  std::string flash_attention = "on";
  double temperature = 0.0, top_p = 0.9;
};

/// Rates of one run, the engine's or the peer's, in tokens a second.
struct RunRates {
  double prefill = 0.0, decode = 0.0, overall = 0.0;
  double decode_without_sampling = 0.0;  ///< the engine's only
  std::string note;
};

KvLayout LayoutOf(const std::string& name) {
  if (name == "split") return KvLayout::kSplit;
  return name == "unified" ? KvLayout::kUnified : KvLayout::kAuto;
}

std::vector<TokenId> RandomPrompt(const Vocabulary& vocabulary, uint64_t seed, int32_t size) {
  RandomStream random(seed);
  std::vector<TokenId> tokens;
  while (static_cast<int32_t>(tokens.size()) < size) {
    const auto token = static_cast<TokenId>(random.Below(static_cast<uint64_t>(vocabulary.size())));
    if (!vocabulary.IsEndOfGeneration(token)) tokens.push_back(token);
  }
  return tokens;
}

std::unique_ptr<LlamaEngine> MakeEngine(const Flags& flags, const Clock& clock,
                                        std::shared_ptr<const Vocabulary> vocabulary) {
  LlamaEngineOptions options;
  options.model_name = "bench";
  options.model_path = flags.model;
  options.vocabulary = std::move(vocabulary);
  options.threads = flags.threads;
  options.sequences = flags.sequences;
  options.expected_tokens = flags.prompt_tokens + flags.output_tokens;
  options.layout = LayoutOf(flags.layout);
  options.exactness = flags.stock ? Exactness::kOff : Exactness::kIfFree;
  return std::make_unique<LlamaEngine>(std::move(options), clock);
}

Request MakeRequest(const Flags& flags, const Vocabulary& vocabulary, uint64_t number) {
  Request request;
  request.id = number + 1;
  request.order = static_cast<int64_t>(number);
  request.prompt_tokens = RandomPrompt(vocabulary, 1000 + number, flags.prompt_tokens);
  request.sampling.temperature = static_cast<float>(flags.temperature);
  if (flags.temperature > 0) request.sampling.top_p = static_cast<float>(flags.top_p);
  request.sampling.max_tokens = flags.output_tokens;
  request.sampling.min_tokens = flags.output_tokens;
  request.sampling.draw_key = number;
  return request;
}

double PerSecond(int64_t tokens, int64_t us) {
  return static_cast<double>(tokens) / (1e-6 * static_cast<double>(std::max<int64_t>(1, us)));
}

RunRates RunEngine(const Flags& flags, const std::shared_ptr<const Vocabulary>& vocabulary) {
  const SteadyClock clock;
  const std::unique_ptr<LlamaEngine> engine = MakeEngine(flags, clock, vocabulary);
  std::vector<Request> requests;
  for (int32_t i = 0; i < flags.requests; ++i) {
    requests.push_back(MakeRequest(flags, *vocabulary, static_cast<uint64_t>(i)));
  }
  // The peer warms up before it measures, and so does this: weights are paged in, threads started.
  Request warm_up = MakeRequest(flags, *vocabulary, 1U << 20);
  warm_up.prompt_tokens.resize(std::min<size_t>(16, warm_up.prompt_tokens.size()));
  warm_up.sampling.max_tokens = warm_up.sampling.min_tokens = 2;
  engine->Submit(warm_up);
  while (engine->pending() > 0) engine->Poll(clock.NowUs() + 1000000);
  const EngineStatistics before = engine->Statistics();

  const int64_t start_us = clock.NowUs();
  for (Request& request : requests) engine->Submit(std::move(request));
  int64_t output_tokens = 0;
  while (engine->pending() > 0) {
    for (const Completion& completion : engine->Poll(clock.NowUs() + 1000000)) {
      if (completion.failure)
        throw std::runtime_error("a call failed: " + completion.failure->message);
      output_tokens += completion.output_tokens;
    }
  }
  const int64_t elapsed_us = clock.NowUs() - start_us;
  const EngineStatistics after = engine->Statistics();
  const int64_t prefilled = after.prefill_tokens - before.prefill_tokens;
  const int64_t decoded = after.decode_tokens - before.decode_tokens;
  const int64_t decode_us = after.decode_us - before.decode_us;
  const int64_t sampling_us = after.sampling_us - before.sampling_us;
  const int64_t decode_steps = std::max<int64_t>(1, after.decode_steps - before.decode_steps);

  RunRates rates;
  rates.prefill = PerSecond(prefilled, after.prefill_us - before.prefill_us);
  rates.decode = PerSecond(decoded, decode_us + sampling_us);
  rates.decode_without_sampling = PerSecond(decoded, decode_us);
  rates.overall = PerSecond(prefilled + output_tokens, elapsed_us);
  rates.note =
      fmt::format("{} prefilled, mean decode batch {:.1f}, sampling {:.1f} us a token", prefilled,
                  static_cast<double>(decoded) / static_cast<double>(decode_steps),
                  static_cast<double>(sampling_us) / static_cast<double>(output_tokens));
  return rates;
}

RunRates RunPeer(const Flags& flags, const std::string& layout) {
  BatchedBenchSetup setup;
  setup.program = flags.batched_bench;
  setup.model = flags.model;
  setup.threads = flags.threads;
  setup.prompt_tokens = flags.prompt_tokens;
  setup.output_tokens = flags.output_tokens;
  setup.sequences = {flags.requests};
  setup.unified = layout == "unified";
  setup.exact = layout == "exact";
  setup.flash_attention = flags.flash_attention;
  const BatchedBenchResult result = RunBatchedBench(setup).front();
  const double tokens =
      static_cast<double>(flags.requests) * (flags.prompt_tokens + flags.output_tokens);
  return {result.prefill_tokens_per_s, result.decode_tokens_per_s,
          tokens / (result.prefill_s + result.decode_s), result.decode_tokens_per_s, ""};
}

RunRates Medians(const std::vector<RunRates>& runs) {
  const auto median = [&](double RunRates::*rate) {
    std::vector<double> values;
    for (const RunRates& run : runs) values.push_back(run.*rate);
    return Median(values);
  };
  return {median(&RunRates::prefill), median(&RunRates::decode), median(&RunRates::overall),
          median(&RunRates::decode_without_sampling), runs.back().note};
}

Json ToJson(const RunRates& rates) {
  return {{"prefill_tokens_per_s", rates.prefill},
          {"decode_tokens_per_s", rates.decode},
          {"decode_without_sampling_tokens_per_s", rates.decode_without_sampling},
          {"overall_tokens_per_s", rates.overall}};
}

void PrintTable(const std::map<std::string, RunRates>& medians) {
  fmt::print(stderr, "{:<22}{:>14}{:>14}{:>14}\n", "tokens/s (median)", "prefill", "decode",
             "overall");
  for (const auto& [name, rates] : medians) {
    fmt::print(stderr, "{:<22}{:>14.1f}{:>14.1f}{:>14.1f}  {}\n", name, rates.prefill, rates.decode,
               rates.overall, rates.note);
  }
}

void Run(const Flags& flags) {
  const std::shared_ptr<const Vocabulary> vocabulary = Vocabulary::Load(flags.model);
  std::map<std::string, std::vector<RunRates>> runs;
  for (int32_t turn = 0; turn < flags.repeat; ++turn) {
    runs["engine"].push_back(RunEngine(flags, vocabulary));
    if (flags.batched_bench.empty()) continue;
    for (const std::string& layout : flags.peer_layouts) {
      runs["batched-bench " + layout].push_back(RunPeer(flags, layout));
    }
  }
  std::map<std::string, RunRates> medians;
  for (const auto& [name, list] : runs) medians[name] = Medians(list);
  PrintTable(medians);

  RunRates best;  // of the peer, each rate in its best layout
  Json peers = Json::object();
  for (const auto& [name, rates] : medians) {
    if (name == "engine") continue;
    best.prefill = std::max(best.prefill, rates.prefill);
    best.decode = std::max(best.decode, rates.decode);
    best.overall = std::max(best.overall, rates.overall);
    peers[name] = ToJson(rates);
  }
  const RunRates& engine = medians.at("engine");
  Json result = {{"requests", flags.requests},
                 {"prompt_tokens", flags.prompt_tokens},
                 {"output_tokens", flags.output_tokens},
                 {"sequences", flags.sequences},
                 {"layout", flags.layout},
                 {"temperature", flags.temperature},
                 {"threads", flags.threads},
                 {"repeat", flags.repeat},
                 {"engine", ToJson(engine)},
                 {"engine_note", engine.note},
                 {"peers", peers}};
  if (best.prefill > 0) {
    result["prefill_ratio"] = engine.prefill / best.prefill;
    result["decode_ratio"] = engine.decode / best.decode;
    result["overall_ratio"] = engine.overall / best.overall;
    fmt::print(stderr, "engine / best peer    {:>14.3f}{:>14.3f}{:>14.3f}\n",
               engine.prefill / best.prefill, engine.decode / best.decode,
               engine.overall / best.overall);
  }
  std::cout << result.dump(2) << "\n";
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--model", flags.model, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("--batched-bench", flags.batched_bench,
                 "Path of llama-batched-bench; none: the engine alone")
      ->check(CLI::ExistingFile);
  app.add_option(
         "--peer-layouts", flags.peer_layouts,
         "Layouts and kernels of the peer: split, exact (split with the exact kernels), unified")
      ->delimiter(',')
      ->check(CLI::IsMember({"split", "exact", "unified"}));
  app.add_option("--layout", flags.layout, "The engine's KV layout: auto, split or unified")
      ->check(CLI::IsMember({"auto", "split", "unified"}));
  app.add_flag("--stock", flags.stock, "llama.cpp's own kernels instead of the exact ones");
  app.add_option("--sequences", flags.sequences, "Calls that the engine runs at once (64)")
      ->check(CLI::Range(1, 256));
  app.add_option("--requests", flags.requests, "Calls, and the peer's -npl (64)")
      ->check(CLI::Range(1, 256));
  app.add_option("--prompt", flags.prompt_tokens, "Prompt tokens of each (256)")
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--output", flags.output_tokens, "Output tokens of each (32)")
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--threads", flags.threads, "Threads (default: one a core)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--repeat", flags.repeat, "Turns of engine and peer (5)")
      ->check(CLI::Range(1, 1000));
  app.add_option("--temperature", flags.temperature,
                 "0: greedy (default); 0.7: the dialect's sampling");
  app.add_option("--top-p", flags.top_p, "With a temperature (0.9)");
  app.add_option("--flash-attention", flags.flash_attention, "The peer's -fa (on)")
      ->check(CLI::IsMember({"on", "off", "auto"}));
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Distinct prompts through the embedded engine, in turns with llama-batched-bench on the "
      "same\n"
      "sizes. A table on standard error, JSON on standard output.");
  halo::bench::Flags flags;
  halo::bench::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Run(flags);
  } catch (const std::exception& error) {
    std::cerr << "engine_bench: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
