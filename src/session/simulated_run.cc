#include "session/simulated_run.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/file_text.h"
#include "base/text.h"
#include "engine/simulated/simulated_fleet.h"
#include "model/model_digest.h"
#include "optimizer/optimizer.h"
#include "runtime/executor.h"
#include "runtime/simulated_tools.h"
#include "runtime/worker_placement.h"
#include "session/given_results.h"
#include "session/planning.h"
#include "session/simulated_parts.h"
#include "session/workflow_files.h"
#include "workflow/rows.h"
#include "workflow/workflow.h"

namespace halo {
namespace {

constexpr int32_t kDefaultSequences = 64;
constexpr int64_t kStartUs = 1'000'000;  // a request that begins at 0 would look as if it never had
constexpr double kUsPerS = 1e6;
constexpr int32_t kToolsAtOnce = 32;

std::string ReadFile(const std::string& path, const std::string& flag) {
  std::optional<std::string> text = ReadFileText(path);
  if (!text) throw Error(ErrorCode::kUsage, flag + " " + path + ": cannot be read");
  return *std::move(text);
}

/// The rows of an input, over and over. Later copies are rows of their own: their ids say which
/// copy they are, and so do their texts, at the beginning, or they would share calls and KV with
/// the first.
class RepeatedRows final : public RowFeed {
 public:
  RepeatedRows(RowOptions options, int64_t rows) : options_(std::move(options)), rows_(rows) {
    options_.on_scan = nullptr;
  }

  Pull Next(Row& row) override {
    if (next_ == rows_) return Pull::kClosed;
    std::optional<Row> found = source_ == nullptr ? std::nullopt : source_->Next();
    if (!found) {
      if (source_ != nullptr) ++copy_;
      source_ = OpenRows(options_);
      found = source_->Next();
      if (!found) return Pull::kClosed;  // an input without rows
    }
    row = std::move(*found);
    row.index = next_++;
    if (copy_ > 0) MakeItsOwn(row);
    return Pull::kRow;
  }

 private:
  void MakeItsOwn(Row& row) const {
    const std::string copy = std::to_string(copy_);
    row.id = (row.id.is_string() ? row.id.get<std::string>() : row.id.dump()) + "~" + copy;
    if (row.values.contains("id")) row.values["id"] = row.id;
    for (auto& [column, value] : row.values.items()) {
      if (column == "id") continue;
      if (value.is_array()) {
        for (auto& element : value) Mark(element, copy);
      } else {
        Mark(value, copy);
      }
    }
  }
  /// Texts, not single words, which conditions may compare with.
  static void Mark(nlohmann::ordered_json& value, const std::string& copy) {
    if (!value.is_string()) return;
    const std::string& text = value.get_ref<const std::string&>();
    if (text.find(' ') != std::string::npos) value = copy + ": " + text;
  }

  RowOptions options_;
  int64_t rows_;
  std::unique_ptr<RowSource> source_;
  int64_t next_ = 0, copy_ = 0;
};

/// Keeps the first few failures.
class FailureNotes final : public RunObserver {
 public:
  explicit FailureNotes(std::vector<std::string>& notes) : notes_(notes) {}
  void OnRow(size_t, const RowResult& row) override {
    constexpr size_t kShown = 3;
    if (!row.failure || notes_.size() >= kShown) return;
    notes_.push_back(fmt::format("row {}: {}: {} ({})", row.id.dump(), row.failure->operator_id,
                                 row.failure->message, row.failure->code));
  }

 private:
  std::vector<std::string>& notes_;
};

/// One model of the plan.
struct ModelInUse {
  ModelFacts facts;
  std::shared_ptr<const Vocabulary> vocabulary;  // shared with prompts and answers; may be null
  std::shared_ptr<const ChatTemplate> chat;      // as the vocabulary
  std::unique_ptr<SimulatedAnswers> answers;     // of the first model of its file
  size_t in_fleet = 0;                           // its file's place among the fleet's models
};

}  // namespace

/// One simulation, step by step.
class SimulatedRun {
 public:
  explicit SimulatedRun(const SimulationOptions& options) : options_(options), run_(options.run) {}

  SimulationReport Run() {
    LoadWorkflowAndRows();
    ReadCosts();
    LoadModels();
    Plan();
    Execute();
    return std::move(report_);
  }

 private:
  void LoadWorkflowAndRows();
  void ReadCosts();
  void LoadModels();
  ModelInUse LoadModel(const ModelRequest& request);
  std::optional<ResolvedModel> Resolve(const ModelRequest& request) const;
  const ModelProfile* CostsFor(const std::string& name, const ResolvedModel* resolved) const;
  void Plan();
  void CheckMemory() const;
  std::map<std::string, AnswerLengths> Lengths() const;
  SimulatedFleetOptions FleetOptions();
  ExecutorOptions HowToExecute(ToolRunner& tools) const;
  std::unique_ptr<ResultSink> Sink() const;
  void Execute();
  void Report(const RunReport& run, double elapsed_s);
  void NoteSharedReads(const RunReport& run);
  int32_t sequences() const { return run_.sequences > 0 ? run_.sequences : kDefaultSequences; }
  int64_t rows_side_by_side() const {
    return std::max<int64_t>(1, int64_t{sequences()} / 2 * run_.workers);
  }

  const SimulationOptions& options_;
  const RunOptions& run_;
  SteadyClock real_clock_;
  Workflow workflow_;
  LogicalPlan plan_;
  std::string column_;
  RowOptions rows_;
  int64_t row_count_ = 0, different_rows_ = 0;  // without copies
  std::unique_ptr<RowStatistics> statistics_;
  CostProfile profile_;
  OperatorHistory history_;
  int64_t memory_bytes_ = 0;
  std::vector<ModelInUse> models_;                        // [plan models]
  std::vector<std::string> without_file_, without_size_;  // names of models
  std::vector<OptimizerSource> sources_;
  PhysicalPlan physical_;
  std::unique_ptr<Replanner> replanner_;
  std::shared_ptr<SimulatedTimeline> timeline_ = std::make_shared<SimulatedTimeline>();
  VirtualClock clock_;
  SimulationReport report_;
};

void SimulatedRun::LoadWorkflowAndRows() {
  if (run_.inputs.size() != 1)
    throw Error(ErrorCode::kUsage, "simulate takes one workflow and its rows");
  const RunOptions::Input& input = run_.inputs.front();
  workflow_ = LoadWorkflow(input.workflow, NamesOfFunctions(run_));
  plan_ = MakeLogicalPlan(workflow_, run_.all_outputs);
  column_ = ResolveColumn(workflow_, run_.column);
  rows_.stream = input.stream;
  if (rows_.stream == nullptr)
    rows_.spec = input.rows.empty() ? DatasetOf(workflow_, input.workflow) : input.rows;
  if (rows_.spec == "-")
    throw Error(ErrorCode::kUsage,
                "-i -: a simulation reads its rows twice, standard input can be read once: "
                "write them to a file");
  if (rows_.spec.starts_with("sql:"))
    throw Error(ErrorCode::kUsage,
                "-i sql:...: a simulation reads its rows twice: write them to a "
                "file");
  rows_.required_columns = RequiredColumns(workflow_, column_);
  rows_.limit = run_.limit;
  statistics_ = std::make_unique<RowStatistics>(ColumnSetsOf(plan_, column_));
  const bool as_they_are = options_.rows < 0;
  if (as_they_are) rows_.on_scan = [this](const auto& values) { statistics_->Add(values); };
  row_count_ = different_rows_ = OpenRows(rows_)->total();
  rows_.on_scan = nullptr;
  if (as_they_are) return;
  row_count_ = row_count_ == 0 ? 0 : options_.rows;
  RepeatedRows feed(rows_, row_count_);
  Row row;
  while (feed.Next(row) == RowFeed::Pull::kRow) statistics_->Add(row.values);
}

void SimulatedRun::ReadCosts() {
  if (run_.profile_file.empty()) {
    report_.notes.emplace_back("no cost profile is given (--profile FILE): costs are defaults");
  } else {
    profile_ = ReadCostProfile(ReadFile(run_.profile_file, "--profile"), run_.profile_file);
    report_.notes.push_back("costs of " + profile_.machine);
  }
  for (const auto& [model, entry] : options_.costs_as) {
    std::vector<std::string> names, used;
    for (const ModelProfile& each : profile_.models) names.push_back(each.model);
    for (const ModelRequest& each : plan_.models) used.push_back(each.name);
    if (std::find(used.begin(), used.end(), model) == used.end())
      throw Error(
          ErrorCode::kUsage,
          fmt::format("--as: no operator of the workflow has the model '{}'{}; there are {}", model,
                      DidYouMean(model, used), fmt::join(used, ", ")));
    if (std::find(names.begin(), names.end(), entry) == names.end())
      throw Error(ErrorCode::kUsage,
                  fmt::format("--as: the profile has no model '{}'{}; it has {}", entry,
                              DidYouMean(entry, names), fmt::join(names, ", ")));
  }
  if (!run_.use_history || run_.history_file.empty() || !std::filesystem::exists(run_.history_file))
    return;
  try {
    history_ = OperatorHistory::Read(ReadFile(run_.history_file, "history"), run_.history_file);
    history_.ForgetPacesOfModels();  // simulated workers take what the profile says
  } catch (const Error& error) {
    report_.notes.emplace_back(error.what());
  }
}

std::optional<ResolvedModel> SimulatedRun::Resolve(const ModelRequest& request) const {
  const ModelSearchPath search{run_.models, run_.models_file, run_.models_folder,
                               run_.hugging_face_cache, run_.shipped_models};
  try {
    return ResolveModels({request}, search).front();
  } catch (const Error& error) {
    if (error.code() != ErrorCode::kModel) throw;
    return std::nullopt;
  }
}

const ModelProfile* SimulatedRun::CostsFor(const std::string& name,
                                           const ResolvedModel* resolved) const {
  const auto given = options_.costs_as.find(name);
  const std::string& entry = given == options_.costs_as.end() ? name : given->second;
  if (resolved != nullptr && given == options_.costs_as.end()) {
    const ModelProfile* measured = profile_.Find(ModelFileDigest(resolved->path));
    if (measured != nullptr) return measured;
  }
  for (const ModelProfile& model : profile_.models) {
    if (model.model == entry) return &model;
  }
  return nullptr;
}

ModelInUse SimulatedRun::LoadModel(const ModelRequest& request) {
  ModelInUse model;
  const std::optional<ResolvedModel> resolved = Resolve(request);
  if (resolved) {
    model.vocabulary = Vocabulary::Load(resolved->path);
    const std::string date = run_.date.empty() ? "2026-01-01" : run_.date;
    model.chat = std::make_shared<ChatTemplate>(model.vocabulary->chat_template(),
                                                model.vocabulary->bos_text(),
                                                model.vocabulary->eos_text(), date);
  } else {
    without_file_.push_back(request.name);
  }
  ModelFacts& facts = model.facts;
  facts.name = request.name;
  facts.sequences = sequences();
  const ModelProfile* measured = CostsFor(request.name, resolved ? &*resolved : nullptr);
  if (measured != nullptr) {
    facts.profile = *measured;
  } else {
    facts.profile = DefaultProfile(
        request.name, resolved ? static_cast<int64_t>(resolved->summary.file_bytes) : 0, 0);
    if (!resolved) without_size_.push_back(request.name);
  }
  // Models of one file are one; those that only cost the same are not.
  const bool is_named = measured != nullptr && measured->model == request.name;
  facts.digest = resolved   ? ModelFileDigest(resolved->path)
                 : is_named ? measured->model_digest
                            : "simulated " + request.name;
  DescribePrompts(model.vocabulary, model.chat, facts);
  return model;
}

void SimulatedRun::LoadModels() {
  for (const ModelRequest& request : plan_.models) models_.push_back(LoadModel(request));
  if (!without_file_.empty())
    report_.notes.push_back(
        fmt::format("{}: no file is known, so a token is four bytes and there is no chat template "
                    "(--model NAME=FILE)",
                    fmt::join(without_file_, ", ")));
  if (!without_size_.empty())
    report_.notes.push_back(
        fmt::format("{}: neither file nor profile says how large, so weights and KV take no memory "
                    "here (--as NAME=MODEL takes costs and sizes of a model of the profile)",
                    fmt::join(without_size_, ", ")));
}

void SimulatedRun::Plan() {
  const int64_t start_us = real_clock_.NowUs();
  OptimizerSource source;
  source.plan = &plan_;
  source.prompt_column = column_;
  source.rows = statistics_.get();
  for (const ModelInUse& model : models_) {
    source.models.push_back(model.facts);
    if (options_.believed_costs == nullptr) continue;
    for (const ModelProfile& costs : options_.believed_costs->models) {
      if (costs.model == model.facts.name) source.models.back().profile = costs;
    }
  }
  for (ModelFacts& facts : source.models) facts.profile_id = ProfileId(facts.profile);
  sources_.push_back(std::move(source));
  memory_bytes_ = run_.worker_memory_bytes > 0
                      ? run_.worker_memory_bytes
                      : static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
  CheckMemory();
  OptimizerOptions how;
  how.rules_off = run_.rules_off;
  if (run_.naive) how.rules_off.merge(RulesOffForNaive());
  how.planner = run_.planner;
  how.place = options_.place;
  how.workers = run_.workers;
  how.worker_memory_bytes = memory_bytes_;
  how.rows_side_by_side = rows_side_by_side();
  how.now_s = [this] { return static_cast<double>(real_clock_.NowUs()) / kUsPerS; };
  const OperatorHistory* earlier = options_.believed != nullptr ? options_.believed : &history_;
  if (!run_.use_history) earlier = nullptr;
  physical_ = Optimize(sources_, earlier, how);
  replanner_ = std::make_unique<Replanner>(sources_, physical_, earlier, how, clock_);
  report_.notes.insert(report_.notes.end(), physical_.notes.begin(), physical_.notes.end());
  report_.planning_s = static_cast<double>(real_clock_.NowUs() - start_us) / kUsPerS;
}

/// Every worker can hold every model and a request beside it.
void SimulatedRun::CheckMemory() const {
  constexpr int64_t kLeastTokens = 1024;
  for (const ModelInUse& model : models_) {
    const ModelProfile& costs = model.facts.profile;
    const int64_t least = costs.weights_bytes + kLeastTokens * costs.kv_token_bytes;
    if (least <= memory_bytes_) continue;
    constexpr int64_t kMebibyte = int64_t{1} << 20;
    throw Error(ErrorCode::kUsage,
                fmt::format("--worker-memory: {} needs {} MiB for its weights and KV of {} tokens, "
                            "a worker has {} MiB",
                            model.facts.name, (least + kMebibyte - 1) / kMebibyte, kLeastTokens,
                            memory_bytes_ / kMebibyte));
  }
}

/// What history knows of the operators' answers.
std::map<std::string, AnswerLengths> SimulatedRun::Lengths() const {
  std::map<std::string, AnswerLengths> lengths;
  if (!run_.use_history) return lengths;
  const std::vector<OperatorIdentity> identities = IdentifyOperators(plan_, column_);
  for (const LogicalNode& node : plan_.nodes) {
    if (node.model == kNoModel) continue;
    const std::string& digest = models_[static_cast<size_t>(node.model)].facts.digest;
    const OperatorRecord* record =
        history_.Find(identities[static_cast<size_t>(node.op)].signature, digest);
    if (record == nullptr || record->calls <= 0.0) continue;
    const double mean = record->output_tokens / record->calls;
    const double variance = record->output_tokens_squared / record->calls - mean * mean;
    lengths[workflow_.at(node.op).id] = {mean, std::sqrt(std::max(0.0, variance))};
  }
  return lengths;
}

SimulatedFleetOptions SimulatedRun::FleetOptions() {
  SimulatedFleetOptions fleet;
  const std::map<std::string, AnswerLengths> lengths = Lengths();
  std::map<std::string, size_t> files;
  for (size_t m = 0; m < models_.size(); ++m) {
    ModelInUse& model = models_[m];
    const int32_t workers = replanner_->placement(0).workers_of_model()[m];
    const auto [file, is_new] = files.emplace(model.facts.digest, files.size());
    model.in_fleet = file->second;
    if (!is_new) {
      int32_t& most = fleet.workers_of_model[model.in_fleet];
      most = std::max(most, workers);
      continue;
    }
    fleet.workers_of_model.push_back(workers);
    model.answers = std::make_unique<SimulatedAnswers>(run_.seed, lengths, model.vocabulary);
    SimulatedModel simulated;
    simulated.name = model.facts.name;
    simulated.costs = CostsOf(model.facts.profile);
    simulated.has_token_ids = model.vocabulary != nullptr;
    if (model.vocabulary != nullptr) simulated.vocabulary = model.vocabulary->id();
    simulated.answer = [&answers = *model.answers](const Request& request, int32_t max_tokens) {
      return answers.Answer(request, max_tokens);
    };
    fleet.models.push_back(std::move(simulated));
  }
  fleet.memory_bytes.assign(static_cast<size_t>(run_.workers), memory_bytes_);
  fleet.host_bytes = run_.kept_memory_bytes > 0 ? run_.kept_memory_bytes : memory_bytes_ / 2;
  fleet.sequences = run_.naive ? 1 : sequences();
  if (run_.context_tokens > 0) fleet.context_tokens = run_.context_tokens;
  fleet.reuse = !run_.naive;
  fleet.moves_calls = options_.moves_calls && !run_.naive;
  fleet.worker_of = [this](const Request& request) {
    return replanner_->placement(0).WorkerOf(request.script_operator, request.row_index);
  };
  fleet.timeline = timeline_;
  return fleet;
}

ExecutorOptions SimulatedRun::HowToExecute(ToolRunner& tools) const {
  ExecutorOptions how;
  how.naive = run_.naive;
  how.seed = run_.seed;
  how.window = run_.window;
  how.rows_side_by_side = run_.naive ? 1 : rows_side_by_side();
  how.all_outputs = run_.all_outputs;
  how.tools = &tools;
  how.tool_setup.concurrency = kToolsAtOnce;
  how.tool_setup.latency_scale = run_.latency_scale;
  how.tool_setup.share = run_.share_tool_calls;
  for (const Operator& op : workflow_.operators) {
    if (op.is_inference()) continue;
    if (const auto* sql = std::get_if<SqlSpec>(&op.tool->what)) {
      ConnectionSetup& connection = how.tool_setup.connections[sql->connection];
      connection.dialect = sql->duckdb ? SqlDialect::kDuckDb : SqlDialect::kPostgres;
    } else if (const auto* http = std::get_if<HttpSpec>(&op.tool->what)) {
      for (const auto& [name, text] : http->headers) {
        for (const SecretText::Piece& piece : text.pieces) {
          if (piece.text == nullptr) how.tool_setup.secrets[piece.secret] = "simulated";
        }
      }
    }
  }
  return how;
}

std::unique_ptr<ResultSink> SimulatedRun::Sink() const {
  if (run_.on_row) return GiveResults(0, run_.on_row);
  if (options_.results.empty()) return DiscardResults();
  std::vector<std::string> names;
  for (const NameBinding& output : run_.all_outputs ? workflow_.all_outputs : workflow_.outputs)
    names.push_back(output.name);
  return OpenResultSink(options_.results, names, STDOUT_FILENO);
}

void SimulatedRun::Execute() {
  const int64_t real_start_us = real_clock_.NowUs();
  clock_.AdvanceTo(kStartUs);
  // A workflow of tools alone has workers, too, which do nothing.
  std::unique_ptr<SimulatedFleet> fleet;
  if (!models_.empty()) fleet = std::make_unique<SimulatedFleet>(FleetOptions(), clock_);
  const SimulatedToolResults results(run_.seed, workflow_, physical_, 0);
  SimulatedTools tools(
      {kToolsAtOnce, [&results](const ToolCall& call) { return results.Answer(call); }, timeline_},
      clock_);
  RepeatedRows feed(rows_, row_count_);
  const std::unique_ptr<ResultSink> sink = Sink();
  RunSource source;
  source.plan = &plan_;
  source.rows = &feed;
  source.sink = sink.get();
  source.prompt_column = column_;
  for (const ModelInUse& model : models_)
    source.models.push_back({&fleet->engine(model.in_fleet), {model.vocabulary, model.chat}});
  for (const LogicalAdapter& adapter : plan_.adapters)
    source.adapters.push_back(fmt::format("{}:{}", adapter.lora.file, adapter.lora.scale));
  FailureNotes observer(report_.first_failures);
  const StopFlag never{0};
  ExecutorOptions how = HowToExecute(tools);
  if (run_.replan && !run_.naive)
    how.on_checkpoint = [this](const auto& so_far) { replanner_->OnCheckpoint(so_far); };
  const RunReport report = Executor({source}, std::move(how), clock_, &observer).Run(never);
  for (const Replanning& one : replanner_->done()) {
    report_.notes.push_back(fmt::format("after {:.3g} s {}", one.at_s, TextOf(one)));
  }
  report_.replannings = replanner_->done();
  report_.simulating_s = static_cast<double>(real_clock_.NowUs() - real_start_us) / kUsPerS;
  report_.workers.resize(static_cast<size_t>(run_.workers));
  for (int32_t w = 0; fleet != nullptr && w < run_.workers; ++w) {
    const SimulatedWorkerTotals& totals = fleet->worker(w).totals();
    report_.workers[static_cast<size_t>(w)] = {static_cast<double>(totals.busy_us) / kUsPerS,
                                               static_cast<double>(totals.load_us) / kUsPerS,
                                               totals.loads, totals.calls,
                                               totals.peak_memory_bytes};
  }
  Report(report, static_cast<double>(clock_.NowUs() - kStartUs) / kUsPerS);
}

void SimulatedRun::Report(const RunReport& run, double elapsed_s) {
  report_.workflow = workflow_.name;
  report_.planner = run_.naive ? "naive" : physical_.planner;
  report_.seed = run_.seed;
  report_.rows = row_count_;
  report_.rows_ok = run.counts.rows_ok;
  report_.rows_failed = run.counts.rows_failed;
  report_.worker_memory_bytes = memory_bytes_;
  report_.elapsed_s = elapsed_s;
  report_.estimated_elapsed_s = physical_.elapsed_s.value;
  report_.lower_bound_s = physical_.lower_bound_s;
  report_.estimated_busy_s = physical_.engine_busy_s.value;
  report_.estimated_load_s = physical_.load_s;
  for (const SimulatedWorkerReport& worker : report_.workers) {
    report_.busy_s += worker.busy_s;
    report_.load_s += worker.load_s;
  }
  for (size_t i = 0; i < run.operators.size(); ++i) {
    const OperatorCounts& counts = run.operators[i];
    const OperatorEstimate& estimate = physical_.operators[i].estimate;
    const bool is_tool = counts.kind != OperatorKind::kInference;
    SimulatedOperatorReport op;
    op.id = counts.id;
    op.model = is_tool ? "" : counts.model;
    op.instances = counts.logical;
    op.merged = counts.merged;
    op.calls = counts.calls;
    op.failed = counts.failed;
    op.prompt_tokens = counts.prompt_tokens;
    op.reused_tokens = counts.reused_tokens;
    op.output_tokens = counts.output_tokens;
    op.seconds = static_cast<double>(is_tool ? counts.busy_us : counts.engine_us) / kUsPerS;
    op.estimated_calls = estimate.calls.value;
    op.estimated_s = estimate.busy_s.value;
    if (is_tool) {
      report_.tool_s += op.seconds;
      report_.estimated_tool_s += op.estimated_s;
    }
    report_.prompt_tokens += op.prompt_tokens;
    report_.reused_tokens += op.reused_tokens;
    report_.output_tokens += op.output_tokens;
    report_.operators.push_back(std::move(op));
  }
  AddToHistory(sources_, run, nullptr, report_.history);
  report_.notes.insert(report_.notes.end(), run.notices.begin(), run.notices.end());
  NoteSharedReads(run);
}

/// Copies of a row differ in their texts alone, so tools that read something else are asked less
/// than other rows would ask them.
void SimulatedRun::NoteSharedReads(const RunReport& run) {
  if (row_count_ <= different_rows_) return;
  int64_t asked = 0, shared = 0;
  for (const OperatorCounts& op : run.operators) {
    if (op.kind == OperatorKind::kInference) continue;
    asked += op.logical;
    shared += op.merged;
  }
  if (shared == 0) return;
  report_.notes.push_back(
      fmt::format("--rows: {} of {} tool calls were shared. Copies of a row ask a tool the same "
                  "thing where it reads single words, numbers or what a rule takes out of a text; "
                  "as many different rows may share fewer",
                  shared, asked));
}

SimulationReport Simulate(const SimulationOptions& options) { return SimulatedRun(options).Run(); }

}  // namespace halo
