#include "session/durable_run.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "base/bounded_json.h"
#include "base/error.h"
#include "base/file_text.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kSummary = "summary.json";

bool ReadsStandardInput(const RunOptions& options) {
  return std::any_of(options.inputs.begin(), options.inputs.end(),
                     [](const RunOptions::Input& input) { return input.rows == "-"; });
}

/// Refuses to begin what has a beginning already. Where nothing would be written over it is enough
/// to say so.
void LookForUnfinished(const RunOptions& options, std::vector<std::string>& notices) {
  if (options.begin_anew || ReadsStandardInput(options)) return;
  const auto folder = FindUnfinished(options.runs_folder, SameThing(options));
  if (!folder) return;
  if (IsLocked(*folder))
    throw Error(ErrorCode::kUsage, *folder + ": another process is running the same thing");
  const std::string what = "an unfinished run of the same workflow, rows and output is in " +
                           *folder + ": `halo resume " + *folder + "` goes on with it";
  if (options.output != "-")
    throw Error(ErrorCode::kUsage, what + ", --new begins a new one and leaves it as it is");
  notices.push_back(what);
}

/// Lets through rows that have not been written before.
class UnwrittenSink final : public ResultSink {
 public:
  UnwrittenSink(const RowSet& written, std::unique_ptr<ResultSink> sink)
      : written_(written), sink_(std::move(sink)) {}
  void Write(const RowResult& row) override {
    if (!written_.Contains(row.index)) sink_->Write(row);
  }
  void Finish() override { sink_->Finish(); }
  void Flush() override { sink_->Flush(); }

 private:
  const RowSet& written_;
  const std::unique_ptr<ResultSink> sink_;
};

const char* WordOf(RunStatus status) {
  switch (status) {
    case RunStatus::kAllOk:
      return "finished";
    case RunStatus::kRowsFailed:
      return "finished, rows failed";
    case RunStatus::kStopped:
      return "stopped by a limit";
    case RunStatus::kInterrupted:
      return "stopped by a signal";
    case RunStatus::kFailed:
    case RunStatus::kUsage:
      break;
  }
  return "failed";
}

/// What a part that came to its end left in summary.json; what is damaged is none.
bool IsWholeEnd(const Json& ended) {
  return ended.is_object() && ended.contains("state") && ended["state"].is_string() &&
         ended.contains("finished") && ended["finished"].is_boolean() &&
         ended.contains("summary") && ended["summary"].is_object();
}

bool IsFinished(RunStatus status) {
  return status == RunStatus::kAllOk || status == RunStatus::kRowsFailed;
}

}  // namespace

std::unique_ptr<DurableRun> DurableRun::Open(const RunOptions& options, int64_t now,
                                             std::vector<std::string>& notices) {
  if (options.resume) {
    std::unique_ptr<DurableRun> run(new DurableRun(RunFolder::Open(options.run_folder)));
    run->before_ = ReadManifest(options.run_folder);
    run->retries_ = options.retry_failed;
    if (run->before_->in_runs)
      run->runs_ = std::filesystem::path(options.run_folder).parent_path().string();
    return run;
  }
  if (!options.run_folder.empty())
    return std::unique_ptr<DurableRun>(new DurableRun(RunFolder::Make(options.run_folder)));
  if (options.runs_folder.empty()) return nullptr;
  LookForUnfinished(options, notices);
  try {
    std::unique_ptr<DurableRun> run(new DurableRun(RunFolder::MakeIn(options.runs_folder, now)));
    run->runs_ = options.runs_folder;
    return run;
  } catch (const Error& error) {
    // Nobody has asked for it: a run in a folder that cannot be written to is still a run.
    notices.push_back(std::string("this run cannot be resumed: ") + error.what());
    return nullptr;
  }
}

std::string DurableRun::KeptRows(size_t input) const {
  if (!before_ || input >= before_->inputs.size()) return "";
  const std::string& rows = before_->options.inputs[input].rows;
  if (rows == "-") return folder_.File("stdin.jsonl");
  return rows.starts_with("sql:") ? before_->inputs[input].rows.path : "";
}

std::string DurableRun::PlanFile(const std::vector<std::string>& workflow_texts) const {
  if (!before_ || before_->inputs.size() != workflow_texts.size()) return "";
  for (size_t i = 0; i < workflow_texts.size(); ++i) {
    if (before_->inputs[i].text != workflow_texts[i]) return "";
  }
  return folder_.File("plan.json");
}

std::vector<FileFacts> DurableRun::KnownFiles() const {
  if (!before_) return {};
  std::vector<FileFacts> known = before_->models;
  for (const RunManifest::Input& input : before_->inputs) known.push_back(input.rows);
  return known;
}

std::vector<std::string> DurableRun::Prepare(RunManifest now) {
  now_ = std::move(now);
  now_.same = before_ ? before_->same : SameThing(now_.options);
  now_.created = before_ ? before_->created : now_.created;
  now_.in_runs = !runs_.empty();
  now_.parts = before_ ? before_->parts + 1 : 1;
  std::vector<std::string> notices;
  bool rows_changed = false;
  if (before_) {
    notices = Changes(*before_, now_);
    for (size_t i = 0; i < now_.inputs.size(); ++i)
      rows_changed = rows_changed || now_.inputs[i].rows.digest != before_->inputs[i].rows.digest;
    if (rows_changed && now_.options.output == "-") {
      throw Error(ErrorCode::kUsage,
                  folder_.path() +
                      ": the rows have changed, so it cannot be told which of them were "
                      "written to standard output: begin a new run");
    }
  }
  journal_ = std::make_unique<Journal>(Journal::Options{folder_.File("journal.db"), ""});
  ReadRows(rows_changed);
  return notices;
}

void DurableRun::Begin(const std::string& plan_json) {
  std::filesystem::remove(folder_.File(kSummary));  // of an earlier part
  WriteWhole(folder_.File("plan.json"), plan_json);
  WriteWhole(folder_.File("manifest.json"), ManifestText(now_));
  OpenFailedRows();
  folder_.Keep();
  if (!runs_.empty() && !ReadsStandardInput(now_.options))
    PointUnfinished(runs_, now_.same, folder_.id());
}

/// What earlier parts wrote, and which rows have failed by what was said of them last.
void DurableRun::ReadRows(bool rows_changed) {
  written_.resize(now_.inputs.size());
  failed_.resize(now_.inputs.size());
  all_again_ = rows_changed;
  for (const WrittenRows& rows : journal_->earlier_rows()) {
    if (rows.source >= written_.size()) continue;
    written_[rows.source].Add(rows.first, rows.count);
    if (rows.failed) {
      failed_[rows.source].Add(rows.first, rows.count);
    } else {
      failed_[rows.source].Remove(rows.first, rows.count);
    }
  }
  if (!retries_) return;
  for (const WrittenRows& rows : journal_->earlier_rows()) {
    if (!rows.failed || rows.source >= written_.size()) continue;
    for (int64_t row = rows.first; row < rows.first + rows.count; ++row) {
      if (failed_[rows.source].Contains(row)) written_[rows.source].Remove(row, 1);
    }
  }
}

void DurableRun::OpenFailedRows() {
  for (const RunManifest::Input& input : now_.inputs) {
    const std::string name =
        now_.inputs.size() == 1
            ? "failed.jsonl"
            : "failed-" + std::filesystem::path(input.workflow.path).stem().string() + ".jsonl";
    failed_rows_.emplace_back(folder_.File(name), std::ios::binary | std::ios::trunc);
    if (!failed_rows_.back()) throw Error(ErrorCode::kIo, folder_.File(name) + ": cannot be made");
  }
}

void DurableRun::Configure(ExecutorOptions& how) const {
  how.journal = journal_.get();
  how.run_id = folder_.id() + "/" + std::to_string(now_.created);
  if (!retries_) return;
  how.tries_again = [this](size_t source, int64_t row) {
    return all_again_ || failed_[source].Contains(row);
  };
}

std::unique_ptr<ResultSink> DurableRun::Unwritten(size_t source,
                                                  std::unique_ptr<ResultSink> sink) const {
  if (!before_ || now_.options.output != "-") return sink;
  return std::make_unique<UnwrittenSink>(written_[source], std::move(sink));
}

void DurableRun::KeepFailedRow(size_t source, const Row& row) {
  if (row.failure) return;  // it could not be read, and cannot be given again
  Json given = {{"id", row.id}};
  given.update(row.values);
  failed_rows_[source] << given.dump(-1, ' ', false, Json::error_handler_t::replace) << std::endl;
}

void DurableRun::Finish(RunStatus status, const std::string& summary_json) {
  failed_rows_.clear();
  Json ended = {{"state", WordOf(status)}, {"finished", IsFinished(status)}};
  ended["summary"] = Json::parse(summary_json);
  WriteWhole(folder_.File(kSummary), ended.dump(2) + "\n");
  if (IsFinished(status) && !runs_.empty()) PointUnfinished(runs_, now_.same, "");
}

RunState LookAtRun(const std::string& folder) {
  RunState run;
  run.folder = folder;
  run.manifest = ReadManifest(folder);
  std::string fault;
  const Json ended = ParseBoundedJson(ReadFileText(folder + "/" + kSummary).value_or(""), fault);
  run.state = "broken off";
  if (IsWholeEnd(ended)) {
    ended["state"].get_to(run.state);
    ended["finished"].get_to(run.is_finished);
    run.summary_json = ended["summary"].dump();
  }
  if (IsLocked(folder)) {
    run.state = "running";
    run.is_finished = false;
  }
  return run;
}

bool IsAsItWas(const RunManifest& manifest) {
  std::vector<FileFacts> files = manifest.models;
  for (const RunManifest::Input& input : manifest.inputs) {
    files.push_back(input.workflow);
    if (!input.rows.path.empty()) files.push_back(input.rows);
  }
  return std::all_of(files.begin(), files.end(), [](const FileFacts& file) {
    return LookAt(file.path, {file}).digest == file.digest;
  });
}

RunOptions OptionsToResume(const std::string& folder) {
  RunOptions options = ReadManifest(folder).options;
  options.run_folder = folder;
  options.resume = true;
  return options;
}

}  // namespace halo
