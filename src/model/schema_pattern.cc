#include "model/schema_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <locale>
#include <regex>
#include <vector>

#include "base/text.h"
#include "model/grammar_text.h"

namespace halo {
namespace {

using Ranges = std::vector<CharacterRange>;

constexpr size_t kMaxPatternBytes = 1000;
constexpr int32_t kMaxGroups = 50;
constexpr int64_t kMaxPlaces = 20'000;
constexpr int64_t kMaxRepetitions = 1000;

const Ranges kDigits = {{'0', '9'}};
const Ranges kWordCharacters = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
/// Only those that both regular expressions of Unicode and of bytes take for space.
const Ranges kSpaces = {{'\t', '\r'}, {' ', ' '}};
const Ranges kAllSpaces = {{'\t', '\r'},     {' ', ' '},       {0xA0, 0xA0},     {0x1680, 0x1680},
                           {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                           {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Ranges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};

struct PatternFault {
  std::string text;
};

bool Contains(const Ranges& ranges, uint32_t code) {
  return std::any_of(ranges.begin(), ranges.end(), [code](const CharacterRange& range) {
    return range.first <= code && code <= range.second;
  });
}

Ranges Intersection(const Ranges& a, const Ranges& b) {
  // Not (not a or not b); surrogates are in neither.
  Ranges rest = ComplementOf(a);
  const Ranges other = ComplementOf(b);
  rest.insert(rest.end(), other.begin(), other.end());
  return ComplementOf(NormalizedRanges(std::move(rest)));
}

/// One character of `ranges` as it is written inside a JSON string.
std::string WrittenCharacter(const Ranges& ranges) {
  struct Short {
    uint32_t code;
    const char* gbnf;
  };
  static constexpr Short kShort[] = {
      {'"', "\"\\\\\\\"\""}, {'\\', "\"\\\\\\\\\""}, {'\b', "\"\\\\b\""}, {'\f', "\"\\\\f\""},
      {'\n', "\"\\\\n\""},   {'\r', "\"\\\\r\""},    {'\t', "\"\\\\t\""}};
  static const Ranges kEscaped = NormalizedRanges({{0, 0x1F}, {'"', '"'}, {'\\', '\\'}});
  std::vector<std::string> ways;
  const Ranges plain = Intersection(ranges, ComplementOf(kEscaped));
  if (!plain.empty()) {
    std::string text = "[";
    for (const auto& [low, high] : plain) text += fmt::format("\\U{:08X}-\\U{:08X}", low, high);
    ways.push_back(text + "]");
  }
  for (const Short& escape : kShort) {
    if (Contains(ranges, escape.code)) ways.emplace_back(escape.gbnf);
  }
  for (uint32_t code = 0; code < 0x20; ++code) {
    const bool has_short = std::any_of(std::begin(kShort), std::end(kShort),
                                       [code](const Short& each) { return each.code == code; });
    if (!has_short && Contains(ranges, code)) ways.push_back(fmt::format("\"\\\\u{:04x}\"", code));
  }
  if (ways.empty()) throw PatternFault{"a class that no character is in"};
  if (ways.size() == 1) return ways.front();
  return fmt::format("({})", fmt::join(ways, " | "));
}

class PatternReader {
 public:
  explicit PatternReader(std::string_view pattern) : pattern_(pattern) {}

  std::string Read() {
    std::string whole = ReadChoice(0);
    if (at_ < pattern_.size()) throw PatternFault{"a ')' that closes nothing"};
    return whole;
  }
  int64_t places() const { return places_; }

 private:
  bool Sees(char c) const { return at_ < pattern_.size() && pattern_[at_] == c; }
  bool Take(char c) {
    if (!Sees(c)) return false;
    ++at_;
    return true;
  }

  std::string ReadChoice(int32_t groups) {
    if (groups > kMaxGroups) throw PatternFault{"groups nested more than 50 deep"};
    std::vector<std::string> ways = {ReadSequence(groups)};
    while (Take('|')) ways.push_back(ReadSequence(groups));
    if (ways.size() == 1) return ways.front();
    return fmt::format("({})", fmt::join(ways, " | "));
  }

  std::string ReadSequence(int32_t groups) {
    const bool is_top = groups == 0;
    std::string text;
    const bool begins = is_top && Take('^');
    if (is_top && !begins) text = AnyText();
    bool ends = false;
    while (at_ < pattern_.size() && !Sees('|') && !Sees(')')) {
      const bool last = at_ + 1 == pattern_.size() || pattern_[at_ + 1] == '|';
      if (is_top && Sees('$') && last) {
        ++at_;
        ends = true;
        break;
      }
      const int64_t before = places_;
      std::string item = ReadItem(groups);
      text += " " + Repeated(std::move(item), before);
      if (places_ > kMaxPlaces) throw PatternFault{"it is too large with its repetitions"};
    }
    if (is_top && !ends) text += " " + AnyText();
    return text.empty() ? "\"\"" : text;
  }

  std::string AnyText() {
    ++places_;
    return WrittenCharacter(ComplementOf({})) + "*";
  }

  /// The item with the quantifier behind it. Lazy ones take the same texts.
  std::string Repeated(std::string item, int64_t places_before) {
    const int64_t item_places = places_ - places_before;
    if (Take('{')) {
      const int64_t least = ReadCount();
      int64_t most = least;
      std::string bounds = std::to_string(least);
      if (Take(',')) {
        bounds += ",";
        if (!Sees('}')) {
          most = ReadCount();
          bounds += std::to_string(most);
        }
      }
      if (!Take('}')) throw PatternFault{"a '{' that is no repetition: write \\{"};
      if (most < least) throw PatternFault{"a repetition whose most is less than its least"};
      places_ += item_places * std::max<int64_t>(0, most - 1);
      item = "(" + item + "){" + bounds + "}";
    } else if (Sees('*') || Sees('+') || Sees('?')) {
      item = "(" + item + ")" + pattern_[at_++];
    } else {
      return item;
    }
    Take('?');
    if (Sees('*') || Sees('+') || Sees('{') || Sees('?')) {
      throw PatternFault{"a repetition of a repetition without a group"};
    }
    return item;
  }

  int64_t ReadCount() {
    int64_t count = 0;
    const size_t begin = at_;
    while (at_ < pattern_.size() && pattern_[at_] >= '0' && pattern_[at_] <= '9') {
      count = std::min<int64_t>(count * 10 + (pattern_[at_++] - '0'), kMaxRepetitions + 1);
    }
    if (at_ == begin) throw PatternFault{"a '{' that is no repetition: write \\{"};
    if (count > kMaxRepetitions) throw PatternFault{"more than 1000 repetitions"};
    return count;
  }

  std::string ReadItem(int32_t groups) {
    const char c = pattern_[at_];
    switch (c) {
      case '(': {
        ++at_;
        if (Take('?') && !Take(':')) {
          throw PatternFault{"look-around, named groups and flags have no grammar"};
        }
        std::string inner = ReadChoice(groups + 1);
        if (!Take(')')) throw PatternFault{"a '(' that is not closed"};
        return "(" + inner + ")";
      }
      case '[':
        return Characters(ReadClass());
      case '.':
        ++at_;
        return Characters(ComplementOf(kLineEnds));
      case '^':
      case '$':
        throw PatternFault{fmt::format("'{}' inside: it has a place at the ends only", c)};
      case '*':
      case '+':
      case '?':
      case '{':
        throw PatternFault{fmt::format("'{}' with nothing before it to repeat", c)};
      case ']':
      case '}':
        throw PatternFault{fmt::format("a lone '{0}': write \\{0}", c)};
      case '\\':
        return Characters(ReadEscape());
      default:
        return Characters(One(ReadCodePoint()));
    }
  }

  std::string Characters(const Ranges& ranges) {
    ++places_;
    return WrittenCharacter(ranges);
  }
  static Ranges One(uint32_t code) { return {{code, code}}; }

  uint32_t ReadCodePoint() {
    const auto lead = static_cast<unsigned char>(pattern_[at_++]);
    if (lead < 0x80) return lead;
    const int more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;  // the pattern is well-formed UTF-8
    uint32_t code = lead & (0x3FU >> more);
    for (int i = 0; i < more; ++i) {
      code = code << 6 | (static_cast<unsigned char>(pattern_[at_++]) & 0x3FU);
    }
    return code;
  }

  uint32_t ReadHex(size_t digits) {
    uint32_t code = 0;
    for (size_t i = 0; i < digits; ++i) {
      const char c = at_ < pattern_.size() ? pattern_[at_++] : ' ';
      const uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                             : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                                    : 16U;
      if (digit == 16) throw PatternFault{"an escape without its hexadecimal digits"};
      code = code * 16 + digit;
    }
    if (code >= 0xD800 && code <= 0xDFFF) {
      throw PatternFault{"half a surrogate pair: write the character itself"};
    }
    return code;
  }

  Ranges ReadEscape() {
    ++at_;
    if (at_ == pattern_.size()) throw PatternFault{"a '\\' with nothing behind it"};
    const char c = pattern_[at_];
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !(c >= '0' && c <= '9')) return One(ReadCodePoint());
    ++at_;
    switch (c) {
      case 'd':
        return kDigits;
      case 'D':
        return ComplementOf(kDigits);
      case 'w':
        return kWordCharacters;
      case 'W':
        return ComplementOf(kWordCharacters);
      case 's':
        return kSpaces;
      case 'S':
        return ComplementOf(kAllSpaces);
      case 'n':
        return One('\n');
      case 'r':
        return One('\r');
      case 't':
        return One('\t');
      case 'f':
        return One('\f');
      case 'v':
        return One('\v');
      case 'x':
        return One(ReadHex(2));
      case 'u':
        return One(ReadHex(4));
      default:
        throw PatternFault{fmt::format("'\\{}' has no grammar", c)};
    }
  }

  Ranges ReadClass() {
    ++at_;
    const bool negated = Take('^');
    Ranges ranges;
    while (!Sees(']')) {
      if (at_ == pattern_.size()) throw PatternFault{"a '[' that is not closed"};
      Ranges low = ReadClassItem();
      const bool is_range = Sees('-') && at_ + 1 < pattern_.size() && pattern_[at_ + 1] != ']';
      if (is_range) {
        ++at_;
        const Ranges high = ReadClassItem();
        const bool single = low.size() == 1 && high.size() == 1 && low[0].first == low[0].second &&
                            high[0].first == high[0].second;
        if (!single) throw PatternFault{"a range between classes"};
        if (high[0].first < low[0].first) {
          throw PatternFault{"a range that ends before it begins"};
        }
        low = {{low[0].first, high[0].first}};
      }
      ranges.insert(ranges.end(), low.begin(), low.end());
    }
    ++at_;
    ranges = NormalizedRanges(std::move(ranges));
    return negated ? ComplementOf(ranges) : ranges;
  }

  Ranges ReadClassItem() {
    if (Sees('[')) throw PatternFault{"a '[' inside a class: write \\["};
    if (at_ + 1 < pattern_.size() && Sees('\\') && pattern_[at_ + 1] == 'b') {
      at_ += 2;
      return One('\b');
    }
    return Sees('\\') ? ReadEscape() : One(ReadCodePoint());
  }

  std::string_view pattern_;
  size_t at_ = 0;
  int64_t places_ = 0;
};

std::wstring Widen(std::string_view text) {
  static_assert(sizeof(wchar_t) == sizeof(uint32_t), "a wchar_t holds any code point");
  std::wstring wide;
  for (size_t at = 0; at < text.size();) {
    const auto lead = static_cast<unsigned char>(text[at++]);
    const int more = lead < 0x80 ? 0 : lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    uint32_t code = more == 0 ? lead : lead & (0x3FU >> more);
    for (int i = 0; i < more && at < text.size(); ++i) {
      code = code << 6 | (static_cast<unsigned char>(text[at++]) & 0x3FU);
    }
    wide += static_cast<wchar_t>(code);
  }
  return wide;
}

}  // namespace

PatternGrammar PatternToGrammar(const std::string& pattern) {
  PatternGrammar grammar;
  try {
    if (pattern.size() > kMaxPatternBytes) throw PatternFault{"it has more than 1000 bytes"};
    if (FindInvalidUtf8(pattern) != std::string::npos) throw PatternFault{"it is not UTF-8"};
    PatternReader reader(pattern);
    grammar.expression = "\"\\\"\" " + reader.Read() + " \"\\\"\"";
    grammar.places = reader.places();
  } catch (const PatternFault& fault) {
    grammar.fault = fault.text;
  }
  return grammar;
}

struct PatternMatcher::Impl {
  std::wregex expression;
};

PatternMatcher::PatternMatcher(const std::string& pattern) : impl_(std::make_unique<Impl>()) {
  impl_->expression.imbue(std::locale::classic());
  // The default matcher of libstdc++ recurses for each character and may take exponential time.
  impl_->expression.assign(Widen(pattern),
                           std::regex_constants::ECMAScript | std::regex_constants::__polynomial);
}

PatternMatcher::~PatternMatcher() = default;
PatternMatcher::PatternMatcher(PatternMatcher&&) noexcept = default;

bool PatternMatcher::IsFoundIn(const std::string& text) const {
  return std::regex_search(Widen(text), impl_->expression);
}

}  // namespace halo
