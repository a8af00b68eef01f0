#include "bench/batched_bench.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "bench/child_process.h"

namespace halo::bench {
namespace {

std::string Joined(const std::vector<int32_t>& numbers) {
  std::string text;
  for (const int32_t number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return text;
}

/// Cells for all sequences, each stream's share a multiple of llama.cpp's padding. One token more
/// than is used: with a shared prompt and split streams the program computes a token of its own.
int64_t ContextTokens(const BatchedBenchSetup& setup) {
  constexpr int64_t kPadding = 256;
  const int64_t most = *std::max_element(setup.sequences.begin(), setup.sequences.end());
  const int64_t each = setup.prompt_tokens + setup.output_tokens + 1;
  return most * ((each + kPadding - 1) / kPadding * kPadding);
}

}  // namespace

std::vector<BatchedBenchResult> RunBatchedBench(const BatchedBenchSetup& setup) {
  std::vector<std::string> arguments = {setup.program,
                                        "-m",
                                        setup.model,
                                        "-t",
                                        std::to_string(setup.threads),
                                        "-c",
                                        std::to_string(ContextTokens(setup)),
                                        "-b",
                                        std::to_string(setup.batch_tokens),
                                        "-ub",
                                        std::to_string(setup.micro_batch_tokens),
                                        "-npp",
                                        std::to_string(setup.prompt_tokens),
                                        "-ntg",
                                        std::to_string(setup.output_tokens),
                                        "-npl",
                                        Joined(setup.sequences),
                                        "-fa",
                                        setup.flash_attention,
                                        "--output-format",
                                        "jsonl"};
  if (setup.unified) arguments.push_back("-kvu");
  if (setup.shared_prompt) arguments.push_back("-pps");

  std::vector<BatchedBenchResult> results;
  // Nothing else reads the environment meanwhile: these programs have one thread.
  if (setup.exact) setenv("GGML_CPU_EXACT", "1", 1);
  const std::string text_output = RunProgram(arguments);
  unsetenv("GGML_CPU_EXACT");
  std::stringstream output(text_output);
  for (std::string text; std::getline(output, text);) {
    if (text.empty() || text.front() != '{') continue;
    const nlohmann::json line = nlohmann::json::parse(text);
    results.push_back({line.at("pl").get<int32_t>(), line.at("t_pp").get<double>(),
                       line.at("t_tg").get<double>(), line.at("speed_pp").get<double>(),
                       line.at("speed_tg").get<double>()});
  }
  if (results.size() != setup.sequences.size()) {
    throw std::runtime_error(setup.program + ": " + std::to_string(results.size()) +
                             " results for " + std::to_string(setup.sequences.size()) +
                             " batch sizes");
  }
  return results;
}

}  // namespace halo::bench
