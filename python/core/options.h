#pragma once

#include <string>
#include <vector>

#include "session/simulated_run.h"

namespace halo::python {

/// Reads the options of a run as the package gives them: one JSON object, with the names of
/// docs/python.md. Throws Error(kUsage) for names that are none (with the one that was probably
/// meant) and for values of another kind.
///
/// The options of a simulation are those of a run and a few of its own. With `resume` they come on
/// top of what the run in `run_dir` was asked for.
SimulationOptions ReadOptions(const std::string& json);

/// All names, in the order of the table.
std::vector<std::string> OptionNames();

}  // namespace halo::python
