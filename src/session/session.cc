#include "halo/session.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/duration.h"
#include "base/error.h"
#include "base/file_text.h"
#include "engine/llama/exactness.h"
#include "engine/llama/llama_engine.h"
#include "model/gguf_check.h"
#include "model/lora_adapter.h"
#include "session/call_dump.h"
#include "session/given_results.h"
#include "session/machine.h"
#include "session/plan_file.h"
#include "session/run_outlook.h"
#include "session/run_reporter.h"
#include "session/session_impl.h"
#include "session/workflow_files.h"
#include "session/written_files.h"

namespace halo {
namespace {

/// Throws Error(kUsage) if the folder that `path` would be written to is not there or not ours to
/// write to.
void RequireFolderOf(const std::string& path, const std::string& flag) {
  if (path.empty() || path == "-") return;
  const std::filesystem::path given = std::filesystem::path(path).parent_path();
  const std::string folder = given.empty() ? "." : given.string();
  if (access(folder.c_str(), W_OK) == 0) return;
  throw Error(ErrorCode::kUsage, flag + " " + path + ": cannot write to the folder " + folder +
                                     ": " + std::strerror(errno));
}

std::string ReadWholeFile(const std::string& path, const std::string& flag) {
  std::optional<std::string> text = ReadFileText(path);
  if (!text) throw Error(ErrorCode::kUsage, flag + " " + path + ": cannot be read");
  return *std::move(text);
}

/// Never "finished" with less than all rows done: what was scanned is what was run.
void CheckAllRows(const RunReport& report, int64_t rows_total) {
  const int64_t done = report.counts.rows_ok + report.counts.rows_failed;
  if (report.end != RunEnd::kFinished || rows_total < 0 || done == rows_total) return;
  throw Error(ErrorCode::kIo, fmt::format("{} rows were found before the run, {} while it ran: the "
                                          "input was changed meanwhile",
                                          rows_total, done));
}

}  // namespace

void Session::Impl::LoadWorkflows() {
  if (!inputs.empty()) return;
  if (options.inputs.empty()) throw Error(ErrorCode::kUsage, "no workflow given");
  const std::set<std::string> functions = NamesOfFunctions(options);
  std::vector<Diagnostic> faults;
  for (const RunOptions::Input& given : options.inputs) {
    auto input = std::make_unique<Input>();
    try {
      input->workflow = LoadWorkflow(given.workflow, functions);
    } catch (const Error& error) {
      faults.insert(faults.end(), error.diagnostics().begin(), error.diagnostics().end());
      continue;
    }
    input->plan = MakeLogicalPlan(input->workflow, options.all_outputs);
    if (input->workflow.is_graph && !options.column.empty()) {
      throw Error(ErrorCode::kUsage,
                  "--column: " + given.workflow +
                      " is a graph, which names its columns by the outputs of its input nodes");
    }
    input->column = ResolveColumn(input->workflow, options.column);
    inputs.push_back(std::move(input));
  }
  if (!faults.empty()) throw Error(ErrorCode::kWorkflow, std::move(faults));
}

std::vector<const Workflow*> Session::Impl::Workflows() const {
  std::vector<const Workflow*> workflows;
  for (const auto& input : inputs) workflows.push_back(&input->workflow);
  return workflows;
}

void Session::Impl::Resolve() {
  if (!model_paths.empty()) return;
  std::set<ModelRequest> requests;
  for (const auto& input : inputs)
    requests.insert(input->plan.models.begin(), input->plan.models.end());
  const ModelSearchPath search{options.models, options.models_file, options.models_folder,
                               options.hugging_face_cache, options.shipped_models};
  for (ResolvedModel& resolved : ResolveModels({requests.begin(), requests.end()}, search)) {
    model_paths.emplace(resolved.request, resolved.path);
    const std::string path = resolved.path;
    models[path].resolved = std::move(resolved);
  }
  ResolveAdapters();
  CheckPrices();
}

void Session::Impl::ResolveAdapters() {
  std::vector<Diagnostic> faults;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (const LogicalAdapter& wanted : inputs[i]->plan.adapters) {
      const std::string path =
          FindAdapter(wanted.lora, options.inputs[i].workflow, options.models_folder, faults);
      if (path.empty()) continue;
      const ModelRequest& request = inputs[i]->plan.models[static_cast<size_t>(wanted.model)];
      const std::string& model_path = model_paths.at(request);
      // One file under two names, or in two workflows, is one adapter: its calls are shared.
      const std::string name = fmt::format("{}:{}", path, wanted.lora.scale);
      inputs[i]->adapters.push_back(name);
      std::vector<LlamaAdapter>& known = models.at(model_path).adapters;
      const bool is_known = std::any_of(known.begin(), known.end(),
                                        [&](const LlamaAdapter& a) { return a.name == name; });
      if (is_known) continue;
      CheckLoraAdapter(path, model_path);
      known.push_back({name, path, wanted.lora.scale});
    }
  }
  if (!faults.empty()) throw Error(ErrorCode::kWorkflow, std::move(faults));
}

std::string Session::Impl::SpoolFolder() {
  if (!options.spool_folder.empty()) return options.spool_folder;
  if (!temporary) temporary = std::make_unique<TemporaryFolder>();
  return temporary->path();
}

void Session::Impl::OpenInputs() {
  bool standard_input_taken = false;
  for (size_t i = 0; i < inputs.size(); ++i) {
    RunOptions::Input& given = options.inputs[i];
    const bool is_stream = given.stream != nullptr;
    if (given.rows == "-" && !is_stream && std::exchange(standard_input_taken, true)) {
      throw Error(ErrorCode::kUsage, "standard input can give the rows of one workflow only");
    }
    if (given.rows.empty() && !is_stream)
      given.rows = DatasetOf(inputs[i]->workflow, given.workflow);
    RowOptions rows;
    rows.spec = given.rows;
    rows.required_columns = RequiredColumns(inputs[i]->workflow, inputs[i]->column);
    rows.limit = options.limit;
    rows.stream = given.stream;
    const bool is_given_once = rows.spec == "-" || rows.spec.starts_with("sql:");
    if (is_given_once) KeepRows(i, rows);
    // Standard input is not scanned: nothing is known of its rows, nor of those of an open stream.
    if (rows.spec != "-" || is_stream) {
      inputs[i]->statistics =
          std::make_unique<RowStatistics>(ColumnSetsOf(inputs[i]->plan, inputs[i]->column));
      rows.on_scan = [&statistics = *inputs[i]->statistics](const auto& values) {
        statistics.Add(values);
      };
    }
    inputs[i]->rows = OpenRows(rows);
    if (is_stream && inputs[i]->rows->total() < 0) inputs[i]->statistics.reset();
    inputs[i]->feed = FeedFrom(*inputs[i]->rows);
  }
}

void Session::Impl::LoadVocabularies() {
  const std::string date = options.date.empty() ? TodayUtc() : options.date;
  for (auto& [path, model] : models) {
    model.vocabulary = Vocabulary::Load(path);
    model.chat = std::make_shared<ChatTemplate>(model.vocabulary->chat_template(),
                                                model.vocabulary->bos_text(),
                                                model.vocabulary->eos_text(), date);
  }
}

/// For EXPLAIN: a model whose file is not known costs estimates, not the plan.
void Session::Impl::ResolveWhatIsThere() {
  const ModelSearchPath search{options.models, options.models_file, options.models_folder,
                               options.hugging_face_cache, options.shipped_models};
  std::set<ModelRequest> requests;
  for (const auto& input : inputs)
    requests.insert(input->plan.models.begin(), input->plan.models.end());
  for (const ModelRequest& request : requests) {
    try {
      ResolvedModel resolved = ResolveModels({request}, search).front();
      model_paths.emplace(request, resolved.path);
      const std::string path = resolved.path;
      models[path].resolved = std::move(resolved);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kModel) throw;
    }
  }
}

void Session::Impl::PlanBatch() {
  std::string saved;
  if (!options.plan_file.empty()) {
    std::vector<LogicalPlan*> plans;
    for (const auto& input : inputs) plans.push_back(&input->plan);
    saved = ReadWholeFile(options.plan_file, "--plan");
    ApplyPlanFile(saved, options.plan_file, plans, options.naive);
    options.rules_off.merge(RulesOfPlanFiles());
  }
  ChooseWorkers(saved);
  std::vector<InputToPlan> to_plan;
  for (const auto& input : inputs) {
    InputToPlan source{&input->plan, input->column, input->statistics.get(), {}, {}};
    if (!costs.operators.empty()) source.query_costs = costs.operators[to_plan.size()];
    for (const ModelRequest& request : input->plan.models) {
      const auto path = model_paths.find(request);
      if (path == model_paths.end()) {
        source.models.emplace_back();
      } else {
        const LoadedModel& model = models.at(path->second);
        source.models.push_back({&model.resolved, model.vocabulary, model.chat});
      }
    }
    to_plan.push_back(std::move(source));
  }
  // The reference applies what prompts are made of, and nothing else.
  if (options.naive) options.rules_off.merge(RulesOffForNaive());
  constexpr int64_t kRowsSideBySide = LlamaEngine::kDefaultSequences / 2;
  planning.emplace(options, clock);
  physical = planning->Plan(to_plan, kRowsSideBySide);
  // Where calls run changes no answer: the reference has one worker.
  if (!saved.empty() && !options.naive) ApplyPlacements(saved, options.plan_file, physical);
}

void Session::Impl::OpenRunTools() {
  tools = OpenTools(Workflows(), options, options.naive ? "" : SpoolFolder(), clock,
                    WatchToolThreads());
  costs = tools.costs;
}

/// Before models are loaded: what is to be written can be, and is nothing that is read or written
/// besides. Files are opened later, so that a run that cannot start leaves an earlier one's
/// unfinished output as it is.
void Session::Impl::CheckPaths() const {
  RequireFolderOf(options.output, "-o");
  RequireFolderOf(options.dump_prompts, "--dump-prompts");
  RequireFolderOf(options.trace, "--trace");
  RequireFolderOf(options.report, "--report");
  std::vector<std::string> read;
  std::vector<WrittenFile> written;
  for (size_t i = 0; i < inputs.size(); ++i) {
    for (const std::string& path : inputs[i]->rows->files()) read.push_back(path);
    read.push_back(options.inputs[i].workflow);
    read.push_back(options.inputs[i].rows);
    for (WrittenFile& file : FilesOfResults(inputs[i]->output)) written.push_back(std::move(file));
  }
  for (const auto& [path, model] : models) {
    read.push_back(path);
    for (const LlamaAdapter& adapter : model.adapters) read.push_back(adapter.path);
  }
  read.push_back(options.models_file);
  read.push_back(options.plan_file);
  read.insert(read.end(), tools.files.begin(), tools.files.end());
  written.push_back({"--dump-prompts", options.dump_prompts, ""});
  written.push_back({"--trace", options.trace, ""});
  written.push_back({"--report", options.report, ""});
  written.push_back({"--summary-json", options.summary_json, ""});
  CheckWrittenFiles(written, read);
}

/// Where each workflow's results go: `output`, or a file of its own there.
void Session::Impl::NameOutputs() {
  const bool is_kept = !options.discard_results && !options.on_row;
  const bool several = inputs.size() > 1 && is_kept;
  if (!is_kept) options.output = "-";
  if (several && options.output == "-") {
    throw Error(ErrorCode::kUsage,
                "several workflows need -o FOLDER: each gets a file of its own there");
  }
  std::set<std::string> taken;
  for (const auto& input : inputs) {
    input->output = options.output;
    if (!several) continue;
    input->output =
        (std::filesystem::path(options.output) / (input->workflow.name + ".jsonl")).string();
    if (!taken.insert(input->output).second) {
      throw Error(ErrorCode::kUsage, "two workflows are named '" + input->workflow.name +
                                         "': give one of them another `name`");
    }
  }
}

void Session::Impl::OpenOutputs() {
  const bool is_kept = !options.discard_results && !options.on_row;
  if (inputs.size() > 1 && is_kept) std::filesystem::create_directories(options.output);
  for (const auto& input : inputs) {
    const auto source = static_cast<size_t>(&input - inputs.data());
    if (!is_kept) {
      input->sink = options.on_row ? GiveResults(source, options.on_row) : DiscardResults();
      continue;
    }
    std::vector<std::string> names;
    const Workflow& workflow = input->workflow;
    for (const NameBinding& output : options.all_outputs ? workflow.all_outputs : workflow.outputs)
      names.push_back(output.name);
    input->sink = OpenResultSink(input->output, names, STDOUT_FILENO);
    if (durable) input->sink = durable->Unwritten(source, std::move(input->sink));
  }
}

/// Plans that a person gives are carried out as they are, and so is the reference's. The plan of an
/// earlier part is another matter: what it says of prompts stays, and where and in which order
/// calls are made changes no answer.
void Session::Impl::Replan(ExecutorOptions& how, RunTrace* trace) {
  if (!options.replan || options.naive || !asked.plan_file.empty()) return;
  how.on_checkpoint = [this](const auto& so_far) { replanner->OnCheckpoint(so_far); };
  replanner->on_replanning = [this, trace](const Replanning& revision) {
    news.push_back(TextOf(revision));
    if (trace != nullptr) trace->AddNote(TextOf(revision), revision.at_us);
  };
}

std::vector<RunSource> Session::Impl::Sources() {
  std::vector<RunSource> sources;
  for (const auto& input : inputs) {
    RunSource source;
    source.plan = &input->plan;
    source.rows = input->feed.get();
    source.sink = input->sink.get();
    source.prompt_column = input->column;
    source.adapters = input->adapters;
    source.adapter_contents = input->adapter_contents;
    if (!tools.contents.empty()) source.tool_contents = tools.contents[sources.size()];
    source.row_timeout_us = MicrosecondsOf(options.row_timeout_s);
    if (options.workers > 1) source.placement = &replanner->placement(sources.size());
    for (const ModelRequest& request : input->plan.models) {
      LoadedModel& model = models.at(model_paths.at(request));
      Engine& engine = fleet->engine(model.in_fleet);
      const std::string computing =
          cache == nullptr ? "" : ComputingFingerprint(engine.Describe().exact);
      source.models.push_back({&engine,
                               {model.vocabulary, model.chat},
                               model.content,
                               SignatureBuilder().Add(computing).Finish(),
                               PriceOf(request.name)});
    }
    sources.push_back(std::move(source));
  }
  return sources;
}

ExecutorOptions Session::Impl::HowToExecute() {
  ExecutorOptions how;
  how.naive = options.naive;
  how.prefill_ahead = options.prefill_ahead;
  how.seed = options.seed;
  how.window = options.window;
  if (!options.naive) how.spill_folder = SpoolFolder();
  how.rows_side_by_side = RowsSideBySide();
  how.input_order = options.input_order;
  how.all_outputs = options.all_outputs;
  how.stop_on_error = options.stop_on_error;
  how.max_failures = options.max_failures;
  how.max_failures_share = options.max_failures_share;
  how.stop_when_all_fail = options.stop_when_all_fail;
  how.budget = {options.most_calls, options.most_tokens,
                options.most_cost < 0 ? -1 : std::llround(options.most_cost / kCostUnit),
                options.most_seconds < 0 ? -1 : MicrosecondsOf(options.most_seconds)};
  how.tools = tools.runner.get();
  how.tool_setup = tools.setup;
  how.cache = cache.get();
  if (durable) durable->Configure(how);
  RequireBudget(how);
  return how;
}

Session::Session(RunOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  // To whoever goes on with the run they are rows that can be had only once.
  for (RunOptions::Input& input : impl_->options.inputs) {
    if (input.stream != nullptr) input.rows = "-";
  }
}
Session::~Session() = default;

std::vector<std::string> Session::Notices() {
  impl_->LoadWorkflows();
  std::vector<std::string> notices;
  for (const auto& input : impl_->inputs) {
    for (const std::string& notice : input->workflow.notices)
      notices.push_back(input->workflow.path + ": " + notice);
  }
  return notices;
}

std::string Session::Explain(const std::string& format) {
  Impl& impl = *impl_;
  // After a run the plan has what happened beside what was expected.
  if (!impl.planning) impl.PlanForExplain();
  if (format == "text") return ExplainText(impl.physical);
  if (format == "json") return ExplainJson(impl.physical);
  if (format == "mermaid") return ExplainMermaid(impl.physical);
  if (format == "html") return ExplainHtml(impl.physical);
  throw Error(ErrorCode::kUsage,
              "--format: expected text, json, mermaid or html, got '" + format + "'");
}

void Session::Impl::PlanForExplain() {
  LoadWorkflows();
  bool has_rows = true;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const std::string& rows = options.inputs[i].rows;
    const bool is_file = rows != "-" && (!rows.empty() || !inputs[i]->workflow.dataset.empty());
    has_rows = has_rows && (is_file || options.inputs[i].stream != nullptr);
  }
  if (has_rows) OpenInputs();
  ResolveWhatIsThere();
  if (options.ask_databases) costs = AskDatabases(Workflows(), options);
  LoadVocabularies();
  PlanBatch();
  std::error_code ignored;
  if (!options.cache_folder.empty() &&
      std::filesystem::exists(options.cache_folder + "/answers.db", ignored))
    physical.notes.emplace_back(
        "answers of earlier runs are not among the estimates: halo cache explain says which a run "
        "would take");
  for (const std::string& why : costs.unasked)
    physical.notes.push_back("what queries cost is not known: " + why);
}

void Session::CheckConnections() {
  impl_->LoadWorkflows();
  CheckStatements(impl_->Workflows(), impl_->options, impl_->clock);
}

std::vector<std::string> Session::MissingForTools() {
  impl_->LoadWorkflows();
  return MissingFor(impl_->Workflows(), impl_->options);
}

/// What happened beside what was expected. `ready_us`: when rows began.
void Session::Impl::AddActuals(const RunReport& report, int64_t ready_us) {
  int64_t engine_busy_us = 0;
  for (const auto& [path, model] : models)
    engine_busy_us += fleet->engine(model.in_fleet).Statistics().busy_us;
  Planning::AddActuals(report, engine_busy_us, physical);
  physical.actual_engine_busy_s = static_cast<double>(engine_busy_us) * 1e-6;
  physical.actual_elapsed_s = static_cast<double>(clock.NowUs() - ready_us) * 1e-6;
}

RunOutcome Session::Run(const std::atomic<int>& stop,
                        const std::function<void(const Progress&)>& on_progress) {
  Impl& impl = *impl_;
  const int64_t start_us = impl.clock.NowUs();
  CheckWorkers(impl.options);
  impl.LoadWorkflows();
  impl.OpenDurable();
  impl.OpenInputs();
  impl.Resolve();
  impl.NameOutputs();
  impl.OpenHost();
  impl.OpenRunTools();
  impl.CheckPaths();
  impl.LoadVocabularies();
  RunManifest manifest = impl.Manifest();
  impl.PlanBatch();
  const int64_t planned_us = impl.clock.NowUs();
  impl.LoadModels();
  impl.OpenCache();
  impl.PrepareDurable(std::move(manifest));
  ExecutorOptions how = impl.HowToExecute();
  impl.OpenOutputs();
  impl.BeginDurable();
  std::unique_ptr<CallDump> dump;
  if (!impl.options.dump_prompts.empty())
    dump = std::make_unique<CallDump>(impl.options.dump_prompts, impl.clock.NowUs());
  const std::unique_ptr<RunTrace> trace = impl.OpenTrace(start_us, planned_us);

  int64_t rows_total = 0;
  std::vector<int64_t> rows_of_inputs;
  for (const auto& input : impl.inputs) {
    const int64_t rows = input->rows->total();
    rows_of_inputs.push_back(rows);
    rows_total = rows >= 0 && rows_total >= 0 ? rows_total + rows : -1;
  }
  const int64_t ready_us = impl.clock.NowUs();
  const std::unique_ptr<ReportData> page = impl.OpenReport(ready_us);
  Reporter reporter(dump.get(), trace.get(), page.get(), RunOutlook(impl.physical, rows_of_inputs),
                    impl.news, on_progress, impl.clock);
  if (impl.durable) reporter.KeepFailedRows(*impl.durable);
  impl.replanner = impl.planning->MakeReplanner(impl.physical);
  impl.Replan(how, trace.get());
  Executor executor(impl.Sources(), how, impl.clock, &reporter);
  RunReport report = executor.Run(stop);
  CheckAllRows(report, rows_total);
  impl.CloseCache(report);
  if (dump) dump->Finish();
  if (trace) {
    trace->AddPhase("run", ready_us, impl.clock.NowUs());
    const std::string fault = trace->Finish();
    if (!fault.empty()) report.notices.push_back(fault);
    impl.LinkTrace(report);
  }

  impl.AddActuals(report, ready_us);

  SummaryInput summary;
  summary.report = &report;
  summary.rows_total = rows_total;
  summary.elapsed_s = static_cast<double>(impl.clock.NowUs() - ready_us) * 1e-6;
  summary.setup_s = static_cast<double>(ready_us - start_us) * 1e-6;
  summary.lower_bound_s = impl.planning->LowerBound(report, impl.physical);
  RunOutcome outcome = impl.OutcomeOf(report, std::move(summary));
  outcome.failures = reporter.failures();
  outcome.rows_failed = report.counts.rows_failed;
  outcome.stop_reason = report.stop_reason;
  impl.EndDurable(outcome);
  if (page) impl.WriteReport(*page, outcome);
  return outcome;
}

std::string Session::RunFolder() const {
  return impl_->has_begun ? impl_->durable->folder().path() : "";
}

RunOutcome Session::Impl::OutcomeOf(const RunReport& report, SummaryInput summary) const {
  summary.seed = options.seed;
  summary.planner = options.naive ? "naive" : physical.planner;
  summary.deterministic = true;
  for (const auto& input : inputs) summary.workflows.push_back(input->workflow.name);
  for (const auto& [path, model] : models) {
    summary.deterministic = summary.deterministic && fleet->engine(model.in_fleet).Describe().exact;
    for (int32_t w = 0; w < fleet->workers(); ++w) {
      const Engine* engine = fleet->replica(w, model.in_fleet);
      if (engine == nullptr) continue;
      summary.engines.push_back({w, model.resolved.request.name, engine->Statistics()});
    }
  }
  int64_t disk_faults = 0;
  for (const SummaryInput::EngineOfWorker& engine : summary.engines)
    disk_faults += engine.counters.disk_faults;
  if (fleet != nullptr) summary.fleet = fleet->statistics();
  summary.replannings = replanner->done();
  if (report.stop_cause == StopCause::kBudget) summary.larger_budget = LargerBudget();
  RunOutcome outcome;
  outcome.notices = tools.notices;
  outcome.notices.insert(outcome.notices.end(), report.notices.begin(), report.notices.end());
  if (disk_faults > 0) {
    outcome.notices.push_back(host.kept_folder + ": failed " + std::to_string(disk_faults) +
                              " times to take or give KV, which was computed again instead; "
                              "--kept-disk 0 leaves it out");
  }
  const std::string fault = planning->Remember(report, physical);
  if (!fault.empty()) outcome.notices.push_back(fault);
  outcome.summary_json = SummaryJson(summary).dump(2);
  for (const auto& input : inputs) {
    if (input->output != "-") {
      outcome.outputs.push_back(report.end == RunEnd::kFinished ? input->output
                                                                : input->output + ".part");
    }
  }
  switch (report.end) {
    case RunEnd::kFinished:
      outcome.status = report.counts.rows_failed > 0 ? RunStatus::kRowsFailed : RunStatus::kAllOk;
      break;
    case RunEnd::kStopped:
      outcome.status = RunStatus::kStopped;
      break;
    case RunEnd::kInterrupted:
      outcome.status = RunStatus::kInterrupted;
      break;
  }
  return outcome;
}

std::string WhyNoExactAnswers() { return WhyNotExactHere(); }

}  // namespace halo
