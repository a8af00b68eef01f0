#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

/// How others place operators, as schedules of our problem, for comparison. What a rule leaves open
/// is filled in kindly: shards begin as soon as they may (but for the barriers of levels and
/// opwise), a worker drops what it needs latest, KV is found where it happens to be.
///
/// - greedy: in topological order, each to the worker of least work + load + 2 s a call already
/// there.
/// - minswitch: to the least loaded worker that ran the same model last, else the least loaded that
/// ran
///   nothing, else round robin.
/// - round-robin: in topological order to one worker after the other.
/// - levels: by depth in the graph, each level longest first to the least loaded worker; a level
/// begins
///   when the one before has ended.
/// - colocate-parents: where its first parent ran; without one, to the least loaded worker.
/// - data-parallel: every call in as many shards as it can be.
/// - opwise: the same, and each call begins when the one before has ended.
/// - random: in a random topological order to a random worker.
std::vector<std::string> BaselineNames();

Schedule PlanByBaseline(const std::string& name, const SchedulingProblem& problem, uint64_t seed);

}  // namespace halo
