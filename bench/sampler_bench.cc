// sampler_bench: time of one draw, by vocabulary, shape of the logits and sampling; and its share
// of a decode step.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <numbers>

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

/// How the logits of a case come about.
enum class Shape {
  kPowerLaw,  ///< probability falls as rank^-1.7: half on the top token, tens in the nucleus, as
              ///< language models do
  kLongTail,  ///< half on the top token, the rest spread over thousands
  kFlat       ///< hardly any difference: the worst case
};

const char* NameOf(Shape shape) {
  switch (shape) {
    case Shape::kPowerLaw:
      return "power law, top 0.5";
    case Shape::kLongTail:
      return "long tail, top 0.5";
    case Shape::kFlat:
      return "flat";
  }
  return "?";
}

double Normal(RandomStream& random) {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - random.Uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * random.Uniform());
}

std::vector<float> MakeLogits(int64_t vocabulary, Shape shape, uint64_t seed) {
  constexpr double kExponent = 1.7, kTailSpread = 2.5, kFlatSpread = 0.01, kTop = 0.5;
  RandomStream random(seed);
  std::vector<float> logits(static_cast<size_t>(vocabulary));
  if (shape == Shape::kPowerLaw) {
    for (size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<float>(-kExponent * std::log(static_cast<double>(i) + 1.0));
    }
    for (size_t i = logits.size() - 1; i > 0; --i)
      std::swap(logits[i], logits[random.Below(i + 1)]);
    return logits;
  }
  const double spread = shape == Shape::kFlat ? kFlatSpread : kTailSpread;
  double mass = 0.0;
  for (float& logit : logits) {
    logit = static_cast<float>(spread * Normal(random));
    mass += std::exp(logit);
  }
  if (shape == Shape::kLongTail) {
    logits[random.Below(logits.size())] = static_cast<float>(std::log(mass * kTop / (1.0 - kTop)));
  }
  return logits;
}

/// Microseconds of one draw, the median over turns of the mean over draws. Every draw sees other
/// logits.
double MeasureDraw(const Flags& flags, int64_t vocabulary, Shape shape, double temperature) {
  constexpr size_t kVariants = 8;
  std::vector<std::vector<float>> variants;
  for (size_t i = 0; i < kVariants; ++i) {
    variants.push_back(MakeLogits(vocabulary, shape, i));
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
      sum += sampler.Sample(variants[static_cast<size_t>(i) % kVariants], parameters, {},
                            random.Uniform());
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
  Json rows = Json::array();
  std::map<Shape, double> defaults_us;  // the dialect's defaults at the last vocabulary
  fmt::print(stderr, "{:>10}  {:<22}{:<28}{:>12}\n", "vocabulary", "logits", "sampling",
             "us a token");
  for (const int64_t vocabulary : flags.vocabularies) {
    for (const Shape shape : {Shape::kPowerLaw, Shape::kLongTail, Shape::kFlat}) {
      for (const double temperature : {0.7, 0.0}) {
        const std::string sampling = temperature > 0 ? "temperature 0.7, top_p 0.9" : "greedy";
        const double us = MeasureDraw(flags, vocabulary, shape, temperature);
        if (temperature > 0) defaults_us[shape] = us;
        rows.push_back({{"vocabulary", vocabulary},
                        {"logits", NameOf(shape)},
                        {"sampling", sampling},
                        {"us", us}});
        fmt::print(stderr, "{:>10}  {:<22}{:<28}{:>12.1f}\n", vocabulary, NameOf(shape), sampling,
                   us);
      }
    }
  }
  Json result = {{"draws", rows}};
  if (!flags.model.empty()) {
    const double step_us = MeasureStep(flags);
    Json shares = Json::array();
    fmt::print(stderr, "decode step of {} sequences: {:.0f} us\n", flags.sequences, step_us);
    for (const auto& [shape, us] : defaults_us) {
      const double share = flags.sequences * us / step_us;
      shares.push_back({{"logits", NameOf(shape)},
                        {"sampling_us", flags.sequences * us},
                        {"share_of_decode", share}});
      fmt::print(stderr, "sampling them one after another, {}: {:.1f} % of it\n", NameOf(shape),
                 100.0 * share);
    }
    result["step"] = {{"sequences", flags.sequences},
                      {"threads", flags.threads},
                      {"vocabulary", flags.vocabularies.back()},
                      {"decode_us", step_us},
                      {"sampling", shares}};
  }
  std::cout << result.dump(2) << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Time of one draw by vocabulary, logits and sampling. With --model and --batched-bench also "
      "its\n"
      "share of a decode step (draws of the dialect's defaults at the last vocabulary given, "
      "which\n"
      "should be the model's). A table on standard error, JSON on standard output.");
  halo::bench::Flags flags;
  app.add_option("--vocabularies", flags.vocabularies, "Sizes (50257,128256)")
      ->delimiter(',')
      ->check(CLI::Range(1, 10000000));
  app.add_option("--draws", flags.draws, "Draws of a turn (200)")->check(CLI::Range(1, 1000000));
  app.add_option("--repeat", flags.repeat, "Turns (5)")->check(CLI::Range(1, 1000));
  app.add_option("--model", flags.model, "GGUF file for the decode step")->check(CLI::ExistingFile);
  app.add_option("--batched-bench", flags.batched_bench, "Path of llama-batched-bench")
      ->check(CLI::ExistingFile);
  app.add_option("--threads", flags.threads, "Threads of the decode step (1)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--sequences", flags.sequences, "Sequences of the decode step (32)")
      ->check(CLI::Range(1, 256));
  app.add_option("--context", flags.context, "Tokens before the step (256)")
      ->check(CLI::Range(1, 1 << 20));
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
