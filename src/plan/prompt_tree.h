#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plan/templated_prompt.h"

namespace halo {

/// A radix tree over templated prompts: which of them begin alike, and how far. An edge is text
/// that all prompts below it have, cut between characters, or one value; a value is a letter of
/// its own, since what it says is not known: two values go on together if their signatures are
/// equal. (TokenTree does the same for tokens, once they are there.)
///
/// Memory and time are linear in the pieces put in: a prompt that goes on from another is put in
/// below it, and an edge is a view of its piece's text.
class PromptTree {
 public:
  using NodeIndex = int32_t;
  static constexpr NodeIndex kNoNode = -1;

  struct Node {
    NodeIndex parent = kNoNode;
    std::string_view text;               ///< on the edge from the parent; of a value: empty
    const PromptPiece* value = nullptr;  ///< the edge's, in the words of who came first
    size_t first = 0;                    ///< the prompt that came here first
    size_t first_value = 0;              ///< of its pieces, how many values the edge comes after
    /// Text between the last value, or the beginning of `first`'s own pieces, and here.
    size_t bytes = 0;
    bool is_written = false;   ///< the edge is the author's text
    size_t written = 0;        ///< bytes of the author's text, from the root
    int32_t open_values = 0;   ///< from the root: values not known before there is a row
    std::vector<size_t> ends;  ///< prompts that are over here, ascending
    std::vector<NodeIndex> children;
  };

  PromptTree() = default;
  PromptTree(const PromptTree&) = delete;
  PromptTree& operator=(const PromptTree&) = delete;

  /// A beginning that only prompts of one model and adapter have.
  NodeIndex AddRoot();
  /// Puts in a prompt below a root, or below the end of the prompt that it goes on from. `prompt`
  /// numbers it, ascending from call to call; `pieces` outlive the tree. Returns its end.
  NodeIndex Insert(size_t prompt, const std::vector<PromptPiece>& pieces, NodeIndex below);

  const Node& at(NodeIndex node) const { return nodes_[static_cast<size_t>(node)]; }
  size_t size() const { return nodes_.size(); }
  /// The edge is what a prompt's operator answers, right after that prompt: its KV comes from
  /// decoding. `prompt_of` numbers the prompts of operators of the value's own plan.
  template <typename PromptOf>
  bool IsAnswerOfPromptBefore(NodeIndex node, PromptOf prompt_of) const {
    const PromptPiece* value = at(node).value;
    if (value == nullptr || value->answer_of < 0) return false;
    const std::vector<size_t>& ends = at(at(node).parent).ends;
    return std::binary_search(ends.begin(), ends.end(), prompt_of(value->answer_of));
  }
  /// All nodes, parents before their children.
  std::vector<NodeIndex> TopDown() const;

 private:
  /// The first character, or the value.
  using Letter = std::pair<std::string, Signature>;
  Node& Of(NodeIndex node) { return nodes_[static_cast<size_t>(node)]; }
  NodeIndex Add(Node node, const Letter& letter);
  NodeIndex InsertText(size_t prompt, const PromptPiece& piece, size_t values, size_t bytes,
                       NodeIndex node);
  NodeIndex InsertValue(size_t prompt, const PromptPiece& piece, size_t values, NodeIndex node);
  NodeIndex Split(NodeIndex node, size_t at);

  std::vector<Node> nodes_;
  std::vector<NodeIndex> roots_;
  std::vector<std::map<Letter, NodeIndex>> letters_;  // [nodes] to children
};

}  // namespace halo
