#pragma once

#include <map>
#include <set>
#include <string>
#include <utility>

#include "model/grammar_text.h"

namespace halo::test {

/// Tells whether a text fits a grammar by trying every reading: slow, recursive and plain, to
/// compare the automaton with. For grammars without left recursion.
class GrammarOracle {
 public:
  explicit GrammarOracle(const GrammarRules& rules) : rules_(rules) {}

  bool Accepts(const std::string& text) {
    text_ = text;
    ends_.clear();
    return RuleEnds(rules_.root, 0).contains(text.size());
  }

 private:
  using Ends = std::set<size_t>;

  const Ends& RuleEnds(int32_t rule, size_t from) {
    const auto key = std::pair(rule, from);
    const auto known = ends_.find(key);
    if (known != ends_.end()) return known->second;
    Ends ends = Read(rules_.rules[static_cast<size_t>(rule)].body, from);
    return ends_.emplace(key, std::move(ends)).first->second;
  }

  /// Where `e` may end when it begins at `from`.
  Ends Read(const GrammarExpression& e, size_t from) {
    using Kind = GrammarExpression::Kind;
    switch (e.kind) {
      case Kind::kLiteral:
        return text_.compare(from, e.text.size(), e.text) == 0 ? Ends{from + e.text.size()}
                                                               : Ends{};
      case Kind::kCharacters:
        for (const auto& [low, high] : e.ranges) {
          for (size_t bytes = 1; bytes <= 4 && from + bytes <= text_.size(); ++bytes) {
            const int64_t code = CodeOf(text_.substr(from, bytes));
            if (code >= low && code <= high) return {from + bytes};
          }
        }
        return {};
      case Kind::kRule:
        return RuleEnds(e.rule, from);
      case Kind::kChoice: {
        Ends all;
        for (const GrammarExpression& child : e.children) all.merge(Read(child, from));
        return all;
      }
      case Kind::kSequence: {
        Ends at = {from};
        for (const GrammarExpression& child : e.children) at = Each(child, at);
        return at;
      }
      case Kind::kRepeat:
        return Repeat(e, from);
    }
    return {};
  }

  Ends Each(const GrammarExpression& e, const Ends& from) {
    Ends all;
    for (const size_t at : from) all.merge(Read(e, at));
    return all;
  }

  Ends Repeat(const GrammarExpression& e, size_t from) {
    Ends at = {from};
    Ends all;
    // More turns than there are bytes add nothing but empty turns.
    const size_t most = e.most < 0 ? size_t(e.least) + text_.size() + 1 : size_t(e.most);
    if (e.least == 0) all = at;
    for (size_t turn = 1; turn <= most && !at.empty(); ++turn) {
      at = Each(e.children.front(), at);
      if (turn >= size_t(e.least)) all.insert(at.begin(), at.end());
      if (turn > size_t(e.least) + text_.size() + 1) break;
    }
    return all;
  }

  /// The code point of which these are all the bytes, or -1.
  static int64_t CodeOf(const std::string& bytes) {
    constexpr uint32_t kLeadBits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
    uint32_t code = static_cast<unsigned char>(bytes[0]) & kLeadBits[bytes.size()];
    for (size_t i = 1; i < bytes.size(); ++i) {
      code = code << 6 | (static_cast<unsigned char>(bytes[i]) & 0x3FU);
    }
    std::string written;
    AppendUtf8(code, written);
    return written == bytes ? static_cast<int64_t>(code) : -1;
  }

  const GrammarRules& rules_;
  std::string text_;
  std::map<std::pair<int32_t, size_t>, Ends> ends_;
};

}  // namespace halo::test
