#include "sql/sql_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "base/text.h"

namespace halo {
namespace {

/// PostgreSQL cuts longer names off (NAMEDATALEN - 1).
constexpr size_t kMostNameBytes = 63;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHexDigit(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
/// Of a dollar quote's tag and of a parameter; names may have $ as well.
bool IsTagByte(char c) { return IsNameStart(c) || IsDigit(c); }
bool IsNameByte(char c) { return IsTagByte(c) || c == '$'; }
bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f'; }
bool IsLineBreak(char c) { return c == '\n' || c == '\r'; }

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

/// Words after which an operand stands: a colon behind one begins a parameter even without a blank.
constexpr std::string_view kBeforeOperand[] = {
    "all",    "and",       "any",       "between", "by",   "case", "distinct", "else",
    "escape", "except",    "first",     "from",    "glob", "in",   "having",   "ilike",
    "is",     "intersect", "like",      "limit",   "next", "not",  "on",       "or",
    "offset", "select",    "returning", "set",     "some", "then", "to",       "when",
    "union",  "using",     "values",    "where",   "zone",
};

/// Characters that look like blanks: DuckDB takes most of them for blanks, PostgreSQL for letters
/// of names.
constexpr std::string_view kUnicodeBlanks[] = {
    "\u0085", "\u00A0", "\u1680", "\u180E", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004",
    "\u2005", "\u2006", "\u2007", "\u2008", "\u2009", "\u200A", "\u200B", "\u200C", "\u200D",
    "\u2028", "\u2029", "\u202F", "\u205F", "\u2060", "\u3000", "\uFEFF",
};

/// One text on its way to tokens. Every reader starts at offset_ and leaves it behind what it read;
/// the first fault ends the reading.
class SqlLexer {
 public:
  SqlLexer(std::string_view text, SqlDialect dialect, std::string& fault)
      : text_(text), dialect_(dialect), fault_(fault) {}

  std::vector<SqlToken> Read() {
    while (fault_.empty()) {
      SkipBlanks();
      if (!fault_.empty() || offset_ >= text_.size()) break;
      const size_t start = offset_;
      SqlToken token = ReadToken();
      token.source = text_.substr(start, offset_ - start);
      token.spaced = spaced_;
      token.line_before = line_before_;
      if (token.kind == SqlTokenKind::kWord) token.value = NameValue(token.source, false);
      if (token.kind == SqlTokenKind::kOperator || token.kind == SqlTokenKind::kNumber)
        token.value = token.source;
      TrackBrackets(token);
      tokens_.push_back(std::move(token));
    }
    return std::move(tokens_);
  }

 private:
  char At(size_t offset) const { return offset < text_.size() ? text_[offset] : '\0'; }
  bool Looking(std::string_view at) const { return text_.substr(offset_).starts_with(at); }

  void Fail(size_t offset, std::string_view what) {
    if (fault_.empty()) fault_ = fmt::format("{}: {}", SqlPlace(text_, offset), what);
  }

  void SkipBlanks() {
    spaced_ = line_before_ = false;
    while (offset_ < text_.size() && fault_.empty()) {
      if (IsBlank(text_[offset_])) {
        line_before_ |= IsLineBreak(text_[offset_]);
        ++offset_;
      } else if (Looking("--")) {
        while (offset_ < text_.size() && !IsLineBreak(text_[offset_])) ++offset_;
      } else if (Looking("/*")) {
        SkipBlockComment();
      } else {
        return;
      }
      spaced_ = true;
    }
  }

  void SkipBlockComment() {
    const size_t start = offset_;
    int64_t depth = 0;
    do {
      if (offset_ >= text_.size()) return Fail(start, "the comment /* is never closed");
      if (Looking("/*")) {
        ++depth;
        offset_ += 2;
      } else if (Looking("*/")) {
        --depth;
        offset_ += 2;
      } else {
        ++offset_;
      }
    } while (depth > 0);
  }

  SqlToken ReadToken() {
    const char c = text_[offset_];
    const char next = At(offset_ + 1);
    if (c == '\'') return Text(Continues() && last_text_escapes_);
    if (c == '"') return QuotedName(false);
    if (next == '\'' && (c == 'e' || c == 'E')) return PrefixedText(1, true);
    if (next == '\'' && std::string_view("bBxXnN").find(c) != std::string_view::npos)
      return PrefixedText(1, false);
    if ((c == 'u' || c == 'U') && next == '&' && At(offset_ + 2) == '\'')
      return PrefixedText(2, false);
    if ((c == 'u' || c == 'U') && next == '&' && At(offset_ + 2) == '"') {
      offset_ += 2;
      return QuotedName(true);
    }
    if (IsNameStart(c)) return Word();
    if (IsDigit(c) || (c == '.' && IsDigit(next))) return Number();
    if (c == '$') return Dollar();
    if (c == ':') return Colon();
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7F)
      Fail(offset_, fmt::format("the control character U+{:04X} stands outside of quotes", byte));
    ++offset_;
    const bool question = c == '?' && dialect_ == SqlDialect::kDuckDb;
    return {question ? SqlTokenKind::kNumberedParameter : SqlTokenKind::kOperator};
  }

  /// A text that goes on where the last token, a text too, ended. Then its escapes are that one's.
  bool Continues() const {
    return line_before_ && !tokens_.empty() && tokens_.back().kind == SqlTokenKind::kText;
  }

  SqlToken PrefixedText(size_t prefix, bool escapes) {
    offset_ += prefix;
    return Text(escapes);
  }

  SqlToken Text(bool escapes) {
    const size_t start = offset_++;
    last_text_escapes_ = escapes;
    while (offset_ < text_.size()) {
      if (escapes && text_[offset_] == '\\') {
        offset_ += 2;
      } else if (text_[offset_] != '\'') {
        ++offset_;
      } else if (At(offset_ + 1) == '\'') {
        offset_ += 2;
      } else {
        ++offset_;
        return {SqlTokenKind::kText, {}, std::string(text_.substr(start + 1, offset_ - start - 2))};
      }
    }
    offset_ = text_.size();  // a backslash at the very end steps past it
    Fail(start, "the quote ' is never closed");
    return {};
  }

  SqlToken QuotedName(bool unicode) {
    const size_t start = offset_++;
    std::string name;
    while (offset_ < text_.size()) {
      if (text_[offset_] != '"') {
        name += text_[offset_++];
      } else if (At(offset_ + 1) == '"') {
        name += '"';
        offset_ += 2;
      } else {
        ++offset_;
        // What it says would have to be decoded, with the escape character of a clause behind it.
        if (unicode && name.find('\\') != std::string::npos)
          Fail(start, "a name with escapes, U&\"...\": write its characters themselves");
        if (unicode) FailOnEscapeClause();
        return {SqlTokenKind::kQuotedName, {}, NameValue(name, true)};
      }
    }
    Fail(start, "the quote \" is never closed");
    return {};
  }

  /// U&"..." UESCAPE '!' chooses another escape character.
  void FailOnEscapeClause() {
    const auto state = std::tuple(offset_, spaced_, line_before_);
    SkipBlanks();
    if (Lower(text_.substr(offset_, 7)) == "uescape")
      Fail(offset_, "a name with UESCAPE: write its characters themselves");
    std::tie(offset_, spaced_, line_before_) = state;
  }

  std::string NameValue(std::string_view name, bool quoted) const {
    const bool postgres = dialect_ == SqlDialect::kPostgres;
    std::string value = quoted && postgres ? std::string(name) : Lower(name);
    if (postgres && value.size() > kMostNameBytes)
      value.resize(CompleteUtf8Length(std::string_view(value).substr(0, kMostNameBytes)));
    return value;
  }

  SqlToken Word() {
    const size_t start = offset_;
    while (IsNameByte(At(offset_))) ++offset_;
    const std::string_view word = text_.substr(start, offset_ - start);
    for (const std::string_view blank : kUnicodeBlanks) {
      const size_t found = word.find(blank);
      if (found == std::string_view::npos) continue;
      Fail(start + found,
           "a character that only looks like a blank stands outside of quotes: write a blank");
    }
    return {SqlTokenKind::kWord};
  }

  /// Digits, with `_` between them.
  void SkipDigits() {
    while (IsDigit(At(offset_)) || (At(offset_) == '_' && IsDigit(At(offset_ + 1)))) ++offset_;
  }

  /// Letters that follow begin a word: older servers read 1INTO as 1 INTO.
  SqlToken Number() {
    const char radix = At(offset_ + 1);
    if (text_[offset_] == '0' && (radix == 'x' || radix == 'X') && IsHexDigit(At(offset_ + 2))) {
      offset_ += 2;
      while (IsHexDigit(At(offset_))) ++offset_;
      return {SqlTokenKind::kNumber};
    }
    SkipDigits();
    if (At(offset_) == '.' && At(offset_ + 1) != '.') {
      ++offset_;
      SkipDigits();
    }
    if (At(offset_) == 'e' || At(offset_) == 'E') {
      const bool has_sign = At(offset_ + 1) == '+' || At(offset_ + 1) == '-';
      const size_t digits = offset_ + (has_sign ? 2 : 1);
      if (IsDigit(At(digits))) {
        offset_ = digits;
        SkipDigits();
      }
    }
    return {SqlTokenKind::kNumber};
  }

  SqlToken Dollar() {
    const size_t start = offset_;
    size_t end = offset_ + 1;
    const bool numbered = IsDigit(At(end));
    while (IsTagByte(At(end))) ++end;
    if (!numbered && At(end) == '$') {
      const std::string_view tag = text_.substr(start, end + 1 - start);
      const size_t closing = text_.find(tag, end + 1);
      if (closing == std::string_view::npos) {
        Fail(start, fmt::format("the quote {} is never closed", tag));
        return {};
      }
      offset_ = closing + tag.size();
      last_text_escapes_ = false;
      return {SqlTokenKind::kText, {}, std::string(text_.substr(end + 1, closing - end - 1))};
    }
    if (end == start + 1) Fail(start, "a $ that begins neither a quote nor a parameter");
    if (numbered) {
      for (end = start + 1; IsDigit(At(end));) ++end;
    }
    offset_ = end;
    return {SqlTokenKind::kNumberedParameter, {}, std::string(text_.substr(start, end - start))};
  }

  SqlToken Colon() {
    const size_t start = offset_++;
    if (At(offset_) == ':') {
      ++offset_;
      return {};
    }
    if (!IsNameStart(At(offset_)) || IsColonOfValue()) return {};
    while (IsTagByte(At(offset_))) ++offset_;
    if (At(offset_) == '$') Fail(offset_, "a $ directly behind a parameter's name");
    return {
        SqlTokenKind::kParameter, {}, std::string(text_.substr(start + 1, offset_ - start - 1))};
  }

  /// A slice's colon, or one behind a key: see ReadSqlTokens.
  bool IsColonOfValue() const {
    const bool in_brackets = !brackets_.empty() && brackets_.back() != '(';
    if (tokens_.empty() || (spaced_ && !in_brackets)) return false;
    const SqlToken& before = tokens_.back();
    if (before.kind == SqlTokenKind::kWord)
      return std::ranges::find(kBeforeOperand, before.value) == std::end(kBeforeOperand);
    if (before.kind != SqlTokenKind::kOperator) return true;
    return before.IsOperator(")") || before.IsOperator("]") || before.IsOperator("}");
  }

  void TrackBrackets(const SqlToken& token) {
    if (token.kind != SqlTokenKind::kOperator || token.source.size() != 1) return;
    const char mark = token.source[0];
    if (mark == '(' || mark == '[' || mark == '{') brackets_ += mark;
    if ((mark == ')' || mark == ']' || mark == '}') && !brackets_.empty()) brackets_.pop_back();
  }

  std::string_view text_;
  SqlDialect dialect_;
  std::string& fault_;
  std::vector<SqlToken> tokens_;
  std::string brackets_;  // those that are open
  size_t offset_ = 0;
  bool spaced_ = false, line_before_ = false;  // before the next token
  bool last_text_escapes_ = false;
};

}  // namespace

std::vector<SqlToken> ReadSqlTokens(std::string_view text, SqlDialect dialect, std::string& fault) {
  return SqlLexer(text, dialect, fault).Read();
}

std::string SqlPlace(std::string_view text, size_t offset) {
  size_t line = 1, column = 1;
  for (size_t i = 0; i < offset && i < text.size(); ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++column;
    }
  }
  return fmt::format("line {}, column {}", line, column);
}

}  // namespace halo
