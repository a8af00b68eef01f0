#include "bench/workload_simulation.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/error.h"
#include "optimizer/cost_profile.h"
#include "optimizer/planners/planners.h"

namespace halo::bench {
namespace {

/// As W1 to W6 name them.
constexpr const char* kModels[] = {"openai/gpt-oss-20b", "Qwen/Qwen3-14B", "Qwen/Qwen3-32B"};
constexpr size_t kModelCount = std::size(kModels);

}  // namespace

WorkloadCosts ReadWorkloadCosts(const std::string& file) {
  std::ostringstream text;
  std::ifstream stream(file, std::ios::binary);
  text << stream.rdbuf();
  if (!stream) throw Error(ErrorCode::kUsage, "--profile " + file + ": cannot be read");
  const CostProfile profile = ReadCostProfile(text.str(), file);
  WorkloadCosts costs;
  costs.label = std::filesystem::path(file).stem().string();
  costs.file = file;
  std::vector<int64_t> weights;
  for (const ModelProfile& model : profile.models) {
    costs.models.push_back(model.model);
    weights.push_back(model.weights_bytes);
  }
  if (weights.size() == 1) weights.assign(kModelCount, weights.front());
  const auto has = [&](const char* name) {
    return std::find(costs.models.begin(), costs.models.end(), name) != costs.models.end();
  };
  const bool fits =
      costs.models.size() == 1 || (costs.models.size() == kModelCount &&
                                   std::all_of(std::begin(kModels), std::end(kModels), has));
  if (!fits)
    throw Error(ErrorCode::kUsage,
                "--profile " + file + ": expected one model, or those of W1 to W6 by name");
  std::sort(weights.begin(), weights.end());
  for (const int64_t bytes : weights) costs.loose_memory_bytes += 2 * bytes;
  costs.tight_memory_bytes = weights[0] + weights[1] - 1;
  return costs;
}

SimulationOptions SimulationOf(const std::string& folder, const std::string& rows_folder,
                               const std::string& workload, const WorkloadCosts& costs,
                               int32_t workers, int64_t memory_bytes) {
  SimulationOptions options;
  options.run.inputs = {{folder + "/" + workload + ".yaml",
                         rows_folder + "/" + workload.substr(0, workload.find('_')) + ".jsonl"}};
  options.run.profile_file = costs.file;
  options.run.use_history = false;
  options.run.workers = workers;
  options.run.worker_memory_bytes = memory_bytes;
  if (costs.models.size() == 1) {
    for (const char* model : kModels) options.costs_as[model] = costs.models.front();
  }
  return options;
}

SchedulingProblem PlacementProblemOf(SimulationOptions options) {
  SchedulingProblem caught;
  options.place = [&caught](const SchedulingProblem& problem) {
    caught = problem;
    return PlanByList(problem, {});
  };
  Simulate(options);
  return caught;
}

}  // namespace halo::bench
