// sampler_bench: time of one draw, by vocabulary, shape of the logits and sampling; and its share of a decode step.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <numbers>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/random.h"
#include "bench/batched_bench.h"
#include "bench/statistics.h"
#include "engine/llama/sampler.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::vector<int64_t> vocabularies = {50257, 128256};
  int32_t draws = 200, repeat = 5;
  std::string model, batched_bench;
  int32_t threads = 1, sequences = 32, context = 256;
};

/// Normal logits of standard deviation `spread`; then one token is raised until it has `top` of the
/// probability (0: none is).
std::vector<float> MakeLogits(int64_t vocabulary, double spread, double top, uint64_t seed) {
  RandomStream random(seed);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  double mass = 0.0;
  for (float& logit : logits) {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
    const double normal = radius * std::cos(2.0 * std::numbers::pi * random.Uniform());
    logit = static_cast<float>(spread * normal);
    mass += std::exp(spread * normal);
  }
  if (top > 0) {
    logits[random.Below(logits.size())] = static_cast<float>(std::log(mass * top / (1.0 - top)));
  }
  return logits;
}

struct Case {
  std::string logits;
  double spread, top;
};

/// Microseconds of one draw, the median over turns of the mean over draws. Every draw sees other logits.
double MeasureDraw(const Flags& flags, int64_t vocabulary, const Case& shape, double temperature) {
  constexpr size_t kVariants = 8;
  std::vector<std::vector<float>> variants;
  for (size_t i = 0; i < kVariants; ++i) {
    variants.push_back(MakeLogits(vocabulary, shape.spread, shape.top, i));
  }
  SamplingParameters parameters;
  parameters.temperature = static_cast<float>(temperature);
  if (temperature > 0) parameters.top_p = 0.9F;
  Sampler sampler;
  RandomStream random(99);
  std::vector<double> turns;
  int64_t sum = 0;  // of what was drawn, so that nothing is left out
  for (int32_t turn = 0; turn < flags.repeat; ++turn) {
    const auto start = std::chrono::steady_clock::now();
    for (int32_t i = 0; i < flags.draws; ++i) {
      sum += sampler.Sample(variants[static_cast<size_t>(i) % kVariants], parameters, {}, random.Uniform());
    }
    const std::chrono::duration<double, std::micro> us = std::chrono::steady_clock::now() - start;
    turns.push_back(us.count() / flags.draws);
  }
  if (sum < 0) throw std::runtime_error("nothing could be drawn");
  return Median(turns);
}

/// Microseconds of a decode step of the model, by llama-batched-bench.
double MeasureStep(const Flags& flags) {
  BatchedBenchSetup setup;
  setup.program = flags.batched_bench;
  setup.model = flags.model;
  setup.threads = flags.threads;
  setup.prompt_tokens = flags.context;
  setup.output_tokens = 32;
  setup.sequences = {flags.sequences};
  setup.shared_prompt = true;
  std::vector<double> steps;
  for (int32_t turn = 0; turn < flags.repeat; ++turn) {
    steps.push_back(RunBatchedBench(setup).front().decode_s / setup.output_tokens * 1e6);
  }
  return Median(steps);
}

void Run(const Flags& flags) {
  const Case shapes[] = {{"like a model's (top 0.5)", 2.5, 0.5}, {"flat", 0.01, 0.0}};
  Json rows = Json::array();
  double defaults_us = 0.0;  // the dialect's defaults at the largest vocabulary
  fmt::print(stderr, "{:>10}  {:<26}{:<26}{:>14}\n", "vocabulary", "logits", "sampling", "us a token");
  for (const int64_t vocabulary : flags.vocabularies) {
    for (const Case& shape : shapes) {
      for (const double temperature : {0.7, 0.0}) {
        const std::string sampling = temperature > 0 ? "temperature 0.7, top_p 0.9" : "greedy";
        const double us = MeasureDraw(flags, vocabulary, shape, temperature);
        if (temperature > 0 && shape.top > 0) defaults_us = us;
        rows.push_back({{"vocabulary", vocabulary}, {"logits", shape.logits}, {"sampling", sampling}, {"us", us}});
        fmt::print(stderr, "{:>10}  {:<26}{:<26}{:>14.1f}\n", vocabulary, shape.logits, sampling, us);
      }
    }
  }
  Json result = {{"draws", rows}};
  if (!flags.model.empty() && !flags.batched_bench.empty()) {
    const double step_us = MeasureStep(flags);
    const double sampling_us = flags.sequences * defaults_us;
    result["step"] = {{"sequences", flags.sequences},
                      {"threads", flags.threads},
                      {"decode_us", step_us},
                      {"sampling_us", sampling_us},
                      {"share_of_decode", sampling_us / step_us}};
    fmt::print(stderr, "decode step of {} sequences: {:.0f} us; sampling them one after another: {:.0f} us ({:.1f} %)\n",
               flags.sequences, step_us, sampling_us, 100.0 * sampling_us / step_us);
  }
  std::cout << result.dump(2) << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app("Time of one draw by vocabulary, logits and sampling. With --model and --batched-bench also its\n"
               "share of a decode step (draws of the dialect's defaults at the last vocabulary given, which\n"
               "should be the model's). A table on standard error, JSON on standard output.");
  halo::bench::Flags flags;
  app.add_option("--vocabularies", flags.vocabularies, "Sizes (50257,128256)")
      ->delimiter(',')
      ->check(CLI::Range(1, 10000000));
  app.add_option("--draws", flags.draws, "Draws of a turn (200)")->check(CLI::Range(1, 1000000));
  app.add_option("--repeat", flags.repeat, "Turns (5)")->check(CLI::Range(1, 1000));
  app.add_option("--model", flags.model, "GGUF file for the decode step")->check(CLI::ExistingFile);
  app.add_option("--batched-bench", flags.batched_bench, "Path of llama-batched-bench")->check(CLI::ExistingFile);
  app.add_option("--threads", flags.threads, "Threads of the decode step (1)")->check(CLI::Range(1, 1024));
  app.add_option("--sequences", flags.sequences, "Sequences of the decode step (32)")->check(CLI::Range(1, 256));
  app.add_option("--context", flags.context, "Tokens before the step (256)")->check(CLI::Range(1, 1 << 20));
  try {
    app.parse(argc, argv);
    if (flags.model.empty() != flags.batched_bench.empty()) {
      throw CLI::ValidationError("--model and --batched-bench go together");
    }
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Run(flags);
  } catch (const std::exception& error) {
    std::cerr << "sampler_bench: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
