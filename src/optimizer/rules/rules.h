#pragma once

#include "optimizer/rule.h"

namespace halo {

/// Operators from which no output and no write follows are not run.
class UnusedOperators final : public Rule {
 public:
  const char* name() const override { return "unused_operators"; }
  const char* what() const override { return "operators that no output needs are not run"; }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// An operator waits for what it reads, not for all that the workflow puts before it.
class TightDependencies final : public Rule {
 public:
  const char* name() const override { return "tight_dependencies"; }
  const char* what() const override { return "operators wait only for what they read"; }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// What only operators with conditions read waits for these conditions and is run only where one of
/// them holds. Not for a tool that would start later for it: tools wait, they do not compute.
class GuardsFirst final : public Rule {
 public:
  const char* name() const override { return "guards_first"; }
  const char* what() const override {
    return "conditions are asked before what only they let be read is run";
  }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// `prompt_layout: auto`: of the operators of one model that read the same row prompt, either all
/// put it first, so that it is computed once a row, or all put their instructions first, so that
/// these are computed once a run: whichever leaves fewer tokens to prefill.
class ChoosePromptLayout final : public Rule {
 public:
  const char* name() const override { return "prompt_layout"; }
  const char* what() const override {
    return "prompt_layout: auto becomes what leaves fewer tokens to prefill";
  }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// Operators that ask the same of equal rows share their calls (contract 4), in one workflow or in
/// several of a batch. In topological order with signatures made of signatures, so that equal
/// operators over equal ones are found in one pass (Helium's merge, made before any merge is done,
/// finds the first layer only).
class EqualOperators final : public Rule {
 public:
  const char* name() const override { return "equal_operators"; }
  const char* what() const override { return "operators that ask the same share their calls"; }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// Operators that no row's value reaches are called once.
class ConstantOperators final : public Rule {
 public:
  const char* name() const override { return "constant_operators"; }
  const char* what() const override { return "operators that look at no row are called once"; }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// Operators of one model and adapter whose prompts begin alike, values of the row and answers
/// included, are put into groups, groups within groups (PromptSharing): what they share is computed
/// once for each different value, not once for each operator.
class PrefixGroups final : public Rule {
 public:
  const char* name() const override { return "prefix_groups"; }
  const char* what() const override {
    return "operators whose prompts begin alike share that part's KV";
  }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// Where each call's prompt begins, after what the author wrote, with a value that no other row
/// has, and no other operator's prompt goes on with that value either, nobody will ask for the KV
/// of that value again. It is kept only as far as other prompts turn out to begin alike, which
/// saves copies and memory.
class LonePrompts final : public Rule {
 public:
  const char* name() const override { return "lone_prompts"; }
  const char* what() const override {
    return "KV of prompts that no other begins like is not kept";
  }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

/// [sources][operators] The place of each operator among those of its source, by upward rank (see
/// OrderByUrgency) under the plan's estimates.
std::vector<std::vector<int32_t>> OrdersByUrgency(const std::vector<OptimizerSource>& sources,
                                                  const PhysicalPlan& plan);

/// Within a block of rows: tools first, since they take no engine and others wait for them; then by
/// upward rank, the time of the longest chain that an operator begins (HEFT: Topcuoglu, Hariri and
/// Wu 2002). Ranks within a tenth of each other count as equal and leave the workflow's order.
class OrderByUrgency final : public Rule {
 public:
  const char* name() const override { return "urgent_first"; }
  const char* what() const override {
    return "of independent work, tools and what begins the longest chain go first";
  }
  std::vector<std::string> Apply(OptimizerState& state) const override;
};

}  // namespace halo
