#include "progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/text.h"
#include "commands.h"

namespace halo::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kTerminalEveryS = 0.25;
constexpr double kLineEveryS = 5.0;
constexpr double kRateOverS = 10.0;

/// Bars move the cursor, which a terminal that calls itself dumb cannot.
bool IsTerminal() {
  const std::string kind = Environment("TERM");
  return isatty(STDERR_FILENO) == 1 && kind != "dumb" && !kind.empty();
}

double ReusedShare(const Progress& p) {
  return p.prompt_tokens > 0
             ? static_cast<double>(p.reused_tokens) / static_cast<double>(p.prompt_tokens)
             : 0.0;
}

std::string WaitsOf(const Progress& p) {
  std::string waits;
  for (const std::string& wait : p.waits) waits += (waits.empty() ? "" : "; ") + wait;
  return waits;
}

std::string ProgressLine(const Progress& p, double tokens_per_s) {
  const int64_t rows = p.rows_ok + p.rows_failed;
  std::string line = p.rows_total >= 0 ? fmt::format("rows {}/{}", rows, p.rows_total)
                                       : fmt::format("rows {}", rows);
  if (p.rows_failed > 0) line += fmt::format(" ({} failed)", p.rows_failed);
  line += p.instances_total >= 0 ? fmt::format("  calls {}/{}", p.instances_done, p.instances_total)
                                 : fmt::format("  calls {} done", p.instances_done);
  line += fmt::format(", {} in flight", p.calls_running);
  if (p.elapsed_s > 1.0) line += fmt::format("  {:.0f} tokens/s", tokens_per_s);
  if (p.prompt_tokens > 0) line += fmt::format("  {:.0f} % reused", 100.0 * ReusedShare(p));
  line += "  " + DurationWords(p.elapsed_s);
  if (p.left_s >= 0.0) line += "  about " + DurationWords(p.left_s) + " left";
  if (!p.waits.empty()) line += "  waiting for " + WaitsOf(p);
  return line;
}

Json ProgressFields(const Progress& p, double tokens_per_s) {
  const auto known = [](int64_t count) { return count < 0 ? Json() : Json(count); };
  Json operators = Json::array();
  for (const OperatorProgress& op : p.operators) {
    operators.push_back({{"id", op.id},
                         {"instances", known(op.instances)},
                         {"done", op.done},
                         {"failed", op.failed},
                         {"calls_running", op.calls_running}});
  }
  return {{"elapsed_s", p.elapsed_s},
          {"left_s", p.left_s < 0 ? Json() : Json(p.left_s)},
          {"rows", {{"total", known(p.rows_total)}, {"ok", p.rows_ok}, {"failed", p.rows_failed}}},
          {"instances", {{"total", known(p.instances_total)}, {"done", p.instances_done}}},
          {"calls_running", p.calls_running},
          {"tokens",
           {{"prompt", p.prompt_tokens},
            {"reused", p.reused_tokens},
            {"output", p.output_tokens},
            {"output_per_s", tokens_per_s}}},
          {"operators", operators},
          {"waits", p.waits}};
}

}  // namespace

ProgressDisplay::ProgressDisplay(const Log& log, bool rows_on_stdout) : log_(log) {
  const bool is_shared = rows_on_stdout && isatty(STDOUT_FILENO) == 1;
  if (!log.is_json() && !log.quiet() && IsTerminal() && !is_shared) terminal_.emplace();
}

/// Of the last seconds, so that it is what goes on now.
double ProgressDisplay::TokensPerSecond(const Progress& progress) {
  if (tokens_.empty()) tokens_.emplace_back(0.0, 0);
  while (tokens_.size() > 1 && tokens_[1].first < progress.elapsed_s - kRateOverS)
    tokens_.pop_front();
  const auto [since_s, before] = tokens_.front();
  tokens_.emplace_back(progress.elapsed_s, progress.output_tokens);
  return static_cast<double>(progress.output_tokens - before) /
         std::max(1e-3, progress.elapsed_s - since_s);
}

void ProgressDisplay::Show(const Progress& progress) {
  if (log_.quiet()) return;
  const double every = terminal_ ? kTerminalEveryS : kLineEveryS;
  if (progress.elapsed_s - last_shown_s_ < every) return;
  last_shown_s_ = progress.elapsed_s;
  const double tokens_per_s = TokensPerSecond(progress);
  if (terminal_) return terminal_->Draw(progress, tokens_per_s);
  log_.Say(LogLevel::kInfo, "progress", ProgressLine(progress, tokens_per_s),
           ProgressFields(progress, tokens_per_s));
}

void ProgressDisplay::Say(const std::string& event, const std::string& text) {
  Close();
  log_.Say(LogLevel::kInfo, event, text);
}

void ProgressDisplay::Close() {
  if (terminal_) terminal_->Erase();
}

}  // namespace halo::cli
