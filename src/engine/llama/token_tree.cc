#include "engine/llama/token_tree.h"

#include <algorithm>
#include <set>

#include "base/check.h"

namespace halo {

struct TokenTree::Node {
  Node* parent = nullptr;
  std::vector<TokenId> run;                           // tokens on the edge from the parent
  std::map<TokenId, std::unique_ptr<Node>> children;  // by first token of their run
  std::set<HolderId> holders;                         // that end exactly here
};

TokenTree::TokenTree() : root_(std::make_unique<Node>()) {}
TokenTree::~TokenTree() = default;

namespace {

size_t CommonLength(std::span<const TokenId> a, std::span<const TokenId> b) {
  const size_t limit = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(limit), b.begin()).first -
      a.begin());
}

}  // namespace

void TokenTree::Insert(HolderId holder, std::span<const TokenId> tokens) {
  HALO_CHECK(!ends_.contains(holder), "a holder is inserted once");
  Node* node = root_.get();
  while (!tokens.empty()) {
    const auto found = node->children.find(tokens.front());
    if (found == node->children.end()) {
      auto leaf = std::make_unique<Node>();
      leaf->parent = node;
      leaf->run.assign(tokens.begin(), tokens.end());
      Node* added = leaf.get();
      node->children.emplace(tokens.front(), std::move(leaf));
      node = added;
      break;
    }
    Node* child = found->second.get();
    const size_t common = CommonLength(child->run, tokens);
    node = common < child->run.size() ? Split(child, common) : child;
    tokens = tokens.subspan(common);
  }
  node->holders.insert(holder);
  ends_.emplace(holder, node);
}

TokenTree::Node* TokenTree::Split(Node* node, size_t at) {
  Node* parent = node->parent;
  const auto slot = parent->children.find(node->run.front());
  auto upper = std::make_unique<Node>();
  upper->parent = parent;
  upper->run.assign(node->run.begin(), node->run.begin() + static_cast<ptrdiff_t>(at));
  std::unique_ptr<Node> lower = std::move(slot->second);
  lower->run.erase(lower->run.begin(), lower->run.begin() + static_cast<ptrdiff_t>(at));
  lower->parent = upper.get();
  const TokenId first = lower->run.front();
  upper->children.emplace(first, std::move(lower));
  slot->second = std::move(upper);
  return slot->second.get();
}

void TokenTree::Remove(HolderId holder) {
  const auto found = ends_.find(holder);
  HALO_CHECK(found != ends_.end(), "only a holder that is in the tree can be removed");
  Node* node = found->second;
  ends_.erase(found);
  node->holders.erase(holder);
  Prune(node);
}

void TokenTree::Prune(Node* node) {
  while (node->parent != nullptr && node->holders.empty() && node->children.empty()) {
    Node* parent = node->parent;
    parent->children.erase(node->run.front());
    node = parent;
  }
  // A node that only passes through is joined with its one child, so that the tree stays as small
  // as its holders.
  if (node->parent != nullptr && node->holders.empty() && node->children.size() == 1) {
    Node* parent = node->parent;
    std::unique_ptr<Node> child = std::move(node->children.begin()->second);
    child->run.insert(child->run.begin(), node->run.begin(), node->run.end());
    child->parent = parent;
    const TokenId first = child->run.front();
    parent->children[first] = std::move(child);
  }
}

TokenTree::Match TokenTree::Longest(std::span<const TokenId> prompt, size_t most) const {
  Match match;
  const Node* node = root_.get();
  while (true) {
    const auto found = prompt.empty() ? node->children.end() : node->children.find(prompt.front());
    if (found == node->children.end()) break;
    node = found->second.get();
    const size_t common = CommonLength(node->run, prompt);
    match.tokens += static_cast<int32_t>(common);
    prompt = prompt.subspan(common);
    if (common < node->run.size()) break;
  }
  if (match.tokens > 0) Collect(*node, most, match.holders);
  return match;
}

void TokenTree::Collect(const Node& node, size_t most, std::vector<HolderId>& holders) {
  // Breadth first, so that the holders nearest to the match (the shortest, cheapest to copy) come
  // first.
  std::vector<const Node*> level = {&node};
  while (!level.empty() && holders.size() < most) {
    std::vector<const Node*> next;
    for (const Node* current : level) {
      for (const HolderId holder : current->holders) {
        if (holders.size() < most) holders.push_back(holder);
      }
      for (const auto& [first, child] : current->children) {
        if (next.size() >= most) break;  // a node may have a child for each row of a run
        next.push_back(child.get());
      }
    }
    level = std::move(next);
  }
}

}  // namespace halo
