#include "plan/prompt_tree.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace halo {
namespace {

/// Length of a text's first character.
size_t FirstCharacter(std::string_view text) {
  constexpr size_t kLongest = 4;
  size_t length = 1;
  while (length < std::min(kLongest, text.size()) &&
         (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80)
    ++length;
  return length;
}

/// Bytes that two texts with the same first character begin with, whole characters only. Of what is
/// no UTF-8 at least what passes for the first one.
size_t CommonLength(std::string_view a, std::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  const auto end = a.begin() + static_cast<ptrdiff_t>(most);
  auto length = static_cast<size_t>(std::mismatch(a.begin(), end, b.begin()).first - a.begin());
  const auto is_inside = [&](std::string_view text) {
    return length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80;
  };
  while (length > 0 && (is_inside(a) || is_inside(b))) --length;
  return std::max(length, FirstCharacter(a));
}

}  // namespace

PromptTree::NodeIndex PromptTree::AddRoot() {
  const auto root = static_cast<NodeIndex>(nodes_.size());
  nodes_.emplace_back();
  letters_.emplace_back();
  roots_.push_back(root);
  return root;
}

PromptTree::NodeIndex PromptTree::Insert(size_t prompt, const std::vector<PromptPiece>& pieces,
                                         NodeIndex below) {
  NodeIndex node = below;
  size_t values = 0, bytes = 0;
  for (const PromptPiece& piece : pieces) {
    if (piece.is_value) {
      node = InsertValue(prompt, piece, values, node);
      ++values;
      bytes = 0;
    } else {
      node = InsertText(prompt, piece, values, bytes, node);
      bytes += piece.text.size();
    }
  }
  Of(node).ends.push_back(prompt);
  return node;
}

PromptTree::NodeIndex PromptTree::Add(Node node, const Letter& letter) {
  const auto added = static_cast<NodeIndex>(nodes_.size());
  const NodeIndex parent = node.parent;
  node.written = Of(parent).written + (node.is_written ? node.text.size() : 0);
  node.open_values = Of(parent).open_values + (node.value != nullptr && node.value->is_open());
  nodes_.push_back(std::move(node));
  letters_.emplace_back();
  letters_[static_cast<size_t>(parent)].emplace(letter, added);
  Of(parent).children.push_back(added);
  return added;
}

PromptTree::NodeIndex PromptTree::InsertText(size_t prompt, const PromptPiece& piece, size_t values,
                                             size_t bytes, NodeIndex node) {
  std::string_view text = piece.text;
  while (!text.empty()) {
    const Letter letter(text.substr(0, FirstCharacter(text)), Signature{});
    const auto& letters = letters_[static_cast<size_t>(node)];
    const auto found = letters.find(letter);
    if (found == letters.end()) {
      Node leaf;
      leaf.parent = node;
      leaf.text = text;
      leaf.first = prompt;
      leaf.first_value = values;
      leaf.bytes = bytes + text.size();
      leaf.is_written = piece.is_written;
      return Add(std::move(leaf), letter);
    }
    const NodeIndex child = found->second;
    const size_t common = CommonLength(Of(child).text, text);
    node = common < Of(child).text.size() ? Split(child, common) : child;
    text.remove_prefix(common);
    bytes += common;
  }
  return node;
}

PromptTree::NodeIndex PromptTree::InsertValue(size_t prompt, const PromptPiece& piece,
                                              size_t values, NodeIndex node) {
  const Letter letter("", piece.value);
  const auto& letters = letters_[static_cast<size_t>(node)];
  if (const auto found = letters.find(letter); found != letters.end()) return found->second;
  Node leaf;
  leaf.parent = node;
  leaf.value = &piece;
  leaf.first = prompt;
  leaf.first_value = values + 1;
  return Add(std::move(leaf), letter);
}

/// Puts a node in the middle of an edge. The lower half stays where it is.
PromptTree::NodeIndex PromptTree::Split(NodeIndex node, size_t at) {
  HALO_CHECK(at > 0, "edges that begin with the same character have that in common");
  const NodeIndex parent = Of(node).parent;
  Node upper;
  upper.parent = parent;
  upper.text = Of(node).text.substr(0, at);
  upper.first = Of(node).first;
  upper.first_value = Of(node).first_value;
  upper.bytes = Of(node).bytes - (Of(node).text.size() - at);
  upper.is_written = Of(node).is_written;
  upper.written = Of(parent).written + (upper.is_written ? at : 0);
  upper.open_values = Of(node).open_values;
  upper.children = {node};
  const auto added = static_cast<NodeIndex>(nodes_.size());
  const Letter letter(upper.text.substr(0, FirstCharacter(upper.text)), Signature{});
  nodes_.push_back(std::move(upper));
  letters_.emplace_back();
  letters_[static_cast<size_t>(parent)][letter] = added;
  std::vector<NodeIndex>& siblings = Of(parent).children;
  *std::find(siblings.begin(), siblings.end(), node) = added;
  Of(node).parent = added;
  Of(node).text.remove_prefix(at);
  const Letter rest(Of(node).text.substr(0, FirstCharacter(Of(node).text)), Signature{});
  letters_[static_cast<size_t>(added)].emplace(rest, node);
  return added;
}

std::vector<PromptTree::NodeIndex> PromptTree::TopDown() const {
  std::vector<NodeIndex> order = roots_;
  for (size_t i = 0; i < order.size(); ++i) {
    const std::vector<NodeIndex>& children = at(order[i]).children;
    order.insert(order.end(), children.begin(), children.end());
  }
  return order;
}

}  // namespace halo
