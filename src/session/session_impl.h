#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/descriptor.h"
#include "base/hash.h"
#include "halo/session.h"
#include "model/model_names.h"
#include "plan/logical_plan.h"
#include "plan/physical_plan.h"
#include "runtime/executor.h"
#include "runtime/result_cache.h"
#include "runtime/worker_fleet.h"
#include "session/durable_run.h"
#include "session/engine_host.h"
#include "session/fleet_setup.h"
#include "session/planning.h"
#include "session/report_data.h"
#include "session/run_trace.h"
#include "session/summary.h"
#include "session/temporary_folder.h"
#include "session/tool_setup.h"
#include "workflow/rows.h"
#include "workflow/workflow.h"

namespace halo {

/// TokenPrice's unit in units of the currency.
inline constexpr double kCostUnit = 1e-9;

/// YYYY-MM-DD.
std::string TodayUtc();

/// The stages of a run: session.cc (from files to a run), session_durable.cc (what is kept of it),
/// session_workers.cc (workers and engines), session_records.cc (trace and report),
/// session_cache.cc (answers of earlier runs, prices).
struct Session::Impl {
  /// One model file in use. Several names may resolve to one file; they share it.
  struct LoadedModel {
    ResolvedModel resolved;
    std::vector<LlamaAdapter> adapters;            // distinct
    std::shared_ptr<const Vocabulary> vocabulary;  // shared by engine and prompts, immutable
    std::shared_ptr<const ChatTemplate> chat;      // shared by the prompts of all operators
    size_t in_fleet = 0;                           // index of the fleet's models
    int32_t expected_tokens = 0;                   // longest prompt and answer foreseen; 0: unknown
    Signature content;                             // of its file, where keys are made of it
  };

  /// Rows of one input, put into the run.
  struct Input {
    Workflow workflow;
    LogicalPlan plan;
    std::string column;
    std::unique_ptr<RowStatistics> statistics;  // of rows that were scanned; null: none were
    std::vector<std::string> adapters;          // [plan adapters] their names in the engines
    std::vector<Signature> adapter_contents;    // [plan adapters] as LoadedModel::content
    std::unique_ptr<RowSource> rows;
    std::unique_ptr<RowFeed> feed;
    std::unique_ptr<ResultSink> sink;
    std::string output;
  };

  RunOptions options;
  SteadyClock clock;
  std::vector<std::unique_ptr<Input>> inputs;  // stable addresses: plans point into workflows
  EngineHost host;                             // of the models' engines
  std::vector<std::string> news;               // of engines, not told yet
  std::map<std::string, LoadedModel> models;   // by path
  std::unique_ptr<Replanner> replanner;
  std::map<ModelRequest, std::string> model_paths;
  std::unique_ptr<TemporaryFolder> temporary;
  std::unique_ptr<DurableRun> durable;     // null: the run is not kept
  RunOptions asked;                        // as they were before planning
  std::optional<Descriptor> kept_input;    // standard input of an earlier part
  std::vector<std::string> durable_notes;  // for a person
  bool has_begun = false;                  // `durable`
  std::unique_ptr<ResultCache> cache;      // null: answers of earlier runs are not taken
  RunTools tools;
  DatabaseCosts costs;
  std::optional<Planning> planning;
  PhysicalPlan physical;
  std::unique_ptr<WorkerFleet> fleet;  // ends before what its engines share; null: no models

  explicit Impl(RunOptions o) : options(std::move(o)) {}

  void LoadWorkflows();
  std::vector<const Workflow*> Workflows() const;
  void Resolve();
  void ResolveAdapters();
  void OpenInputs();
  void LoadVocabularies();
  void PlanBatch();
  void PlanForExplain();
  void ResolveWhatIsThere();
  void OpenHost();
  std::function<void(int32_t)> WatchToolThreads() const;
  void OpenRunTools();
  void ChooseWorkers(const std::string& saved_plan);
  void AddPlaces(const std::string& path, ModelToHost& model, double& first_s) const;
  void LoadModels();
  void CheckPaths() const;
  void NameOutputs();
  void OpenOutputs();
  int32_t ExpectedTokens(const LoadedModel& model) const;
  ModelToHost HostOf(const std::string& path, const LoadedModel& model) const;
  int64_t CallsOf(const std::string& model_path) const;
  int32_t SequencesFor(const std::string& model_path) const;
  std::unique_ptr<ReportData> OpenReport(int64_t start_us);
  void WriteReport(const ReportData& data, RunOutcome& outcome) const;
  void LinkTrace(RunReport& report) const;
  std::unique_ptr<RunTrace> OpenTrace(int64_t start_us, int64_t planned_us);
  std::vector<RunSource> Sources();
  void Replan(ExecutorOptions& how, RunTrace* trace);
  int64_t CallsHeld(const std::string& path) const;
  int64_t RowsSideBySide() const;
  void AddActuals(const RunReport& report, int64_t ready_us);
  RunOutcome OutcomeOf(const RunReport& report, SummaryInput summary) const;
  ExecutorOptions HowToExecute();
  void RequireBudget(const ExecutorOptions& how) const;
  std::string LargerBudget() const;
  std::string SpoolFolder();
  void OpenDurable();
  void KeepRows(size_t input, RowOptions& rows);
  RunManifest Manifest();
  std::vector<FileFacts> FindContents(const std::vector<FileFacts>& known);
  void OpenCache();
  void CloseCache(RunReport& report);
  TokenPrice PriceOf(const std::string& model) const;
  void CheckPrices() const;
  void PrepareDurable(RunManifest manifest);
  void BeginDurable();
  void EndDurable(RunOutcome& outcome);
};

}  // namespace halo
