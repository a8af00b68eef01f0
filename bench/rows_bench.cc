// rows_bench: what reading and writing rows costs, on a simulated engine that answers at once.
//
//   rows_bench make FILE --rows N     rows of a kind of file: .jsonl, .json, .csv, .parquet
//   rows_bench run SPEC OUT           every row through one operator, from SPEC (as `-i`) to OUT
//
// `run` prints one JSON object: rows, processor seconds (scan, run and Finish), the process's peak
// resident memory. A slow row in each window makes the others wait for their turn to be written.

#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "engine/simulated/simulated_engine.h"
#include "runtime/executor.h"
#include "sql/duck_database.h"
#include "workflow/rows.h"

namespace halo {
namespace {

constexpr const char* kWorkflow = R"(start_ops: [verdict]
end_ops: [verdict]
ops:
  verdict: {model: m, prompt: "Give the verdict."}
)";

std::string Prompt(int64_t index) {
  return "Is claim number " + std::to_string(index) + " true, and how would one find out?";
}

void MakeRows(const std::string& path, int64_t rows) {
  const std::string kind = std::filesystem::path(path).extension().string();
  if (kind == ".parquet") {
    DuckDatabase({}).Execute(
        "COPY (SELECT 'r' || i AS id, 'Is claim number ' || i || ' true, and how would one find "
        "out?' AS prompt FROM range(" +
        std::to_string(rows) + ") t(i)) TO " + QuoteSqlText(path) + " (FORMAT parquet)");
    return;
  }
  std::ofstream file(path, std::ios::binary);
  if (kind == ".csv") file << "id,prompt\n";
  if (kind == ".json") file << "[";
  for (int64_t i = 0; i < rows; ++i) {
    if (kind == ".csv") {
      file << 'r' << i << ",\"" << Prompt(i) << "\"\n";
    } else {
      if (kind == ".json") file << (i > 0 ? ",\n" : "\n");
      file << nlohmann::ordered_json{{"id", "r" + std::to_string(i)}, {"prompt", Prompt(i)}}.dump();
      if (kind == ".jsonl") file << '\n';
    }
  }
  if (kind == ".json") file << "\n]\n";
  if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

double PeakMemoryGb() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024.0 / 1e9;
  }
  return 0;
}

double ProcessorSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

void RunRows(const std::string& spec, const std::string& output, const std::string& spool_folder) {
  const Workflow workflow = ParseWorkflow(kWorkflow, "rows_bench.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  const auto rows = OpenRows({spec, {"prompt"}, -1, spool_folder});
  const auto feed = FeedFrom(*rows);
  const auto sink = OpenResultSink(output, {"verdict"}, 1);
  VirtualClock clock;
  SimulatedEngineOptions options;
  options.sequences = 256;
  const int64_t window = ExecutorOptions{}.window;
  options.script = [window](const Request& request) {
    const int64_t latency_us = request.order % window == 0 ? 1'000'000 : 0;
    return ScriptedReply{"It seems likely, but see the sources.", latency_us,
                         FinishReason::kEndToken, std::nullopt};
  };
  SimulatedEngine engine(options, clock);
  RunSource source;
  source.plan = &plan;
  source.rows = feed.get();
  source.sink = sink.get();
  source.models = {{&engine, PromptModel{}}};
  source.prompt_column = "prompt";
  const StopFlag stop{0};
  const RunReport report = Executor({source}, {}, clock, nullptr).Run(stop);
  sink->Finish();
  if (report.counts.rows_failed > 0 || report.counts.rows_ok == 0)
    throw std::runtime_error("rows failed");
  fmt::print("{}\n", nlohmann::json{{"rows", report.counts.rows_ok},
                                    {"cpu_s", ProcessorSeconds()},
                                    {"peak_gb", PeakMemoryGb()}}
                         .dump());
}

int Main(int argc, char** argv) {
  CLI::App app("What reading and writing rows costs");
  app.require_subcommand(1);
  std::string path, spec, output, spool_folder = ".";
  int64_t rows = 1'000'000;
  CLI::App* make = app.add_subcommand("make", "Make a file of rows");
  make->add_option("file", path)->required();
  make->add_option("--rows", rows);
  CLI::App* run = app.add_subcommand("run", "Read rows, answer each, write the results");
  run->add_option("spec", spec)->required();
  run->add_option("output", output)->required();
  run->add_option("--spool", spool_folder, "Folder for rows of SQL");
  CLI11_PARSE(app, argc, argv);
  try {
    if (*make) MakeRows(path, rows);
    if (*run) RunRows(spec, output, spool_folder);
  } catch (const std::exception& fault) {
    fmt::print(stderr, "rows_bench: {}\n", fault.what());
    return 1;
  }
  return 0;
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) { return halo::Main(argc, argv); }
