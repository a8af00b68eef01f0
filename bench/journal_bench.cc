// journal_bench: what the journal costs, without a model.
//
//   size     1,000,000 calls of 32 token ids: bytes on the disk, and seconds until a journal of
//   that
//            size answers
//   rate     calls a second through a workflow of five operators on a simulated engine that answers
//            at once, with a journal and without one, in turns; processor time of the whole process
//   resume   such a run is gone on with: seconds until the first call that the journal has not
//
//   cache    processor time of a call, with no cache of answers, with one that has none, with one
//            that has 1,000,000 of others, and with one that has them all
//
// Each part prints one JSON object a line. Targets are those of issue 8.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/random.h"
#include "engine/simulated/simulated_engine.h"
#include "runtime/executor.h"
#include "runtime/journal.h"
#include "runtime/result_cache.h"

namespace halo {
namespace {

constexpr const char* kWorkflow = R"(start_ops: [facts, doubt]
end_ops: [verdict]
ops:
  facts:   {model: m, prompt: "List what is known about it."}
  doubt:   {model: m, prompt: "Say what speaks against it."}
  weigh:   {model: m, prompt: "Weigh both sides.", input_ops: [facts, doubt]}
  again:   {model: m, prompt: "Look at it once more.", input_ops: [weigh]}
  verdict: {model: m, prompt: "Give the verdict.", input_ops: [again]}
)";
constexpr int64_t kOperators = 5;

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Of all threads of this process.
double CpuSeconds() {
  timespec time{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

class CountedRows final : public RowFeed {
 public:
  explicit CountedRows(int64_t count) : count_(count) {}
  Pull Next(Row& row) override {
    if (next_ == count_) return Pull::kClosed;
    row = Row{};
    row.index = next_;
    row.id = next_;
    row.values = {{"prompt", "Is claim number " + std::to_string(next_) +
                                 " true, and how would one find out?"}};
    ++next_;
    return Pull::kRow;
  }

 private:
  int64_t count_;
  int64_t next_ = 0;
};

struct Figures {
  double seconds = 0, cpu_s = 0, first_call_s = -1;
  int64_t calls = 0;
};

/// `journal` "": none; `cache` null: none.
Figures RunOnce(const std::string& journal, int64_t rows, ResultCache* cache = nullptr) {
  const Workflow workflow = ParseWorkflow(kWorkflow, "journal_bench.yaml");
  const LogicalPlan plan = MakeLogicalPlan(workflow);
  Figures figures;
  VirtualClock clock;
  const double begin = Now(), begin_cpu = CpuSeconds();
  SimulatedEngineOptions engine_options;
  engine_options.sequences = 256;
  engine_options.script = [&](const Request&) {
    if (figures.first_call_s < 0) figures.first_call_s = Now() - begin;
    return ScriptedReply{"It seems likely, but see the sources.", 0, FinishReason::kEndToken,
                         std::nullopt};
  };
  SimulatedEngine engine(engine_options, clock);
  CountedRows feed(rows);
  const std::unique_ptr<ResultSink> sink = DiscardResults();
  RunSource source;
  source.plan = &plan;
  source.rows = &feed;
  source.sink = sink.get();
  source.models = {{&engine, PromptModel{}}};
  source.prompt_column = "prompt";
  ExecutorOptions options;
  std::unique_ptr<Journal> kept;
  if (!journal.empty()) kept = std::make_unique<Journal>(Journal::Options{journal, ""});
  options.journal = kept.get();
  options.cache = cache;
  const StopFlag stop{0};
  const RunReport report = Executor({source}, options, clock, nullptr).Run(stop);
  kept.reset();
  if (cache != nullptr) cache->Flush();
  if (report.counts.rows_ok != rows) throw std::runtime_error("rows failed");
  figures.seconds = Now() - begin;
  figures.cpu_s = CpuSeconds() - begin_cpu;
  figures.calls = report.counts.calls_done + report.counts.from_cache;
  return figures;
}

int64_t BytesIn(const std::string& folder) {
  int64_t bytes = 0;
  for (const auto& file : std::filesystem::directory_iterator(folder))
    bytes += static_cast<int64_t>(file.file_size());
  return bytes;
}

nlohmann::ordered_json Size(const std::string& folder, int64_t calls) {
  constexpr int kTokens = 32;
  constexpr uint64_t kVocabulary = 128'256;
  const std::string path = folder + "/size.db";
  const auto key = [](int64_t call) { return SignatureBuilder().Add("call").Add(call).Finish(); };
  const double begin = Now();
  {
    Journal journal({path, ""});
    RandomStream draws(8);
    JournalRecord record;
    record.finish = FinishReason::kEndToken;
    record.prompt_tokens = 300;
    record.output_tokens = kTokens;
    record.tokens.resize(kTokens);
    for (int64_t call = 0; call < calls; ++call) {
      record.key = key(call);
      for (TokenId& token : record.tokens) token = static_cast<TokenId>(draws.Below(kVocabulary));
      journal.Append(record);
    }
  }
  const double written = Now();
  const int64_t bytes = BytesIn(folder);
  Journal journal({path, ""});
  if (!journal.Find(key(calls / 2))) throw std::runtime_error("a record is not there");
  const double opened = Now();
  for (int64_t call = 0; call < calls; ++call) {
    if (!journal.Find(key(call))) throw std::runtime_error("a record is not there");
  }
  return {{"part", "size"},
          {"calls", calls},
          {"gigabytes", static_cast<double>(bytes) * 1e-9},
          {"write_s", written - begin},
          {"open_s", opened - written},
          {"find_us", (Now() - opened) / static_cast<double>(calls) * 1e6}};
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

nlohmann::ordered_json Rate(const std::string& folder, int64_t rows, int repeats) {
  std::vector<double> with, without, with_cpu, without_cpu;
  for (int i = 0; i < repeats; ++i) {  // in turns
    const Figures plain = RunOnce("", rows);
    without.push_back(static_cast<double>(plain.calls) / plain.seconds);
    without_cpu.push_back(plain.cpu_s / static_cast<double>(plain.calls) * 1e6);
    const Figures kept = RunOnce(folder + "/rate-" + std::to_string(i) + ".db", rows);
    with.push_back(static_cast<double>(kept.calls) / kept.seconds);
    with_cpu.push_back(kept.cpu_s / static_cast<double>(kept.calls) * 1e6);
  }
  return {{"part", "rate"},
          {"calls", rows * kOperators},
          {"repeats", repeats},
          {"calls_per_s", Median(with)},
          {"calls_per_s_without", Median(without)},
          {"cpu_us_per_call", Median(with_cpu)},
          {"cpu_us_per_call_without", Median(without_cpu)}};
}

nlohmann::ordered_json Resume(const std::string& folder, int64_t rows) {
  const std::string path = folder + "/resume.db";
  const Figures first = RunOnce(path, rows);
  const Figures again = RunOnce(path, rows + 1);
  if (again.calls != kOperators) throw std::runtime_error("calls were made again");
  return {{"part", "resume"},
          {"calls", first.calls},
          {"first_new_call_s", again.first_call_s},
          {"run_s", first.seconds}};
}

ResultCache::Options CacheIn(const std::string& folder) {
  ResultCache::Options options;
  options.folder = folder;
  options.most_waiting = size_t{1} << 22;  // no model answers as fast as this engine
  return options;
}

/// Answers that nobody asks for.
void Fill(const std::string& folder, int64_t answers) {
  ResultCache cache(CacheIn(folder));
  JournalRecord record;
  record.finish = FinishReason::kEndToken;
  record.text = "It seems likely, but see the sources.";
  constexpr int64_t kAtOnce = 50'000;
  for (int64_t i = 0; i < answers; ++i) {
    CacheQuestion question;
    question.key = SignatureBuilder().Add("another's").Add(i).Finish();
    cache.Put(question, record);
    if (i % kAtOnce == 0) cache.Flush();
  }
}

/// Each run finds its cache as it is named; runs take turns.
nlohmann::ordered_json Cache(const std::string& folder, int64_t answers, int64_t rows,
                             int repeats) {
  Fill(folder + "/full", answers);
  std::vector<double> none_us, empty_us, full_us, hits_us, hits;
  const auto cpu_us = [](const Figures& run) {
    return run.cpu_s / static_cast<double>(run.calls) * 1e6;
  };
  for (int i = 0; i < repeats; ++i) {
    none_us.push_back(cpu_us(RunOnce("", rows)));
    const std::string fresh = folder + "/empty-" + std::to_string(i);
    {
      ResultCache cache(CacheIn(fresh));
      empty_us.push_back(cpu_us(RunOnce("", rows, &cache)));
    }
    const std::string full = folder + "/full-" + std::to_string(i);
    std::filesystem::copy(folder + "/full", full);
    {
      ResultCache cache(CacheIn(full));
      full_us.push_back(cpu_us(RunOnce("", rows, &cache)));
    }
    ResultCache cache(CacheIn(full));
    const Figures run = RunOnce("", rows, &cache);
    hits_us.push_back(cpu_us(run));
    hits.push_back(static_cast<double>(run.calls) / run.seconds);
    std::filesystem::remove_all(fresh);
    std::filesystem::remove_all(full);
  }
  return {{"part", "cache"},
          {"calls", rows * kOperators},
          {"answers", answers},
          {"cpu_us_per_call_without", Median(none_us)},
          {"cpu_us_per_call_empty", Median(empty_us)},
          {"cpu_us_per_call_full", Median(full_us)},
          {"cpu_us_per_hit", Median(hits_us)},
          {"hits_per_s", Median(hits)}};
}

int Main(int argc, char** argv) {
  CLI::App app("What the journal costs");
  std::string folder;
  int64_t calls = 1'000'000, rows = 100'000;
  int repeats = 5;
  app.add_option("folder", folder, "An empty folder for journals")
      ->required()
      ->check(CLI::ExistingDirectory);
  app.add_option("--calls", calls, "Of the parts size and resume");
  app.add_option("--rows", rows, "Of the parts rate and cache");
  app.add_option("--repeats", repeats, "Of the parts rate and cache");
  std::string part;
  app.add_option("--part", part, "This one alone")
      ->check(CLI::IsMember({"size", "rate", "resume", "cache"}));
  CLI11_PARSE(app, argc, argv);
  const auto asked = [&](const char* name) { return part.empty() || part == name; };
  if (asked("size")) fmt::print("{}\n", Size(folder, calls).dump());
  if (asked("rate")) fmt::print("{}\n", Rate(folder, rows, repeats).dump());
  if (asked("resume")) fmt::print("{}\n", Resume(folder, calls / kOperators).dump());
  if (asked("cache")) fmt::print("{}\n", Cache(folder, calls, rows, repeats).dump());
  return 0;
}

}  // namespace
}  // namespace halo

int main(int argc, char** argv) { return halo::Main(argc, argv); }
