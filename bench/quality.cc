// quality: what the settings of `halo run` do to the answers. Runs workflows over rows of which the
// right answers are known, once with each setting, and scores what was written. Prints JSON.
//
// Ends with 1 if a run that promises the answers of --naive has others, or if a setting without
// that promise does worse than --naive beyond what chance explains; with 2 if nothing was judged.
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "bench/answered_rows.h"
#include "bench/child_process.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kExitSomeRowsFailed = 3;
constexpr double kSignificance = 0.05;

struct Setting {
  std::string name;
  std::string arguments;  ///< of `halo run`, separated by blanks
  bool same_draws = true;
};

const std::string kExactReference = "--naive --deterministic";
const std::string kReference = "--naive";

/// A new planner or policy is one more line. The sizes make KV scarce for the demo model: a
/// sequence of 1,024 tokens takes 2.6 MB of it, so that few fit and what is kept does not.
std::vector<Setting> AllSettings() {
  return {
      {kExactReference, "--naive --deterministic"},
      {kReference, "--naive"},
      {"default", ""},
      {"--deterministic", "--deterministic"},
      {"few sequences", "--deterministic --sequences 4"},
      {"little KV", "--deterministic --worker-memory 8M --kept-memory 1M"},
      {"little KV, none kept", "--deterministic --worker-memory 8M --kept-memory 1K"},
      {"stock kernels", "--no-deterministic"},
      {"stock kernels, little KV", "--no-deterministic --worker-memory 8M --kept-memory 1M"},
      {"unified layout, little KV",
       "--no-deterministic --kv-layout unified --worker-memory 4M --kept-memory 1M"},
      {"default, another seed", "--seed 1", false},
  };
}

struct Flags {
  std::string halo, model, folder, output;
  std::vector<std::string> cases, only, added;
  int jobs = 1;
};

/// A workflow and its rows.
struct Case {
  std::string workflow, rows, stem;
  std::vector<Criterion> criteria;
  Expectations expectations;
};

struct Outcome {
  AnsweredRows answers;
  RowScores scores;
  nlohmann::json summary;

  bool exact() const { return summary.at("deterministic").get<bool>(); }
};

std::vector<std::string> Words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

std::pair<std::string, std::string> SplitAtEquals(const std::string& flag,
                                                  const std::string& text) {
  const size_t at = text.find('=');
  if (at == std::string::npos || at == 0)
    throw std::invalid_argument(flag + ": there is no NAME=VALUE in '" + text + "'");
  return {text.substr(0, at), text.substr(at + 1)};
}

std::vector<Setting> ChosenSettings(const Flags& flags) {
  std::vector<Setting> settings = AllSettings();
  for (const std::string& text : flags.added) {
    const auto [name, arguments] = SplitAtEquals("--setting", text);
    settings.push_back({name, arguments});
  }
  for (const std::string& name : flags.only) {
    if (std::none_of(settings.begin(), settings.end(),
                     [&](const Setting& setting) { return setting.name == name; }))
      throw std::invalid_argument("--only: there is no setting '" + name + "'");
  }
  // What all others are compared with stays.
  const std::set<std::string> kept(flags.only.begin(), flags.only.end());
  std::erase_if(settings, [&](const Setting& setting) {
    return !kept.empty() && !kept.contains(setting.name) && setting.name != kReference &&
           setting.name != kExactReference;
  });
  return settings;
}

std::vector<Case> ReadCases(const Flags& flags) {
  std::vector<Case> cases;
  for (const std::string& text : flags.cases) {
    Case one;
    std::tie(one.workflow, one.rows) = SplitAtEquals("--case", text);
    one.stem = std::filesystem::path(one.workflow).stem();
    one.criteria = CriteriaOf(one.stem);
    one.expectations = ReadExpectations(one.rows);
    if (one.expectations.empty()) throw std::runtime_error(one.rows + ": has no rows");
    cases.push_back(std::move(one));
  }
  return cases;
}

/// The distinct models of a workflow file (ops dialect).
std::set<std::string> ModelNames(const std::string& workflow) {
  std::set<std::string> names;
  for (const auto& op : YAML::LoadFile(workflow)["ops"])
    names.insert(op.second["model"].as<std::string>());
  return names;
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  return nlohmann::json::parse(file);
}

/// One run of `halo`, on one thread: nothing is timed here, so runs go side by side.
Outcome Run(const Flags& flags, const Case& one, const Setting& setting, size_t number) {
  const std::string stem = flags.folder + "/" + one.stem + "-" + std::to_string(number);
  std::vector<std::string> command = {flags.halo,     "run", one.workflow, "-i",         one.rows,
                                      "--threads",    "1",   "--date",     "2026-01-31", "--quiet",
                                      "--all-outputs"};
  for (const std::string& name : ModelNames(one.workflow))
    command.insert(command.end(), {"--model", name + "=" + flags.model});
  command.insert(command.end(),
                 {"-o", stem + ".rows.jsonl", "--summary-json", stem + ".summary.json"});
  for (const std::string& word : Words(setting.arguments)) command.push_back(word);
  RunProgram(command, {0, kExitSomeRowsFailed});
  Outcome outcome;
  outcome.answers = ReadAnsweredRows(stem + ".rows.jsonl");
  outcome.scores = ScoreRows(one.criteria, outcome.answers, one.expectations);
  outcome.summary = ReadJson(stem + ".summary.json");
  return outcome;
}

/// Every case with every setting, `--jobs` at once: [case][setting].
std::vector<std::vector<Outcome>> RunAll(const Flags& flags, const std::vector<Case>& cases,
                                         const std::vector<Setting>& settings) {
  std::vector<std::vector<Outcome>> outcomes(cases.size(), std::vector<Outcome>(settings.size()));
  const size_t runs = cases.size() * settings.size();
  std::atomic<size_t> next{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;  // of standard error and `done`
  size_t done = 0;
  const auto work = [&] {
    for (size_t run; !failed && (run = next++) < runs;) {
      const size_t c = run / settings.size(), s = run % settings.size();
      try {
        outcomes[c][s] = Run(flags, cases[c], settings[s], s);
      } catch (...) {
        failed = true;
        throw;
      }
      const std::lock_guard lock(mutex);
      const RowScores& scores = outcomes[c][s].scores;
      std::cerr << "quality: " << ++done << "/" << runs << " " << cases[c].stem << ", "
                << settings[s].name << ": " << CountRight(scores, 0) << " of " << scores.size()
                << ", " << outcomes[c][s].summary.at("elapsed_s").get<double>() << " s\n";
    }
  };
  std::vector<std::future<void>> workers;
  for (int job = 0; job < flags.jobs; ++job)
    workers.push_back(std::async(std::launch::async, work));
  for (std::future<void>& worker : workers) worker.get();
  return outcomes;
}

Json CriterionJson(const std::string& name, bool in_task, const RowScores& scores, size_t index) {
  const int64_t right = CountRight(scores, index), of = static_cast<int64_t>(scores.size());
  const Interval interval = WilsonInterval(right, of);
  return {{"name", name}, {"in_task", in_task},  {"right", right},
          {"of", of},     {"low", interval.low}, {"high", interval.high}};
}

Json PressureJson(const nlohmann::json& summary) {
  Json pressure = {{"spills", summary.at("kv").at("spills")},
                   {"restores", summary.at("kv").at("restores")},
                   {"evictions", summary.at("kv").at("evictions")},
                   {"prefilled_tokens", summary.at("tokens").at("prefilled")},
                   {"recomputed_tokens", summary.at("tokens").at("recomputed")}};
  Json batches = Json::array();
  for (const auto& engine : summary.at("engine"))
    batches.push_back(engine.at("decode_batch_mean").get<double>());
  pressure["decode_batch_mean"] = batches;
  return pressure;
}

/// How a setting's answers stand to those of the references.
enum class Verdict { kEqual, kNotEqual, kWithinNoise, kWorse, kBetter, kOtherDraws };

const char* NameOf(Verdict verdict) {
  switch (verdict) {
    case Verdict::kEqual:
      return "equal";
    case Verdict::kNotEqual:
      return "NOT EQUAL";
    case Verdict::kWithinNoise:
      return "within noise";
    case Verdict::kWorse:
      return "WORSE";
    case Verdict::kBetter:
      return "better";
    case Verdict::kOtherDraws:
      return "other draws";
  }
  return "";
}

Verdict Judge(const Setting& setting, const Outcome& outcome, int64_t equal,
              const Discordance& counts, double threshold) {
  if (!setting.same_draws) return Verdict::kOtherDraws;
  const bool all_equal = equal == static_cast<int64_t>(outcome.answers.size());
  if (outcome.exact() && !all_equal) return Verdict::kNotEqual;
  if (all_equal) return Verdict::kEqual;
  if (McNemarExactP(counts) >= threshold) return Verdict::kWithinNoise;
  return counts.lost > counts.gained ? Verdict::kWorse : Verdict::kBetter;
}

size_t IndexOf(const std::vector<Setting>& settings, const std::string& name) {
  const auto found = std::find_if(settings.begin(), settings.end(),
                                  [&](const Setting& setting) { return setting.name == name; });
  if (found == settings.end()) throw std::logic_error("no setting " + name);
  return static_cast<size_t>(found - settings.begin());
}

Json SettingJson(const Case& one, const Setting& setting, const Outcome& outcome,
                 const Outcome& reference, const Outcome& exact_reference, double threshold,
                 bool& bad) {
  const Discordance counts = CompareTask(outcome.scores, reference.scores);
  const Interval interval = PairedDifferenceInterval(counts);
  const int64_t equal = CountEqual(outcome.answers, exact_reference.answers);
  const Verdict verdict = Judge(setting, outcome, equal, counts, threshold);
  bad = bad || verdict == Verdict::kNotEqual || verdict == Verdict::kWorse;
  Json criteria = Json::array();
  criteria.push_back(CriterionJson("task", true, outcome.scores, 0));
  for (size_t i = 0; i < one.criteria.size(); ++i) {
    criteria.push_back(
        CriterionJson(one.criteria[i].name, one.criteria[i].in_task, outcome.scores, i + 1));
  }
  return {{"name", setting.name},
          {"arguments", setting.arguments},
          {"deterministic", outcome.exact()},
          {"rows_failed", outcome.summary.at("rows").at("failed")},
          {"equal_rows", equal},
          {"gained", counts.gained},
          {"lost", counts.lost},
          {"difference", counts.difference()},
          {"difference_low", interval.low},
          {"difference_high", interval.high},
          {"p", McNemarExactP(counts)},
          {"verdict", NameOf(verdict)},
          {"criteria", criteria},
          {"kv", PressureJson(outcome.summary)},
          {"elapsed_s", outcome.summary.at("elapsed_s")}};
}

/// Comparisons that are decided by a test: of the runs that promise no equality.
int64_t CountTests(const std::vector<Setting>& settings,
                   const std::vector<std::vector<Outcome>>& outcomes) {
  int64_t tests = 0;
  for (const auto& row : outcomes) {
    for (size_t s = 0; s < row.size(); ++s)
      tests += settings[s].same_draws && !row[s].exact() ? 1 : 0;
  }
  return tests;
}

/// True if all is as it was promised.
bool RunQuality(const Flags& flags) {
  const std::vector<Setting> settings = ChosenSettings(flags);
  const std::vector<Case> cases = ReadCases(flags);
  std::filesystem::create_directories(flags.folder);
  const auto outcomes = RunAll(flags, cases, settings);
  const int64_t tests = CountTests(settings, outcomes);
  const double threshold = kSignificance / static_cast<double>(std::max<int64_t>(tests, 1));
  const size_t reference = IndexOf(settings, kReference);
  const size_t exact_reference = IndexOf(settings, kExactReference);
  bool bad = false;
  Json json = {{"tests", tests}, {"threshold", threshold}, {"workflows", Json::array()}};
  for (size_t c = 0; c < cases.size(); ++c) {
    Json rows = Json::array();
    for (size_t s = 0; s < settings.size(); ++s) {
      rows.push_back(SettingJson(cases[c], settings[s], outcomes[c][s], outcomes[c][reference],
                                 outcomes[c][exact_reference], threshold, bad));
    }
    json["workflows"].push_back(
        {{"workflow", cases[c].stem}, {"rows", cases[c].expectations.size()}, {"settings", rows}});
  }
  std::ofstream file(flags.output);
  file << json.dump(2) << "\n";
  if (!file.flush()) throw std::runtime_error(flags.output + ": cannot be written");
  return !bad;
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app("What the settings of halo run do to the answers: scores and equality, as JSON.");
  halo::bench::Flags flags;
  app.add_option("--halo", flags.halo, "The program halo")->required();
  app.add_option("--model", flags.model, "GGUF file, for every model name")->required();
  app.add_option("--case", flags.cases,
                 "WORKFLOW.yaml=ROWS.jsonl, rows with `id` and `expected` (repeatable)")
      ->required();
  app.add_option("--folder", flags.folder, "Folder for the rows that are written")->required();
  app.add_option("--jobs", flags.jobs, "Runs side by side, each on one thread")
      ->check(CLI::Range(1, 256));
  app.add_option("--setting", flags.added, "NAME=ARGUMENTS, one more setting (repeatable)");
  app.add_option("--only", flags.only, "Only this setting beside the references (repeatable)");
  app.add_option("-o,--output", flags.output, "JSON file to write")->required();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  try {
    return halo::bench::RunQuality(flags) ? 0 : 1;
  } catch (const std::exception& error) {
    std::cerr << "quality: " << error.what() << "\n";
    return 2;
  }
}
