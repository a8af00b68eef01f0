#include "model/template.h"

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/text.h"
#include "model/jinja_evaluator.h"
#include "model/jinja_pieces.h"
#include "model/jinja_program.h"

namespace halo {

namespace {

SourceLocation Within(SourceLocation where, const std::string& source, size_t position) {
  if (position == std::string::npos || where.column == 0) return where;
  const std::string before = source.substr(0, position);
  const size_t line_start = before.rfind('\n');
  const size_t column =
      line_start == std::string::npos ? before.size() : before.size() - line_start - 1;
  // Lines of a block scalar share their indentation, so the offset of the first one holds for all.
  where.line = std::max(where.line, 1) +
               static_cast<int32_t>(std::count(before.begin(), before.end(), '\n'));
  where.column = std::max(where.column, 1) + static_cast<int32_t>(column);
  return where;
}

void ForEachNode(const std::vector<JinjaNode>& nodes,
                 const std::function<void(const JinjaNode&)>& visit) {
  for (const JinjaNode& node : nodes) {
    visit(node);
    ForEachNode(node.kids, visit);
    ForEachNode(node.body, visit);
    ForEachNode(node.other, visit);
  }
}

// Misspelt filters and tests, which otherwise show only when a row gets there.
std::vector<Diagnostic> UnknownWords(const JinjaProgram& program, const SourceLocation& where) {
  const std::vector<std::string> filters = JinjaFilterNames();
  const std::vector<std::string> tests = JinjaTestNames();
  std::vector<Diagnostic> diagnostics;
  ForEachNode(program.body(), [&](const JinjaNode& node) {
    if (node.op != JinjaOp::kFilter && node.op != JinjaOp::kTest) return;
    const bool is_filter = node.op == JinjaOp::kFilter;
    const std::vector<std::string>& known = is_filter ? filters : tests;
    if (std::find(known.begin(), known.end(), node.text) != known.end()) return;
    diagnostics.push_back({Within(where, program.source(), node.position),
                           std::string(is_filter ? "unknown filter '" : "unknown test '") +
                               node.text + "'" + DidYouMean(node.text, known)});
  });
  return diagnostics;
}

}  // namespace

struct Template::Impl {
  std::string source;
  SourceLocation where;
  JinjaProgram program;
  std::set<std::string> reads;

  Failure ToFailure(const JinjaFault& fault) const {
    const Diagnostic diagnostic{Within(where, program.source(), fault.position), fault.message};
    return Failure{"", fault.code, diagnostic.ToString(), false};
  }
};

namespace {

using Values = std::map<std::string, nlohmann::ordered_json>;
using Answers = std::map<std::string, PromptSpan>;
const Answers kNoAnswers;

/// The names of a render. Each answer has an origin of its own: kFirstHole and its place.
JinjaEvaluator::Lookup LookupIn(const Values& values, const Answers& answers) {
  return [&values, &answers](const std::string& name) -> std::optional<JinjaValue> {
    if (const auto answer = answers.find(name); answer != answers.end()) {
      const auto place = static_cast<Origin>(std::distance(answers.begin(), answer));
      return JinjaValue::Text(MarkedText(answer->second.text, kFirstHole + place));
    }
    const auto value = values.find(name);
    if (value == values.end()) return std::nullopt;
    return JinjaFromJson(value->second, kFromData);
  };
}

std::vector<std::string> NamesOf(const Values& values, const Answers& answers) {
  std::vector<std::string> names;
  for (const auto& [name, value] : values) names.push_back(name);
  for (const auto& [name, span] : answers) names.push_back(name);
  return names;
}

PromptSpan SpanOf(std::string_view bytes, Origin origin, const Answers& answers) {
  if (origin == kFromTemplate) return PromptSpan::Template(std::string(bytes));
  if (origin >= kFirstHole) {
    const PromptSpan& answer = std::next(answers.begin(), origin - kFirstHole)->second;
    if (answer.text == bytes) return answer;
  }
  return PromptSpan::Data(std::string(bytes));
}

}  // namespace

Template::Template(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

Template Template::Parse(std::string source, SourceLocation where) {
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  impl->where = where;
  try {
    impl->program = JinjaProgram::Parse(std::move(source));
  } catch (const JinjaFault& fault) {
    throw Error(ErrorCode::kWorkflow, {Diagnostic{Within(where, impl->source, fault.position),
                                                  "in the template: " + fault.message}});
  }
  std::vector<Diagnostic> unknown = UnknownWords(impl->program, where);
  if (!unknown.empty()) throw Error(ErrorCode::kWorkflow, std::move(unknown));
  impl->reads = impl->program.FindReads(JinjaFunctionNames());
  return Template(std::move(impl));
}

const std::set<std::string>& Template::reads() const { return impl_->reads; }
bool Template::is_constant() const { return impl_->program.is_constant(); }
const std::string& Template::source() const { return impl_->source; }

std::vector<TemplatePiece> Template::Pieces() const {
  if (!is_constant()) return PiecesOf(impl_->program);
  if (impl_->source.empty()) return {};
  TemplatePiece piece;
  piece.text = impl_->source;
  return {std::move(piece)};
}

std::vector<PromptSpan> Template::Render(const Values& values, const Answers& answers) const {
  std::vector<PromptSpan> spans;
  if (is_constant()) {
    if (!impl_->source.empty()) spans.push_back(PromptSpan::Template(impl_->source));
    return spans;
  }
  try {
    JinjaEvaluator run(impl_->program, JinjaSettings(), LookupIn(values, answers),
                       NamesOf(values, answers));
    run.Render().ForEachPart([&](std::string_view bytes, Origin origin) {
      PromptSpan span = SpanOf(bytes, origin, answers);
      const bool joins = span.kind == PromptSpan::Kind::kData && !spans.empty() &&
                         spans.back().kind == PromptSpan::Kind::kData;
      if (joins) {
        spans.back().text += span.text;
      } else {
        spans.push_back(std::move(span));
      }
    });
  } catch (const JinjaFault& fault) {
    throw impl_->ToFailure(fault);
  }
  return spans;
}

nlohmann::ordered_json Template::Evaluate(const Values& values) const {
  if (is_constant()) return impl_->source;
  try {
    JinjaEvaluator run(impl_->program, JinjaSettings(), LookupIn(values, kNoAnswers),
                       NamesOf(values, kNoAnswers));
    return JinjaToJson(run.Evaluate());
  } catch (const JinjaFault& fault) {
    throw impl_->ToFailure(fault);
  }
}

bool Template::IsTrue(const Values& values) const {
  if (is_constant()) return !impl_->source.empty();
  try {
    JinjaEvaluator run(impl_->program, JinjaSettings(), LookupIn(values, kNoAnswers),
                       NamesOf(values, kNoAnswers));
    return run.Truth(run.Evaluate());
  } catch (const JinjaFault& fault) {
    throw impl_->ToFailure(fault);
  }
}

}  // namespace halo
