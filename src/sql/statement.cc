#include "sql/statement.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <span>
#include <utility>

#include "base/text.h"
#include "sql/sql_functions.h"

namespace halo {
namespace {

using Tokens = std::span<const SqlToken>;

/// Both servers number parameters in 16 bits.
constexpr size_t kMostParameters = 65'535;
constexpr size_t kMostTextBytes = size_t{1} << 20;

template <size_t n>
bool Contains(const std::string_view (&list)[n], std::string_view word) {
  return std::find(std::begin(list), std::end(list), word) != std::end(list);
}

/// The words of a statement with what stands around them. Words behind a dot are names, whatever
/// they say.
class SqlWords {
 public:
  SqlWords(Tokens tokens, SqlDialect dialect)
      : tokens_(tokens), dialect_(dialect), closing_(tokens.size(), tokens.size()) {
    std::vector<size_t> open;
    for (size_t i = 0; i < size(); ++i) {
      if (IsOpening(i)) open.push_back(i);
      if (!IsClosing(i) || open.empty()) continue;
      closing_[open.back()] = i;
      open.pop_back();
    }
  }

  size_t size() const { return tokens_.size(); }
  const SqlToken& operator[](size_t i) const { return tokens_[i]; }
  bool is_duckdb() const { return dialect_ == SqlDialect::kDuckDb; }

  /// The word at `i`, "" if there is none or it is part of a name.
  std::string_view Word(size_t i) const {
    if (i >= size() || tokens_[i].kind != SqlTokenKind::kWord || IsBehindDot(i)) return "";
    return tokens_[i].value;
  }
  std::string_view WordBefore(size_t i) const { return i == 0 ? "" : Word(i - 1); }
  bool IsOperator(size_t i, std::string_view mark) const {
    return i < size() && tokens_[i].IsOperator(mark);
  }
  bool IsName(size_t i) const { return i < size() && tokens_[i].IsName(); }
  bool IsBehindDot(size_t i) const { return i > 0 && tokens_[i - 1].IsOperator("."); }

  /// Where the bracket that `i` opens is closed; size() if it is not, or `i` is no bracket.
  size_t Closing(size_t i) const { return i < size() ? closing_[i] : size(); }
  bool IsOpening(size_t i) const {
    return IsOperator(i, "(") || IsOperator(i, "[") || IsOperator(i, "{");
  }
  bool IsClosing(size_t i) const {
    return IsOperator(i, ")") || IsOperator(i, "]") || IsOperator(i, "}");
  }

  /// Reads a.b.c from `i` on and steps behind it.
  SqlName Name(size_t& i) const {
    SqlName name{"", tokens_[i].value};
    while (IsOperator(i + 1, ".") && IsName(i + 2)) {
      i += 2;
      name = {std::move(name.name), tokens_[i].value};
    }
    ++i;
    return name;
  }

 private:
  Tokens tokens_;
  SqlDialect dialect_;
  std::vector<size_t> closing_;  // [token]
};

void SortOnce(std::vector<SqlName>& names) {
  std::ranges::sort(names);
  names.erase(std::unique(names.begin(), names.end()), names.end());
}

// ---- functions, volatility

/// age(a, b) is a difference, age(a) one to today. How many arguments stand in the brackets that
/// open at `i`.
int64_t CountArguments(const SqlWords& words, size_t i) {
  const size_t end = words.Closing(i);
  if (++i >= end) return 0;
  int64_t arguments = 1;
  for (; i < end; ++i) {
    if (words.IsOpening(i)) i = words.Closing(i);
    if (words.IsOperator(i, ",")) ++arguments;
  }
  return arguments;
}

void ReadFunctions(const SqlWords& words, SqlStatement& statement) {
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    if (!words.IsName(i) || !words.IsOperator(i + 1, "(") || IsGrammarWord(words.Word(i))) continue;
    const SqlToken& name = words[i];
    const bool qualified = words.IsBehindDot(i) && i >= 2 && words.IsName(i - 2);
    statement.functions.push_back({qualified ? words[i - 2].value : "", name.value});
    const bool is_difference = name.value == "age" && CountArguments(words, i + 1) == 2;
    if (IsVolatileFunction(name.value) && !is_difference) statement.is_volatile = true;
    if (FunctionWrites(name.value)) statement.writes = true;
  }
  SortOnce(statement.functions);
}

bool IsWordByte(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

/// PostgreSQL reads 'now', 'today', 'tomorrow 10:00 Europe/Paris' as times where it expects one.
bool NamesTheDay(const std::string& text) {
  constexpr size_t kMostBytes = 64;
  constexpr std::string_view kDays[] = {"now", "today", "tomorrow", "yesterday"};
  if (text.size() > kMostBytes) return false;
  bool names_day = false;
  std::string word;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && IsWordByte(text[i])) {
      word += static_cast<char>(text[i] | 0x20);
    } else {
      const bool may_be_time =
          i == text.size() ||
          std::string_view(" \t\n0123456789:.,+-/_").find(text[i]) != std::string_view::npos;
      if (!may_be_time) return false;
      names_day |= Contains(kDays, word);
      word.clear();
    }
  }
  return names_day;
}

bool IsVolatileToken(const SqlWords& words, size_t i) {
  const SqlToken& token = words[i];
  if (token.kind == SqlTokenKind::kText) return !words.is_duckdb() && NamesTheDay(token.value);
  const std::string_view word = words.Word(i);
  if (word == "tablesample" || (word == "sample" && words.WordBefore(i) == "using")) return true;
  if (!words.is_duckdb()) return word == "user" || IsKeywordFunction(word);
  // DuckDB looks for a function where no column has the name, quoted or not. Its user never
  // changes.
  return token.IsName() && !words.IsBehindDot(i) && IsKeywordFunction(token.value);
}

// ---- what writes

/// First words of statements that read. In DuckDB's of its own too.
constexpr std::string_view kReaders[] = {"select", "with", "values", "table", "explain", "show"};
constexpr std::string_view kDuckReaders[] = {"from",      "describe", "desc",
                                             "summarize", "pivot",    "unpivot"};
/// Readers that show what changes without any table: plans, settings, samples.
constexpr std::string_view kVolatileReaders[] = {"explain", "show", "summarize"};

/// The first word of what EXPLAIN explains; size() if it executes it.
size_t SkipExplain(const SqlWords& words, size_t i) {
  const size_t options_end = words.IsOperator(i, "(") ? words.Closing(i) + 1 : i;
  for (; i < options_end || words.Word(i) == "verbose" || words.Word(i) == "analyze" ||
         words.Word(i) == "analyse";
       ++i) {
    if (words.Word(i).starts_with("analy")) return words.size();
  }
  return i;
}

bool BeginsWithReader(const SqlWords& words, SqlStatement& statement) {
  size_t i = 0;
  while (words.IsOperator(i, "(")) ++i;
  std::string_view first = words.Word(i);
  if (Contains(kVolatileReaders, first)) statement.is_volatile = true;
  if (first == "explain") {
    i = SkipExplain(words, i + 1);
    while (words.IsOperator(i, "(")) ++i;
    first = words.Word(i);
  }
  return Contains(kReaders, first) || (words.is_duckdb() && Contains(kDuckReaders, first));
}

/// Neither server lets a statement that begins with a reading word write otherwise than by these:
/// in WITH (PostgreSQL), behind WITH, SELECT ... INTO, and locks on rows.
bool IsWritingWord(const SqlWords& words, size_t i) {
  const std::string_view word = words.Word(i);
  if (word == "for") {
    const std::string_view next = words.Word(i + 1);
    return next == "update" || next == "share" || next == "no" || next == "key";
  }
  const bool is_verb =
      word == "insert" || word == "update" || word == "delete" || word == "merge" || word == "into";
  return is_verb && words.WordBefore(i) != "as" && !words.IsOperator(i + 1, "(");
}

/// Behind these, UPDATE, DELETE and INSERT are parts of a clause: ON CONFLICT DO UPDATE, FOR NO KEY
/// UPDATE, MERGE ... WHEN MATCHED THEN DELETE.
bool IsClause(std::string_view before) {
  return before == "for" || before == "key" || before == "do" || before == "then" || before == "as";
}

/// Reads the targets of one statement's writes.
class WrittenRelations {
 public:
  explicit WrittenRelations(const SqlWords& words) : words_(words) {}

  /// Empty if there is anything that is not understood.
  std::vector<SqlName> Read() {
    size_t first = 0;
    while (words_.IsOperator(first, "(")) ++first;
    if (words_.Word(first) == "truncate") return Truncated(first + 1);
    constexpr std::string_view kUnderstood[] = {"insert", "update", "delete",
                                                "merge",  "with",   "select"};
    bool certain = Contains(kUnderstood, words_.Word(first));
    for (size_t i = first; certain && i < words_.size(); ++i) certain = ReadAt(i);
    if (!certain) written_.clear();
    SortOnce(written_);
    return std::move(written_);
  }

 private:
  /// False: it cannot be told what is written.
  bool ReadAt(size_t i) {
    const std::string_view word = words_.Word(i);
    const bool is_call = words_.IsName(i) && words_.IsOperator(i + 1, "(");
    // Sequences apart, which a column's default changes without a word as well.
    if (is_call && FunctionWrites(words_[i].value)) return words_[i].value == "nextval";
    if (is_call || IsClause(words_.WordBefore(i))) return true;
    if (word == "insert") return Target(SkipOr(i + 1), "into");
    if (word == "merge") return Target(i + 1, "into");
    if (word == "delete") return Target(i + 1, "from");
    if (word == "update") return Target(i + 1, "");
    if (word == "into") return i == into_;
    return true;
  }

  /// DuckDB's INSERT OR REPLACE.
  size_t SkipOr(size_t i) const { return words_.Word(i) == "or" ? i + 2 : i; }

  bool Target(size_t i, std::string_view after) {
    if (!after.empty() && words_.Word(i) != after) return false;
    if (after == "into") into_ = i;
    if (!after.empty()) ++i;
    if (words_.Word(i) == "only") ++i;
    if (!words_.IsName(i)) return false;
    written_.push_back(words_.Name(i));
    return true;
  }

  std::vector<SqlName> Truncated(size_t i) {
    if (words_.Word(i) == "table") ++i;
    for (bool more = true; more; i += more ? 1 : 0) {
      if (words_.Word(i) == "only") ++i;
      if (!words_.IsName(i)) return {};
      written_.push_back(words_.Name(i));
      if (words_.IsOperator(i, "*")) ++i;
      more = words_.IsOperator(i, ",");
    }
    for (; i < words_.size(); ++i) {
      if (words_.Word(i) == "cascade") return {};
    }
    SortOnce(written_);
    return std::move(written_);
  }

  const SqlWords& words_;
  std::vector<SqlName> written_;
  size_t into_ = 0;  // of the last INSERT or MERGE
};

// ---- what is read

/// Reads the relations of a statement: one pass that knows in which brackets it is, whether these
/// have a FROM list under way, and which names of WITH are visible there.
class ReadRelations {
 public:
  explicit ReadRelations(const SqlWords& words) : words_(words), frames_(1) {
    for (size_t i = 0; i < words.size() && !lists_using_; ++i) {
      const std::string_view word = words.Word(i);
      lists_using_ = word == "delete" || word == "merge";
    }
  }

  std::vector<SqlName> Read() {
    for (size_t i = 0; i < words_.size();) i = Step(i);
    SortOnce(relations_);
    return std::move(relations_);
  }

 private:
  /// WITH name (columns) AS [NOT] [MATERIALIZED] ( body ), name ...
  enum class With : uint8_t { kNone, kName, kAs, kBody, kAfterBody };

  /// What stands between two brackets.
  struct Frame {
    bool in_list = false;  // of FROM: a comma is followed by one more relation
    bool expects = false;  // the next name is a relation
    bool is_body = false;  // of a name of WITH in the frame around it
    With with = With::kNone;
    bool recursive = false;
    std::string name;                // of WITH, whose body comes next
    std::vector<std::string> names;  // of WITH: visible from here on and in brackets within
  };

  Frame& frame() { return frames_.back(); }

  size_t Step(size_t i) {
    if (words_.IsOpening(i)) {
      Open(words_.IsOperator(i, "("));
    } else if (words_.IsClosing(i)) {
      Close();
    } else if (words_.IsOperator(i, ",")) {
      if (frame().with == With::kAfterBody) frame().with = With::kName;
      frame().expects |= frame().in_list;
    } else if (words_.IsName(i) && frame().with == With::kName) {
      return ReadWithName(i);
    } else if (!words_.Word(i).empty() && TakeWord(i)) {
      return i + 1;
    } else if (frame().expects) {
      return Expected(i);
    }
    return i + 1;
  }

  void Open(bool round) {
    Frame inner;
    inner.expects = round && frame().expects;
    if (round && frame().with == With::kBody) {
      inner.is_body = true;
      if (frame().recursive) ShowName();
    }
    frame().expects = false;
    frames_.push_back(std::move(inner));
  }

  void Close() {
    if (frames_.size() == 1) return;
    const Frame inner = std::move(frames_.back());
    frames_.pop_back();
    for (const std::string& name : inner.names) --visible_[name];
    if (!inner.is_body) return;
    if (!frame().recursive) ShowName();
    frame().with = With::kAfterBody;
  }

  void ShowName() {
    ++visible_[frame().name];
    frame().names.push_back(frame().name);
  }

  size_t ReadWithName(size_t i) {
    if (words_.Word(i) == "recursive" && words_.WordBefore(i) == "with") {
      frame().recursive = true;
    } else {
      frame().name = words_[i].value;
      frame().with = With::kAs;
    }
    return i + 1;
  }

  /// True if the word at `i` belongs to the grammar here.
  bool TakeWord(size_t i) {
    const std::string_view word = words_.Word(i);
    constexpr std::string_view kVerbs[] = {"select", "values", "insert", "delete", "merge"};
    constexpr std::string_view kListEnds[] = {
        "where", "group",     "having", "order",  "limit",   "offset",    "fetch",
        "union", "intersect", "except", "window", "qualify", "returning", "set"};
    constexpr std::string_view kOneRelation[] = {"table",     "describe", "desc",
                                                 "summarize", "pivot",    "unpivot"};
    // Words that are not reserved may be a relation's name: FROM set.
    constexpr std::string_view kMayBeNames[] = {"set", "insert", "update", "delete", "merge"};
    if (frame().expects && Contains(kMayBeNames, word)) return false;
    if (word == "with" && IsWithList(i)) {
      frame().with = With::kName;
    } else if (word == "as" && frame().with == With::kAs) {
      frame().with = With::kBody;
    } else if (word == "from" || word == "join" || (word == "using" && lists_using_)) {
      frame().in_list = frame().expects = true;
      frame().with = With::kNone;
    } else if (Contains(kListEnds, word)) {
      frame().in_list = frame().expects = false;
    } else if (Contains(kVerbs, word)) {
      frame().in_list = frame().expects = false;
      frame().with = With::kNone;
    } else if (word == "update" && !IsClause(words_.WordBefore(i))) {
      frame().expects = true;
      frame().with = With::kNone;
    } else if (word == "into" && words_.WordBefore(i) == "merge") {
      frame().expects = true;
    } else if (Contains(kOneRelation, word) && (word == "table" || IsFirst(i))) {
      frame().expects = true;
    } else {
      return frame().expects && IsBeforeRelation(i);
    }
    return true;
  }

  /// FROM ONLY a, FROM LATERAL f(a), FROM ROWS FROM (f(a)); a relation may have these names too.
  bool IsBeforeRelation(size_t i) const {
    const std::string_view word = words_.Word(i);
    if (word == "rows") return words_.Word(i + 1) == "from";
    const bool is_name = !words_.IsName(i + 1) && !words_.IsOperator(i + 1, "(");
    return (word == "only" || word == "lateral") && !is_name;
  }

  bool IsFirst(size_t i) const { return i == 0 || words_.IsOpening(i - 1); }

  /// WITH also stands in WITH ORDINALITY, WITH TIES, WITH TIME ZONE.
  bool IsWithList(size_t i) const {
    if (words_.Word(++i) == "recursive") ++i;
    if (!words_.IsName(i)) return false;
    ++i;
    if (words_.IsOperator(i, "(")) i = words_.Closing(i) + 1;
    if (words_.Word(i) == "using" && words_.Word(i + 1) == "key")
      i = words_.Closing(i + 2) + 1;  // DuckDB's recursion by key
    if (words_.Word(i) != "as") return false;
    ++i;
    if (words_.Word(i) == "not") ++i;
    if (words_.Word(i) == "materialized") ++i;
    return words_.IsOperator(i, "(");
  }

  /// A relation should stand at `i`. Returns what comes after it.
  size_t Expected(size_t i) {
    frame().expects = false;
    if (words_.is_duckdb() && words_[i].kind == SqlTokenKind::kText) {
      relations_.push_back({"", words_[i].value});
      return i + 1;
    }
    if (!words_.IsName(i)) return i + 1;
    const SqlName name = words_.Name(i);
    if (words_.is_duckdb() && words_.IsOperator(i, ":")) {  // FROM alias: relation
      frame().expects = true;
      return i + 1;
    }
    const bool is_call = words_.IsOperator(i, "(");
    if (!is_call && !(name.schema.empty() && IsOfWith(name.name))) relations_.push_back(name);
    return i;
  }

  bool IsOfWith(const std::string& name) const {
    const auto found = visible_.find(name);
    return found != visible_.end() && found->second > 0;
  }

  const SqlWords& words_;
  bool lists_using_ = false;                // DELETE FROM a USING b, c and MERGE INTO a USING b
  std::vector<Frame> frames_;               // those that are open, the statement itself first
  std::map<std::string, int64_t> visible_;  // names of all open frames: how often
  std::vector<SqlName> relations_;
};

// ---- parameters, texts

/// Numbers parameters in the order of their first use: [token] its number.
std::vector<size_t> NumberParameters(Tokens tokens, std::vector<std::string>& names) {
  std::vector<size_t> numbers(tokens.size());
  std::map<std::string_view, size_t> known;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].kind != SqlTokenKind::kParameter) continue;
    const auto [entry, is_new] = known.emplace(tokens[i].value, names.size() + 1);
    if (is_new) names.push_back(tokens[i].value);
    numbers[i] = entry->second;
  }
  return numbers;
}

/// "$7", with a blank if it would otherwise be read as the end of a name or the start of a quote.
std::string NumberedParameter(size_t number, const std::string& before) {
  const char last = before.empty() ? ' ' : before.back();
  const auto byte = static_cast<unsigned char>(last);
  const bool joins = IsWordByte(last) || (last >= '0' && last <= '9') || last == '_' ||
                     last == '$' || byte >= 0x80;
  return (joins ? " $" : "$") + std::to_string(number);
}

std::string NumberedText(std::string_view text, Tokens tokens, const std::vector<size_t>& numbers) {
  std::string result;
  size_t copied = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (numbers[i] == 0) continue;
    const auto start = static_cast<size_t>(tokens[i].source.data() - text.data());
    result += text.substr(copied, start - copied);
    result += NumberedParameter(numbers[i], result);
    copied = start + tokens[i].source.size();
  }
  return result += text.substr(copied);
}

std::string NormalizedText(Tokens tokens, const std::vector<size_t>& numbers) {
  std::string result;
  for (size_t i = 0; i < tokens.size(); ++i) {
    const SqlToken& token = tokens[i];
    const bool joins_texts = i > 0 && token.line_before && token.kind == SqlTokenKind::kText &&
                             tokens[i - 1].kind == SqlTokenKind::kText;
    if (i > 0 && token.spaced) result += joins_texts ? '\n' : ' ';
    if (numbers[i] != 0) {
      result += NumberedParameter(numbers[i], result);
    } else {
      result += token.source;
    }
  }
  return result;
}

/// What keeps tokens from being one statement with parameters of our kind, or "".
std::string FaultOf(std::string_view text, Tokens tokens) {
  const auto at = [&](const SqlToken& token, std::string_view what) {
    const auto offset = static_cast<size_t>(token.source.data() - text.data());
    return fmt::format("{}: {}", SqlPlace(text, offset), what);
  };
  if (tokens.empty()) return "there is no statement in the text";
  for (const SqlToken& token : tokens) {
    if (token.IsOperator(";")) return at(token, "a second statement follows: write one alone");
    if (token.kind == SqlTokenKind::kNumberedParameter)
      return at(token, fmt::format("parameters are written as :name, not {}", token.source));
  }
  return "";
}

}  // namespace

SqlStatement ReadSqlStatement(std::string_view text, SqlDialect dialect, std::string& fault) {
  SqlStatement statement;
  if (text.size() > kMostTextBytes) {
    fault = "it is longer than 1 MiB: bind large values as parameters";
    return statement;
  }
  const size_t nul = text.find('\0');
  const size_t invalid = FindInvalidUtf8(text);
  if (nul != std::string_view::npos) fault = SqlPlace(text, nul) + ": a NUL byte";
  if (invalid != std::string_view::npos) fault = SqlPlace(text, invalid) + ": not UTF-8";
  if (nul != std::string_view::npos || invalid != std::string_view::npos) return statement;

  std::string read_fault;
  std::vector<SqlToken> read = ReadSqlTokens(text, dialect, read_fault);
  while (read_fault.empty() && !read.empty() && read.back().IsOperator(";")) read.pop_back();
  const Tokens tokens = read;
  if (read_fault.empty()) read_fault = FaultOf(text, tokens);
  if (!read_fault.empty()) {
    fault = std::move(read_fault);
    return statement;
  }
  const std::vector<size_t> numbers = NumberParameters(tokens, statement.parameters);
  if (statement.parameters.size() > kMostParameters) {
    fault = fmt::format("it has more than {} parameters", kMostParameters);
    return statement;
  }
  statement.text = NumberedText(text, tokens, numbers);
  statement.normalized = NormalizedText(tokens, numbers);

  const SqlWords words(tokens, dialect);
  ReadFunctions(words, statement);
  statement.writes |= !BeginsWithReader(words, statement);
  for (size_t i = 0; i < words.size(); ++i) {
    statement.writes |= IsWritingWord(words, i);
    statement.is_volatile |= IsVolatileToken(words, i);
  }
  statement.relations = ReadRelations(words).Read();
  if (statement.writes) statement.written = WrittenRelations(words).Read();
  return statement;
}

}  // namespace halo
