// halo-workload: the data, the rows and the web service of the evaluation workloads W1 to W6.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "base/error.h"
#include "run_program.h"
#include "workload/datasets.h"
#include "workload/duck_sink.h"
#include "workload/mock_api.h"
#include "workload/postgres_sink.h"
#include "workload/rows.h"

namespace halo::workload {
namespace {

struct Flags {
  DataOptions data;
  std::string dataset = "all", duckdb, postgres;
  RowOptions rows;
  std::string rows_file = "-";
  MockApiOptions api;
};

using Generate = void (*)(const DataOptions&, TableSink&);
struct DataSet {
  const char* name;
  Generate generate;
};
constexpr DataSet kDataSets[] = {
    {"imdb", GenerateImdb}, {"wiki", GenerateWiki}, {"tpch", GenerateTpch}};

/// The file of a data set: PATH itself if it is one alone and PATH is no folder.
std::string DuckFile(const Flags& flags, const char* name) {
  const bool is_folder = flags.dataset == "all" || flags.duckdb.ends_with('/') ||
                         std::filesystem::is_directory(flags.duckdb);
  const std::filesystem::path path(flags.duckdb);
  const std::filesystem::path folder = is_folder ? path : path.parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder);
  return is_folder ? (folder / (std::string(name) + ".duckdb")).string() : flags.duckdb;
}

void RunGenerate(const Flags& flags) {
  if (flags.duckdb.empty() == flags.postgres.empty())
    throw Error(ErrorCode::kUsage, "generate: give one of --duckdb and --postgres");
  CheckScale(flags.data);
  for (const DataSet& set : kDataSets) {
    if (flags.dataset != "all" && flags.dataset != set.name) continue;
    if (!flags.postgres.empty()) {
      PostgresSink sink(flags.postgres);
      set.generate(flags.data, sink);
      sink.Keep();
      std::cerr << fmt::format("{}: in the database\n", set.name);
      continue;
    }
    const std::string file = DuckFile(flags, set.name);
    DuckSink sink(file);
    set.generate(flags.data, sink);
    sink.Keep();
    std::cerr << fmt::format("{}: {}\n", set.name, file);
  }
}

void RunRows(const Flags& flags) {
  std::string lines;
  for (const WorkloadRow& row : MakeRows(flags.rows)) lines += RowJson(row).dump() + "\n";
  if (flags.rows_file == "-") {
    std::cout << lines;
    return;
  }
  std::ofstream file(flags.rows_file, std::ios::binary);
  file << lines;
  file.close();
  if (!file) throw Error(ErrorCode::kIo, "cannot write " + flags.rows_file);
}

void RunServe(const Flags& flags) {
  // Blocked before any thread starts, so that only the one below takes them.
  sigset_t stops;
  sigemptyset(&stops);
  sigaddset(&stops, SIGINT);
  sigaddset(&stops, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stops, nullptr);
  MockApi api(flags.api);
  std::thread waiter([&] {
    int signal = 0;
    sigwait(&stops, &signal);
    api.Stop();
  });
  std::cout << "listening on 127.0.0.1:" << api.port() << std::endl;
  api.Run();
  pthread_kill(waiter.native_handle(), SIGTERM);  // if it was not a signal that ended it
  waiter.join();
}

void AddGenerate(CLI::App& app, Flags& flags) {
  CLI::App* generate =
      app.add_subcommand("generate", "Make the databases, the same rows whatever they go into");
  generate->add_option("--dataset", flags.dataset, "imdb, wiki, tpch or all")
      ->check(CLI::IsMember({"imdb", "wiki", "tpch", "all"}))
      ->capture_default_str();
  generate->add_option("--duckdb", flags.duckdb,
                       "A file, or a folder (FOLDER/, or one that is there); with all a folder");
  generate->add_option("--postgres", flags.postgres, "postgres://... of a database to fill");
  generate
      ->add_option("--scale", flags.data.scale,
                   "TPC-H's scale factor; 1 is 1,000,000 films and 200,000 articles")
      ->capture_default_str();
  generate->add_option("--seed", flags.data.seed, "Of the data")->capture_default_str();
  generate->callback([&] { RunGenerate(flags); });
}

void AddRows(CLI::App& app, Flags& flags) {
  CLI::App* rows = app.add_subcommand("rows", "Write rows for one of the workloads");
  rows->add_option("--workload", flags.rows.workload, "w1 to w6")
      ->required()
      ->check(CLI::IsMember({"w1", "w2", "w3", "w4", "w5", "w6"}));
  rows->add_option("--count", flags.rows.count, "How many")->capture_default_str();
  rows->add_option("--repeat-share", flags.rows.repeat_share,
                   "Share of the rows that ask with parameters which an earlier row has too")
      ->capture_default_str();
  rows->add_option("--seed", flags.rows.seed, "Of the rows")->capture_default_str();
  rows->add_option("--scale", flags.rows.data.scale, "Of the data that is asked about (w3, w4)")
      ->capture_default_str();
  rows->add_option("--data-seed", flags.rows.data.seed, "Of the data that is asked about (w3, w4)")
      ->capture_default_str();
  rows->add_option("-o,--output", flags.rows_file, "A JSONL file, or - for standard output");
  rows->callback([&] { RunRows(flags); });
}

void AddServe(CLI::App& app, Flags& flags) {
  CLI::App* serve = app.add_subcommand("serve", "Answer the HTTP calls of the workloads");
  serve->add_option("--port", flags.api.port, "On 127.0.0.1; 0: a free one, which is printed")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  serve->add_option("--imdb", flags.api.imdb, "duckdb:FILE or postgres://...");
  serve->add_option("--wiki", flags.api.wiki, "likewise");
  serve->add_option("--tpch", flags.api.tpch, "likewise");
  serve
      ->add_option("--latency-scale", flags.api.latency_scale,
                   "Hold answers back for so much of a drawn latency (3 s, TPC-H 6 s)")
      ->check(CLI::Range(0.0, 1000.0))
      ->capture_default_str();
  serve->add_option("--seed", flags.api.seed, "Of the latencies")->capture_default_str();
  serve->callback([&] { RunServe(flags); });
}

int Main(int argc, char** argv) {
  CLI::App app("Data, rows and web service of the evaluation workloads W1 to W6");
  app.require_subcommand(1);
  Flags flags;
  AddGenerate(app, flags);
  AddRows(app, flags);
  AddServe(app, flags);
  return RunProgram(app, "halo-workload", argc, argv);
}

}  // namespace
}  // namespace halo::workload

int main(int argc, char** argv) { return halo::workload::Main(argc, argv); }
