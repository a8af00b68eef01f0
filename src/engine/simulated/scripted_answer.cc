#include "engine/simulated/scripted_answer.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/random.h"

namespace halo {
namespace {

constexpr int64_t kNoText = int64_t{1} << 40;  // bytes that no text has
constexpr int32_t kMostHeight = 1 << 20;

}  // namespace

int32_t DrawLength(const AnswerLengths& lengths, int32_t most, uint64_t key) {
  const double draw = UniformDraw(key, 0);
  double tokens = 1.0 + std::floor(draw * most);
  if (lengths.mean > 0.0) {
    const double spread = lengths.deviation / lengths.mean;
    const double variance = std::log1p(spread * spread);
    // Box and Muller 1958.
    const double normal = std::sqrt(-2.0 * std::log(1.0 - draw)) *
                          std::cos(2.0 * std::numbers::pi * UniformDraw(key, 1));
    tokens = std::round(lengths.mean * std::exp(std::sqrt(variance) * normal - variance / 2.0));
  }
  return static_cast<int32_t>(std::clamp(tokens, 1.0, static_cast<double>(std::max(1, most))));
}

std::string DrawWords(int32_t words, uint64_t key) {
  constexpr uint64_t kLetters = 26, kWords = kLetters * kLetters * kLetters;
  std::string text;
  text.reserve(static_cast<size_t>(words) * 4);
  for (int32_t i = 0; i < words; ++i) {
    auto word = static_cast<uint64_t>(UniformDraw(key, static_cast<uint64_t>(i) + 2) *
                                      static_cast<double>(kWords));
    for (int letter = 0; letter < 3; ++letter) {
      text += static_cast<char>('a' + word % kLetters);
      word /= kLetters;
    }
    text += ' ';
  }
  return text;
}

GrammarTexts::GrammarTexts(const std::string& gbnf) : rules_(ParseGrammar(gbnf, "grammar")) {
  sizes_.assign(rules_.rules.size(), Size{kNoText, kMostHeight});
  bool changed = true;
  while (changed) {
    changed = false;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      const Size size = SizeOf(rules_.rules[i].body);
      if (size >= sizes_[i]) continue;
      sizes_[i] = size;
      changed = true;
    }
  }
  grows_.assign(rules_.rules.size(), false);
  for (changed = true; changed;) {
    changed = false;
    for (size_t i = 0; i < grows_.size(); ++i) {
      if (grows_[i] || !CanGrow(rules_.rules[i].body)) continue;
      grows_[i] = changed = true;
    }
  }
  if (sizes_[static_cast<size_t>(rules_.root)].bytes >= kNoText)
    throw Error(ErrorCode::kWorkflow, "grammar: no text of finite length follows it");
}

GrammarTexts::Size GrammarTexts::SizeOf(const GrammarExpression& expression) const {
  using Kind = GrammarExpression::Kind;
  Size size;
  switch (expression.kind) {
    case Kind::kLiteral:
      size.bytes = static_cast<int64_t>(expression.text.size());
      break;
    case Kind::kCharacters:
      size.bytes = 1;
      break;
    case Kind::kRule:
      size = sizes_[static_cast<size_t>(expression.rule)];
      break;
    case Kind::kSequence:
      for (const GrammarExpression& child : expression.children) {
        const Size part = SizeOf(child);
        size = {std::min(kNoText, size.bytes + part.bytes), std::max(size.height, part.height)};
      }
      break;
    case Kind::kChoice:
      size = {kNoText, kMostHeight};
      for (const GrammarExpression& child : expression.children)
        size = std::min(size, SizeOf(child));
      break;
    case Kind::kRepeat:
      if (expression.least > 0) {
        size = SizeOf(expression.children.front());
        size.bytes = std::min(kNoText, size.bytes * expression.least);
      }
      break;
  }
  size.height = std::min(kMostHeight, size.height + 1);
  return size;
}

/// True if the expression has texts of several lengths, as far as its rules are known to.
bool GrammarTexts::CanGrow(const GrammarExpression& expression) const {
  using Kind = GrammarExpression::Kind;
  const auto any_grows = [&] {
    return std::any_of(expression.children.begin(), expression.children.end(),
                       [&](const GrammarExpression& child) { return CanGrow(child); });
  };
  switch (expression.kind) {
    case Kind::kLiteral:
    case Kind::kCharacters:
      return false;
    case Kind::kRule:
      return grows_[static_cast<size_t>(expression.rule)];
    case Kind::kChoice:
      return expression.children.size() > 1 || any_grows();
    case Kind::kRepeat:
      return expression.most != expression.least || any_grows();
    case Kind::kSequence:
      return any_grows();
  }
  return false;
}

/// One text under way.
class GrammarTexts::Drawing {
 public:
  Drawing(const GrammarTexts& texts, uint64_t key) : texts_(texts), random_(key) {}

  /// Appends a text of the expression that is about `slack` bytes longer than its shortest.
  void Append(const GrammarExpression& expression, int64_t slack, int32_t depth = 0) {
    using Kind = GrammarExpression::Kind;
    switch (expression.kind) {
      case Kind::kLiteral:
        text += expression.text;
        return;
      case Kind::kCharacters:
        return AppendUtf8(Character(expression), text);
      case Kind::kRule:
        return Append(texts_.rules_.rules[static_cast<size_t>(expression.rule)].body, slack,
                      depth + 1);
      case Kind::kSequence:
        return AppendAll(expression.children, slack, depth);
      case Kind::kChoice:
        return AppendOne(expression.children, slack, depth);
      case Kind::kRepeat:
        return AppendRepeated(expression, slack, depth);
    }
  }

  std::string text;

 private:
  /// A letter or a space where there may be one.
  uint32_t Character(const GrammarExpression& expression) {
    const auto admits = [&](uint32_t c) {
      return std::any_of(expression.ranges.begin(), expression.ranges.end(),
                         [&](const CharacterRange& r) { return r.first <= c && c <= r.second; });
    };
    constexpr uint64_t kWordLetters = 5, kLetters = 26;
    const auto letter = static_cast<uint32_t>('a' + random_.Below(kLetters));
    const bool is_end_of_word = random_.Below(kWordLetters) == 0;
    if (is_end_of_word && admits(' ') && admits(letter)) return ' ';
    if (admits(letter)) return letter;
    const CharacterRange& range = expression.ranges[random_.Below(expression.ranges.size())];
    return range.first + static_cast<uint32_t>(random_.Below(range.second - range.first + 1));
  }

  void AppendAll(const std::vector<GrammarExpression>& parts, int64_t slack, int32_t depth) {
    auto growing = std::count_if(parts.begin(), parts.end(), [&](const GrammarExpression& part) {
      return texts_.CanGrow(part);
    });
    for (const GrammarExpression& part : parts) {
      const bool grows = texts_.CanGrow(part);
      const auto before = static_cast<int64_t>(text.size());
      Append(part, grows ? slack / growing : 0, depth);
      growing -= grows ? 1 : 0;
      const int64_t spent = static_cast<int64_t>(text.size()) - before - texts_.SizeOf(part).bytes;
      slack = std::max<int64_t>(0, slack - spent);
    }
  }

  /// Any alternative that fits; a few bytes more are granted near the top, or all enumerations
  /// would have their shortest value.
  void AppendOne(const std::vector<GrammarExpression>& ways, int64_t slack, int32_t depth) {
    constexpr int32_t kDeep = 24;
    constexpr int64_t kGranted = 16;
    std::vector<Size> sizes;
    for (const GrammarExpression& way : ways) sizes.push_back(texts_.SizeOf(way));
    const size_t least =
        static_cast<size_t>(std::min_element(sizes.begin(), sizes.end()) - sizes.begin());
    std::vector<size_t> fitting;
    const int64_t most = sizes[least].bytes + (depth < kDeep ? std::max(slack, kGranted) : 0);
    for (size_t i = 0; i < ways.size(); ++i) {
      if (sizes[i].bytes <= most) fitting.push_back(i);
    }
    const size_t chosen = depth < kDeep ? fitting[random_.Below(fitting.size())] : least;
    const int64_t longer = sizes[chosen].bytes - sizes[least].bytes;
    Append(ways[chosen], std::max<int64_t>(0, slack - longer), depth + 1);
  }

  void AppendRepeated(const GrammarExpression& expression, int64_t slack, int32_t depth) {
    const GrammarExpression& body = expression.children.front();
    const int64_t least_bytes = std::max<int64_t>(1, texts_.SizeOf(body).bytes);
    constexpr int64_t kParts = 4;
    const int64_t share = slack / kParts;
    for (int32_t i = 0; expression.most == GrammarExpression::kUnbounded || i < expression.most;
         ++i) {
      const bool must = i < expression.least;
      if (!must && slack < least_bytes) return;
      const auto before = static_cast<int64_t>(text.size());
      Append(body, std::min(share, must ? slack : slack - least_bytes), depth + 1);
      const int64_t grown = static_cast<int64_t>(text.size()) - before;
      slack = std::max<int64_t>(0, slack - std::max<int64_t>(1, grown) + (must ? least_bytes : 0));
    }
  }

  const GrammarTexts& texts_;
  RandomStream random_;
};

std::string GrammarTexts::Draw(int64_t bytes, uint64_t key) const {
  const auto root = static_cast<size_t>(rules_.root);
  Drawing drawing(*this, key);
  drawing.Append(rules_.rules[root].body, std::max<int64_t>(0, bytes - sizes_[root].bytes));
  return std::move(drawing.text);
}

}  // namespace halo
