// scheduler_bench: what the scheduler itself costs, on simulated engines that answer at once, on
// one thread.
//
//   memory    resident memory over a run of many short rows that a feed makes one by one; a slow
//   row in each window
//             makes the others wait for their turn to be written
//   plain     calls a second through a workflow of five operators, prompts without a chat template
//   template  the same through a model's chat template, whose constant part is rendered once
//   flight    processor time of the scheduler's thread a call, with 10,000 calls in flight and
//   prompts of
//             about 300 tokens: of the executor alone, and with the engine in a supervised child
//             process, which leaves encoding, sending, receiving and decoding to this thread
//
// Each part prints one line and its target (issues 2 and 7). Figures are medians over --repeats
// runs.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/connection.h"
#include "engine/llama/llama_host.h"
#include "engine/remote_engine.h"
#include "engine/simulated/simulated_engine.h"
#include "engine/supervised_engine.h"
#include "runtime/executor.h"

namespace halo {
namespace {

constexpr double kPlainTarget = 200'000;
constexpr double kTemplateTarget = 8'000;
constexpr double kMemoryTargetGb = 1.5;
constexpr double kFlightTargetUs = 5.0;
constexpr int32_t kFlightSequences = 2500;  // four calls a sequence are given out
constexpr int64_t kFlightCalls = 10'000;
constexpr const char* kHostCommand = "host";

constexpr const char* kWorkflow = R"(start_ops: [facts, doubt]
end_ops: [verdict]
ops:
  facts:   {model: m, prompt: "List what is known about it."}
  doubt:   {model: m, prompt: "Say what speaks against it."}
  weigh:   {model: m, prompt: "Weigh both sides.", input_ops: [facts, doubt]}
  again:   {model: m, prompt: "Look at it once more.", input_ops: [weigh]}
  verdict: {model: m, prompt: "Give the verdict.", input_ops: [again]}
)";

// Greedy, so that each call is looked up and its answer kept.
constexpr const char* kFlightWorkflow = R"(start_ops: [facts, doubt]
end_ops: [verdict]
ops:
  facts:   {model: m, prompt: "List what is known about it.", temperature: 0}
  doubt:   {model: m, prompt: "Say what speaks against it.", temperature: 0}
  weigh:   {model: m, prompt: "Weigh both sides.", temperature: 0, input_ops: [facts, doubt]}
  again:   {model: m, prompt: "Look once more.", temperature: 0, history: outputs, input_ops: [weigh]}
  verdict: {model: m, prompt: "Give the verdict.", temperature: 0, history: outputs, input_ops: [again]}
)";

Row ShortRow(int64_t index) {
  Row row;
  row.index = index;
  row.id = index;
  row.values = {{"prompt", "Is claim number " + std::to_string(index) +
                               " true, and how would one find out?"}};
  return row;
}

/// About 300 tokens: as many bytes as text as four a token id.
Row LongRow(int64_t index) {
  constexpr size_t kBytes = 1150;
  Row row = ShortRow(index);
  std::string text = row.values.at("prompt").get<std::string>();
  while (text.size() < kBytes) text += " It has been said before, and doubted by some.";
  row.values["prompt"] = std::move(text);
  return row;
}

/// Rows made in advance, or one by one where `rows` is empty.
class BenchFeed final : public RowFeed {
 public:
  BenchFeed(std::vector<Row> rows, int64_t count) : rows_(std::move(rows)), count_(count) {}
  Pull Next(Row& row) override {
    if (next_ == count_) return Pull::kClosed;
    row = rows_.empty() ? ShortRow(next_) : std::move(rows_[static_cast<size_t>(next_)]);
    ++next_;
    return Pull::kRow;
  }

 private:
  std::vector<Row> rows_;
  int64_t count_;
  int64_t next_ = 0;
};

class CountingSink final : public ResultSink {
 public:
  void Write(const RowResult& row) override { ok += row.failure ? 0 : 1; }
  void Finish() override {}
  void Flush() override {}
  int64_t ok = 0;
};

struct RunFigures {
  double seconds = 0;
  int64_t calls = 0;
};

/// `stragglers`: one row in a window takes a second, so that a whole window waits behind it.
RunFigures RunOnce(const Workflow& workflow, BenchFeed feed,
                   std::shared_ptr<const ChatTemplate> chat, bool stragglers = false) {
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  VirtualClock clock;
  SimulatedEngineOptions engine_options;
  engine_options.sequences = 256;
  const int64_t window = ExecutorOptions{}.window;
  engine_options.script = [stragglers, window](const Request& request) {
    const int64_t latency_us = stragglers && request.order % window == 0 ? 1'000'000 : 0;
    return ScriptedReply{"It seems likely, but see the sources.", latency_us,
                         FinishReason::kEndToken, std::nullopt};
  };
  SimulatedEngine engine(engine_options, clock);
  CountingSink sink;
  RunSource source;
  source.plan = &plan;
  source.rows = &feed;
  source.sink = &sink;
  source.models = {{&engine, PromptModel{nullptr, std::move(chat)}}};
  source.prompt_column = "prompt";
  const StopFlag stop{0};
  const auto begin = std::chrono::steady_clock::now();
  const RunReport report = Executor({source}, {}, clock, nullptr).Run(stop);
  RunFigures figures;
  figures.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  figures.calls = report.counts.calls_done;
  if (report.counts.rows_ok != sink.ok || report.counts.rows_failed > 0)
    throw std::runtime_error("rows failed");
  return figures;
}

/// Holds what it is given, and answers the oldest few each time: what a pass over many sequences
/// finishes.
class HoldingEngine final : public Engine {
 public:
  HoldingEngine() {
    description_.name = "holding";
    description_.sequences = kFlightSequences;
    description_.context_tokens = 1 << 20;
  }
  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override {
    held_.push_back(std::move(request));
    peak_ = std::max(peak_, pending());
  }
  void Cancel(RequestId) override { throw std::runtime_error("nothing is cancelled here"); }
  void CancelWaiting() override {}
  void Release(RequestId, int32_t) override {}
  std::vector<Completion> Poll(int64_t) override {
    constexpr size_t kAnswersOfPass = 64;
    std::vector<Completion> finished;
    while (!held_.empty() && finished.size() < kAnswersOfPass) {
      Completion& completion = finished.emplace_back();
      completion.id = held_.front().id;
      completion.finish = FinishReason::kEndToken;
      completion.tokens.assign(10, 7);
      completion.text = "It seems likely, but see the sources.";
      completion.output_tokens = 10;
      held_.pop_front();
    }
    return finished;
  }
  int64_t pending() const override { return static_cast<int64_t>(held_.size()); }
  EngineStatistics Statistics() const override { return {}; }
  int64_t peak() const { return peak_; }

 private:
  EngineDescription description_;
  std::deque<Request> held_;
  int64_t peak_ = 0;
};

/// What the child process of the part flight does.
int HostHoldingEngine() {
  Connection connection{Descriptor(kHostSocket)};
  HoldingEngine engine;
  ServeEngine(engine, connection);
  return 0;
}

/// Processor time of this thread a call, in microseconds.
double FlightOnce(const Workflow& workflow, Engine& engine, int64_t rows) {
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  std::vector<Row> in_memory;
  for (int64_t i = 0; i < rows; ++i) in_memory.push_back(LongRow(i));
  BenchFeed feed(std::move(in_memory), rows);
  CountingSink sink;
  RunSource source;
  source.plan = &plan;
  source.rows = &feed;
  source.sink = &sink;
  source.models = {{&engine, PromptModel{}}};
  source.prompt_column = "prompt";
  ExecutorOptions options;
  options.rows_side_by_side = kFlightSequences / 2;
  SteadyClock clock;
  const StopFlag stop{0};
  const int64_t begin_us = ThreadCpuUs();
  const RunReport report = Executor({source}, options, clock, nullptr).Run(stop);
  if (sink.ok != rows) throw std::runtime_error("rows failed");
  return static_cast<double>(ThreadCpuUs() - begin_us) /
         static_cast<double>(report.counts.calls_done);
}

void PrintFlight(int64_t rows, int repeats) {
  const Workflow workflow = ParseWorkflow(kFlightWorkflow, "scheduler_bench.yaml");
  std::vector<double> alone, supervised;
  for (int repeat = 0; repeat < repeats; ++repeat) {  // in turns
    HoldingEngine engine;
    alone.push_back(FlightOnce(workflow, engine, rows));
    if (rows >= kFlightCalls && engine.peak() != kFlightCalls)
      throw std::runtime_error("not so many calls in flight");
    SteadyClock clock;
    SupervisedEngineOptions options;
    options.model_name = "m";
    options.launch = ProgramLauncher(std::filesystem::read_symlink("/proc/self/exe"),
                                     {"scheduler_bench", kHostCommand});
    SupervisedEngine child(std::move(options), clock);
    supervised.push_back(FlightOnce(workflow, child, rows));
  }
  for (auto& [part, figures] :
       {std::pair("flight", &alone), std::pair("flight, child process", &supervised)}) {
    std::sort(figures->begin(), figures->end());
    const double median = (*figures)[figures->size() / 2];
    fmt::print(
        "{:<22} {:>5.2f} us a call (median of {}, {:.2f} to {:.2f}; {} rows, 5 operators, {} calls "
        "in flight; target {:.0f}: {})\n",
        part, median, figures->size(), figures->front(), figures->back(), rows, kFlightCalls,
        kFlightTargetUs, median < kFlightTargetUs ? "reached" : "missed");
  }
}

double PeakMemoryGb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024.0 / 1e9;
  }
  return 0;
}

void PrintRate(const char* part, const Workflow& workflow,
               const std::shared_ptr<const ChatTemplate>& chat, int64_t rows, int repeats,
               double target) {
  std::vector<double> rates;
  for (int repeat = 0; repeat < repeats; ++repeat) {
    std::vector<Row> in_memory;
    for (int64_t i = 0; i < rows; ++i) in_memory.push_back(ShortRow(i));
    const RunFigures figures = RunOnce(workflow, BenchFeed(std::move(in_memory), rows), chat);
    rates.push_back(static_cast<double>(figures.calls) / figures.seconds);
  }
  std::sort(rates.begin(), rates.end());
  const double median = rates[rates.size() / 2];
  fmt::print(
      "{:<9} {:>10.0f} calls/s (median of {}, {:.0f} to {:.0f}; {} rows, 5 operators; target "
      "{:.0f}: {})\n",
      part, median, rates.size(), rates.front(), rates.back(), rows, target,
      median >= target ? "reached" : "missed");
}

int Main(int argc, char** argv) {
  CLI::App app("What the scheduler costs, on simulated engines");
  std::string template_file;
  int64_t rows = 100'000, template_rows = 4'000, memory_rows = 1'000'000, flight_rows = 20'000;
  int repeats = 5;
  app.add_option("--template", template_file,
                 "A chat template, such as meta-llama-Llama-3.2-3B-Instruct.jinja");
  app.add_option("--rows", rows, "Rows of the part plain; 0 leaves it out");
  app.add_option("--template-rows", template_rows, "Rows of the part template");
  app.add_option("--memory-rows", memory_rows, "Rows of the part memory; 0 leaves it out");
  app.add_option("--flight-rows", flight_rows, "Rows of the part flight; 0 leaves it out");
  app.add_option("--repeats", repeats, "Runs of each rate");
  CLI11_PARSE(app, argc, argv);

  const Workflow workflow = ParseWorkflow(kWorkflow, "scheduler_bench.yaml");
  if (memory_rows > 0) {  // first, for the peak is one of the whole process
    const RunFigures figures = RunOnce(workflow, BenchFeed({}, memory_rows), nullptr, true);
    const double peak = PeakMemoryGb();
    fmt::print("memory    {:>10.3f} GB peak ({} rows, {} calls, {:.1f} s; target {:.1f}: {})\n",
               peak, memory_rows, figures.calls, figures.seconds, kMemoryTargetGb,
               peak <= kMemoryTargetGb ? "reached" : "missed");
  }
  if (flight_rows > 0) PrintFlight(flight_rows, repeats);
  if (rows > 0) PrintRate("plain", workflow, nullptr, rows, repeats, kPlainTarget);
  if (!template_file.empty()) {
    std::ifstream file(template_file, std::ios::binary);
    if (!file) {
      fmt::print(stderr, "scheduler_bench: cannot read {}\n", template_file);
      return 2;
    }
    const std::string source{std::istreambuf_iterator<char>(file),
                             std::istreambuf_iterator<char>()};
    const auto chat =
        std::make_shared<ChatTemplate>(source, "<|begin_of_text|>", "<|eot_id|>", "2026-01-31");
    PrintRate("template", workflow, chat, template_rows, repeats, kTemplateTarget);
  }
  return 0;
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == halo::kHostCommand)
    return halo::HostHoldingEngine();
  return halo::Main(argc, argv);
}
