// batching_bench: a mix of calls through the embedded engine, with fixed ways of batching beside
// the controller, in turns.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>

#include "base/clock.h"
#include "base/random.h"
#include "bench/statistics.h"
#include "engine/llama/llama_engine.h"
#include "model/vocabulary.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

/// Processor time of this process. What others do to the machine shows in it far less than on a
/// clock on the wall, but threads that wait for each other use it, too: for one thread.
class ProcessorClock final : public Clock {
 public:
  int64_t NowUs() const override {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return int64_t{now.tv_sec} * 1000000 + now.tv_nsec / 1000;
  }
  void SleepUntil(int64_t) override {}
};

/// A way of batching: running sequences, tokens of a prefill pass, sequences of a refill; zeros are
/// the controller's choice.
struct Setting {
  int32_t running = 0, pass_tokens = 0, refill = 0;
  bool is_fixed() const { return running > 0 && pass_tokens > 0 && refill > 0; }
};

struct Flags {
  std::string model;
  std::vector<std::string> settings = {"16:1024:2", "32:1024:4", "64:512:4",   "64:1024:1",
                                       "64:1024:4", "64:1024:8", "64:1024:16", "64:2048:8"};
  int32_t calls = 128, sequences = 64;
  int32_t least_prompt = 60, most_prompt = 700, least_answer = 10, most_answer = 120;
  int32_t threads = 1, repeat = 3;
  std::string clock = "processor", layout = "auto";
};

struct RunResult {
  double elapsed_s = 0.0;
  double tokens_per_s = 0.0;         ///< prompt and answer tokens
  double decode_tokens_per_s = 0.0;  ///< while calls wait, so that the batch could be full
  double decode_batch = 0.0;         ///< mean, likewise
};

Setting SettingOf(const std::string& text) {
  Setting setting;
  char colon_1 = 0, colon_2 = 0;
  std::istringstream in(text);
  in >> setting.running >> colon_1 >> setting.pass_tokens >> colon_2 >> setting.refill;
  if (!in || colon_1 != ':' || colon_2 != ':' || !setting.is_fixed())
    throw std::runtime_error("a setting is RUNNING:PASS_TOKENS:REFILL, not '" + text + "'");
  return setting;
}

std::unique_ptr<LlamaEngine> MakeEngine(const Flags& flags, const Setting& setting,
                                        const Clock& clock,
                                        std::shared_ptr<const Vocabulary> vocabulary) {
  LlamaEngineOptions options;
  options.model_name = "bench";
  options.model_path = flags.model;
  options.vocabulary = std::move(vocabulary);
  options.threads = flags.threads;
  options.sequences = flags.sequences;
  options.expected_tokens = flags.most_prompt + flags.most_answer;
  options.exactness = Exactness::kIfFree;
  if (flags.layout == "unified") options.layout = KvLayout::kUnified;
  options.running_sequences = setting.running;
  options.batch_tokens = setting.pass_tokens;
  options.refill_sequences = setting.refill;
  return std::make_unique<LlamaEngine>(std::move(options), clock);
}

Request MakeCall(const Vocabulary& vocabulary, uint64_t number, int32_t prompt, int32_t answer) {
  RandomStream random(1000 + number);
  Request request;
  request.id = number + 1;
  request.order = static_cast<int64_t>(number);
  while (static_cast<int32_t>(request.prompt_tokens.size()) < prompt) {
    const auto token = static_cast<TokenId>(random.Below(static_cast<uint64_t>(vocabulary.size())));
    if (!vocabulary.IsEndOfGeneration(token)) request.prompt_tokens.push_back(token);
  }
  request.keep.lone = true;
  request.sampling.max_tokens = request.sampling.min_tokens = answer;
  return request;
}

std::vector<Request> MixedCalls(const Flags& flags, const Vocabulary& vocabulary) {
  RandomStream random(1);
  const auto between = [&](int32_t least, int32_t most) {
    return least + static_cast<int32_t>(random.Below(static_cast<uint64_t>(most - least + 1)));
  };
  std::vector<Request> calls;
  for (int32_t i = 0; i < flags.calls; ++i) {
    const int32_t prompt = between(flags.least_prompt, flags.most_prompt);
    const int32_t answer = between(flags.least_answer, flags.most_answer);
    calls.push_back(MakeCall(vocabulary, static_cast<uint64_t>(i), prompt, answer));
  }
  return calls;
}

/// As many calls as may run at once, all of the mean length: their decode passes are those of the
/// same batch size alone.
std::vector<Request> EqualCalls(const Flags& flags, const Vocabulary& vocabulary) {
  std::vector<Request> calls;
  for (int32_t i = 0; i < flags.sequences; ++i) {
    calls.push_back(MakeCall(vocabulary, 10000 + static_cast<uint64_t>(i),
                             (flags.least_prompt + flags.most_prompt) / 2,
                             (flags.least_answer + flags.most_answer) / 2));
  }
  return calls;
}

/// Weights are paged in and threads started before anything is measured.
void WarmUp(Engine& engine, const Vocabulary& vocabulary) {
  engine.Submit(MakeCall(vocabulary, 1U << 20, 16, 2));
  while (engine.pending() > 0) engine.Poll(0);
}

RunResult RunCalls(const Flags& flags, const Setting& setting, std::vector<Request> calls,
                   const std::shared_ptr<const Vocabulary>& vocabulary) {
  const SteadyClock wall;
  const ProcessorClock processor;
  const Clock& clock = flags.clock == "wall" ? static_cast<const Clock&>(wall) : processor;
  const std::unique_ptr<LlamaEngine> engine = MakeEngine(flags, setting, clock, vocabulary);
  WarmUp(*engine, *vocabulary);
  const EngineStatistics before = engine->Statistics();
  const int64_t start_us = clock.NowUs();
  int64_t tokens = 0;
  for (Request& call : calls) {
    tokens += static_cast<int64_t>(call.prompt_tokens.size()) + call.sampling.max_tokens;
    engine->Submit(std::move(call));
  }
  EngineStatistics full = before;  // up to the last step with something that waits
  while (engine->pending() > 0) {
    for (const Completion& completion : engine->Poll(0)) {
      if (completion.failure)
        throw std::runtime_error("a call failed: " + completion.failure->message);
    }
    if (engine->pending() >= flags.sequences) full = engine->Statistics();
  }
  RunResult result;
  result.elapsed_s = 1e-6 * static_cast<double>(clock.NowUs() - start_us);
  result.tokens_per_s = static_cast<double>(tokens) / result.elapsed_s;
  const auto decoded = static_cast<double>(full.decode_tokens - before.decode_tokens);
  const double decode_s = 1e-6 * static_cast<double>(full.decode_us - before.decode_us);
  result.decode_tokens_per_s = decode_s > 0 ? decoded / decode_s : 0.0;
  result.decode_batch =
      decoded / static_cast<double>(std::max<int64_t>(1, full.decode_steps - before.decode_steps));
  return result;
}

RunResult Medians(const std::vector<RunResult>& runs) {
  const auto median = [&](double RunResult::*value) {
    std::vector<double> values;
    for (const RunResult& run : runs) values.push_back(run.*value);
    return Median(values);
  };
  return {median(&RunResult::elapsed_s), median(&RunResult::tokens_per_s),
          median(&RunResult::decode_tokens_per_s), median(&RunResult::decode_batch)};
}

Json ToJson(const RunResult& result) {
  return {{"elapsed_s", result.elapsed_s},
          {"tokens_per_s", result.tokens_per_s},
          {"decode_tokens_per_s", result.decode_tokens_per_s},
          {"decode_batch", result.decode_batch}};
}

Json Run(const Flags& flags) {
  const std::shared_ptr<const Vocabulary> vocabulary = Vocabulary::Load(flags.model);
  std::vector<std::pair<std::string, Setting>> settings = {{"controller", {}}};
  for (const std::string& text : flags.settings) settings.emplace_back(text, SettingOf(text));
  std::map<std::string, std::vector<RunResult>> runs;
  for (int32_t turn = 0; turn < flags.repeat; ++turn) {
    for (const auto& [name, setting] : settings) {
      runs[name].push_back(RunCalls(flags, setting, MixedCalls(flags, *vocabulary), vocabulary));
      fmt::print(stderr, "turn {}: {:<14}{:>9.2f} s\n", turn + 1, name,
                 runs[name].back().elapsed_s);
    }
    runs["alone"].push_back(
        RunCalls(flags, {flags.sequences, 1024, 1}, EqualCalls(flags, *vocabulary), vocabulary));
  }
  Json result = {{"calls", flags.calls},     {"sequences", flags.sequences},
                 {"threads", flags.threads}, {"repeat", flags.repeat},
                 {"clock", flags.clock},     {"settings", Json::object()}};
  std::string best;
  for (const auto& [name, setting] : settings) {
    const RunResult medians = Medians(runs.at(name));
    result["settings"][name] = ToJson(medians);
    const bool leads = best.empty() || medians.tokens_per_s > Medians(runs.at(best)).tokens_per_s;
    if (setting.is_fixed() && leads) best = name;
  }
  const RunResult controller = Medians(runs.at("controller")), alone = Medians(runs.at("alone"));
  result["alone"] = ToJson(alone);
  if (!best.empty()) {
    result["best_fixed"] = best;
    result["controller_to_best_fixed"] =
        controller.tokens_per_s / Medians(runs.at(best)).tokens_per_s;
  }
  result["decode_to_alone"] = controller.decode_tokens_per_s / alone.decode_tokens_per_s;
  return result;
}

void AddFlags(CLI::App& app, Flags& flags) {
  const CLI::Range counts(1, 1 << 16);
  app.add_option("--model", flags.model, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("--settings", flags.settings,
                 "Fixed settings, RUNNING:PASS_TOKENS:REFILL each (" +
                     fmt::format("{}", fmt::join(flags.settings, ",")) + ")")
      ->delimiter(',');
  app.add_option("--calls", flags.calls, "Calls, all there at once (128)")->check(counts);
  app.add_option("--sequences", flags.sequences, "Calls that run at once at most (64)")
      ->check(CLI::Range(1, 256));
  app.add_option("--least-prompt", flags.least_prompt, "Tokens (60)")->check(counts);
  app.add_option("--most-prompt", flags.most_prompt, "Tokens (700)")->check(counts);
  app.add_option("--least-answer", flags.least_answer, "Tokens (10)")->check(counts);
  app.add_option("--most-answer", flags.most_answer, "Tokens (120)")->check(counts);
  app.add_option("--threads", flags.threads, "Threads of the engine (1)")->check(counts);
  app.add_option("--repeat", flags.repeat, "Turns, of which medians are taken (3)")->check(counts);
  app.add_option("--clock", flags.clock, "processor (time of this process, default) or wall")
      ->check(CLI::IsMember({"processor", "wall"}));
  app.add_option("--layout", flags.layout, "auto or unified")
      ->check(CLI::IsMember({"auto", "unified"}));
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Calls of mixed lengths through the embedded engine: the batching controller beside fixed\n"
      "settings, in turns. JSON on standard output.");
  halo::bench::Flags flags;
  halo::bench::AddFlags(app, flags);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    std::cout << halo::bench::Run(flags).dump(2) << "\n";
  } catch (const std::exception& error) {
    std::cerr << "batching_bench: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
