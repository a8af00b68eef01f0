#pragma once

#include <string>

#include "halo/session.h"

namespace halo::cli {

/// Shows how a run goes, on standard error: one line that is rewritten on a terminal, a line every
/// few seconds elsewhere.
class ProgressDisplay {
 public:
  explicit ProgressDisplay(bool quiet);
  void Show(const Progress& progress);
  /// Ends the line that is being rewritten.
  /// A line of its own, unless quiet.
  void Say(const std::string& text);
  void Close();

 private:
  bool quiet_;
  bool terminal_;
  bool open_line_ = false;
  double last_shown_s_ = -1e9;
};

/// The summary a person reads after a run, from the summary's JSON.
std::string DescribeSummary(const std::string& summary_json);

}  // namespace halo::cli
