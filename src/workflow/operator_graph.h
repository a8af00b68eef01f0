#pragma once

#include <cstddef>
#include <vector>

#include "workflow/operator_keys.h"

namespace halo {

/// How the operators of a file hang together. Positions are those in the file.
struct OperatorGraph {
  std::vector<std::vector<size_t>> inputs;     ///< in `input_ops` order
  std::vector<std::vector<size_t>> consumers;  ///< ascending
  std::vector<size_t> order;  ///< topological, ties by place in the file; short if there are cycles
  std::vector<int32_t> depth;  ///< edges on the longest path from an operator without inputs
  std::vector<bool> is_start;
  std::vector<bool> is_end;
  std::vector<size_t> end_operators;  ///< in `end_ops` order
};

/// Connects the operators and checks the whole: unknown and self references, `input_ops` against
/// `output_ops`, start and end operators, cycles (each named once). Faults go to the diagnostics.
OperatorGraph ConnectOperators(const WorkflowDraft& workflow, DiagnosticList& diagnostics);

}  // namespace halo
