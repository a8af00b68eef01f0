#pragma once

#include <cstdint>
#include <optional>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

/// The shortest makespan by trying everything: every set of workers for every task, every order of
/// what is on each worker, every set of models dropped before every shard. No bound, no dominance,
/// no incumbent, none of the planners' code; starts are the longest paths through the order.
/// nullopt where that would be more than `most` combinations.
std::optional<double> ShortestMakespan(const SchedulingProblem& problem, int64_t most);

}  // namespace halo
