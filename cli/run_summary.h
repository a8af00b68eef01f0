#pragma once

#include <string>
#include <vector>

#include "halo/session.h"

namespace halo::cli {

/// The summary a person reads after a run, from the summary's JSON.
std::string DescribeSummary(const std::string& summary_json);

/// One line: how many rows failed alike, where, and what was said of one of them.
std::string DescribeFailure(const FailureGroup& group);

/// How a run that did not come to its end was stopped, in a line; "" for one that did.
std::string DescribeEnd(const RunOutcome& outcome);

/// The command that goes on from here, as a shell takes it; "" where nothing is left to do. Of a
/// run that is kept in `run_folder`: what goes on with it, or tries its failed rows again. Else
/// (""): what shows the failed rows, or the same run again. `arguments`: the command line of this
/// run.
std::string NextCommand(const RunOutcome& outcome, const std::string& run_folder,
                        const std::vector<std::string>& arguments);

}  // namespace halo::cli
