// baseline_plan: the plan of a batch in which a baseline (baseline_planners.h) says which worker
// runs what, for `halo run --plan`: Halo's own scheduler with the placements of others.
//
//   baseline_plan --baseline NAME --workflow FLOW.yaml --rows ROWS.jsonl --model NAME=FILE ...
//                 [--threads N] [--worker-memory BYTES] > plan.json
//
// Everything else is as `halo run` would plan it here: rules, workers, costs.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "base/error.h"
#include "bench/baseline_planners.h"
#include "halo/session.h"

namespace halo::bench {
namespace {

int Main(int argc, char** argv) {
  CLI::App app("A plan with the placements of a baseline");
  std::string baseline;
  RunOptions options;
  RunOptions::Input& input = options.inputs.emplace_back();
  std::vector<std::string> models;
  app.add_option("--baseline", baseline, "Who says which worker runs what")
      ->required()
      ->check(CLI::IsMember(BaselineNames()));
  app.add_option("--workflow", input.workflow, "Workflow file")->required();
  app.add_option("--rows", input.rows, "Rows")->required();
  app.add_option("--model", models, "NAME=FILE, as of halo run")->required();
  app.add_option("--threads", options.threads, "As of halo run");
  app.add_option("--worker-memory", options.worker_memory_bytes, "Bytes, as of halo run");
  CLI11_PARSE(app, argc, argv);
  for (const std::string& model : models) {
    const size_t equals = model.find('=');
    if (equals == std::string::npos) {
      fmt::print(stderr, "baseline_plan: --model {}: expected NAME=FILE\n", model);
      return 2;
    }
    options.models[model.substr(0, equals)] = model.substr(equals + 1);
  }
  options.workers = 0;
  options.use_history = false;
  // Several workers are planned for where engines have processes of their own.
  options.engine_program = "/proc/self/exe";
  options.allow = {"net", "files"};
  options.place = [&](const SchedulingProblem& problem) {
    return PlanByBaseline(baseline, problem, options.seed);
  };
  fmt::print("{}\n", Session(options).Explain("json"));
  return 0;
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  try {
    return halo::bench::Main(argc, argv);
  } catch (const halo::Error& error) {
    fmt::print(stderr, "baseline_plan: {}\n", error.what());
    return 1;
  }
}
