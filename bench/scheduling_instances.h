#pragma once

#include <cstdint>
#include <string>

#include "optimizer/planners/scheduling_problem.h"

namespace halo {

/// What a random problem is like. All else is drawn: a DAG of calls with one or two parents mostly,
/// lags of 1, 0.25 and 0.05, tools in between, some calls that go on from a parent's KV, work of
/// fixed + variable / shards seconds, loads of a tenth to a whole typical call, some models loaded
/// before.
struct InstanceShape {
  int32_t calls = 6;
  int32_t workers = 2;
  int32_t models = 2;
  int32_t most_shards = 2;
  bool unequal = false;       ///< workers differ in speed, memory and load times
  bool tight_memory = false;  ///< a worker holds the largest model, and seldom a second one
  bool tools = true;
};

std::string ToString(const InstanceShape& shape);

/// The same for the same seed, everywhere.
SchedulingProblem RandomInstance(const InstanceShape& shape, uint64_t seed);

/// Shape `index` of the gap benchmark: 4 to 10 calls, 1 to 4 workers, every third unequal, 1 to 4
/// models, every other one with tight memory.
InstanceShape GapShape(int32_t index);

}  // namespace halo
