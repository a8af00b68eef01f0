#include "model/grammar.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/error.h"

namespace halo {
namespace {

using Kind = GrammarExpression::Kind;

/// Repetitions of up to this many are written out: a frame would cost more.
constexpr int32_t kWrittenOut = 4;
constexpr uint32_t kByteRangesOfFour = 4;

/// A range of characters as the bytes that each position may have.
struct ByteRanges {
  uint32_t length = 0;
  std::array<std::pair<uint8_t, uint8_t>, kByteRangesOfFour> bytes{};
};

uint8_t ByteAt(const std::string& text, size_t at) { return static_cast<uint8_t>(text[at]); }

/// Cuts [low, high], whose ends have equally many bytes, into parts in which the bytes of each
/// position are independent of the others.
void CutByBytes(uint32_t low, uint32_t high, std::vector<ByteRanges>& parts) {
  std::string first, last;
  AppendUtf8(low, first);
  AppendUtf8(high, last);
  const size_t length = first.size();
  constexpr uint32_t kTailBits = 6;
  for (size_t tail = 1; tail < length; ++tail) {
    const uint32_t mask = (1U << (kTailBits * tail)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      CutByBytes(low, low | mask, parts);
      CutByBytes((low | mask) + 1, high, parts);
      return;
    }
    if ((high & mask) != mask) {
      CutByBytes(low, (high & ~mask) - 1, parts);
      CutByBytes(high & ~mask, high, parts);
      return;
    }
  }
  ByteRanges part;
  part.length = static_cast<uint32_t>(length);
  for (size_t i = 0; i < length; ++i) part.bytes[i] = {ByteAt(first, i), ByteAt(last, i)};
  parts.push_back(part);
}

std::vector<ByteRanges> CutRanges(const std::vector<CharacterRange>& ranges) {
  constexpr std::array<uint32_t, 4> kLastOfLength = {0x7F, 0x7FF, 0xFFFF, 0x10FFFF};
  std::vector<ByteRanges> parts;
  for (const auto& [low, high] : ranges) {
    uint32_t from = low;
    for (const uint32_t last : kLastOfLength) {
      if (from > last) continue;
      if (from > high) break;
      CutByBytes(from, std::min(high, last), parts);
      from = last + 1;
    }
  }
  return parts;
}

}  // namespace

/// Checks the rules and writes the automaton, each place after what follows it.
class GrammarCompiler {
 public:
  GrammarCompiler(std::string_view text, const std::string& name)
      : text_(text), name_(name), rules_(ParseGrammar(text, name)), grammar_(new Grammar()) {}

  std::shared_ptr<const Grammar> Compile() {
    FindNullable();
    CheckEveryRuleEnds();
    CheckLeftRecursion();
    Add({});  // kEnd
    grammar_->root_ = rules_.root;
    for (size_t rule = 0; rule < rules_.rules.size(); ++rule) {
      current_ = rule;
      grammar_->starts_.push_back(Emit(rules_.rules[rule].body, Grammar::kEnd));
      suffixes_.clear();
    }
    ClassifyBytes();
    return std::move(grammar_);
  }

 private:
  using NodeId = Grammar::NodeId;
  using Node = Grammar::Node;

  [[noreturn]] void FailRule(size_t rule, const std::string& message) const {
    ThrowGrammarError(text_, name_, rules_.rules[rule].offset,
                      "rule '" + rules_.rules[rule].name + "' " + message);
  }

  // Checks -----------------------------------------------------------------------------------

  bool IsNullable(const GrammarExpression& e) const {
    switch (e.kind) {
      case Kind::kLiteral:
      case Kind::kCharacters:
        return false;
      case Kind::kRule:
        return nullable_[static_cast<size_t>(e.rule)];
      case Kind::kRepeat:
        return e.least == 0 || e.most == 0 || IsNullable(e.children.front());
      case Kind::kChoice:
        return std::any_of(e.children.begin(), e.children.end(),
                           [this](const auto& child) { return IsNullable(child); });
      case Kind::kSequence:
        return std::all_of(e.children.begin(), e.children.end(),
                           [this](const auto& child) { return IsNullable(child); });
    }
    return false;
  }

  /// True if some text of finite length fits.
  bool Ends(const GrammarExpression& e) const {
    switch (e.kind) {
      case Kind::kLiteral:
      case Kind::kCharacters:
        return true;
      case Kind::kRule:
        return ends_[static_cast<size_t>(e.rule)];
      case Kind::kRepeat:
        return e.least == 0 || e.most == 0 || Ends(e.children.front());
      case Kind::kChoice:
        return std::any_of(e.children.begin(), e.children.end(),
                           [this](const auto& child) { return Ends(child); });
      case Kind::kSequence:
        return std::all_of(e.children.begin(), e.children.end(),
                           [this](const auto& child) { return Ends(child); });
    }
    return false;
  }

  static void AddUses(const GrammarExpression& e, std::vector<int32_t>& uses) {
    if (e.kind == Kind::kRule) uses.push_back(e.rule);
    for (const GrammarExpression& child : e.children) AddUses(child, uses);
  }

  /// Repeats `holds` over the rules that may have changed until nothing does: each rule is looked
  /// at again only when one that it uses has become true.
  template <typename Holds>
  void Saturate(std::vector<bool>& truth, Holds holds) {
    const size_t count = rules_.rules.size();
    truth.assign(count, false);
    std::vector<std::vector<size_t>> users(count);
    std::vector<size_t> open(count);
    for (size_t rule = 0; rule < count; ++rule) {
      std::vector<int32_t> uses;
      AddUses(rules_.rules[rule].body, uses);
      std::sort(uses.begin(), uses.end());
      uses.erase(std::unique(uses.begin(), uses.end()), uses.end());
      for (const int32_t used : uses) users[static_cast<size_t>(used)].push_back(rule);
      open[rule] = count - 1 - rule;
    }
    while (!open.empty()) {
      const size_t rule = open.back();
      open.pop_back();
      if (truth[rule] || !holds(rules_.rules[rule].body)) continue;
      truth[rule] = true;
      for (const size_t user : users[rule]) {
        if (!truth[user]) open.push_back(user);
      }
    }
  }

  void FindNullable() {
    Saturate(nullable_, [this](const GrammarExpression& e) { return IsNullable(e); });
  }

  /// A place from which no text can be completed would leave a model without a token to choose.
  void CheckEveryRuleEnds() {
    Saturate(ends_, [this](const GrammarExpression& e) { return Ends(e); });
    for (size_t rule = 0; rule < ends_.size(); ++rule) {
      if (!ends_[rule]) FailRule(rule, "never ends: give it a choice that does not use it again");
    }
  }

  /// Rules that `e` may begin with.
  void AddFirstRules(const GrammarExpression& e, std::vector<int32_t>& first) const {
    if (e.kind == Kind::kRule) {
      first.push_back(e.rule);
    } else if (e.kind == Kind::kSequence) {
      for (const GrammarExpression& child : e.children) {
        AddFirstRules(child, first);
        if (!IsNullable(child)) break;
      }
    } else {
      for (const GrammarExpression& child : e.children) AddFirstRules(child, first);
    }
  }

  void CheckLeftRecursion() const {
    enum class Seen : uint8_t { kNot, kOpen, kDone };
    std::vector<Seen> seen(rules_.rules.size(), Seen::kNot);
    struct Visit {
      size_t rule;
      std::vector<int32_t> first;
      size_t next = 0;
    };
    for (size_t root = 0; root < seen.size(); ++root) {
      if (seen[root] != Seen::kNot) continue;
      std::vector<Visit> path;
      const auto open = [&](size_t rule) {
        seen[rule] = Seen::kOpen;
        path.push_back({rule, {}, 0});
        AddFirstRules(rules_.rules[rule].body, path.back().first);
      };
      open(root);
      while (!path.empty()) {
        Visit& visit = path.back();
        if (visit.next == visit.first.size()) {
          seen[visit.rule] = Seen::kDone;
          path.pop_back();
          continue;
        }
        const auto rule = static_cast<size_t>(visit.first[visit.next++]);
        if (seen[rule] == Seen::kOpen) {
          FailRule(rule,
                   "begins with itself (left recursion): let it begin with something else, "
                   "or use * or +");
        }
        if (seen[rule] == Seen::kNot) open(rule);
      }
    }
  }

  // Nodes ------------------------------------------------------------------------------------

  NodeId Add(Node node) {
    if (grammar_->nodes_.size() >= kMaxGrammarNodes) {
      FailRule(current_, "makes the grammar too large (a million places)");
    }
    grammar_->nodes_.push_back(node);
    return static_cast<NodeId>(grammar_->nodes_.size() - 1);
  }

  NodeId AddBytes(const std::vector<Grammar::Edge>& edges) {
    Node node;
    node.kind = Node::Kind::kBytes;
    node.first = static_cast<int32_t>(grammar_->edges_.size());
    node.count = static_cast<int32_t>(edges.size());
    grammar_->edges_.insert(grammar_->edges_.end(), edges.begin(), edges.end());
    return Add(node);
  }

  NodeId AddSplit(const std::vector<NodeId>& targets) {
    if (targets.size() == 1) return targets.front();
    Node node;
    node.kind = Node::Kind::kSplit;
    node.first = static_cast<int32_t>(grammar_->targets_.size());
    node.count = static_cast<int32_t>(targets.size());
    grammar_->targets_.insert(grammar_->targets_.end(), targets.begin(), targets.end());
    return Add(node);
  }

  NodeId Emit(const GrammarExpression& e, NodeId next) {
    switch (e.kind) {
      case Kind::kSequence:
        for (auto child = e.children.rbegin(); child != e.children.rend(); ++child) {
          next = Emit(*child, next);
        }
        return next;
      case Kind::kLiteral:
        return EmitLiteral(e.text, next);
      case Kind::kCharacters:
        return EmitCharacters(e.ranges, next);
      case Kind::kChoice:
        return EmitChoice(e, next);
      case Kind::kRule: {
        Node node;
        node.kind = Node::Kind::kCall;
        node.rule = e.rule;
        node.next = next;
        return Add(node);
      }
      case Kind::kRepeat:
        return EmitRepeat(e, next);
    }
    return next;
  }

  NodeId EmitLiteral(const std::string& text, NodeId next) {
    for (size_t i = text.size(); i > 0; --i) {
      const uint8_t byte = ByteAt(text, i - 1);
      next = AddBytes({{byte, byte, next}});
    }
    return next;
  }

  /// A node that takes one byte of a range, shared by all that go on alike.
  NodeId Suffix(std::pair<uint8_t, uint8_t> range, NodeId next) {
    const auto [place, added] = suffixes_.emplace(std::tuple(range, next), 0);
    if (added) place->second = AddBytes({{range.first, range.second, next}});
    return place->second;
  }

  NodeId EmitCharacters(const std::vector<CharacterRange>& ranges, NodeId next) {
    std::vector<Grammar::Edge> edges;
    for (const ByteRanges& part : CutRanges(ranges)) {
      NodeId target = next;
      for (uint32_t i = part.length; i > 1; --i) target = Suffix(part.bytes[i - 1], target);
      edges.push_back({part.bytes[0].first, part.bytes[0].second, target});
    }
    return AddBytes(edges);
  }

  /// Literals of a choice as a tree of their bytes: a choice among ten thousand words is one place
  /// at a time.
  NodeId EmitLiteralTree(std::vector<std::string_view> texts, size_t depth, NodeId next) {
    std::vector<NodeId> targets;
    std::vector<Grammar::Edge> edges;
    size_t begin = 0;
    while (begin < texts.size()) {
      if (texts[begin].size() == depth) {
        if (targets.empty()) targets.push_back(next);
        ++begin;
        continue;
      }
      const auto byte = static_cast<uint8_t>(texts[begin][depth]);
      size_t end = begin + 1;
      while (end < texts.size() && static_cast<uint8_t>(texts[end][depth]) == byte) ++end;
      edges.push_back({byte, byte,
                       EmitBranch({texts.begin() + static_cast<ptrdiff_t>(begin),
                                   texts.begin() + static_cast<ptrdiff_t>(end)},
                                  depth + 1, next)});
      begin = end;
    }
    if (!edges.empty()) targets.push_back(AddBytes(edges));
    return AddSplit(targets);
  }

  /// What follows a byte that `texts` share. What else they share is written without recursion,
  /// which so is at most as deep as there are texts that differ.
  NodeId EmitBranch(std::vector<std::string_view> texts, size_t depth, NodeId next) {
    size_t shared = depth;
    const std::string_view first = texts.front();
    const std::string_view last = texts.back();  // sorted: what these share, all share
    while (shared < first.size() && shared < last.size() && first[shared] == last[shared]) ++shared;
    const std::string middle(first.substr(depth, shared - depth));
    const bool one_text = first == last;
    return EmitLiteral(middle, one_text ? next : EmitLiteralTree(std::move(texts), shared, next));
  }

  NodeId EmitChoice(const GrammarExpression& e, NodeId next) {
    std::vector<std::string_view> literals;
    std::vector<NodeId> targets;
    for (const GrammarExpression& child : e.children) {
      if (child.kind == Kind::kLiteral) {
        literals.push_back(child.text);
      } else {
        targets.push_back(Emit(child, next));
      }
    }
    if (!literals.empty()) {
      std::sort(literals.begin(), literals.end());
      targets.push_back(EmitLiteralTree(std::move(literals), 0, next));
    }
    return AddSplit(targets);
  }

  NodeId EmitRepeat(const GrammarExpression& e, NodeId next) {
    const GrammarExpression& body = e.children.front();
    const int32_t least = IsNullable(body) ? 0 : e.least;
    if (e.most == GrammarExpression::kUnbounded) {
      // A loop, and what must come before it.
      const NodeId loop = AddSplit({Grammar::kEnd, next});
      const NodeId again = Emit(body, loop);
      grammar_->targets_[static_cast<size_t>(grammar_->node(loop).first)] = again;
      return EmitTimes(body, least, least, loop);
    }
    return EmitTimes(body, least, e.most, next);
  }

  NodeId EmitTimes(const GrammarExpression& body, int32_t least, int32_t most, NodeId next) {
    if (most > kWrittenOut && IsNullable(body)) {
      FailRule(current_,
               "repeats, with a bound, what may be empty: each text would have many "
               "readings; repeat something that is not empty");
    }
    if (most <= kWrittenOut) {
      NodeId place = next;
      for (int32_t i = most; i > 0; --i) {
        const NodeId once = Emit(body, place);
        // Optional ones go straight to what follows, so that each count is reached in one way.
        place = i > least ? AddSplit({once, next}) : once;
      }
      return place;
    }
    Node node;
    node.kind = Node::Kind::kRepeat;
    node.least = least;
    node.most = most;
    node.next = next;
    node.body = Emit(body, Grammar::kEnd);
    return Add(node);
  }

  void ClassifyBytes() {
    std::array<bool, 257> begins{};
    begins[0] = true;
    for (const Grammar::Edge& edge : grammar_->edges_) {
      begins[edge.low] = true;
      begins[size_t{edge.high} + 1] = true;
    }
    for (size_t byte = 0; byte < grammar_->classes_.size(); ++byte) {
      if (begins[byte]) grammar_->examples_.push_back(static_cast<uint8_t>(byte));
      grammar_->classes_[byte] = static_cast<uint8_t>(grammar_->examples_.size() - 1);
    }
    grammar_->class_count_ = static_cast<int32_t>(grammar_->examples_.size());
  }

  std::string_view text_;
  const std::string& name_;
  GrammarRules rules_;
  std::shared_ptr<Grammar> grammar_;
  std::vector<bool> nullable_, ends_;  // [rules]
  size_t current_ = 0;                 // the rule that is written
  std::map<std::tuple<std::pair<uint8_t, uint8_t>, NodeId>, NodeId> suffixes_;
};

std::shared_ptr<const Grammar> Grammar::Compile(std::string_view text, const std::string& name) {
  return GrammarCompiler(text, name).Compile();
}

}  // namespace halo
