// EXPLAIN for people: text, and Mermaid for documents.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/text.h"
#include "plan/physical_plan.h"
#include "plan/plan_words.h"

namespace halo {
namespace {

std::string Compared(const char* what, double estimated, double actual, const char* unit) {
  const double factor = ErrorFactor(estimated, actual);
  const std::string error = std::isinf(factor) ? "" : fmt::format(", factor {:.2f}", factor);
  return fmt::format("{} {}{} (estimated {}{})", what, RoundedWords(actual), unit,
                     RoundedWords(estimated), error);
}

class TextPrinter {
 public:
  explicit TextPrinter(const PhysicalPlan& plan) : plan_(plan) {}

  std::string Print() {
    for (size_t s = 0; s < plan_.sources.size(); ++s) PrintSource(s);
    PrintRules();
    PrintPlacements();
    PrintTotals();
    return std::move(text_);
  }

 private:
  void PrintSource(size_t index) {
    const PlannedSource& source = plan_.sources[index];
    const std::string rows = source.rows < 0 ? "rows not known" : Counted(source.rows, "row");
    text_ += fmt::format("workflow {}: {}, {}, {}\n", source.workflow,
                         Counted(std::ssize(source.plan->nodes), "operator"),
                         Counted(std::ssize(source.plan->models), "model"), rows);
    for (const PlannedOperator& planned : plan_.operators) {
      if (planned.source != index) continue;
      const LogicalNode& node = source.plan->at(planned.op);
      text_ += PrintOperator(*source.plan, node);
      PrintEstimate(planned, node);
    }
  }

  void Line(const char* head, const std::string& what) {
    text_ += fmt::format("       {:<7} {}\n", head, what);
  }

  std::string NameOf(size_t position) const {
    const PlannedOperator& planned = plan_.operators[position];
    const PlannedSource& source = plan_.sources[planned.source];
    const std::string& id = source.plan->operator_of(planned.op).id;
    return plan_.sources.size() == 1 ? id : id + " of " + source.workflow;
  }

  void PrintEstimate(const PlannedOperator& planned, const LogicalNode& node) {
    if (node.removed) return Line("is", "not run: no output needs it");
    if (planned.same_as >= 0)
      return Line("takes", "the answers of " + NameOf(static_cast<size_t>(planned.same_as)));
    const OperatorEstimate& e = planned.estimate;
    std::string calls = CountWords(e.calls) + (e.calls.value == 1.0 ? " call" : " calls");
    if (node.model == kNoModel) {
      Line("costs", calls + ", " + SecondsWords(e.busy_s) + " in all, side by side");
    } else {
      const std::string seconds = plan_.has_costs ? ", " + SecondsWords(e.busy_s) : "";
      Line("costs",
           fmt::format("{}, each {} tokens in, {} of them reused, {} out{}", calls,
                       RoundedWords(e.prompt_tokens.value), RoundedWords(e.reused_tokens.value),
                       RoundedWords(e.output_tokens.value), seconds));
    }
    for (const std::string& assumption : e.assumptions) Line("assumed", assumption);
    if (planned.actual) PrintActual(planned, node);
  }

  void PrintActual(const PlannedOperator& planned, const LogicalNode& node) {
    const OperatorActual& a = *planned.actual;
    const OperatorEstimate& e = planned.estimate;
    std::string what = Compared("calls", e.calls.value, static_cast<double>(a.calls), "");
    if (node.model != kNoModel) {
      what += "; " + Compared("tokens in", e.prompt_tokens.value, a.prompt_tokens, "");
      what += "; " + Compared("out", e.output_tokens.value, a.output_tokens, "");
    }
    if (plan_.has_costs)
      what += "; " + Compared("busy ms", e.busy_s.value * 1e3, a.busy_s * 1e3, "");
    Line("actual", what);
  }

  void PrintRules() {
    text_ += "rules\n";
    std::string idle;
    for (const AppliedRule& rule : plan_.rules) {
      if (!rule.is_on) {
        text_ += fmt::format("  {:<18} off\n", rule.name);
        continue;
      }
      if (rule.changes.empty()) {
        idle += (idle.empty() ? "" : ", ") + rule.name;
        continue;
      }
      const bool saved = plan_.has_costs && rule.saved_s >= 0.0005;
      text_ += fmt::format("  {:<18} {}{}\n", rule.name, rule.what,
                           saved ? ": saves " + SecondsWords(rule.saved_s) : "");
      for (const std::string& change : rule.changes) text_ += "      " + change + "\n";
    }
    if (!idle.empty()) text_ += fmt::format("  {:<18} {}\n", "no change by", idle);
  }

  void PrintPlacements() {
    if (!plan_.has_costs || plan_.placements.empty()) return;
    text_ += fmt::format("placement by {}\n", plan_.planner);
    for (size_t w = 0; w < plan_.workers.size(); ++w) {
      text_ += fmt::format("  {}\n", plan_.workers[w].name);
      for (const PlacedOperator& placed : plan_.placements) {
        if (placed.worker != static_cast<int32_t>(w)) continue;
        const std::string share =
            placed.shares == 1 ? ""
                               : fmt::format(", part {} of {}", placed.share + 1, placed.shares);
        const std::string load =
            placed.load_s > 0.0 ? fmt::format(", after {} of loading", SecondsWords(placed.load_s))
                                : "";
        text_ += fmt::format("    {:>8} to {:>8}  {}{}{}\n", SecondsWords(placed.start_s),
                             SecondsWords(placed.end_s), NameOf(placed.op), share, load);
      }
    }
  }

  void PrintTotals() {
    if (plan_.has_costs) {
      text_ += fmt::format("total: engine busy for {}, elapsed {}\n",
                           SecondsWords(plan_.engine_busy_s), SecondsWords(plan_.elapsed_s));
    }
    if (plan_.actual_engine_busy_s && plan_.actual_elapsed_s) {
      const double factor = ErrorFactor(plan_.engine_busy_s.value, *plan_.actual_engine_busy_s);
      text_ += fmt::format("actual: engine busy for {}{}, elapsed {}\n",
                           SecondsWords(*plan_.actual_engine_busy_s),
                           plan_.has_costs ? fmt::format(" (factor {:.2f})", factor) : "",
                           SecondsWords(*plan_.actual_elapsed_s));
    }
    for (const std::string& note : plan_.notes) text_ += "note: " + note + "\n";
  }

  const PhysicalPlan& plan_;
  std::string text_;
};

/// Characters that Mermaid would take for its own.
std::string Escaped(const std::string& text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '"':
        escaped += "#quot;";
        break;
      case '<':
        escaped += "#lt;";
        break;
      case '>':
        escaped += "#gt;";
        break;
      case '\n':
        escaped += ' ';
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

}  // namespace

std::string ExplainText(const PhysicalPlan& plan) { return TextPrinter(plan).Print(); }

std::string ExplainMermaid(const PhysicalPlan& plan) {
  std::string text = "flowchart TD\n";
  size_t first = 0;
  for (size_t i = 0; i < plan.operators.size(); ++i) {
    const PlannedOperator& planned = plan.operators[i];
    if (i > 0 && planned.source != plan.operators[i - 1].source) first = i;
    const PlannedSource& source = plan.sources[planned.source];
    const LogicalNode& node = source.plan->at(planned.op);
    if (node.removed) continue;
    const Operator& op = source.plan->operator_of(planned.op);
    const std::string calls =
        planned.same_as >= 0 ? "shared" : RoundedWords(planned.estimate.calls.value) + " calls";
    const std::string seconds = plan.has_costs && planned.same_as < 0
                                    ? ", " + SecondsWords(planned.estimate.busy_s.value)
                                    : "";
    const char* open = op.is_inference() ? "[\"" : "([\"";
    const char* close = op.is_inference() ? "\"]" : "\"])";
    text += fmt::format("  o{}{}{}<br/>{}<br/>{}{}{}\n", i, open, Escaped(op.id),
                        Escaped(TargetOf(*source.plan, planned.op)), calls, seconds, close);
    for (const OperatorIndex input : node.waits_for)
      text += fmt::format("  o{} --> o{}\n", first + static_cast<size_t>(input), i);
    if (planned.same_as >= 0) text += fmt::format("  o{} -.-> o{}\n", planned.same_as, i);
  }
  for (size_t g = 0; g < plan.prefix_groups.size(); ++g) {
    const PrefixGroup& group = plan.prefix_groups[g];
    text += fmt::format("  p{}{{{{\"{}<br/>{}\"}}}}\n", g, Escaped(group.prefix),
                        Escaped(PrefixGroupWords(group)));
    if (group.parent >= 0) text += fmt::format("  p{} -.- p{}\n", group.parent, g);
    // Those of a group inside it hang on that.
    for (const size_t member : group.operators) {
      if (plan.operators[member].prefix_group == static_cast<int32_t>(g))
        text += fmt::format("  p{} -.- o{}\n", g, member);
    }
  }
  return text;
}

}  // namespace halo
