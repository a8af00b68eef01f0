// grammar_bench: what keeping answers to a grammar costs beside the decode steps of the same run,
// on the embedded engine: a first batch with nothing remembered, and those after it.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/random.h"
#include "bench/statistics.h"
#include "engine/llama/llama_engine.h"
#include "model/output_schema.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string model;
  int32_t threads = 1, sequences = 32, context = 256, repeat = 5;
};

/// A kind of answer, and what it cost in each turn.
struct Case {
  std::string name;
  std::string grammar;
  int32_t max_tokens = 0;
  std::vector<EngineStatistics> turns;
};

std::string GrammarOf(const Json& schema) {
  std::vector<SchemaFault> faults;
  const auto made = OutputSchema::OfJsonSchema(schema, faults);
  if (made == nullptr) throw std::runtime_error(faults.front().message);
  return made->grammar();
}

/// 300 words of one to four syllables.
Json WordEnum() {
  constexpr const char* kSyllables[] = {"ba",  "con", "der", "fil", "gra", "ho", "in",
                                        "ja",  "ker", "lum", "mo",  "ner", "or", "pa",
                                        "qui", "re",  "sta", "ti",  "ur",  "ven"};
  RandomStream random(300);
  Json words = Json::array();
  while (words.size() < 300) {
    std::string word;
    for (uint64_t i = 1 + random.Below(4); i > 0; --i) word += kSyllables[random.Below(20)];
    if (std::find(words.begin(), words.end(), Json(word)) == words.end()) words.push_back(word);
  }
  return {{"enum", words}};
}

Json FiveStrings() {
  Json schema = {{"type", "object"}, {"properties", Json::object()}, {"required", Json::array()}};
  for (const char* name : {"title", "summary", "reason", "place", "advice"}) {
    schema["properties"][name] = {{"type", "string"}, {"maxLength", 64}};
    schema["required"].push_back(name);
  }
  return schema;
}

EngineStatistics Difference(const EngineStatistics& after, const EngineStatistics& before) {
  EngineStatistics difference;
  difference.decode_steps = after.decode_steps - before.decode_steps;
  difference.decode_tokens = after.decode_tokens - before.decode_tokens;
  difference.decode_us = after.decode_us - before.decode_us;
  difference.sampling_us = after.sampling_us - before.sampling_us;
  difference.grammar_us = after.grammar_us - before.grammar_us;
  return difference;
}

/// One batch of requests, to its end.
EngineStatistics RunBatch(const Flags& flags, const Case& what, LlamaEngine& engine,
                          RequestId& next_id, const Vocabulary& vocabulary) {
  const EngineStatistics before = engine.Statistics();
  for (int32_t i = 0; i < flags.sequences; ++i) {
    Request request;
    request.id = next_id++;
    request.order = static_cast<int64_t>(request.id);
    RandomStream random(request.id);
    for (int32_t token = 0; token < flags.context; ++token) {
      request.prompt_tokens.push_back(
          static_cast<TokenId>(random.Below(static_cast<uint64_t>(vocabulary.size()) / 2)));
    }
    request.sampling.temperature = 0.7F;
    request.sampling.top_p = 0.9F;
    request.sampling.max_tokens = what.max_tokens;
    request.sampling.draw_key = request.id;
    request.grammar = what.grammar;
    engine.Submit(std::move(request));
  }
  while (engine.pending() > 0) {
    for (const Completion& completion : engine.Poll(0)) {
      if (completion.failure) throw std::runtime_error(completion.failure->message);
    }
  }
  return Difference(engine.Statistics(), before);
}

Json Report(Case& what) {
  const auto share = [](const EngineStatistics& turn) {
    return static_cast<double>(turn.grammar_us) / static_cast<double>(turn.decode_us);
  };
  const auto per_token = [](int64_t us, const EngineStatistics& turn) {
    return static_cast<double>(us) / static_cast<double>(turn.decode_tokens);
  };
  std::vector<double> shares, grammar, sampling, decode;
  for (size_t i = 1; i < what.turns.size(); ++i) {
    const EngineStatistics& turn = what.turns[i];
    shares.push_back(share(turn));
    grammar.push_back(per_token(turn.grammar_us, turn));
    sampling.push_back(per_token(turn.sampling_us, turn));
    decode.push_back(per_token(turn.decode_us, turn));
  }
  const EngineStatistics& first = what.turns.front();
  Json row = {{"case", what.name},
              {"first_share", share(first)},
              {"first_grammar_us", per_token(first.grammar_us, first)},
              {"share", Median(shares)},
              {"grammar_us", Median(grammar)},
              {"sampling_us", Median(sampling)},
              {"decode_us", Median(decode)},
              {"decode_tokens", first.decode_tokens}};
  fmt::print(stderr,
             "{:<34} first {:>6.2f} %   then {:>6.2f} %   us a token: grammar {:.1f}, "
             "sampling {:.1f}, decode {:.0f}\n",
             what.name, 100 * share(first), 100 * Median(shares), Median(grammar), Median(sampling),
             Median(decode));
  return row;
}

void Run(const Flags& flags) {
  SteadyClock clock;
  LlamaEngineOptions options;
  options.model_name = "bench";
  options.model_path = flags.model;
  options.vocabulary = Vocabulary::Load(flags.model);
  options.threads = flags.threads;
  options.sequences = flags.sequences;
  options.context_tokens = flags.context + 700;
  options.expected_tokens = flags.context + 600;
  const std::shared_ptr<const Vocabulary> vocabulary = options.vocabulary;
  LlamaEngine engine(std::move(options), clock);
  std::vector<Case> cases;
  cases.push_back({"free text", "", 64, {}});
  cases.push_back({"enum of 300 words", GrammarOf(WordEnum()), 64, {}});
  cases.push_back({"object of five strings of 64", GrammarOf(FiveStrings()), 600, {}});
  RequestId next_id = 1;
  for (int32_t turn = 0; turn <= flags.repeat; ++turn) {
    for (Case& what : cases)
      what.turns.push_back(RunBatch(flags, what, engine, next_id, *vocabulary));
  }
  Json rows = Json::array();
  for (Case& what : cases) rows.push_back(Report(what));
  const Json result = {{"vocabulary", vocabulary->size()},
                       {"sequences", flags.sequences},
                       {"threads", flags.threads},
                       {"cases", rows}};
  std::cout << result.dump(2) << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Cost of grammars beside the decode steps of the same run: finding allowed tokens and "
      "following "
      "them, for an enum of\n300 words and an object of five bounded strings. The first batch "
      "knows "
      "nothing yet; the others are medians of turns.\nA table on standard error, JSON on standard "
      "output.");
  halo::bench::Flags flags;
  app.add_option("--model", flags.model, "GGUF file")->required()->check(CLI::ExistingFile);
  app.add_option("--threads", flags.threads, "Threads (1)")->check(CLI::Range(1, 1024));
  app.add_option("--sequences", flags.sequences, "Requests of a batch (32)")
      ->check(CLI::Range(1, 256));
  app.add_option("--context", flags.context, "Tokens of a prompt (256)")
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--repeat", flags.repeat, "Turns after the first (5)")->check(CLI::Range(1, 1000));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Run(flags);
  } catch (const std::exception& error) {
    std::cerr << "grammar_bench: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
