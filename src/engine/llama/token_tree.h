#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/span.h"

namespace halo {

/// A radix tree over token sequences: which holder of KV shares the longest prefix with a prompt.
///
/// A holder (a running sequence, an idle one or a host blob, named by a number) is put in with all
/// tokens it holds or will hold; a prefix of a holder's tokens is served by that holder, since
/// full-attention KV can be cut anywhere. Every node knows the holders that end in its subtree
/// through their end nodes; lookups are O(prompt length). (SGLang's RadixAttention, Zheng et al.
/// 2024, section 3, keeps KV pages in the nodes; here KV lies in whole sequences because
/// llama.cpp's streams do, so nodes only index.)
class TokenTree {
 public:
  using HolderId = int64_t;

  TokenTree();
  ~TokenTree();

  /// Adds a holder; its id must be new.
  void Insert(HolderId holder, std::span<const TokenId> tokens);
  void Remove(HolderId holder);
  bool Contains(HolderId holder) const { return ends_.contains(holder); }

  struct Match {
    int32_t tokens = 0;             ///< length of the common prefix
    std::vector<HolderId> holders;  ///< up to `most` holders that share it, smallest ids first
  };
  /// The longest common prefix of `prompt` with any holder.
  Match Longest(std::span<const TokenId> prompt, size_t most = 8) const;

  size_t size() const { return ends_.size(); }

 private:
  struct Node;
  static void Collect(const Node& node, size_t most, std::vector<HolderId>& holders);
  Node* Split(Node* node, size_t at);
  void Prune(Node* node);

  std::unique_ptr<Node> root_;
  std::unordered_map<HolderId, Node*> ends_;
};

}  // namespace halo
