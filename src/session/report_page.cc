#include "session/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "plan/explain_html.h"
#include "plan/html_page.h"
#include "plan/plan_words.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

double Number(const Json& object, const char* key) { return object.at(key).get<double>(); }

std::string Percent(double part, double whole) {
  return fmt::format("{:.0f} %", whole > 0.0 ? 100.0 * part / whole : 0.0);
}

class ReportPrinter {
 public:
  explicit ReportPrinter(const ReportInput& input) : in_(input) {}

  std::string Print() {
    std::string names;
    for (const PlannedSource& source : in_.plan.sources)
      names += (names.empty() ? "" : ", ") + source.workflow;
    body_ += fmt::format("<h1>Run of {}</h1>\n<p class=\"lead\">{}</p>\n", HtmlText(names),
                         HtmlText(in_.status));
    PrintLinks();
    PrintTiles();
    PrintFailures();
    PrintOperators();
    PrintTimeline();
    PrintHistograms();
    PrintSharing();
    body_ += "<h2 id=\"plan\">Plan: what was expected, and what happened</h2>\n" +
             ExplainHtmlSections(in_.plan);
    PrintSamples();
    return HtmlPage("Run of " + names, body_);
  }

 private:
  void Tile(const std::string& head, const std::string& what, bool is_bad = false) {
    body_ += fmt::format("<div class=\"tile{}\"><b>{}</b>{}</div>\n", is_bad ? " bad" : "",
                         HtmlText(head), HtmlText(what));
  }

  void Head(const char* id, const char* text) {
    body_ += fmt::format("<h2 id=\"{}\">{}</h2>\n", id, text);
  }

  void PrintLinks() {
    std::vector<std::pair<const char*, const char*>> links = {
        {"failures", "Failures"},     {"operators", "Operators"}, {"timeline", "Timeline"},
        {"histograms", "Histograms"}, {"sharing", "Sharing"},     {"plan", "Plan"}};
    if (!in_.data.samples().empty()) links.emplace_back("rows", "Rows");
    body_ += "<nav aria-label=\"sections\">\n";
    for (const auto& [id, text] : links) body_ += fmt::format("<a href=\"#{}\">{}</a>\n", id, text);
    body_ += "</nav>\n";
  }

  void PrintTiles() {
    const Json& rows = in_.summary.at("rows");
    const Json& tokens = in_.summary.at("tokens");
    const double elapsed_s = Number(in_.summary, "elapsed_s");
    const auto count = [&](const char* name) { return rows.at(name).get<int64_t>(); };
    body_ += "<div class=\"tiles\">\n";
    Tile(std::to_string(count("ok")), fmt::format("of {} rows ok", count("total")));
    Tile(std::to_string(count("failed")), "failed", count("failed") > 0);
    if (count("unfinished") > 0) Tile(std::to_string(count("unfinished")), "unfinished", true);
    Tile(SecondsWords(elapsed_s),
         "and " + SecondsWords(Number(in_.summary, "planning_s")) + " to load");
    Tile(RoundedWords(Number(tokens, "output")),
         fmt::format("tokens generated, {} a second",
                     RoundedWords(Number(tokens, "output") / std::max(1e-3, elapsed_s))));
    if (in_.summary.at("lower_bound_s").is_number()) {
      const double bound_s = Number(in_.summary, "lower_bound_s");
      Tile(fmt::format("{:.2f}", elapsed_s / std::max(1e-6, bound_s)),
           "times the least that this machine needs, " + SecondsWords(bound_s));
    }
    body_ += "</div>\n";
  }

  void PrintFailures() {
    Head("failures", "Failures");
    if (in_.failures.empty()) {
      body_ += "<p class=\"soft\">No row failed.</p>\n";
      return;
    }
    body_ += "<ul>\n";
    for (const FailureGroup& group : in_.failures) {
      const std::string where = group.operator_id.empty() ? "" : group.operator_id + ": ";
      body_ += fmt::format("<li><b>{}</b> {}{}<small>row {}: {}</small></li>\n", group.rows,
                           HtmlText(where), HtmlText(group.code), HtmlText(group.example_row),
                           HtmlText(group.example));
    }
    body_ += "</ul>\n";
  }

  void PrintOperators() {
    Head("operators", "Operators");
    body_ +=
        "<div class=\"scroll\" tabindex=\"0\"><table>\n<tr><th "
        "class=\"name\">operator</th><th>calls</th><th>merged</th><th>skipped</th><th>failed</th>"
        "<th>again</th><th>half within</th><th>95 % within</th><th>prompt "
        "tokens</th><th>reused</th><th>generated</th><th>busy</th></tr>\n";
    double most_s = 0.0;
    for (const Json& op : in_.summary.at("operators")) most_s = std::max(most_s, BusyOf(op));
    size_t place = 0;
    for (size_t s = 0; s < in_.plan.sources.size(); ++s) {
      for (size_t i = 0; i < in_.plan.sources[s].plan->nodes.size(); ++i)
        PrintOperator(s, in_.summary.at("operators").at(place++), most_s);
    }
    body_ += "</table></div>\n";
  }

  static double BusyOf(const Json& op) {
    return Number(op, op.at("kind") == "llm" ? "engine_s" : "busy_s");
  }

  void PrintOperator(size_t source, const Json& op, double most_s) {
    const std::string id = op.at("id").get<std::string>();
    const auto found = in_.data.operators().find({source, id});
    const bool has = found != in_.data.operators().end() && found->second.latency_s.count() > 0;
    const auto count = [&](const char* name) { return op.at(name).get<int64_t>(); };
    const bool is_llm = op.at("kind") == "llm";
    const auto tokens = [&](const char* name) {
      return is_llm ? std::to_string(count(name)) : std::string();
    };
    body_ += fmt::format(
        "<tr><td class=\"name\">{}{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>"
        "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"bar\" "
        "style=\"--share:{:.1f}%\">{}</td></tr>\n",
        HtmlText(id),
        in_.plan.sources.size() > 1
            ? "<small>" + HtmlText(in_.plan.sources[source].workflow) + "</small>"
            : "",
        count("calls"), count("merged"), count("skipped"), count("failed"),
        found == in_.data.operators().end() ? 0 : found->second.retries,
        has ? SecondsWords(found->second.latency_s.Quantile(0.5)) : "",
        has ? SecondsWords(found->second.latency_s.Quantile(0.95)) : "", tokens("prompt_tokens"),
        tokens("reused_tokens"), tokens("output_tokens"),
        most_s > 0.0 ? BusyOf(op) / most_s * 100.0 : 0.0, SecondsWords(BusyOf(op)));
  }

  void PrintTimeline() {
    Head("timeline", "Timeline");
    const double elapsed_s = Number(in_.summary, "elapsed_s");
    const auto end_us = static_cast<int64_t>(elapsed_s * 1e6);
    body_ += fmt::format(
        "<p class=\"soft\">calls under way, from 0 to {}; each lane has a scale of its own</p>\n",
        SecondsWords(elapsed_s));
    for (const ReportData::Lane& lane : in_.data.workers()) PrintLane(lane, end_us);
    for (const auto& [target, lane] : in_.data.targets()) PrintLane(lane, end_us);
  }

  void PrintLane(const ReportData::Lane& lane, int64_t end_us) {
    constexpr size_t kColumns = 120;
    constexpr double kColumn = 8.0, kHeight = 44.0;
    const std::vector<double> means = lane.calls.Means(end_us, kColumns);
    const double most = *std::max_element(means.begin(), means.end());
    body_ += fmt::format(
        "<h3>{}</h3>\n<p class=\"soft\">{} calls{}</p>\n<svg class=\"wide\" "
        "viewBox=\"0 0 {:.0f} {:.0f}\" preserveAspectRatio=\"none\" role=\"img\" "
        "aria-label=\"calls under way over time\">\n",
        HtmlText(lane.name), lane.count,
        most >= 1.0 ? fmt::format(", {:.0f} at once at most", most) : "", kColumns * kColumn,
        kHeight);
    for (size_t i = 0; i < kColumns && most > 0.0; ++i) {
      const double height = means[i] / most * (kHeight - 2.0);
      if (height <= 0.0) continue;
      body_ += fmt::format(
          "<rect class=\"many\" x=\"{:.0f}\" y=\"{:.1f}\" width=\"{:.0f}\" height=\"{:.1f}\"/>\n",
          static_cast<double>(i) * kColumn, kHeight - height - 1.0, kColumn - 1.0, height);
    }
    body_ += fmt::format(
        "<line class=\"axis\" x1=\"0\" y1=\"{0:.0f}\" x2=\"{1:.0f}\" y2=\"{0:.0f}\"/>\n</svg>\n",
        kHeight - 1.0, kColumns * kColumn);
  }

  void PrintHistograms() {
    Head("histograms", "Histograms");
    MagnitudeCounts prompt, output, llm_s, tool_s;
    for (const auto& [key, of] : in_.data.operators()) {
      const Workflow& workflow = *in_.plan.sources[key.first].plan->workflow;
      const bool is_llm = workflow.at(*workflow.Find(key.second)).is_inference();
      (is_llm ? llm_s : tool_s).Add(of.latency_s);
      prompt.Add(of.prompt_tokens);
      output.Add(of.output_tokens);
    }
    body_ += "<div class=\"charts\">\n";
    const auto seconds = [](double value) { return SecondsWords(value); };
    const auto whole = [](double value) { return fmt::format("{:.0f}", value); };
    PrintHistogram("Prompt tokens of a call", prompt, whole);
    PrintHistogram("Generated tokens of a call", output, whole);
    PrintHistogram("Seconds of a model's call", llm_s, seconds);
    PrintHistogram("Seconds of a tool's call", tool_s, seconds);
    body_ += "</div>\n";
  }

  template <typename Words>
  void PrintHistogram(const char* title, const MagnitudeCounts& counts, const Words& words) {
    if (counts.count() == 0) return;
    const std::vector<MagnitudeCounts::Bar> bars = counts.Doublings();
    int64_t most = 1;
    for (const MagnitudeCounts::Bar& bar : bars) most = std::max(most, bar.count);
    constexpr double kWidth = 360.0, kBar = 18.0, kLeft = 96.0, kRight = 62.0;
    body_ += fmt::format(
        "<div class=\"chart\"><h3>{}</h3>\n<p class=\"soft\">half up to {}, 95 % up to {}</p>\n"
        "<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"histogram\">\n",
        HtmlText(title), words(counts.Quantile(0.5)), words(counts.Quantile(0.95)), kWidth,
        kBar * static_cast<double>(bars.size()) + 4.0);
    double y = 2.0;
    for (const MagnitudeCounts::Bar& bar : bars) {
      const double wide =
          (kWidth - kLeft - kRight) * static_cast<double>(bar.count) / static_cast<double>(most);
      body_ += fmt::format(
          "<text class=\"soft\" x=\"{:.0f}\" y=\"{:.0f}\" text-anchor=\"end\">from {}</text><rect "
          "class=\"many\" x=\"{:.0f}\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"{:.0f}\"/><text "
          "x=\"{:.1f}\" y=\"{:.0f}\">{}</text>\n",
          kLeft - 6.0, y + 13.0, words(bar.low), kLeft, y + 2.0, wide, kBar - 4.0,
          kLeft + wide + 5.0, y + 13.0, bar.count);
      y += kBar;
    }
    body_ += "</svg></div>\n";
  }

  void PrintSharing() {
    Head("sharing", "What sharing saved");
    int64_t merged = 0, logical = 0, coalesced = 0;
    for (const Json& op : in_.summary.at("operators")) {
      const bool is_llm = op.at("kind") == "llm";
      (is_llm ? merged : coalesced) += op.at("merged").get<int64_t>();
      logical += op.at("logical").get<int64_t>();
    }
    const Json& tokens = in_.summary.at("tokens");
    const Json& kv = in_.summary.at("kv");
    body_ += "<div class=\"tiles\">\n";
    Tile(Percent(Number(tokens, "reused"), Number(tokens, "prompt")),
         fmt::format("of {} prompt tokens were there already",
                     RoundedWords(Number(tokens, "prompt"))));
    if (in_.prefill_token_s > 0.0)
      Tile(SecondsWords(in_.prefill_token_s * Number(tokens, "reused")),
           "of prefill saved, at what the others took");
    Tile(std::to_string(merged),
         fmt::format("of {} instances took an equal call's answer", logical));
    if (coalesced > 0) Tile(std::to_string(coalesced), "tool calls shared");
    const int64_t known = in_.summary.at("cache").at("calls").get<int64_t>();
    if (known > 0) Tile(std::to_string(known), "calls answered from the cache of earlier runs");
    Tile(std::to_string(kv.at("forks").get<int64_t>()), "prefixes taken over");
    body_ += "</div>\n";
  }

  void PrintSamples() {
    if (in_.data.samples().empty()) return;
    Head("rows", "Rows");
    for (const auto& [key, row] : in_.data.samples()) {
      body_ += fmt::format("<details><summary>row {}{}</summary>\n", HtmlText(row.id),
                           in_.plan.sources.size() > 1
                               ? " of " + HtmlText(in_.plan.sources[key.first].workflow)
                               : "");
      for (const ReportData::SampleCall& call : row.calls) {
        body_ += fmt::format(
            "<h3>{}{}{}</h3>\n<p class=\"soft\">asked</p><pre tabindex=\"0\">{}</pre>\n<p "
            "class=\"soft\">{}</p><pre tabindex=\"0\">{}</pre>\n",
            HtmlText(call.operator_id), call.merged ? ", from an equal call" : "",
            call.failed ? ", failed" : "", HtmlText(call.asked),
            call.failed ? "failed" : "answered", HtmlText(call.answered));
      }
      if (!row.result.empty())
        body_ += "<h3>Row</h3>\n<pre tabindex=\"0\">" + HtmlText(row.result) + "</pre>\n";
      body_ += "</details>\n";
    }
  }

  const ReportInput& in_;
  std::string body_;
};

}  // namespace

std::string ReportPage(const ReportInput& input) { return ReportPrinter(input).Print(); }

}  // namespace halo
