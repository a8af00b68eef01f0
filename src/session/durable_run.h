#pragma once

#include <cstdint>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "halo/session.h"
#include "runtime/executor.h"
#include "runtime/journal.h"
#include "session/row_set.h"
#include "session/run_folder.h"
#include "session/run_manifest.h"

namespace halo {

/// A run that outlives its process: its folder, what it was asked for, its journal, its failed rows
/// and its end. docs/durability.md says what is kept and what is promised.
///
/// A resumed run is the whole run once more, in which the journal answers what was asked before: so
/// there is one way through the scheduler, an output file is made anew from its first row, and a
/// change of workflow, rows or models asks again exactly what it reaches. Skipping the rows that
/// are there was rejected: it saves building their prompts, and costs counters for each row and a
/// second way to come to a result.
class DurableRun {
 public:
  /// What `options` ask for: null if nothing, or if the folder is a default one that cannot be made
  /// (`notices` say so). `now`: seconds since 1970. Throws Error.
  static std::unique_ptr<DurableRun> Open(const RunOptions& options, int64_t now,
                                          std::vector<std::string>& notices);

  const RunFolder& folder() const { return folder_; }
  /// Of an earlier part: where the rows are that can be had only once; "": they were not there.
  std::string KeptRows(size_t input) const;
  /// A plan that an earlier part made for these workflows; "": there is none.
  std::string PlanFile(const std::vector<std::string>& workflow_texts) const;

  /// What is known before the first row runs: `now.options`, `now.inputs` and `now.models` are
  /// there. Opens the journal and changes nothing else, so that a part may still be refused.
  /// Returns what a person should know. Throws Error(kIo, kUsage).
  std::vector<std::string> Prepare(RunManifest now);
  /// The run begins, or another part of it: what the last one left is made anew. Throws Error(kIo).
  void Begin(const std::string& plan_json);
  /// Facts of files that an earlier part knew.
  std::vector<FileFacts> KnownFiles() const;
  /// What the scheduler is to know. Lives as long as this.
  void Configure(ExecutorOptions& how) const;
  /// The sink of a source, or one in front of it that lets through what was not written before.
  std::unique_ptr<ResultSink> Unwritten(size_t source, std::unique_ptr<ResultSink> sink) const;
  /// A failed row as it was given, so that it can be given again.
  void KeepFailedRow(size_t source, const Row& row);
  /// The run has ended, or this part of it.
  void Finish(RunStatus status, const std::string& summary_json);

 private:
  explicit DurableRun(RunFolder folder) : folder_(std::move(folder)) {}
  void ReadRows(bool rows_changed);
  void OpenFailedRows();

  RunFolder folder_;
  std::string runs_;  // that the folder was made in, or ""
  std::optional<RunManifest> before_;
  RunManifest now_;
  bool retries_ = false;
  std::unique_ptr<Journal> journal_;
  std::vector<RowSet> written_;             // [sources] in earlier parts
  std::vector<RowSet> failed_;              // [sources] the last that was said of them
  bool all_again_ = false;                  // it is not known any more which rows had failed
  std::vector<std::ofstream> failed_rows_;  // [sources]
};

/// A run as `halo runs` shows it.
struct RunState {
  std::string folder;
  RunManifest manifest;
  std::string state;  ///< running, finished, failed rows, stopped, interrupted, broken off
  bool is_finished = false;
  std::string summary_json;  ///< of its last part that came to an end; "": none did
};
/// Throws Error(kUsage) where the folder is no run's.
RunState LookAtRun(const std::string& folder);

/// True if workflows, rows and models are what the run found. Relative paths are looked up from the
/// folder in which this process works. Throws Error(kIo).
bool IsAsItWas(const RunManifest& manifest);

/// What a run was asked for, to go on with it. Relative paths in it mean something in
/// RunState::manifest.working_folder. Throws Error(kUsage).
RunOptions OptionsToResume(const std::string& folder);

}  // namespace halo
