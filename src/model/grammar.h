#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "model/grammar_text.h"

namespace halo {

/// A grammar as a pushdown automaton over bytes. Immutable, safe to share between threads.
///
/// Nodes are places in a rule. A place is reached with a stack of frames: where to go on when the
/// rule at hand ends, or which repetition is under way and how often its body has begun. Characters
/// are cut into ranges of UTF-8 bytes, so that a token may end inside a character. Literals beside
/// each other in a choice (an enum) share their beginnings. A repetition with a bound is one node
/// and a number in a frame, not that many copies; what repeats without a bound needs no frame, nor
/// does a rule that another ends with, so that lists written with recursion do not pile up frames.
class Grammar {
 public:
  using NodeId = int32_t;
  static constexpr NodeId kEnd = 0;  ///< of a rule or of a body: the top frame says what follows

  struct Edge {
    uint8_t low, high;
    NodeId target;
  };
  struct Node {
    enum class Kind : uint8_t {
      kEnd,
      kBytes,  ///< `count` edges from `first` on
      kSplit,  ///< all of `count` targets from `first` on
      kCall,   ///< rule `rule`, then `next`
      kRepeat  ///< `body` `least` to `most` times, then `next`
    };
    Kind kind = Kind::kEnd;
    int32_t first = 0, count = 0;
    int32_t rule = 0;
    NodeId body = 0, next = 0;
    int32_t least = 0, most = 0;
  };

  /// Throws Error(kWorkflow) with the place in `text`: syntax, rules that are missing, begin with
  /// themselves or never end, and grammars beyond the limits. `name` is what errors call the text.
  static std::shared_ptr<const Grammar> Compile(std::string_view text, const std::string& name);

  const Node& node(NodeId id) const { return nodes_[static_cast<size_t>(id)]; }
  const Edge& edge(int32_t index) const { return edges_[static_cast<size_t>(index)]; }
  NodeId target(int32_t index) const { return targets_[static_cast<size_t>(index)]; }
  NodeId rule_start(int32_t rule) const { return starts_[static_cast<size_t>(rule)]; }
  NodeId start() const { return rule_start(root_); }

  /// Bytes that no edge tells apart are of one class.
  uint8_t class_of(uint8_t byte) const { return classes_[byte]; }
  const uint8_t* classes() const { return classes_.data(); }  ///< [256]
  int32_t class_count() const { return class_count_; }
  /// Some byte of a class.
  uint8_t byte_of(int32_t byte_class) const { return examples_[static_cast<size_t>(byte_class)]; }
  size_t node_count() const { return nodes_.size(); }

 private:
  friend class GrammarCompiler;
  Grammar() = default;

  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  std::vector<NodeId> targets_;
  std::vector<NodeId> starts_;  // [rules]
  int32_t root_ = 0;
  std::array<uint8_t, 256> classes_{};
  std::vector<uint8_t> examples_;  // [classes]
  int32_t class_count_ = 0;
};

inline constexpr size_t kMaxGrammarNodes = 1'000'000;

}  // namespace halo
