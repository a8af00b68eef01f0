#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "halo/session.h"

namespace halo::cli {

/// What a terminal can show.
struct TerminalLook {
  size_t columns = 80, lines = 24;
  bool has_colours = true;
  bool has_blocks = true;  ///< U+2588 and its like; else '#'
};

/// A line as a terminal takes it, colours included, and the columns that it fills there.
struct DisplayLine {
  std::string text;
  size_t columns = 0;
};

/// "12.3 s", "4:05 min", "2:30 h".
std::string DurationWords(double seconds);

/// The display of a run: a line of figures, a bar for all of it and one for each operator, and what
/// the run waits for. Never wider than the terminal, and at most one line less than it has. Where
/// operators do not fit, those with the most calls in flight are shown. `tokens_per_s`: generated.
std::vector<DisplayLine> DisplayLines(const Progress& progress, double tokens_per_s,
                                      const TerminalLook& look);

/// Draws lines in place of those it drew before, on standard error.
class TerminalDisplay {
 public:
  TerminalDisplay();
  void Draw(const Progress& progress, double tokens_per_s);
  /// Takes the display away, so that other text can be written.
  void Erase();

 private:
  TerminalLook look_;
  std::vector<size_t> drawn_;  // columns of the lines that stand there
};

}  // namespace halo::cli
