#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "session/simulated_run.h"

namespace halo::bench {

/// The evaluation workloads: stems of their files in workflows/.
inline constexpr const char* kWorkloads[] = {"w1_imdb_diamond",       "w2_imdb_triplechain",
                                             "w3_finewiki_longchain", "w4_finewiki_bridge",
                                             "w5_tpch_trident",       "w6_tpch_fanout"};

/// What the workloads' three models cost, and how much memory is a little and a lot for them.
struct WorkloadCosts {
  std::string label;  ///< the file's stem
  std::string file;   ///< a cost profile
  /// Of the profile's models; one: all three cost what it does. They stay three: loaded one by one,
  /// with nothing in common.
  std::vector<std::string> models;
  int64_t loose_memory_bytes = 0;  ///< holds all weights, and KV of as many bytes again
  /// One byte less than the weights of the two smallest: a worker holds one model at a time, and KV
  /// in what is left.
  int64_t tight_memory_bytes = 0;
};

/// Throws Error where the file is no profile, or does not have one model or each of the three.
WorkloadCosts ReadWorkloadCosts(const std::string& file);

/// How `halo simulate` would run a workload without history: workflow `folder`/`workload`.yaml over
/// the rows of `rows_folder`/wN.jsonl.
SimulationOptions SimulationOf(const std::string& folder, const std::string& rows_folder,
                               const std::string& workload, const WorkloadCosts& costs,
                               int32_t workers, int64_t memory_bytes);

/// The placement problem that the optimizer makes of such a run: caught on its way to the planner.
SchedulingProblem PlacementProblemOf(SimulationOptions options);

}  // namespace halo::bench
