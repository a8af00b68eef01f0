#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/executor.h"
#include "sim/random_workload.h"

namespace halo::test {

/// How a workload was played.
struct Played {
  std::string rows;  ///< a line each, by id
  RunReport report;
  double elapsed_s = 0.0;
  int64_t steps = 0, loads = 0, calls = 0, tool_calls = 0;
  int64_t reused_tokens = 0, spills = 0, moved = 0;
  int32_t workers_used = 0;
  int64_t most_overtaken = 0;  ///< by how many behind it in line a request was passed, while its
                               ///< model had a sequence for it
};

/// Plans the workload and runs it through the real scheduler on simulated workers. While it runs
/// every step is looked at, and what is wrong is a failure of the test (GoogleTest):
/// - memory: weights, running requests at their longest and what is kept fit into the worker's;
///   what it keeps outside fits into host memory; no more sequences than there are
/// - a worker does one thing at a time, and something as long as anything waits for it
/// - a pass has no more tokens than it may
/// - a call begins only when all that its operator waits for has ended for its row
/// - every call begins, and is passed by no more of those behind it than the policy admits
///   (MostOvertaken)
/// - queues in front of engines and tools stay within their bounds
/// - one outcome a row, and the identities of contract 2
Played Play(const Workload& workload, bool naive);

/// By how many requests behind it in line one may be passed while its model has a sequence free.
///
/// A request that waits has one of these reasons, for which a worker lets others pass, or not:
/// - memory: none behind it begins
/// - its model is not there, or a prefix of its prompt is on its way: others pass it, until
///   kMostPassedPerSequence times the sequences have; then none behind it begins
/// - its model runs as many requests as it has sequences. Others of its model cannot begin either.
///   Those of other models can, without limit, while long answers of its own model go on; they use
///   sequences that it could not have, and models take turns pass by pass. These are not counted.
/// Requests ahead of it in line do not pass it. A request can have one reason after another and be
/// counted under each, so the limit holds for all of them together: it is of the request.
int64_t MostOvertaken(const Workload& workload);

}  // namespace halo::test
