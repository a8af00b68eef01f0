#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "workflow/workflow.h"

namespace halo {

/// Position of a model in LogicalPlan::models.
using ModelIndex = int32_t;
inline constexpr ModelIndex kNoModel = -1;  ///< of tools
/// Position of an adapter in LogicalPlan::adapters; kNoAdapter: the model as it is.
using AdapterIndex = int32_t;
inline constexpr AdapterIndex kNoAdapter = -1;

/// A LoRA adapter on top of one of the plan's models.
struct LogicalAdapter {
  ModelIndex model = 0;
  LoraSpec lora;

  friend bool operator==(const LogicalAdapter&, const LogicalAdapter&) = default;
};

/// One operator of the plan: what the workflow says, with every choice made.
struct LogicalNode {
  OperatorIndex op = 0;
  ModelIndex model = kNoModel;
  AdapterIndex adapter = kNoAdapter;
  PromptLayout layout = PromptLayout::kInstructionFirst;  ///< never kAuto

  /// Operators whose outputs it reads or whose being skipped skips it: only their failure keeps it
  /// from running. The same whatever is optimized.
  std::vector<OperatorIndex> inputs;
  /// Operators that end before it begins: `inputs`, what else the workflow declares, and what the
  /// conditions of `wanted_by` look at.
  std::vector<OperatorIndex> waits_for;
  /// Something that a row shows or writes depends on it. Rows do not count what others use, nor
  /// fail by them.
  bool needed = true;
  bool shown = true;     ///< a row shows it, or it writes; a property of the workflow, as `needed`
  bool removed = false;  ///< it is not run at all; never where it is needed
  /// Operators with conditions: unless one of them goes ahead, the instance is not run, since no
  /// one else reads it. It waits for what these conditions look at. Empty: it is run anyway.
  std::vector<OperatorIndex> wanted_by;
  /// Place among the operators of a block of rows; lower goes first. A permutation.
  int32_t order = 0;

  /// The operator whose KV this one's prompt begins with, row by row: the parent of a conversation,
  /// or of the operators before it the one whose prompt goes on alike furthest, beyond what all
  /// rows have in common. -1: none.
  OperatorIndex kv_source = -1;
  bool kv_source_answer = false;  ///< the source's answer is part of the prefix
  std::string kv_shared;          ///< for people: the prefix, where it is not prompt and answer
  /// Its rows' prompts are not expected to begin like any other, beyond what the author wrote:
  /// their KV is not worth keeping any further.
  bool lone_prompts = false;
  int32_t kv_consumers = 0;  ///< operators whose kv_source is this one
  bool keep_answer = false;  ///< one of them continues the conversation
};

/// The plan before rows are known: values in topological order, referred to by index.
struct LogicalPlan {
  const Workflow* workflow = nullptr;    ///< outlives the plan
  std::vector<ModelRequest> models;      ///< distinct
  std::vector<LogicalAdapter> adapters;  ///< distinct
  std::vector<LogicalNode> nodes;        ///< [operators], same order

  const LogicalNode& at(OperatorIndex op) const { return nodes[static_cast<size_t>(op)]; }
  const Operator& operator_of(OperatorIndex op) const { return workflow->at(op); }
};

/// Makes the plan. `prompt_layout: auto` becomes context_first where at least two operators of one
/// model and adapter read the same row prompt, for then its tokens are computed once; else
/// instruction_first. `all_outputs`: rows show what every operator said.
LogicalPlan MakeLogicalPlan(const Workflow& workflow, bool all_outputs = false);

/// Says anew who begins with whose KV, after layouts have changed or operators were removed.
void LinkKvSources(LogicalPlan& plan);

/// GuardsOfOperators of the plan's workflow, for what its rows show.
std::vector<std::vector<OperatorIndex>> GuardsOf(const LogicalPlan& plan);

/// Throws by HALO_CHECK where a plan contradicts itself: order, indices, counts of consumers.
void VerifyLogicalPlan(const LogicalPlan& plan);

/// The plan as a person reads it (EXPLAIN), one operator a block.
std::string PrintLogicalPlan(const LogicalPlan& plan);

/// One operator's block of it.
std::string PrintOperator(const LogicalPlan& plan, const LogicalNode& node);
/// Whom an operator asks: its model's name, a connection, a host, a function.
std::string TargetOf(const LogicalPlan& plan, OperatorIndex op);

/// Which element of a list-valued row prompt an operator gets: its depth, the last one repeating.
size_t RowPromptElement(const Operator& op, size_t elements);

const char* HistoryName(History history);
const char* PromptLayoutName(PromptLayout layout);

}  // namespace halo
