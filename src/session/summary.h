#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/executor.h"
#include "runtime/worker_fleet.h"
#include "session/replanning.h"

namespace halo {

struct SummaryInput {
  const RunReport* report = nullptr;
  int64_t rows_total = -1;
  double elapsed_s = 0.0;               ///< of execution, models loaded
  std::optional<double> lower_bound_s;  ///< by the machine's profile; none without one
  double setup_s = 0.0;                 ///< reading, checking and loading before it
  uint64_t seed = 0;
  std::string planner;
  std::vector<std::string> workflows;  ///< [sources] names
  bool deterministic = false;          ///< every engine computed exactly
  struct EngineOfWorker {
    int32_t worker = 0;
    std::string model;
    EngineStatistics counters;
  };
  std::vector<EngineOfWorker> engines;
  FleetStatistics fleet;
  std::string larger_budget;  ///< `--budget` that lets a run go on which its budget has stopped
  std::vector<Replanning> replannings;
};

/// The object of `--summary-json` (contract 2).
nlohmann::ordered_json SummaryJson(const SummaryInput& input);

}  // namespace halo
