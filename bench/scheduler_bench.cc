// scheduler_bench: what the scheduler itself costs, on simulated engines that answer at once, on
// one thread.
//
//   memory    resident memory over a run of many short rows that a feed makes one by one; a slow
//   row in each window
//             makes the others wait for their turn to be written
//   plain     calls a second through a workflow of five operators, prompts without a chat template
//   template  the same through a model's chat template, whose constant part is rendered once
//
// Each part prints one line and its target (issue 2). Rates are medians over --repeats runs.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/simulated/simulated_engine.h"
#include "runtime/executor.h"

namespace halo {
namespace {

constexpr double kPlainTarget = 200'000;
constexpr double kTemplateTarget = 8'000;
constexpr double kMemoryTargetGb = 1.5;

constexpr const char* kWorkflow = R"(start_ops: [facts, doubt]
end_ops: [verdict]
ops:
  facts:   {model: m, prompt: "List what is known about it."}
  doubt:   {model: m, prompt: "Say what speaks against it."}
  weigh:   {model: m, prompt: "Weigh both sides.", input_ops: [facts, doubt]}
  again:   {model: m, prompt: "Look at it once more.", input_ops: [weigh]}
  verdict: {model: m, prompt: "Give the verdict.", input_ops: [again]}
)";

Row ShortRow(int64_t index) {
  Row row;
  row.index = index;
  row.id = index;
  row.values = {{"prompt", "Is claim number " + std::to_string(index) +
                               " true, and how would one find out?"}};
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
  int64_t rows = 100'000, template_rows = 4'000, memory_rows = 1'000'000;
  int repeats = 5;
  app.add_option("--template", template_file,
                 "A chat template, such as meta-llama-Llama-3.2-3B-Instruct.jinja");
  app.add_option("--rows", rows, "Rows of the part plain; 0 leaves it out");
  app.add_option("--template-rows", template_rows, "Rows of the part template");
  app.add_option("--memory-rows", memory_rows, "Rows of the part memory; 0 leaves it out");
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

int main(int argc, char** argv) { return halo::Main(argc, argv); }
