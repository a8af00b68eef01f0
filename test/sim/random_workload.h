#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "workflow/rows.h"

namespace halo::test {

/// A model of a workload: costs are made of its sizes (DefaultProfile).
struct WorkloadModel {
  std::string name;
  int64_t weights_bytes = 0;
  int64_t kv_token_bytes = 0;
};

/// A workflow with rows and the machines that are to run it.
struct Workload {
  std::string yaml;
  std::vector<Row> rows;
  std::vector<WorkloadModel> models;
  int32_t workers = 1;
  int64_t memory_bytes = 0;  ///< of each worker
  int64_t host_bytes = 0;
  int32_t sequences = 8;
  int64_t window = 65536;
  int64_t rows_side_by_side = 8;
  bool input_order = true;
  bool moves_calls = false;  ///< SimulatedFleetOptions
  std::string planner = "list";
  uint64_t seed = 0;
};

/// Another one for each seed: 1 to 12 operators of 1 to 3 models, in either dialect, some with
/// tools, conversations, samples, schemas and equal calls; 0 to 40 rows; 1 to 64 workers with room
/// for all models and many requests, or hardly for one of each.
Workload MakeWorkload(uint64_t seed);

/// A graph of so many operators, each of which reads up to three earlier ones.
Workload MakeLargeGraph(int32_t operators, int64_t rows, uint64_t seed);

}  // namespace halo::test
