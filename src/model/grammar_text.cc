#include "model/grammar_text.h"

#include <algorithm>
#include <unordered_map>

#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

using Kind = GrammarExpression::Kind;

constexpr uint32_t kLastCodePoint = 0x10FFFF;
constexpr uint32_t kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

bool IsNameCharacter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-';
}

int HexValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class GrammarReader {
 public:
  GrammarReader(std::string_view text, const std::string& name) : text_(text), name_(name) {}

  GrammarRules Read() {
    if (text_.size() > kMaxGrammarBytes) Fail(0, "a grammar has at most 4 MiB");
    const size_t bad = FindInvalidUtf8(text_);
    if (bad != std::string_view::npos) Fail(bad, "this is not UTF-8");
    SkipSpace(true);
    while (!AtEnd()) {
      ReadRule();
      SkipSpace(true);
    }
    const auto root = numbers_.find("root");
    if (root == numbers_.end() || !defined_[static_cast<size_t>(root->second)]) {
      Fail(0, "there is no rule 'root': it says what the whole text looks like");
    }
    for (const auto& [used, offset] : uses_) {
      if (defined_[static_cast<size_t>(used)]) continue;
      std::vector<std::string> names;
      for (size_t i = 0; i < defined_.size(); ++i) {
        if (defined_[i]) names.push_back(grammar_.rules[i].name);
      }
      const std::string& missing = grammar_.rules[static_cast<size_t>(used)].name;
      Fail(offset, "there is no rule '" + missing + "'" + DidYouMean(missing, names));
    }
    grammar_.root = root->second;
    return std::move(grammar_);
  }

 private:
  [[noreturn]] void Fail(size_t offset, const std::string& message) const {
    ThrowGrammarError(text_, name_, offset, message);
  }
  bool AtEnd() const { return at_ >= text_.size(); }
  bool Sees(char c) const { return !AtEnd() && text_[at_] == c; }
  bool Take(char c) {
    if (!Sees(c)) return false;
    ++at_;
    return true;
  }
  std::string Shown() const {
    return AtEnd() ? "the end" : "'" + std::string(text_.substr(at_, 1)) + "'";
  }

  void SkipSpace(bool over_lines) {
    while (!AtEnd()) {
      const char c = text_[at_];
      const bool line_end = c == '\n' || c == '\r';
      if (c == '#') {
        while (!AtEnd() && text_[at_] != '\n' && text_[at_] != '\r') ++at_;
      } else if (c == ' ' || c == '\t' || (line_end && over_lines)) {
        ++at_;
      } else {
        return;
      }
    }
  }

  std::string ReadName() {
    const size_t begin = at_;
    while (!AtEnd() && IsNameCharacter(text_[at_])) ++at_;
    if (at_ == begin) {
      Fail(at_, "expected the name of a rule (letters, digits and '-'), got " + Shown());
    }
    return std::string(text_.substr(begin, at_ - begin));
  }

  int32_t NumberOf(const std::string& name, size_t offset) {
    const auto [place, added] = numbers_.emplace(name, static_cast<int32_t>(grammar_.rules.size()));
    if (added) {
      if (grammar_.rules.size() >= kMaxGrammarRules) Fail(offset, "more than 20000 rules");
      grammar_.rules.push_back({name, {}, offset});
      defined_.push_back(false);
    }
    return place->second;
  }

  void ReadRule() {
    const size_t begin = at_;
    const std::string name = ReadName();
    SkipSpace(false);
    if (text_.substr(at_, 3) != "::=") {
      Fail(at_, "expected '::=' after the rule's name, got " + Shown());
    }
    at_ += 3;
    SkipSpace(true);
    const auto number = static_cast<size_t>(NumberOf(name, begin));
    if (defined_[number]) Fail(begin, "the rule '" + name + "' is defined twice");
    GrammarExpression body = ReadChoice(0);
    grammar_.rules[number].body = std::move(body);
    grammar_.rules[number].offset = begin;
    defined_[number] = true;
    if (!AtEnd() && text_[at_] != '\n' && text_[at_] != '\r') {
      Fail(at_, "expected the end of the rule, got " + Shown());
    }
  }

  /// `height`: open groups. Inside a group lines may end anywhere.
  GrammarExpression ReadChoice(int32_t height) {
    if (height > kMaxGrammarGroups) Fail(at_, "groups are nested more than 200 deep");
    GrammarExpression choice;
    choice.kind = Kind::kChoice;
    choice.children.push_back(ReadSequence(height));
    while (Take('|')) {
      SkipSpace(true);
      choice.children.push_back(ReadSequence(height));
    }
    if (choice.children.size() > 1) return Measured(std::move(choice));
    GrammarExpression only = std::move(choice.children.front());
    return only;
  }

  GrammarExpression ReadSequence(int32_t height) {
    GrammarExpression sequence;
    while (!AtEnd()) {
      const char c = text_[at_];
      if (c == '"') {
        sequence.children.push_back(ReadLiteral());
      } else if (c == '[') {
        sequence.children.push_back(ReadClass());
      } else if (c == '.') {
        ++at_;
        sequence.children.push_back(Characters(ComplementOf({})));
      } else if (c == '(') {
        ++at_;
        SkipSpace(true);
        sequence.children.push_back(ReadChoice(height + 1));
        if (!Take(')')) Fail(at_, "expected ')', got " + Shown());
      } else if (c == '*' || c == '+' || c == '?' || c == '{') {
        Repeat(sequence);
      } else if (c == '<' || c == '!') {
        Fail(at_, "rules over tokens are not supported: write the text instead");
      } else if (IsNameCharacter(c)) {
        GrammarExpression use;
        use.kind = Kind::kRule;
        const size_t begin = at_;
        use.rule = NumberOf(ReadName(), begin);
        uses_.emplace_back(use.rule, begin);
        sequence.children.push_back(std::move(use));
      } else {
        break;
      }
      SkipSpace(height > 0);
    }
    if (sequence.children.size() != 1) return Measured(std::move(sequence));
    GrammarExpression only = std::move(sequence.children.front());
    return only;
  }

  /// The expression, with its height.
  GrammarExpression Measured(GrammarExpression expression) const {
    for (const GrammarExpression& child : expression.children) {
      expression.height = std::max(expression.height, child.height + 1);
    }
    if (expression.height > kMaxExpressionHeight) Fail(at_, "too many groups and repetitions");
    return expression;
  }

  static GrammarExpression Characters(std::vector<CharacterRange> ranges) {
    GrammarExpression characters;
    characters.kind = Kind::kCharacters;
    characters.ranges = std::move(ranges);
    return characters;
  }

  uint32_t ReadHex(size_t begin, int digits) {
    uint32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = AtEnd() ? -1 : HexValue(text_[at_]);
      if (digit < 0) Fail(begin, "expected " + std::to_string(digits) + " hexadecimal digits");
      if (value > (kLastCodePoint >> 4)) {
        Fail(begin, "there is no character beyond 10FFFF");
      }
      value = value * 16 + static_cast<uint32_t>(digit);
      ++at_;
    }
    return value;
  }

  /// One character of a literal or a class, escapes resolved.
  uint32_t ReadCharacter() {
    const size_t begin = at_;
    const auto lead = static_cast<unsigned char>(text_[at_++]);
    if (lead == '\\') {
      if (AtEnd()) Fail(begin, "an escape without a character");
      const char kind = text_[at_++];
      switch (kind) {
        case 'n':
          return '\n';
        case 'r':
          return '\r';
        case 't':
          return '\t';
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
          return static_cast<uint32_t>(kind);
        case 'x':
          return ReadHex(begin, 2);
        case 'u':
          return ReadHex(begin, 4);
        case 'U':
          return ReadHex(begin, 8);
        default:
          Fail(begin,
               "unknown escape: \\n \\r \\t \\\\ \\\" \\[ \\] \\- \\xNN \\uNNNN "
               "\\UNNNNNNNN are known");
      }
    }
    if (lead < 0x80) return lead;
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;  // the text is well-formed UTF-8
    uint32_t value = lead & (0x3FU >> more);
    for (int i = 0; i < more; ++i) {
      value = value << 6 | (static_cast<unsigned char>(text_[at_++]) & 0x3FU);
    }
    return value;
  }

  GrammarExpression ReadLiteral() {
    const size_t begin = at_++;
    GrammarExpression literal;
    literal.kind = Kind::kLiteral;
    while (!Sees('"')) {
      if (AtEnd() || Sees('\n')) Fail(begin, "the literal does not end on its line");
      const size_t character = at_;
      const uint32_t code = ReadCharacter();
      if ((code >= kFirstSurrogate && code <= kLastSurrogate) || code > kLastCodePoint) {
        Fail(character, "no text holds this character");
      }
      AppendUtf8(code, literal.text);
    }
    ++at_;
    if (literal.text.empty()) return {};
    return literal;
  }

  GrammarExpression ReadClass() {
    const size_t begin = at_++;
    const bool negated = Take('^');
    std::vector<CharacterRange> ranges;
    while (!Sees(']')) {
      if (AtEnd() || Sees('\n')) Fail(begin, "the class does not end on its line: ']' is missing");
      const size_t character = at_;
      const uint32_t low = ReadCharacter();
      uint32_t high = low;
      const char after = at_ + 1 < text_.size() ? text_[at_ + 1] : '\n';
      if (Sees('-') && after != ']' && after != '\n') {
        ++at_;
        high = ReadCharacter();
        if (high < low) Fail(character, "the range ends before it begins");
      }
      ranges.emplace_back(low, high);
    }
    ++at_;
    ranges = NormalizedRanges(std::move(ranges));
    if (negated) ranges = ComplementOf(ranges);
    if (ranges.empty()) Fail(begin, "no character is in this class");
    return Characters(std::move(ranges));
  }

  int32_t ReadCount() {
    const size_t begin = at_;
    int64_t count = 0;
    while (!AtEnd() && text_[at_] >= '0' && text_[at_] <= '9') {
      count = std::min<int64_t>(count * 10 + (text_[at_++] - '0'), kMaxGrammarRepetitions + 1);
    }
    if (at_ == begin) Fail(at_, "expected a number, got " + Shown());
    if (count > kMaxGrammarRepetitions) Fail(begin, "at most 1000000 repetitions");
    return static_cast<int32_t>(count);
  }

  /// Wraps the last item of the sequence.
  void Repeat(GrammarExpression& sequence) {
    const size_t begin = at_;
    if (sequence.children.empty()) Fail(begin, "there is nothing to repeat");
    GrammarExpression repeat;
    repeat.kind = Kind::kRepeat;
    const char kind = text_[at_++];
    repeat.least = kind == '+' ? 1 : 0;
    repeat.most = kind == '?' ? 1 : GrammarExpression::kUnbounded;
    if (kind == '{') {
      SkipSpace(false);
      repeat.least = ReadCount();
      repeat.most = repeat.least;
      SkipSpace(false);
      if (Take(',')) {
        SkipSpace(false);
        repeat.most = Sees('}') ? GrammarExpression::kUnbounded : ReadCount();
        SkipSpace(false);
      }
      if (!Take('}')) Fail(at_, "expected '}', got " + Shown());
      if (repeat.most >= 0 && repeat.most < repeat.least) {
        Fail(begin, "the most is less than the least");
      }
    }
    GrammarExpression& last = sequence.children.back();
    // x*** is x*: without this a row of stars would be a tree as high as it is long.
    const bool again = last.kind == Kind::kRepeat && last.least == repeat.least &&
                       last.most == repeat.most && repeat.most != repeat.least && kind != '{';
    if (again) return;
    repeat.children.push_back(std::move(last));
    sequence.children.back() = Measured(std::move(repeat));
  }

  std::string_view text_;
  const std::string& name_;
  size_t at_ = 0;
  GrammarRules grammar_;
  std::vector<bool> defined_;  // [rules]
  std::unordered_map<std::string, int32_t> numbers_;
  std::vector<std::pair<int32_t, size_t>> uses_;  // rule, offset
};

}  // namespace

GrammarRules ParseGrammar(std::string_view text, const std::string& name) {
  return GrammarReader(text, name).Read();
}

void ThrowGrammarError(std::string_view text, const std::string& name, size_t offset,
                       const std::string& message) {
  const std::string_view before = text.substr(0, offset);
  const size_t line_start = before.rfind('\n') + 1;
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  throw Error(ErrorCode::kWorkflow,
              {{{name, static_cast<int32_t>(line), static_cast<int32_t>(offset - line_start + 1)},
                message}});
}

std::vector<CharacterRange> NormalizedRanges(std::vector<CharacterRange> ranges) {
  std::sort(ranges.begin(), ranges.end());
  std::vector<CharacterRange> joined;
  const auto add = [&](uint32_t low, uint32_t high) {
    high = std::min(high, kLastCodePoint);
    if (low > high) return;
    if (!joined.empty() && low <= joined.back().second + 1) {
      joined.back().second = std::max(joined.back().second, high);
    } else {
      joined.emplace_back(low, high);
    }
  };
  for (const auto& [low, high] : ranges) {
    if (low < kFirstSurrogate) add(low, std::min(high, kFirstSurrogate - 1));
    if (high > kLastSurrogate) add(std::max(low, kLastSurrogate + 1), high);
  }
  return joined;
}

std::vector<CharacterRange> ComplementOf(const std::vector<CharacterRange>& ranges) {
  std::vector<CharacterRange> rest;
  uint32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) rest.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kLastCodePoint) rest.emplace_back(next, kLastCodePoint);
  return NormalizedRanges(std::move(rest));
}

void AppendUtf8(uint32_t code_point, std::string& text) {
  const auto tail = [&](int shift) {
    text += static_cast<char>(0x80U | (code_point >> shift & 0x3FU));
  };
  if (code_point < 0x80) {
    text += static_cast<char>(code_point);
  } else if (code_point < 0x800) {
    text += static_cast<char>(0xC0U | code_point >> 6);
    tail(0);
  } else if (code_point < 0x10000) {
    text += static_cast<char>(0xE0U | code_point >> 12);
    tail(6);
    tail(0);
  } else {
    text += static_cast<char>(0xF0U | code_point >> 18);
    tail(12);
    tail(6);
    tail(0);
  }
}

}  // namespace halo
