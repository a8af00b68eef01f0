// unique_tokens DUMP.jsonl: what a run had to prefill, counted from its own dump (contract section
// 7).
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>

#include "bench/call_log.h"
#include "bench/prompt_trie.h"

namespace halo::bench {
namespace {

nlohmann::ordered_json ToJson(const UniqueCount& count) {
  return {{"calls", count.calls},
          {"merged_calls", count.merged_calls},
          {"failed_calls", count.failed_calls},
          {"prompt_tokens", count.prompt_tokens},
          {"trie_tokens", count.trie_tokens},
          {"generated_in_context", count.generated_in_context},
          {"unique_prompt_tokens", count.unique_prompt_tokens},
          {"output_tokens", count.output_tokens},
          {"whole_prompt_resident_calls", count.whole_prompt_resident_calls},
          {"resident_in_dump_order", count.resident_in_dump_order},
          {"allowance_tokens", count.allowance_tokens()}};
}

void Add(UniqueCount& total, const UniqueCount& part) {
  total.calls += part.calls;
  total.merged_calls += part.merged_calls;
  total.failed_calls += part.failed_calls;
  total.prompt_tokens += part.prompt_tokens;
  total.trie_tokens += part.trie_tokens;
  total.generated_in_context += part.generated_in_context;
  total.unique_prompt_tokens += part.unique_prompt_tokens;
  total.output_tokens += part.output_tokens;
  total.whole_prompt_resident_calls += part.whole_prompt_resident_calls;
  total.resident_in_dump_order += part.resident_in_dump_order;
}

void Print(const std::string& path) {
  const std::vector<Call> calls = ReadCallLog(path).llm;
  nlohmann::ordered_json models = nlohmann::ordered_json::object();
  UniqueCount total;
  for (const std::string& model : ModelsOf(calls)) {
    const UniqueCount count = PromptTrie(calls, model).count();
    models[model] = ToJson(count);
    Add(total, count);
  }
  std::cout << nlohmann::ordered_json{{"models", models}, {"total", ToJson(total)}}.dump(2) << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app(
      "Counts the unique prompt tokens of a run from its --dump-prompts file: the size of the "
      "token\n"
      "trie over the prompts of each model, less the tokens that the model generated in that very\n"
      "context. Prints JSON.");
  std::string path;
  app.add_option("dump", path, "File written by halo run --dump-prompts")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    halo::bench::Print(path);
  } catch (const std::exception& error) {
    std::cerr << "unique_tokens: " << error.what() << "\n";
    return 1;
  }
  return 0;
}
