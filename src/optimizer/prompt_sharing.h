#pragma once

#include <functional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "plan/node_signature.h"
#include "plan/physical_plan.h"
#include "plan/prompt_tree.h"

namespace halo {

struct OptimizerSource;

/// Which prompts of a batch begin alike: the operators of each model and adapter in a PromptTree,
/// with tokens and counts of different values. What engines share is predicted by it: they look for
/// the longest prefix that anyone has or is computing (TokenTree), so each different one is
/// computed once, by whoever comes first.
class PromptSharing {
 public:
  using NodeIndex = PromptTree::NodeIndex;

  /// `identities`: [sources][operators].
  PromptSharing(const std::vector<OptimizerSource>& sources,
                const std::vector<std::vector<OperatorIdentity>>& identities);

  /// What one operator's prompts are made of, answers aside.
  double known_tokens(size_t position) const { return prompts_[position].known_tokens; }
  const TemplatedPrompt& prompt(size_t position) const { return prompts_[position].prompt; }

  /// The value that an operator's prompts begin with, after what all of them have in common; null:
  /// they have no value that depends on the row.
  const PromptPiece* FirstValue(size_t position) const;
  /// True if no other of `live` ([positions]) may begin with that value.
  bool IsAlone(size_t position, const std::vector<bool>& live) const;

 private:
  friend class SharingPass;
  struct Prompt {
    TemplatedPrompt prompt;  ///< of inference
    NodeIndex end = PromptTree::kNoNode, begin = PromptTree::kNoNode;
    double known_tokens = 0.0;
  };
  struct NodeFacts {
    double known_tokens = 0.0;      ///< of the edge, answers aside
    double different = 1.0;         ///< beginnings up to here
    bool varies = false;            ///< something before it is different for each row
    std::set<std::string> columns;  ///< that it depends on
    bool whole_row = false;
  };

  void CountTokens();
  void CountDifferent(const std::vector<std::vector<OperatorIdentity>>& identities);
  size_t PositionOf(size_t source, OperatorIndex op) const {
    return first_[source] + static_cast<size_t>(op);
  }
  bool IsAnswerOfPromptBefore(NodeIndex node) const;
  NodeIndex FirstOpenNode(size_t position) const;

  const std::vector<OptimizerSource>& sources_;
  std::vector<size_t> first_;      // [sources] position of its first operator
  std::vector<size_t> source_of_;  // [positions]
  std::vector<Prompt> prompts_;    // [positions]
  PromptTree tree_;
  std::vector<PromptTree::NodeIndex> order_;  // parents first
  std::vector<NodeFacts> facts_;              // [nodes]
};

/// One estimate of all operators, in the order of the plan: who comes first computes, and who
/// comes later finds it there.
class SharingPass {
 public:
  explicit SharingPass(const PromptSharing& sharing);

  /// Tokens of what an operator of the same source answers; with all that led to it.
  using AnswerTokens = std::function<double(size_t position, bool with_conversation)>;
  struct Shared {
    double reused_tokens = 0.0;  ///< of a call, from where its own pieces begin
    double source_tokens = 0.0;  ///< of these, from the first value that depends on the row on
  };
  /// The calls of the operator at `position`, ascending. `wider`: beginnings that it has for each
  /// one that the rows of its own source have, where its calls serve other sources too.
  /// `answer_is_kept`: of the operator that a conversation goes on from.
  Shared Add(size_t position, double calls, double wider, const AnswerTokens& answer_tokens,
             const std::function<bool(size_t position)>& answer_is_kept);

  /// Groups of `live` operators ([positions]) whose prompts begin alike, enclosing ones first.
  /// Memory is operators times depth of groups.
  std::vector<PrefixGroup> Groups(const std::vector<bool>& live) const;

 private:
  struct NodeState {
    double tokens = -1.0;  ///< of the edge; less than 0: not known yet
    double covered = 0.0;  ///< share of its beginnings that somebody has
    double calls = 0.0;
    double saved_tokens = 0.0;  ///< that another operator had computed
  };
  PrefixGroup GroupAt(PromptSharing::NodeIndex node, std::vector<size_t> operators,
                      int32_t parent_group, PromptSharing::NodeIndex parent) const;
  std::vector<std::vector<size_t>> MembersBelow(const std::vector<bool>& live,
                                                std::vector<size_t>& branches) const;

  const PromptSharing& sharing_;
  std::vector<NodeState> nodes_;
};

}  // namespace halo
