#include "progress.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <nlohmann/json.hpp>

namespace halo::cli {
namespace {

constexpr double kTerminalEveryS = 0.25;
constexpr double kLineEveryS = 5.0;

std::string Duration(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds);
  if (whole < 60) return fmt::format("{:.1f} s", seconds);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::string ProgressLine(const Progress& p) {
  const int64_t rows = p.rows_ok + p.rows_failed;
  std::string line = p.rows_total >= 0 ? fmt::format("rows {}/{}", rows, p.rows_total)
                                       : fmt::format("rows {}", rows);
  if (p.rows_failed > 0) line += fmt::format(" ({} failed)", p.rows_failed);
  line += p.calls_total >= 0 ? fmt::format("  calls {}/{}", p.calls_done, p.calls_total)
                             : fmt::format("  calls {} done", p.calls_done);
  if (p.elapsed_s > 1.0) {
    line += fmt::format("  {:.0f} tokens/s", static_cast<double>(p.output_tokens) / p.elapsed_s);
  }
  line += "  " + Duration(p.elapsed_s);
  // Calls tell more than rows: with a judge at the end no row is done for a long time.
  constexpr int64_t kEnoughCalls = 20;
  if (p.calls_total > p.calls_done && p.calls_done >= kEnoughCalls) {
    const double left = p.elapsed_s * static_cast<double>(p.calls_total - p.calls_done) /
                        static_cast<double>(p.calls_done);
    line += "  about " + Duration(left) + " left";
  }
  return line;
}

/// Columns of the terminal on standard error, less the one that would wrap the line.
size_t Columns() {
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  return known ? size.ws_col - 1U : 79U;
}

}  // namespace

ProgressDisplay::ProgressDisplay(bool quiet)
    : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

void ProgressDisplay::Show(const Progress& progress) {
  if (quiet_) return;
  const double every = terminal_ ? kTerminalEveryS : kLineEveryS;
  const bool done =
      progress.rows_total >= 0 && progress.rows_ok + progress.rows_failed >= progress.rows_total;
  if (progress.elapsed_s - last_shown_s_ < every && !(done && terminal_)) return;
  last_shown_s_ = progress.elapsed_s;
  if (terminal_) {
    std::cerr << "\r\x1b[K" << ProgressLine(progress).substr(0, Columns()) << std::flush;
    open_line_ = true;
  } else {
    std::cerr << ProgressLine(progress) << "\n";
  }
}

void ProgressDisplay::Say(const std::string& text) {
  if (quiet_) return;
  Close();
  std::cerr << text << "\n";
}

void ProgressDisplay::Close() {
  if (open_line_) std::cerr << "\n";
  open_line_ = false;
}

namespace {

/// A line for each operator, under the name of its workflow where there are several.
std::string OperatorTable(const nlohmann::ordered_json& operators) {
  size_t width = 8;
  bool any_skipped = false;
  for (const auto& op : operators) {
    width = std::max(width, op.at("id").get<std::string>().size());
    any_skipped = any_skipped || op.at("skipped").get<int64_t>() > 0;
  }
  const auto line = [&](const std::string& id, const auto&... cells) {
    std::string text = fmt::format("  {:<{}}", id, width);
    size_t column = 0;
    for (const std::string& cell : {std::string(cells)...}) {
      constexpr size_t kSkipped = 2, kFirstTokens = 4;
      if (column != kSkipped || any_skipped)
        text += fmt::format(" {:>{}}", cell, column < kFirstTokens ? 7 : 10);
      ++column;
    }
    return text + "\n";
  };
  std::string text =
      line("operator", "calls", "merged", "skipped", "failed", "prompt", "reused", "output");
  std::string workflow;
  for (const auto& op : operators) {
    const std::string of = op.value("workflow", "");
    if (of != workflow) text += of + ":\n";
    workflow = of;
    const auto count = [&](const char* name) { return std::to_string(op.at(name).get<int64_t>()); };
    text += line(op.at("id").get<std::string>(), count("calls"), count("merged"), count("skipped"),
                 count("failed"), count("prompt_tokens"), count("reused_tokens"),
                 count("output_tokens"));
  }
  return text;
}

}  // namespace

std::string DescribeSummary(const std::string& summary_json) {
  const auto s = nlohmann::ordered_json::parse(summary_json);
  const auto& rows = s.at("rows");
  const auto& tokens = s.at("tokens");
  std::string text = fmt::format("{} rows: {} ok, {} failed", rows.at("total").get<int64_t>(),
                                 rows.at("ok").get<int64_t>(), rows.at("failed").get<int64_t>());
  if (rows.at("unfinished").get<int64_t>() > 0) {
    text += fmt::format(", {} unfinished", rows.at("unfinished").get<int64_t>());
  }
  text += fmt::format("; {} (and {} to load)\n", Duration(s.at("elapsed_s").get<double>()),
                      Duration(s.at("planning_s").get<double>()));
  text += OperatorTable(s.at("operators"));
  // Without a model there is nothing to say of tokens and of how exact answers are.
  if (s.at("engine").empty()) return text;
  const double prompt = tokens.at("prompt").get<double>();
  const double reused = tokens.at("reused").get<double>();
  text +=
      fmt::format("tokens: {} of prompts, {:.0f} % of them reused; {} generated\n",
                  tokens.at("prompt").get<int64_t>(), prompt > 0 ? 100.0 * reused / prompt : 0.0,
                  tokens.at("output").get<int64_t>());
  for (const auto& engine : s.at("engine")) {
    text += fmt::format("engine {}: {} steps, {:.1f} calls a decode step",
                        engine.at("model").get<std::string>(), engine.at("steps").get<int64_t>(),
                        engine.at("decode_batch_mean").get<double>());
    const int64_t restarts = engine.at("restarts").get<int64_t>();
    if (restarts > 0) text += fmt::format("; its process was started again {} times", restarts);
    text += "\n";
  }
  if (s.at("planner") == "naive") return text;
  text += s.at("deterministic").get<bool>() ? "answers are bit for bit those of --naive\n"
                                            : "answers equal those of --naive up to rounding\n";
  return text;
}

}  // namespace halo::cli
