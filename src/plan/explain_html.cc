// EXPLAIN as one self-contained page: figures, the graph, the operators, the rules, the timeline.
#include "plan/explain_html.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "plan/html_page.h"
#include "plan/physical_plan.h"
#include "plan/plan_words.h"

namespace halo {
namespace {

class HtmlPrinter {
 public:
  explicit HtmlPrinter(const PhysicalPlan& plan) : plan_(plan) {
    for (const PlannedOperator& planned : plan.operators) {
      if (IsEngines(planned)) most_s_ = std::max(most_s_, planned.estimate.busy_s.value);
    }
  }

  std::string PrintSections() {
    PrintTiles();
    for (const std::string& note : plan_.notes)
      body_ += fmt::format("<p class=\"note\">{}</p>\n", HtmlText(note));
    for (size_t s = 0; s < plan_.sources.size(); ++s) {
      PrintGraph(s);
      PrintOperators(s);
    }
    PrintGroups();
    PrintRules();
    PrintTimeline();
    return std::move(body_);
  }

 private:
  struct Box {
    double x = 0.0, y = 0.0;
  };
  static constexpr double kBoxWidth = 190.0, kBoxHeight = 52.0, kGapX = 46.0, kGapY = 16.0;

  const LogicalNode& NodeOf(const PlannedOperator& planned) const {
    return plan_.sources[planned.source].plan->at(planned.op);
  }
  const Operator& OperatorOf(const PlannedOperator& planned) const {
    return plan_.sources[planned.source].plan->operator_of(planned.op);
  }
  bool IsEngines(const PlannedOperator& planned) const {
    return NodeOf(planned).model != kNoModel && !NodeOf(planned).removed && planned.same_as < 0;
  }
  static std::string Shortened(const std::string& text, size_t most) {
    if (text.size() <= most) return text;
    size_t end = most - 1;
    // A character is not cut in two.
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    return text.substr(0, end) + "\xE2\x80\xA6";
  }

  static std::string WithRange(const Estimate& seconds) {
    if (seconds.is_exact()) return SecondsWords(seconds.value);
    return fmt::format("{}<small>{} to {}</small>", SecondsWords(seconds.value),
                       SecondsWords(seconds.low), SecondsWords(seconds.high));
  }
  /// What became of an estimate, under it.
  static std::string Was(double actual) {
    return "<small>was " + RoundedWords(actual) + "</small>";
  }
  static std::string CallsWithRange(const Estimate& calls) {
    if (calls.is_exact()) return RoundedWords(calls.value);
    return fmt::format("{}<small>{} to {}</small>", RoundedWords(calls.value),
                       RoundedWords(calls.low), RoundedWords(calls.high));
  }

  void Tile(const std::string& head, const std::string& what) {
    body_ += fmt::format("<div class=\"tile\"><b>{}</b>{}</div>\n", HtmlText(head), HtmlText(what));
  }

  void PrintTiles() {
    int64_t rows = 0;
    bool known = true;
    for (const PlannedSource& source : plan_.sources) {
      known = known && source.rows >= 0;
      rows += std::max<int64_t>(0, source.rows);
    }
    double instances = 0.0, calls = 0.0;
    for (const PlannedOperator& planned : plan_.operators) {
      instances += planned.estimate.instances.value;
      calls += planned.estimate.calls.value;
    }
    body_ += "<div class=\"tiles\">\n";
    Tile(known ? std::to_string(rows) : "?", "rows");
    Tile(RoundedWords(calls), "calls of " + RoundedWords(instances) + " instances");
    if (plan_.has_costs) {
      Tile(SecondsWords(plan_.engine_busy_s.value),
           "engine busy, " + SecondsWords(plan_.engine_busy_s.low) + " to " +
               SecondsWords(plan_.engine_busy_s.high));
      Tile(SecondsWords(plan_.elapsed_s.value),
           "elapsed on " + std::to_string(plan_.workers.size()) +
               (plan_.workers.size() == 1 ? " worker" : " workers"));
    }
    if (plan_.actual_engine_busy_s) {
      Tile(SecondsWords(*plan_.actual_engine_busy_s),
           "engine was busy, factor " +
               fmt::format("{:.2f}",
                           ErrorFactor(plan_.engine_busy_s.value, *plan_.actual_engine_busy_s)));
    }
    body_ += "</div>\n";
  }

  /// Columns by the longest way from a start, places in a column in the order of the plan.
  static std::vector<Box> Layout(const LogicalPlan& plan, double& width, double& height) {
    std::vector<size_t> column(plan.nodes.size(), 0), taken;
    std::vector<Box> boxes(plan.nodes.size());
    for (const LogicalNode& node : plan.nodes) {
      const auto at = static_cast<size_t>(node.op);
      for (const OperatorIndex input : node.waits_for)
        column[at] = std::max(column[at], column[static_cast<size_t>(input)] + 1);
      if (taken.size() <= column[at]) taken.resize(column[at] + 1, 0);
      const auto place = static_cast<double>(taken[column[at]]++);
      boxes[at] = {static_cast<double>(column[at]) * (kBoxWidth + kGapX) + 12.0,
                   place * (kBoxHeight + kGapY) + 12.0};
      width = std::max(width, boxes[at].x + kBoxWidth + 12.0);
      height = std::max(height, boxes[at].y + kBoxHeight + 12.0);
    }
    return boxes;
  }

  size_t FirstOf(size_t source) const {
    size_t first = 0;
    for (size_t s = 0; s < source; ++s) first += plan_.sources[s].plan->nodes.size();
    return first;
  }

  void PrintGraph(size_t index) {
    constexpr size_t kMostBoxes = 400;  // beyond that a picture says nothing
    const PlannedSource& source = plan_.sources[index];
    if (source.plan->nodes.size() > kMostBoxes) return;
    const size_t first = FirstOf(index);
    double width = 0.0, height = 0.0;
    const std::vector<Box> boxes = Layout(*source.plan, width, height);
    body_ += fmt::format(
        "<h2>{}</h2>\n<div class=\"scroll\" tabindex=\"0\"><svg width=\"{:.0f}\" height=\"{:.0f}\" "
        "role=\"img\" aria-label=\"graph of operators\">\n",
        HtmlText(source.workflow), width, height);
    for (const LogicalNode& node : source.plan->nodes) {
      const Box& to = boxes[static_cast<size_t>(node.op)];
      for (const OperatorIndex input : node.waits_for) {
        const Box& from = boxes[static_cast<size_t>(input)];
        const double x1 = from.x + kBoxWidth, y1 = from.y + kBoxHeight / 2.0,
                     y2 = to.y + kBoxHeight / 2.0;
        const double bend = (to.x - x1) / 2.0;
        body_ += fmt::format(
            "<path class=\"edge\" d=\"M{:.0f} {:.0f}C{:.0f} {:.0f} {:.0f} {:.0f} {:.0f} "
            "{:.0f}\"/>\n",
            x1, y1, x1 + bend, y1, to.x - bend, y2, to.x, y2);
      }
    }
    for (const LogicalNode& node : source.plan->nodes) {
      if (!node.removed)
        PrintBox(plan_.operators[first + static_cast<size_t>(node.op)],
                 boxes[static_cast<size_t>(node.op)]);
    }
    body_ += "</svg></div>\n";
  }

  void PrintBox(const PlannedOperator& planned, const Box& box) {
    constexpr size_t kMostLetters = 24;
    const Operator& op = OperatorOf(planned);
    const std::string what = planned.same_as >= 0
                                 ? "shared"
                                 : RoundedWords(planned.estimate.calls.value) + " calls" +
                                       (plan_.has_costs || !op.is_inference()
                                            ? ", " + SecondsWords(planned.estimate.busy_s.value)
                                            : "");
    body_ += fmt::format(
        "<g><title>{}: {}</title><rect class=\"box {}\" x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.0f}\" "
        "height=\"{:.0f}\" rx=\"6\"/><text x=\"{:.0f}\" y=\"{:.0f}\">{}</text>"
        "<text class=\"soft\" x=\"{:.0f}\" y=\"{:.0f}\">{}</text></g>\n",
        HtmlText(op.id), HtmlText(TargetOf(*plan_.sources[planned.source].plan, planned.op)),
        op.is_inference() ? "llm" : "tool", box.x, box.y, kBoxWidth, kBoxHeight, box.x + 10.0,
        box.y + 21.0, HtmlText(Shortened(op.id, kMostLetters)), box.x + 10.0, box.y + 39.0,
        HtmlText(what));
  }

  void PrintOperators(size_t index) {
    body_ +=
        "<div class=\"scroll\" tabindex=\"0\" style=\"margin-top:1rem\"><table>\n<tr><th "
        "class=\"name\">operator</th><th "
        "class=\"name\">asks</th><th>calls</th><th>tokens "
        "in</th><th>reused</th><th>out</th><th>busy</th>";
    const bool has_actual = !plan_.operators.empty() && plan_.operators.front().actual.has_value();
    if (has_actual) body_ += "<th>actual</th><th>off by</th>";
    body_ += "</tr>\n";
    for (const PlannedOperator& planned : plan_.operators) {
      if (planned.source == index) PrintOperatorRow(planned, has_actual);
    }
    body_ += "</table></div>\n";
  }

  void PrintOperatorRow(const PlannedOperator& planned, bool has_actual) {
    const Operator& op = OperatorOf(planned);
    const OperatorEstimate& e = planned.estimate;
    std::string under;
    if (NodeOf(planned).removed) under = "not run: no output needs it";
    if (planned.same_as >= 0) {
      const PlannedOperator& same = plan_.operators[static_cast<size_t>(planned.same_as)];
      under = "takes the answers of " + OperatorOf(same).id;
    }
    for (const std::string& assumption : e.assumptions)
      under += (under.empty() ? "" : "; ") + assumption;
    const bool is_llm = op.is_inference();
    const bool costs = e.calls.value > 0.0 && (plan_.has_costs || !is_llm);
    const std::optional<OperatorActual>& was = planned.actual;
    const std::string calls_were = was ? Was(static_cast<double>(was->calls)) : "";
    const auto tokens = [&](const Estimate& estimate, const double* actual) -> std::string {
      if (!is_llm) return "";
      return RoundedWords(estimate.value) + (actual == nullptr ? "" : Was(*actual));
    };
    const double share =
        IsEngines(planned) && most_s_ > 0.0 ? e.busy_s.value / most_s_ * 100.0 : 0.0;
    body_ += fmt::format(
        "<tr{}><td class=\"name\">{}{}</td><td "
        "class=\"name\">{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td class=\"bar\" style=\"--share:{:.1f}%\">{}</td>",
        under.starts_with("not run") ? " class=\"gone\"" : "", HtmlText(op.id),
        under.empty() ? "" : "<small>" + HtmlText(under) + "</small>",
        HtmlText(TargetOf(*plan_.sources[planned.source].plan, planned.op)),
        CallsWithRange(e.calls) + calls_were,
        tokens(e.prompt_tokens, was ? &was->prompt_tokens : nullptr),
        tokens(e.reused_tokens, was ? &was->reused_tokens : nullptr),
        tokens(e.output_tokens, was ? &was->output_tokens : nullptr), share,
        costs ? WithRange(e.busy_s) : "");
    if (has_actual) {
      const double factor = ErrorFactor(e.busy_s.value, planned.actual->busy_s);
      body_ += fmt::format("<td>{}</td><td>{}</td>", SecondsWords(planned.actual->busy_s),
                           std::isinf(factor) || !costs ? "" : fmt::format("{:.2f}", factor));
    }
    body_ += "</tr>\n";
  }

  void PrintGroups() {
    constexpr size_t kMostNames = 8;
    if (plan_.prefix_groups.empty()) return;
    body_ +=
        "<h2>Prompts that begin alike</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<tr><th "
        "class=\"name\">with</th><th class=\"name\">operators</th><th>tokens</th><th>in every "
        "row</th><th>different</th><th>calls</th><th>saves tokens</th>";
    if (plan_.has_costs) body_ += "<th>saves</th>";
    body_ += "</tr>\n";
    for (const PrefixGroup& group : plan_.prefix_groups) {
      std::string names;
      for (size_t i = 0; i < std::min(kMostNames, group.operators.size()); ++i)
        names += (i == 0 ? "" : ", ") + OperatorOf(plan_.operators[group.operators[i]]).id;
      if (group.operators.size() > kMostNames)
        names += fmt::format(" and {} more", group.operators.size() - kMostNames);
      body_ += fmt::format(
          "<tr><td class=\"name\">{}</td><td class=\"name\">{}</td><td>{}</td><td>{}</td>"
          "<td>{}</td><td>{}</td><td>{}</td>",
          HtmlText(group.prefix), HtmlText(names), RoundedWords(group.tokens),
          RoundedWords(group.constant_tokens), RoundedWords(group.prefixes),
          RoundedWords(group.calls), RoundedWords(group.saved_tokens));
      if (plan_.has_costs) body_ += fmt::format("<td>{}</td>", SecondsWords(group.saved_s));
      body_ += "</tr>\n";
    }
    body_ += "</table></div>\n";
  }

  void PrintRules() {
    body_ += "<h2>Rules</h2>\n<ul>\n";
    for (const AppliedRule& rule : plan_.rules) {
      if (rule.is_on && rule.changes.empty()) continue;
      const bool saved = plan_.has_costs && rule.saved_s >= 0.0005;
      body_ += fmt::format("<li><b>{}</b> {}{}", HtmlText(rule.name),
                           rule.is_on ? HtmlText(rule.what) : "off",
                           saved ? ", saves " + SecondsWords(rule.saved_s) : "");
      for (const std::string& change : rule.changes)
        body_ += "<small>" + HtmlText(change) + "</small>";
      body_ += "</li>\n";
    }
    body_ += "</ul>\n";
  }

  void PrintTimeline() {
    double end_s = 0.0;
    for (const PlacedOperator& placed : plan_.placements) end_s = std::max(end_s, placed.end_s);
    if (!plan_.has_costs || end_s <= 0.0) return;
    constexpr double kLeft = 90.0, kWidth = 1060.0, kRow = 30.0;
    const double height = kRow * static_cast<double>(plan_.workers.size()) + 34.0;
    const auto x = [&](double seconds) {
      return kLeft + seconds / end_s * (kWidth - kLeft - 12.0);
    };
    body_ += fmt::format(
        "<h2>Placement</h2>\n<p class=\"soft\">by {}; grey: a model is loaded</p>\n"
        "<div class=\"scroll\" tabindex=\"0\"><svg width=\"{:.0f}\" height=\"{:.0f}\" role=\"img\" "
        "aria-label=\"timeline\">\n",
        HtmlText(plan_.planner), kWidth, height);
    for (size_t w = 0; w < plan_.workers.size(); ++w) {
      body_ += fmt::format("<text x=\"10\" y=\"{:.0f}\">{}</text>\n",
                           kRow * static_cast<double>(w) + 24.0, HtmlText(plan_.workers[w].name));
    }
    for (const PlacedOperator& placed : plan_.placements) {
      const std::string& id = OperatorOf(plan_.operators[placed.op]).id;
      const double y = kRow * placed.worker + 8.0;
      const double from = x(placed.start_s), to = x(placed.end_s);
      if (placed.load_s > 0.0) {
        body_ += fmt::format(
            "<rect class=\"load\" x=\"{:.1f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"22\"/>\n",
            x(placed.start_s - placed.load_s), y, from - x(placed.start_s - placed.load_s));
      }
      constexpr double kLetter = 7.0;
      const auto letters = static_cast<size_t>(std::max(0.0, (to - from - 8.0) / kLetter));
      body_ += fmt::format(
          "<g><title>{}: {} to {}</title><rect class=\"work\" x=\"{:.1f}\" y=\"{:.0f}\" "
          "width=\"{:.1f}\" height=\"22\" rx=\"3\"/><text x=\"{:.1f}\" "
          "y=\"{:.0f}\">{}</text></g>\n",
          HtmlText(id), SecondsWords(placed.start_s), SecondsWords(placed.end_s), from, y,
          std::max(1.0, to - from), from + 4.0, y + 16.0,
          letters < 3 ? "" : HtmlText(Shortened(id, letters)));
    }
    body_ += fmt::format(
        "<text class=\"soft\" x=\"{:.0f}\" y=\"{:.0f}\">0 s</text><text class=\"soft\" "
        "x=\"{:.0f}\" "
        "y=\"{:.0f}\" text-anchor=\"end\">{}</text>\n</svg></div>\n",
        kLeft, height - 8.0, kWidth - 12.0, height - 8.0, SecondsWords(end_s));
  }

  const PhysicalPlan& plan_;
  double most_s_ = 0.0;
  std::string body_;
};

}  // namespace

std::string ExplainHtmlSections(const PhysicalPlan& plan) {
  return HtmlPrinter(plan).PrintSections();
}

std::string ExplainHtml(const PhysicalPlan& plan) {
  std::string names;
  for (const PlannedSource& source : plan.sources)
    names += (names.empty() ? "" : ", ") + source.workflow;
  return HtmlPage("Plan of " + names, fmt::format("<h1>Plan of {}</h1>\n", HtmlText(names)) +
                                          ExplainHtmlSections(plan));
}

}  // namespace halo
