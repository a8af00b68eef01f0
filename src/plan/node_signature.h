#pragma once

#include <string>
#include <vector>

#include "base/hash.h"
#include "plan/logical_plan.h"
#include "plan/operator_reads.h"

namespace halo {

/// What an operator does, by content: two operators with equal signatures ask the same of rows
/// whose values are equal in the columns they look at, in one workflow or in two. Made of
/// everything that reaches the answer (model, adapter, templates, sampling, schema; statement,
/// parameters, address), of the signatures of what it reads, and of when it is skipped; not of its
/// own name, nor of what its outputs are called.
struct OperatorIdentity {
  Signature signature;
  /// Columns of the row that reach it, directly or through what it reads.
  OperatorReads reaches;
  /// Equal rows may give it different outputs: answers are drawn, or the tool is volatile, writes
  /// or may not be asked once for all; or something that it reads is so.
  bool varies = false;
  /// Every instance is a call of its own: what varies, and functions, which cost less than sharing.
  bool each_row = false;
  /// The same for all rows: it is called once.
  bool is_constant() const { return !each_row && !reaches.reads_row(); }
};

/// [operators]. `prompt_column` as for ReadsOf. Pure.
std::vector<OperatorIdentity> IdentifyOperators(const LogicalPlan& plan,
                                                const std::string& prompt_column);

/// True if equal calls of the operator may share one answer (contract 4).
bool MayShare(const Operator& op);

}  // namespace halo
