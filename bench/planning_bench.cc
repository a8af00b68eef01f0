// planning_bench: what planning costs, tokenization apart (a token is taken to be four bytes).
//
//   workloads   the shipped W1 to W6 over --rows rows, for 1, 2 and 4 workers: seconds of
//               Optimize, medians
//   rows        a workflow of 20 operators over 10 to 1,000,000 rows: gathering of row statistics,
//               planning, peak memory
//   operators   random graphs of 10 to 1,000 operators over 1,024 rows, for 1 and 4 workers
//
// Prints one JSON object.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/random.h"
#include "optimizer/optimizer.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

double NowSeconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double PeakMemoryBytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024.0;
  }
  throw std::runtime_error("/proc/self/status has no VmHWM");
}

struct Planned {
  double statistics_s = 0.0, planning_s = 0.0;
  size_t operators = 0;
  std::string planner;
};

/// One planning, from a workflow that is read anew, since plans are rewritten.
Planned PlanOnce(const Workflow& workflow, const std::vector<Json>& rows, int64_t count,
                 int32_t workers) {
  LogicalPlan plan = MakeLogicalPlan(workflow);
  const std::string column = workflow.is_graph ? "" : "prompt";
  const double start_s = NowSeconds();
  RowStatistics statistics(ColumnSetsOf(plan, column));
  for (int64_t i = 0; i < count; ++i) statistics.Add(rows[static_cast<size_t>(i) % rows.size()]);
  const double counted_s = NowSeconds();
  std::vector<OptimizerSource> sources(1);
  sources[0].plan = &plan;
  sources[0].prompt_column = column;
  sources[0].rows = &statistics;
  for (const ModelRequest& model : plan.models) {
    ModelFacts facts;
    facts.name = facts.digest = model.name;
    constexpr int64_t kWeightsBytes = int64_t{1} << 30, kKvTokenBytes = 1 << 15;
    facts.profile = DefaultProfile(model.name, kWeightsBytes, kKvTokenBytes);
    sources[0].models.push_back(std::move(facts));
  }
  OptimizerOptions options;
  options.workers = workers;
  options.worker_memory_bytes = int64_t{64} << 30;
  options.now_s = NowSeconds;
  const PhysicalPlan physical = Optimize(sources, nullptr, options);
  return {counted_s - start_s, NowSeconds() - counted_s, plan.nodes.size(), physical.planner};
}

Json Measure(const Workflow& workflow, const std::vector<Json>& rows, int64_t count, int repeats,
             int32_t workers = 1) {
  std::vector<Planned> all;
  for (int i = 0; i < repeats; ++i) all.push_back(PlanOnce(workflow, rows, count, workers));
  const auto median = [&](double Planned::*value) {
    std::vector<double> values;
    for (const Planned& one : all) values.push_back(one.*value);
    std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2),
                     values.end());
    return values[values.size() / 2];
  };
  return {{"operators", all.front().operators},
          {"rows", count},
          {"workers", workers},
          {"planner", all.front().planner},
          {"statistics_s", median(&Planned::statistics_s)},
          {"planning_s", median(&Planned::planning_s)}};
}

std::vector<Json> ReadRows(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) rows.push_back(Json::parse(line));
  if (rows.empty()) throw std::runtime_error(path + " has no rows");
  return rows;
}

/// `count` operators on three models, each of at most three earlier ones within twenty places.
Workflow RandomWorkflow(size_t count, uint64_t seed) {
  std::string nodes = "ops:\n", starts, ends;
  std::vector<bool> is_read(count, false);
  uint64_t draw = 0;
  const auto below = [&](size_t most) {
    return static_cast<size_t>(UniformDraw(seed, ++draw) * static_cast<double>(most));
  };
  for (size_t i = 0; i < count; ++i) {
    std::vector<size_t> inputs;
    for (size_t k = i == 0 ? 0 : below(4); k > 0; --k) {
      const size_t input = i - 1 - below(std::min<size_t>(i, 20));
      if (std::find(inputs.begin(), inputs.end(), input) == inputs.end()) inputs.push_back(input);
    }
    std::string list;
    for (const size_t input : inputs) {
      is_read[input] = true;
      list += (list.empty() ? "o" : ", o") + std::to_string(input);
    }
    nodes += "  o" + std::to_string(i) + ": {model: m" + std::to_string(below(3)) +
             ", temperature: 0" + (inputs.empty() ? "" : ", history: outputs") +
             ", prompt: \"Step " + std::to_string(i) + " of the work.\"";
    if (inputs.empty()) {
      starts += (starts.empty() ? "o" : ", o") + std::to_string(i);
    } else {
      nodes += ", input_ops: [" + list + "]";
    }
    nodes += "}\n";
  }
  for (size_t i = 0; i < count; ++i) {
    if (!is_read[i]) ends += (ends.empty() ? "o" : ", o") + std::to_string(i);
  }
  return ParseWorkflow("start_ops: [" + starts + "]\nend_ops: [" + ends + "]\n" + nodes,
                       "random.yaml");
}

int Main(int argc, char** argv) {
  CLI::App app{"What planning costs"};
  std::string workflows = "workflows";
  int64_t rows = 1024, most_rows = 1'000'000;
  int repeats = 5;
  app.add_option("--workflows", workflows, "Folder of the shipped workflows");
  app.add_option("--rows", rows, "Rows of each workload");
  app.add_option("--most-rows", most_rows, "Largest batch of the growth over rows");
  app.add_option("--repeats", repeats, "Plannings of each; medians are printed");
  CLI11_PARSE(app, argc, argv);

  Json workloads = Json::array(), by_rows = Json::array(), by_operators = Json::array();
  for (const char* name : {"w1_imdb_diamond", "w2_imdb_triplechain", "w3_finewiki_longchain",
                           "w4_finewiki_bridge", "w5_tpch_trident", "w6_tpch_fanout"}) {
    const Workflow workflow = LoadWorkflow(workflows + "/" + name + ".yaml");
    const auto own = ReadRows(workflows + "/rows/" + std::string(name).substr(0, 2) + ".jsonl");
    for (const int32_t workers : {1, 2, 4}) {
      workloads.push_back(Measure(workflow, own, rows, repeats, workers));
      workloads.back()["workload"] = name;
    }
  }
  const Workflow twenty = RandomWorkflow(20, 1);
  for (int64_t count = 10; count <= most_rows; count *= 10) {
    std::vector<Json> made;
    constexpr int64_t kDifferent = 100'000;
    for (int64_t i = 0; i < std::min(count, kDifferent); ++i)
      made.push_back({{"id", i}, {"prompt", "Is claim number " + std::to_string(i) + " true?"}});
    by_rows.push_back(Measure(twenty, made, count, count > 100'000 ? 1 : repeats));
    by_rows.back()["peak_memory_bytes"] = PeakMemoryBytes();
  }
  for (const size_t count : {10, 30, 100, 300, 1000}) {
    std::vector<Json> made;
    for (int64_t i = 0; i < rows; ++i)
      made.push_back({{"id", i}, {"prompt", "Row " + std::to_string(i)}});
    for (const int32_t workers : {1, 4})
      by_operators.push_back(Measure(RandomWorkflow(count, 7), made, rows, repeats, workers));
  }
  std::cout << Json{{"workloads", workloads}, {"rows", by_rows}, {"operators", by_operators}}.dump(
                   1)
            << "\n";
  return 0;
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) {
  try {
    return halo::Main(argc, argv);
  } catch (const std::exception& error) {
    std::cerr << "planning_bench: " << error.what() << "\n";
    return 1;
  }
}
