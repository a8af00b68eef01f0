#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "workflow/workflow.h"

namespace halo {

/// What one operator looks at: in its prompt or parameters, its limits and its conditions.
struct OperatorReads {
  std::set<std::string> columns;         ///< of the row, by name
  bool whole_row = false;                ///< or all of it, where a template computes what it reads
  std::vector<OperatorIndex> producers;  ///< whose outputs it may look at, ascending

  bool reads_row() const { return whole_row || !columns.empty(); }
};

/// `prompt_column`: of the `ops` dialect. Careful: what cannot be told from the text counts as
/// read.
OperatorReads ReadsOf(const Workflow& workflow, OperatorIndex op, const std::string& prompt_column);

/// Operators that have to end before `op` can: those it reads, those that its `inputs` declare, and
/// those whose being skipped skips it. What only an edge, or a query that nobody reads, puts before
/// it is left out, but in workflows that write: there the declared order holds. Ascending.
std::vector<OperatorIndex> TightInputs(const Workflow& workflow, OperatorIndex op);

/// Whose outputs an operator's conditions (`when`, `until`) look at, ascending.
std::vector<OperatorIndex> ConditionInputs(const Operator& op);

/// [operators] true for what a row shows, and what writes: with what these read, NeededOperators.
std::vector<bool> ShownOperators(const Workflow& workflow, bool all_outputs);

/// [operators] For one that only operators with conditions read, directly or through others: the
/// nearest of these on every way to what a row shows. Unless a condition of one of them holds, no
/// row needs it. Empty: it is needed whatever conditions say, or by nobody.
std::vector<std::vector<OperatorIndex>> GuardsOfOperators(const Workflow& workflow,
                                                          bool all_outputs);

/// True if an instance may be skipped: by `when`, a loop that is over, its own failure, or an input
/// that was. [operators]
std::vector<bool> MaybeSkipped(const Workflow& workflow);

/// [operators] true for what a row's result depends on: end operators, writes, and whatever these
/// read. The rest can be left out. `all_outputs`: every operator is an output.
std::vector<bool> NeededOperators(const Workflow& workflow, bool all_outputs);

}  // namespace halo
