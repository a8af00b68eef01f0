#include "terminal_display.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <iostream>
#include <numeric>

#include "base/text.h"
#include "commands.h"
#include "log.h"

namespace halo::cli {
namespace {

enum class Style { kPlain, kSoft, kBar, kBad };

/// A line in pieces, each in one style.
struct Piece {
  std::string text;
  Style style = Style::kPlain;
};
using Line = std::vector<Piece>;

/// Columns that a text takes. Everything Halo shows here is one column a character, but for names
/// of workflows, which may be anything; East Asian ones take two.
size_t WidthOf(std::string_view text) {
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    constexpr unsigned char kInner = 0x80, kInnerMask = 0xC0, kFirstWide = 0xE3, kLastWide = 0xED;
    if ((byte & kInnerMask) == kInner) continue;
    const bool is_emoji = byte >= 0xF0;
    width += (byte >= kFirstWide && byte <= kLastWide) || is_emoji ? 2 : 1;
  }
  return width;
}

/// The beginning of a text that takes so many columns at most.
std::string CutTo(std::string_view text, size_t columns) {
  size_t end = text.size();
  while (WidthOf(text.substr(0, end)) > columns) {
    --end;
    end = CompleteUtf8Length(text.substr(0, end));
  }
  return std::string(text.substr(0, end));
}

const char* CodeOf(Style style) {
  switch (style) {
    case Style::kSoft:
      return "\x1b[2m";
    case Style::kBar:
      return "\x1b[36m";
    case Style::kBad:
      return "\x1b[31m";
    case Style::kPlain:
      break;
  }
  return "";
}

/// The line cut to the terminal's columns.
DisplayLine Render(const Line& line, const TerminalLook& look) {
  DisplayLine rendered;
  for (const Piece& piece : line) {
    const std::string shown = CutTo(piece.text, look.columns - rendered.columns);
    rendered.columns += WidthOf(shown);
    const std::string code = look.has_colours ? CodeOf(piece.style) : "";
    rendered.text += code + shown + (code.empty() ? "" : "\x1b[0m");
  }
  return rendered;
}

std::string Bar(double share, size_t columns, const TerminalLook& look) {
  const double filled = std::clamp(share, 0.0, 1.0) * static_cast<double>(columns);
  const auto whole = static_cast<size_t>(filled);
  std::string bar;
  for (size_t i = 0; i < whole; ++i) bar += look.has_blocks ? "\xE2\x96\x88" : "#";
  if (look.has_blocks && whole < columns) {
    // U+2588 less an eighth is the next character, so that a bar moves in eighths of a column.
    constexpr int kEighths = 8;
    const int eighths = static_cast<int>((filled - static_cast<double>(whole)) * kEighths);
    if (eighths > 0) bar += std::string("\xE2\x96") + static_cast<char>(0x90 - eighths);
  }
  const size_t used = WidthOf(bar);
  return bar + std::string(columns - std::min(columns, used), look.has_blocks ? ' ' : '.');
}

std::string OfAll(int64_t done, int64_t all) {
  return all >= 0 ? fmt::format("{}/{}", done, all) : std::to_string(done);
}

double Share(int64_t done, int64_t all) {
  return all > 0 ? static_cast<double>(done) / static_cast<double>(all) : (all == 0 ? 1.0 : 0.0);
}

Line Figures(const Progress& p) {
  Line line = {{"rows " + OfAll(p.rows_ok + p.rows_failed, p.rows_total)},
               {fmt::format("  {} ok", p.rows_ok), Style::kSoft}};
  if (p.rows_failed > 0) line.push_back({fmt::format("  {} failed", p.rows_failed), Style::kBad});
  line.push_back({"  " + DurationWords(p.elapsed_s)});
  if (p.left_s >= 0.0) line.push_back({", about " + DurationWords(p.left_s) + " left"});
  line.push_back({fmt::format("  {} in flight", Counted(p.calls_running, "call")), Style::kSoft});
  return line;
}

Line BarLine(const std::string& name, size_t name_columns, const std::string& bar,
             const Line& behind) {
  Line line = {{name + std::string(name_columns - std::min(name_columns, WidthOf(name)), ' ')}};
  if (!bar.empty()) line.push_back({" " + bar, Style::kBar});
  line.insert(line.end(), behind.begin(), behind.end());
  return line;
}

/// Places of the operators that are shown, in order.
std::vector<size_t> Shown(const std::vector<OperatorProgress>& operators, size_t most) {
  std::vector<size_t> places(operators.size());
  std::iota(places.begin(), places.end(), size_t{0});
  if (places.size() <= most) return places;
  // In flight first, then those that have begun and are not done.
  const auto rank = [&](size_t at) {
    const OperatorProgress& op = operators[at];
    const bool is_open = op.done > 0 && op.done != op.instances;
    return std::pair(-op.calls_running, !is_open);
  };
  std::stable_sort(places.begin(), places.end(),
                   [&](size_t a, size_t b) { return rank(a) < rank(b); });
  places.resize(most);
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace

std::string DurationWords(double seconds) {
  const int64_t whole = static_cast<int64_t>(seconds);
  if (whole < 60) return fmt::format("{:.1f} s", seconds);
  if (whole < 3600) return fmt::format("{}:{:02} min", whole / 60, whole % 60);
  return fmt::format("{}:{:02} h", whole / 3600, whole / 60 % 60);
}

std::vector<DisplayLine> DisplayLines(const Progress& progress, double tokens_per_s,
                                      const TerminalLook& look) {
  constexpr size_t kOtherLines = 5;  // figures, total, what is left out, waits, the line below
  constexpr size_t kFigures = 34;    // columns behind a bar
  constexpr size_t kLeastBar = 6, kMostBar = 40, kMostName = 32;
  const size_t room = look.lines > kOtherLines ? look.lines - kOtherLines : 0;
  const std::vector<size_t> shown = Shown(progress.operators, room);
  size_t names = WidthOf("total");
  for (const size_t at : shown) names = std::max(names, WidthOf(progress.operators[at].id));
  names = std::min({names, kMostName, look.columns / 3});
  const size_t behind = names + 1 + kFigures;
  const size_t left = look.columns > behind ? look.columns - behind : 0;
  const size_t columns = left < kLeastBar ? 0 : std::min(left, kMostBar);
  const auto bar = [&](int64_t done, int64_t all) {
    return columns == 0 ? "" : Bar(Share(done, all), columns, look);
  };

  std::vector<Line> lines = {Figures(progress)};
  const double reused = Share(progress.reused_tokens, std::max<int64_t>(1, progress.prompt_tokens));
  lines.push_back(
      BarLine("total", names, bar(progress.instances_done, progress.instances_total),
              {{progress.instances_total >= 0
                    ? fmt::format(" {:.0f} %",
                                  100.0 * Share(progress.instances_done, progress.instances_total))
                    : fmt::format(" {}", progress.instances_done)},
               {fmt::format("  {:.0f} tokens/s  {:.0f} % reused", tokens_per_s, 100.0 * reused),
                Style::kSoft}}));
  for (const size_t at : shown) {
    const OperatorProgress& op = progress.operators[at];
    Line figures = {{" " + OfAll(op.done, op.instances)}};
    if (op.calls_running > 0)
      figures.push_back({fmt::format("  {} in flight", op.calls_running), Style::kSoft});
    if (op.failed > 0) figures.push_back({fmt::format("  {} failed", op.failed), Style::kBad});
    lines.push_back(
        BarLine(CutTo(Printable(op.id), names), names, bar(op.done, op.instances), figures));
  }
  if (shown.size() < progress.operators.size()) {
    lines.push_back(
        {{"and " + Counted(static_cast<int64_t>(progress.operators.size() - shown.size()),
                           "more operator"),
          Style::kSoft}});
  }
  std::string waits;
  for (const std::string& wait : progress.waits) waits += (waits.empty() ? "" : "; ") + wait;
  if (!waits.empty()) lines.push_back({{"waiting for " + Printable(waits), Style::kSoft}});
  if (look.lines > 1 && lines.size() >= look.lines) lines.resize(look.lines - 1);

  std::vector<DisplayLine> rendered;
  for (const Line& line : lines) rendered.push_back(Render(line, look));
  return rendered;
}

TerminalDisplay::TerminalDisplay() {
  look_.has_colours = Environment("NO_COLOR").empty();
  std::string locale = Environment("LC_ALL");
  if (locale.empty()) locale = Environment("LC_CTYPE");
  if (locale.empty()) locale = Environment("LANG");
  locale = LowerCaseAscii(locale);
  look_.has_blocks =
      locale.find("utf-8") != std::string::npos || locale.find("utf8") != std::string::npos;
}

void TerminalDisplay::Draw(const Progress& progress, double tokens_per_s) {
  Erase();
  winsize size{};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 && size.ws_row > 1) {
    // The last column stays free: some terminals go to the next line when it is written.
    look_.columns = size.ws_col - 1U;
    look_.lines = size.ws_row;
  }
  std::string text;
  for (const DisplayLine& line : DisplayLines(progress, tokens_per_s, look_)) {
    drawn_.push_back(line.columns);
    text += line.text + "\n";
  }
  std::cerr << text << std::flush;
}

void TerminalDisplay::Erase() {
  if (drawn_.empty()) return;
  // A terminal that became narrower has broken the lines that no longer fit.
  winsize size{};
  const bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1;
  const size_t columns = known ? size.ws_col : look_.columns + 1;
  size_t lines = 0;
  for (const size_t width : drawn_) lines += std::max<size_t>(1, (width + columns - 1) / columns);
  if (known && lines >= size.ws_row) lines = size.ws_row - 1U;
  std::cerr << fmt::format("\r\x1b[{}A\x1b[J", lines) << std::flush;
  drawn_.clear();
}

}  // namespace halo::cli
