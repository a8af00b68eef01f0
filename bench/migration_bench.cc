// migration_bench: KV of a conversation moved from one engine's process to another's, beside
// computing it there anew, in turns.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "base/check.h"
#include "base/clock.h"
#include "base/random.h"
#include "bench/statistics.h"
#include "engine/engine.h"
#include "model/vocabulary.h"
#include "session/engine_host.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string model, program = "build/release/bin/halo";
  int32_t tokens = 1000, repeat = 5;
  int32_t threads = static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
};

struct Turn {
  double computed_ms = 0.0;  ///< the prompt
  double given_ms = 0.0;     ///< from asking for its KV until that has come from its process
  double taken_ms = 0.0;     ///< reading it into the other one's room
  double bytes = 0.0;
};

class Bench {
 public:
  explicit Bench(const Flags& flags) : flags_(flags) {
    host_.program = flags.program;
    vocabulary_ = Vocabulary::Load(flags.model);
    for (std::unique_ptr<Engine>* engine : {&from_, &to_}) {
      LlamaEngineOptions options;
      options.model_name = "bench";
      options.model_path = flags.model;
      options.vocabulary = vocabulary_;
      options.threads = flags.threads;
      options.sequences = 4;
      options.expected_tokens = flags.tokens + 8;
      options.exactness = Exactness::kIfFree;
      *engine = MakeEngine(std::move(options), host_, 0, nullptr, clock_);
    }
  }

  Turn Run() {
    Turn turn;
    const std::vector<TokenId> prompt = RandomPrompt();
    Request parent = Ask(prompt);
    parent.keep = {.consumers = 1, .answer = false};
    Time(*from_, parent);
    std::vector<TokenId> longer = prompt;
    longer.push_back(prompt.front());

    turn.computed_ms = Time(*to_, Ask(RandomPrompt()));
    const int64_t before_us = to_->Statistics().copy_us;
    Request brought = Ask(longer);
    brought.consumes = parent.id;
    const int64_t start_us = clock_.NowUs();
    from_->Export(parent.id);
    std::vector<KvTransfer> found;
    while (found.empty()) {
      from_->Poll(clock_.NowUs() + kPatienceUs);
      found = from_->TakeExports();
    }
    turn.given_ms = static_cast<double>(clock_.NowUs() - start_us) * 1e-3;
    turn.bytes = static_cast<double>(found.front().bytes);
    HALO_CHECK(found.front().bytes > 0, "what was just computed is kept");
    to_->Import(std::move(found.front()));
    Time(*to_, brought);
    turn.taken_ms = static_cast<double>(to_->Statistics().copy_us - before_us) * 1e-3;
    return turn;
  }

 private:
  static constexpr int64_t kPatienceUs = 1'000'000;

  std::vector<TokenId> RandomPrompt() {
    std::vector<TokenId> tokens;
    while (static_cast<int32_t>(tokens.size()) < flags_.tokens) {
      const auto token =
          static_cast<TokenId>(random_.Below(static_cast<uint64_t>(vocabulary_->size())));
      if (!vocabulary_->IsEndOfGeneration(token)) tokens.push_back(token);
    }
    return tokens;
  }
  Request Ask(std::vector<TokenId> prompt) {
    Request request;
    request.id = next_++;
    request.prompt_tokens = std::move(prompt);
    request.sampling.max_tokens = 1;
    request.keep.lone = true;  // making room for the next one is not part of a move
    return request;
  }
  /// Milliseconds from giving a request out to its answer.
  double Time(Engine& engine, const Request& request) {
    const int64_t start_us = clock_.NowUs();
    engine.Submit(request);
    while (engine.pending() > 0) {
      for (const Completion& answer : engine.Poll(clock_.NowUs() + kPatienceUs))
        HALO_CHECK(!answer.failure, "the request is answered");
    }
    return static_cast<double>(clock_.NowUs() - start_us) * 1e-3;
  }

  const Flags& flags_;
  SteadyClock clock_;
  EngineHost host_;
  std::shared_ptr<const Vocabulary> vocabulary_;
  std::unique_ptr<Engine> from_, to_;
  RandomStream random_{7};
  RequestId next_ = 1;
};

Json Measure(const Flags& flags) {
  Bench bench(flags);
  bench.Run();  // memory that is touched for the first time
  std::vector<double> computed, given, taken, ratio;
  double bytes = 0.0;
  for (int32_t i = 0; i < flags.repeat; ++i) {
    const Turn turn = bench.Run();
    computed.push_back(turn.computed_ms);
    given.push_back(turn.given_ms);
    taken.push_back(turn.taken_ms);
    ratio.push_back(turn.computed_ms / (turn.given_ms + turn.taken_ms));
    bytes = turn.bytes;
  }
  return {{"tokens", flags.tokens},
          {"threads", flags.threads},
          {"bytes", bytes},
          {"computed_ms", Median(computed)},
          {"given_ms", Median(given)},
          {"taken_ms", Median(taken)},
          {"ratio", Median(ratio)},
          {"ratio_least", *std::min_element(ratio.begin(), ratio.end())}};
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  halo::bench::Flags flags;
  CLI::App app("KV moved between processes beside computing it anew");
  app.add_option("--model", flags.model, "GGUF file")->required();
  app.add_option("--program", flags.program, "The halo that hosts the engines");
  app.add_option("--tokens", flags.tokens, "Of the conversation")->check(CLI::Range(2, 100'000));
  app.add_option("--threads", flags.threads, "Of each engine");
  app.add_option("--repeat", flags.repeat, "Turns")->check(CLI::Range(1, 1000));
  CLI11_PARSE(app, argc, argv);
  std::cout << halo::bench::Measure(flags).dump(2) << "\n";
  return 0;
}
