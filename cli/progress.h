#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>

#include "halo/session.h"
#include "log.h"
#include "terminal_display.h"

namespace halo::cli {

/// Shows how a run goes, on standard error: bars that are drawn anew on a terminal, a line every
/// few seconds elsewhere, and an event for each of these in a JSON log.
class ProgressDisplay {
 public:
  /// `rows_on_stdout`: rows are written there while the display stands; on one terminal there are
  /// no bars then, which the rows would run into.
  ProgressDisplay(const Log& log, bool rows_on_stdout);
  void Show(const Progress& progress);
  /// A line of its own, unless quiet.
  void Say(const std::string& event, const std::string& text);
  /// Takes the display away.
  void Close();

 private:
  double TokensPerSecond(const Progress& progress);

  const Log& log_;
  std::optional<TerminalDisplay> terminal_;
  std::deque<std::pair<double, int64_t>>
      tokens_;  // of the last seconds: when, and how many by then
  double last_shown_s_ = -1e9;
};

}  // namespace halo::cli
