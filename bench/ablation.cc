// ablation: what each rule and the planner save on W1 to W6, in the virtual time of simulation.
//
//   ablation --profile FILE --work FOLDER [--workflows FOLDER --rows FOLDER] [--workers 4] [--seed
//   N]
//
// Runs each workload as `halo simulate` does, on workers that hold one model at a time: once for
// its history (kept in --work), from which all others are planned; with everything on and dp, with
// one rule off, with all off, with every other planner and baseline, and naively. Planners are
// bounded by states instead of seconds, so that the same figures come out anywhere, however busy
// the machine. Prints one JSON object.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/baseline_planners.h"
#include "bench/workload_simulation.h"
#include "optimizer/planners/planners.h"
#include "optimizer/rule.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string workflows = "workflows", rows = "workflows/rows", profile, work;
  int32_t workers = 4;
  int64_t most_states = 200'000;
  uint64_t seed = 0;
};

/// What is different from everything on.
struct Setting {
  std::string kind, name;  ///< "rule", "planner", ...
  std::set<std::string> rules_off;
  std::string planner = "dp";
  bool naive = false;
};

std::vector<Setting> AllSettings() {
  std::vector<Setting> settings{{.kind = "all", .name = "everything on"}};
  Setting bare{.kind = "rule", .name = "all rules"};
  for (const auto& rule : AllRules()) {
    settings.push_back({.kind = "rule", .name = rule->name(), .rules_off = {rule->name()}});
    bare.rules_off.insert(rule->name());
  }
  settings.push_back(bare);
  std::vector<std::string> planners{"beam", "list"};
  for (const std::string& name : BaselineNames()) planners.push_back(name);
  for (const std::string& name : planners)
    settings.push_back({.kind = "planner", .name = name, .planner = name});
  settings.push_back({.kind = "naive", .name = "naive", .naive = true});
  return settings;
}

bool IsBaseline(const std::string& name) {
  const std::vector<std::string> names = BaselineNames();
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Planned and answered by `history` where there is one.
SimulationReport SimulateSetting(const Flags& flags, const WorkloadCosts& costs,
                                 const std::string& workload, const Setting& setting,
                                 const std::string& history, double* planned_s) {
  SimulationOptions options = SimulationOf(flags.workflows, flags.rows, workload, costs,
                                           flags.workers, costs.tight_memory_bytes);
  options.run.seed = flags.seed;
  options.run.rules_off = setting.rules_off;
  options.run.naive = setting.naive;
  // What is asked is what the plan itself is worth.
  options.run.replan = false;
  options.moves_calls = false;
  options.run.history_file = history;
  options.run.use_history = !history.empty();
  options.place = [&](const SchedulingProblem& problem) {
    Schedule schedule =
        IsBaseline(setting.planner)
            ? PlanByBaseline(setting.planner, problem, flags.seed)
            : PlanByName(setting.planner, problem, {.most_states = flags.most_states});
    *planned_s = schedule.makespan_s;
    return schedule;
  };
  return Simulate(options);
}

/// The file that a first run's history lies in.
std::string HistoryOf(const Flags& flags, const WorkloadCosts& costs, const std::string& workload) {
  double planned_s = 0.0;
  const SimulationReport first =
      SimulateSetting(flags, costs, workload, AllSettings().front(), "", &planned_s);
  const std::string path = fmt::format("{}/{}-{}.history.json", flags.work, workload, costs.label);
  std::ofstream file(path, std::ios::binary);
  file << first.history.ToJson();
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
  return path;
}

Json Measure(const Flags& flags, const WorkloadCosts& costs, const std::string& workload,
             const Setting& setting, const std::string& history) {
  double planned_s = 0.0;
  const SimulationReport report =
      SimulateSetting(flags, costs, workload, setting, history, &planned_s);
  if (report.rows_failed > 0)
    throw std::runtime_error(workload + ": " + report.first_failures.front());
  int64_t calls = 0, tool_calls = 0, loads = 0;
  for (const SimulatedOperatorReport& op : report.operators)
    (op.model.empty() ? tool_calls : calls) += op.calls;
  for (const SimulatedWorkerReport& worker : report.workers) loads += worker.loads;
  return {{"workload", workload},
          {"kind", setting.kind},
          {"setting", setting.name},
          {"rows", report.rows},
          {"calls", calls},
          {"tool_calls", tool_calls},
          {"prompt_tokens", report.prompt_tokens},
          {"prefilled_tokens", report.prompt_tokens - report.reused_tokens},
          {"output_tokens", report.output_tokens},
          {"busy_s", report.busy_s},
          {"loads", loads},
          {"load_s", report.load_s},
          {"planned_load_s", report.estimated_load_s},
          {"planned_busy_s", report.estimated_busy_s},
          {"elapsed_s", report.elapsed_s},
          {"planned_s", planned_s}};
}

void Run(const Flags& flags) {
  const WorkloadCosts costs = ReadWorkloadCosts(flags.profile);
  Json lines = Json::array();
  for (const char* workload : kWorkloads) {
    const std::string history = HistoryOf(flags, costs, workload);
    for (const Setting& setting : AllSettings())
      lines.push_back(Measure(flags, costs, workload, setting, history));
  }
  std::cout << Json{{"profile", costs.label},
                    {"workers", flags.workers},
                    {"worker_memory_bytes", costs.tight_memory_bytes},
                    {"most_states", flags.most_states},
                    {"seed", flags.seed},
                    {"lines", std::move(lines)}}
                   .dump(1)
            << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app{"What each rule and the planner save on W1 to W6, simulated"};
  halo::bench::Flags flags;
  app.add_option("--workflows", flags.workflows, "folder of W1 to W6");
  app.add_option("--rows", flags.rows, "folder of their rows");
  app.add_option("--profile", flags.profile, "what models cost")->required();
  app.add_option("--work", flags.work, "folder for histories")->required();
  app.add_option("--workers", flags.workers, "simulated workers");
  app.add_option("--most-states", flags.most_states, "that a planner looks at");
  app.add_option("--seed", flags.seed, "of answers, latencies and planners that draw");
  CLI11_PARSE(app, argc, argv);
  try {
    halo::bench::Run(flags);
  } catch (const std::exception& error) {
    fmt::print(stderr, "ablation: {}\n", error.what());
    return 1;
  }
  return 0;
}
