// Where a run's models live: how many workers, which engines, how many calls and rows at once.
#include <algorithm>
#include <limits>
#include <utility>

#include "engine/engine_turns.h"
#include "engine/llama/llama_engine.h"
#include "engine/llama/loaded_model.h"
#include "session/plan_file.h"
#include "session/prompt_estimate.h"
#include "session/session_impl.h"

namespace halo {

void Session::Impl::OpenHost() {
  // A run with an engine that ends all the time tells of the first few; the summary counts them.
  constexpr size_t kMostTold = 5;
  host.program = options.engine_program;
  if (!host.program.empty()) host.turns = EngineTurns::MakeFile();
  host.on_restart = [this, told = size_t{0}](const std::string& what) mutable {
    if (told++ < kMostTold) news.push_back(what);
    if (told == kMostTold) news.push_back("further restarts are counted in the summary only");
  };
}

/// Engines in processes of their own leave threads to queries while these compute.
std::function<void(int32_t)> Session::Impl::WatchToolThreads() const {
  if (!host.turns) return nullptr;
  return [busy = std::make_shared<BusyTools>(host.turns)](int32_t threads) { busy->Add(threads); };
}

/// Where nobody has said how many: those of a saved plan, else as many as are fastest here.
void Session::Impl::ChooseWorkers(const std::string& saved_plan) {
  if (options.workers > 0) return;
  int64_t largest = 0, calls = 1;
  for (const auto& [path, model] : models) {
    const auto bytes = static_cast<int64_t>(model.resolved.summary.file_bytes);
    if (bytes < largest) continue;
    largest = bytes;
    calls = CallsOf(path);
  }
  options.workers = 1;
  // In this process engines take turns in one thread.
  if (options.naive || options.engine_program.empty()) return;
  std::vector<int64_t> device_bytes;
  for (const Accelerator& accelerator : Accelerators())
    device_bytes.push_back(accelerator.memory_bytes);
  const bool is_cpu = device_bytes.empty();
  const int32_t most = is_cpu ? AutomaticWorkers(options.threads, largest, calls)
                              : AcceleratorWorkers(device_bytes, largest);
  if (!saved_plan.empty()) {
    options.workers = WorkersOfPlanFile(saved_plan, options.plan_file);
    CheckWorkers(options);
  } else if (is_cpu && options.worker_memory_bytes > 0) {
    std::vector<ModelToHost> to_host;
    for (auto& [path, model] : models) {
      to_host.push_back(HostOf(path, model));
      model.expected_tokens = to_host.back().expected_tokens;
    }
    options.workers = WorkersOfMemory(options.worker_memory_bytes, to_host, most);
  } else {
    options.workers = most;
  }
  // A memory that is given is that of all workers, if nobody has said how many; an accelerator has
  // its own.
  if (is_cpu) options.worker_memory_bytes /= options.workers;
}

/// Where the plan has a model run, and since when.
void Session::Impl::AddPlaces(const std::string& path, ModelToHost& model, double& first_s) const {
  first_s = std::numeric_limits<double>::infinity();
  for (const PlacedOperator& placed : physical.placements) {
    const PlannedOperator& planned = physical.operators[placed.op];
    const LogicalPlan& plan = *physical.sources[planned.source].plan;
    const ModelRequest& request = plan.models[static_cast<size_t>(plan.at(planned.op).model)];
    if (model_paths.at(request) != path) continue;
    model.workers.push_back(placed.worker);
    first_s = std::min(first_s, placed.start_s);
  }
  std::sort(model.workers.begin(), model.workers.end());
  model.workers.erase(std::unique(model.workers.begin(), model.workers.end()), model.workers.end());
}

/// What its engines have to know, but where they are.
ModelToHost Session::Impl::HostOf(const std::string& path, const LoadedModel& model) const {
  ModelToHost hosted;
  hosted.name = model.resolved.request.name;
  hosted.path = path;
  hosted.adapters = model.adapters;
  hosted.vocabulary = model.vocabulary;
  hosted.weights_bytes = static_cast<int64_t>(model.resolved.summary.file_bytes);
  hosted.kv_token_bytes = KvTokenBytes(model.resolved.summary);
  hosted.sequences = SequencesFor(path);
  hosted.expected_tokens = model.expected_tokens;
  // Rows are read for it, so once.
  if (hosted.expected_tokens == 0 && model.vocabulary != nullptr)
    hosted.expected_tokens = ExpectedTokens(model);
  return hosted;
}

void Session::Impl::LoadModels() {
  if (models.empty()) return;
  std::vector<std::pair<double, ModelToHost>> by_start;
  for (auto& [path, model] : models) {
    ModelToHost hosted = HostOf(path, model);
    model.expected_tokens = hosted.expected_tokens;
    double first_s = 0.0;
    AddPlaces(path, hosted, first_s);
    by_start.emplace_back(first_s, std::move(hosted));
  }
  // What is needed first is loaded first.
  std::stable_sort(by_start.begin(), by_start.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<ModelToHost> hosted;
  for (auto& [first_s, model] : by_start) {
    models.at(model.path).in_fleet = hosted.size();
    hosted.push_back(std::move(model));
  }
  if (!options.naive) host.kept_folder = SpoolFolder();
  fleet = MakeFleet(
      options, hosted, host,
      [this] { return tools.runner != nullptr && tools.runner->pending() > 0; }, clock);
}

/// Calls of a model, as far as they can run at once.
int64_t Session::Impl::CallsOf(const std::string& model_path) const {
  const int64_t most = options.sequences > 0 ? options.sequences : LlamaEngine::kDefaultSequences;
  int64_t calls = 0;
  for (const auto& input : inputs) {
    const int64_t rows = input->rows == nullptr ? -1 : input->rows->total();
    if (rows < 0) return most;
    for (const LogicalNode& node : input->plan.nodes) {
      if (node.model == kNoModel) continue;
      const auto path = model_paths.find(input->plan.models[static_cast<size_t>(node.model)]);
      // The product stays small: once over `most` no more is counted.
      if (path != model_paths.end() && path->second == model_path && calls < most)
        calls += std::min(rows, most) * input->plan.operator_of(node.op).samples;
    }
  }
  return std::min(calls, most);
}

/// No more than there are calls for, so that they all have the room that there is.
int32_t Session::Impl::SequencesFor(const std::string& model_path) const {
  if (options.naive) return 1;
  const int64_t most = options.sequences > 0 ? options.sequences : LlamaEngine::kDefaultSequences;
  // Workers have equal parts.
  const int64_t calls = (CallsOf(model_path) + options.workers - 1) / options.workers;
  return static_cast<int32_t>(std::clamp<int64_t>(calls, 1, most));
}

int32_t Session::Impl::ExpectedTokens(const LoadedModel& model) const {
  int64_t longest = 0;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i]->rows == nullptr) continue;  // a plan without rows
    RowOptions rows;
    rows.spec = inputs[i]->rows->reread_spec();
    if (inputs[i]->rows->total() >= 0) rows.stream = options.inputs[i].stream;
    rows.takes_stream = false;
    if (rows.spec.empty() && rows.stream == nullptr) continue;  // they are read once
    rows.limit = options.limit;
    longest = std::max(longest, EstimateLongestRequest(inputs[i]->plan, rows, inputs[i]->column,
                                                       *model.vocabulary));
  }
  return static_cast<int32_t>(std::min<int64_t>(longest, 1 << 20));
}

/// Calls of a row whose KV this model has to hold at once, at most: those that another one goes on
/// from, and one that runs.
int64_t Session::Impl::CallsHeld(const std::string& path) const {
  int64_t most = 1;
  for (const auto& input : inputs) {
    const LogicalPlan& plan = input->plan;
    const auto is_held = [&](const LogicalNode& node) {
      return node.model != kNoModel && node.kv_consumers > 0 &&
             model_paths.at(plan.models[static_cast<size_t>(node.model)]) == path;
    };
    most = std::max(most, 1 + std::count_if(plan.nodes.begin(), plan.nodes.end(), is_held));
  }
  return most;
}

/// As many as an engine can start at once, and no more than what all their conversations can be
/// held for.
int64_t Session::Impl::RowsSideBySide() const {
  if (options.naive) return 1;
  int64_t rows = LlamaEngine::kDefaultSequences;
  for (const auto& [path, model] : models) {
    const EngineDescription& engine = fleet->engine(model.in_fleet).Describe();
    const int64_t each = model.expected_tokens > 0 ? model.expected_tokens : engine.context_tokens;
    rows =
        std::min({rows, int64_t{engine.sequences} / 2, engine.kv_tokens / each / CallsHeld(path)});
  }
  return std::max<int64_t>(1, rows);
}

}  // namespace halo
