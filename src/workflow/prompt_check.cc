#include "workflow/prompt_check.h"

#include <algorithm>
#include <map>
#include <unordered_map>

#include "base/text.h"

namespace halo {
namespace {

struct Place {
  int32_t line;
  int32_t column;
};

/// Where line `line` and column `column` (from 1) of a scalar's value stand in the file. Exact for
/// plain and quoted scalars of one line without escapes before it and for literal blocks; else the
/// scalar's beginning.
Place PlaceInScalar(const YamlNode& scalar, std::string_view text, int32_t line, int32_t column) {
  const Place beginning{scalar.line, scalar.column};
  if (scalar.offset >= text.size() || line < 1 || column < 1) return beginning;
  const std::string_view rest = text.substr(scalar.offset);
  if (rest[0] == '|') {
    // The indentation of the first line that is not blank is that of the block.
    size_t start = rest.find('\n');
    while (start != std::string_view::npos) {
      const std::string_view body = rest.substr(start + 1);
      const size_t indent = body.find_first_not_of(' ');
      if (indent == std::string_view::npos) return beginning;
      if (body[indent] != '\n' && body[indent] != '\r') {
        return {scalar.line + line, static_cast<int32_t>(indent) + column};
      }
      start = rest.find('\n', start + 1);
    }
    return beginning;
  }
  const int32_t quote = rest[0] == '"' || rest[0] == '\'' ? 1 : 0;
  const std::string_view written = rest.substr(static_cast<size_t>(quote));
  const auto reached = static_cast<size_t>(column - 1);
  const std::string_view value = scalar.text;
  if (line > 1 || reached > value.size() || !written.starts_with(value.substr(0, reached))) {
    return beginning;
  }
  return {scalar.line, scalar.column + quote + column - 1};
}

/// Where a scalar's value begins, for faults that only a row brings out. Column 0 (unknown) where
/// lines of the value are not lines of the file: folded blocks, quoted scalars with escapes or of
/// several lines.
SourceLocation ValueBegins(const YamlNode& scalar, std::string_view text, const std::string& file) {
  const bool literal = scalar.offset < text.size() && text[scalar.offset] == '|';
  const auto length = static_cast<int32_t>(scalar.text.size());
  const Place end = PlaceInScalar(scalar, text, 1, length + 1);
  const bool one_line =
      end.line == scalar.line && end.column >= scalar.column + length && length > 0;
  if (!literal && !one_line) return {file, scalar.line, 0};
  const Place begin = PlaceInScalar(scalar, text, 1, 1);
  return {file, begin.line, begin.column};
}

/// The first place inside an expression or statement where `word` stands as a whole word; the
/// scalar's beginning if it cannot be found.
Place PlaceOfWord(const YamlNode& scalar, std::string_view text, std::string_view word) {
  const std::string_view value = scalar.text;
  const auto is_word = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  };
  // A condition may stand without braces.
  size_t first_brace = std::min(value.find("{{"), value.find("{%"));
  if (first_brace == std::string_view::npos) first_brace = 0;
  for (size_t at = value.find(word, first_brace); at != std::string_view::npos;
       at = value.find(word, at + 1)) {
    const size_t end = at + word.size();
    const bool begins = at == 0 || (!is_word(value[at - 1]) && value[at - 1] != '.');
    if (!begins || (end < value.size() && is_word(value[end]))) continue;
    const std::string_view before = value.substr(0, at);
    const size_t line_start = before.rfind('\n') + 1;
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    return PlaceInScalar(scalar, text, static_cast<int32_t>(line),
                         static_cast<int32_t>(at - line_start + 1));
  }
  return {scalar.line, scalar.column};
}

/// Every operator that `start` takes from, directly or through others. Tolerates cycles, which are
/// reported apart.
std::vector<bool> AncestorsOf(size_t start, const std::vector<std::vector<size_t>>& inputs) {
  std::vector<bool> found(inputs.size(), false);
  std::vector<size_t> open = inputs[start];
  while (!open.empty()) {
    const size_t next = open.back();
    open.pop_back();
    if (found[next]) continue;
    found[next] = true;
    open.insert(open.end(), inputs[next].begin(), inputs[next].end());
  }
  return found;
}

/// Checks the reads of one operator's templates.
class ReadChecker {
 public:
  ReadChecker(const std::vector<OperatorDraft>& operators,
              const std::unordered_map<std::string, size_t>& by_id,
              const std::vector<std::vector<size_t>>& inputs, size_t self)
      : operators_(operators), by_id_(by_id), inputs_(inputs), self_(self) {}

  /// What is wrong with reading `path`, or "".
  std::string Fault(const TemplateUse& use, const std::string& path) {
    const std::string root = path.substr(0, path.find('.'));
    if (root == "row") return "";
    if (use.rows_only) {
      return "a number can be computed from 'row' only, not from '" + root + "'" +
             DidYouMean(root, {"row"});
    }
    const auto found = by_id_.find(root);
    if (found == by_id_.end()) return Unknown(root);
    if (found->second == self_) return "'" + root + "' cannot read its own output";
    if (!Ancestors()[found->second]) {
      return "'" + root + "' runs independently of '" + operators_[self_].op.id +
             "': add it to input_ops to read its output";
    }
    const Operator& producer = operators_[found->second].op;
    const bool is_text = producer.samples == 1 && !(producer.schema && producer.schema->is_json());
    if (path != root && is_text) {
      return "'" + path + "': the output of '" + root + "' is text and has no fields";
    }
    return "";
  }

 private:
  const std::vector<bool>& Ancestors() {
    if (ancestors_.empty()) ancestors_ = AncestorsOf(self_, inputs_);
    return ancestors_;
  }

  std::string Unknown(const std::string& root) {
    std::vector<std::string> candidates = {"row"};
    std::string known = "row";
    const std::vector<bool>& ancestors = Ancestors();
    for (size_t i = 0; i < ancestors.size(); ++i) {
      if (!ancestors[i]) continue;
      candidates.push_back(operators_[i].op.id);
      if (candidates.size() <= 10) known += ", " + operators_[i].op.id;
    }
    return "unknown name '" + root + "'" + DidYouMean(root, candidates) +
           "; this template can read: " + known;
  }

  const std::vector<OperatorDraft>& operators_;
  const std::unordered_map<std::string, size_t>& by_id_;
  const std::vector<std::vector<size_t>>& inputs_;
  const size_t self_;
  std::vector<bool> ancestors_;
};

}  // namespace

SourceLocation LocationOfWord(const YamlNode& scalar, std::string_view text, std::string_view word,
                              const std::string& file) {
  const Place place = PlaceOfWord(scalar, text, word);
  return {file, place.line, place.column};
}

std::shared_ptr<const Template> ParseTemplateScalar(const YamlNode& scalar, std::string_view text,
                                                    const std::string& key,
                                                    DiagnosticList& diagnostics) {
  try {
    // Parsed as if it began at 1:1, since a block scalar's lines are indented in the file and not
    // in its value.
    Template::Parse(scalar.text, {diagnostics.file(), 1, 1});
    return std::make_shared<const Template>(
        Template::Parse(scalar.text, ValueBegins(scalar, text, diagnostics.file())));
  } catch (const Error& error) {
    for (const Diagnostic& fault : error.diagnostics()) {
      const Place place = PlaceInScalar(scalar, text, fault.location.line, fault.location.column);
      diagnostics.Add(place.line, place.column, key + ": " + fault.message);
    }
    return nullptr;
  }
}

SourceLocation LocationInScalar(const YamlNode& scalar, std::string_view text,
                                const SourceLocation& place) {
  const Place found = PlaceInScalar(scalar, text, place.line, place.column);
  return {place.file, found.line, found.column};
}

std::shared_ptr<const Template> ParseConditionScalar(const YamlNode& scalar, std::string_view text,
                                                     const std::string& key,
                                                     DiagnosticList& diagnostics) {
  const size_t first = scalar.text.find_first_not_of(" \t\r\n");
  if (first == std::string::npos || scalar.text.compare(first, 2, "{{") == 0)
    return ParseTemplateScalar(scalar, text, key, diagnostics);
  static constexpr std::string_view kOpen = "{{ ";
  constexpr auto kShift = static_cast<int32_t>(kOpen.size());
  const std::string wrapped = std::string(kOpen) + scalar.text + " }}";
  try {
    Template::Parse(wrapped, {diagnostics.file(), 1, 1});
    SourceLocation begins = ValueBegins(scalar, text, diagnostics.file());
    begins.column = std::max(0, begins.column - kShift);
    return std::make_shared<const Template>(Template::Parse(wrapped, begins));
  } catch (const Error& error) {
    for (const Diagnostic& fault : error.diagnostics()) {
      const int32_t shift = fault.location.line == 1 ? kShift : 0;
      const Place place = PlaceInScalar(scalar, text, fault.location.line,
                                        std::max(1, fault.location.column - shift));
      diagnostics.Add(place.line, place.column, key + ": " + fault.message);
    }
    return nullptr;
  }
}

void CheckTemplateReads(const std::vector<OperatorDraft>& operators,
                        const std::vector<std::vector<size_t>>& inputs, std::string_view text,
                        DiagnosticList& diagnostics) {
  std::unordered_map<std::string, size_t> by_id;
  for (size_t i = 0; i < operators.size(); ++i) by_id.emplace(operators[i].op.id, i);
  for (size_t i = 0; i < operators.size(); ++i) {
    ReadChecker checker(operators, by_id, inputs, i);
    for (const TemplateUse& use : operators[i].templates) {
      for (const std::string& path : use.parsed->reads()) {
        const std::string fault = checker.Fault(use, path);
        if (fault.empty()) continue;
        const Place place = PlaceOfWord(*use.node, text, path.substr(0, path.find('.')));
        diagnostics.Add(place.line, place.column, fault);
      }
    }
  }
}

}  // namespace halo
