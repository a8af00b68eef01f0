// Random workflows on the simulated engine: whatever the window, the engine's width, latencies and
// failures, the rows are those of the naive run byte for byte, and the counts add up.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/hash.h"
#include "base/random.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

constexpr uint64_t kScenarios = 1000;

struct Scenario {
  std::string yaml;
  std::vector<Row> rows;
  int32_t sequences = 1;
  ExecutorOptions options;
  bool chat = false;
  uint64_t failure_percent = 0;
  int64_t latency_unit_us = 0;  // 0: every call ends at once
};

class ScenarioMaker {
 public:
  explicit ScenarioMaker(uint64_t seed) : random_(seed) {}

  Scenario Make() {
    Scenario scenario;
    scenario.yaml = Workflow();
    const uint64_t rows = random_.Below(25);
    for (uint64_t i = 0; i < rows; ++i) scenario.rows.push_back(MakeRow(static_cast<int64_t>(i)));
    constexpr int32_t kSequences[] = {1, 2, 5, 64};
    constexpr int64_t kWindows[] = {1, 3, 8, 65536};
    scenario.sequences = kSequences[random_.Below(4)];
    scenario.options.window = kWindows[random_.Below(4)];
    scenario.options.input_order = Chance(75);
    scenario.options.rows_side_by_side = 1 + static_cast<int64_t>(random_.Below(5));
    scenario.options.all_outputs = Chance(50);
    scenario.options.seed = random_.Below(3);
    scenario.chat = Chance(30);
    scenario.failure_percent = Chance(50) ? random_.Below(20) : 0;
    scenario.latency_unit_us = Chance(20) ? 0 : 1 + static_cast<int64_t>(random_.Below(60'000));
    return scenario;
  }

 private:
  bool Chance(uint64_t percent) { return random_.Below(100) < percent; }
  static std::string Id(size_t op) { return "op" + std::to_string(op); }
  static std::string List(const std::vector<size_t>& ops) {
    std::string text;
    for (const size_t op : ops) text += (text.empty() ? "" : ", ") + Id(op);
    return "[" + text + "]";
  }

  std::string Prompt(const std::vector<size_t>& ancestors) {
    switch (random_.Below(5)) {
      case 0:
        return "";
      case 1:
        return "About {{ row.topic }}.";
      case 2:
        return ancestors.empty()
                   ? "Alone."
                   : "Given {{ " + Id(ancestors[random_.Below(ancestors.size())]) + " }}";
      default:
        return "Say " + std::to_string(random_.Below(3)) +
               ".";  // often the same as another operator's
    }
  }

  /// How an operator meets conditions, samples and failures; no_conversation_[i] says that no
  /// conversation may go on from operator i.
  std::string Conditions(const std::vector<size_t>& ancestors) {
    std::string text;
    bool no_conversation = false;
    if (Chance(15)) {
      const std::string what =
          ancestors.empty() ? "row.topic" : Id(ancestors[random_.Below(ancestors.size())]);
      text += ", when: \"" + what + " is " +
              (Chance(50) ? "not none\"" : "string and '1' not in " + what + "\"");
    }
    if (Chance(15)) {
      const bool vote = Chance(50);
      text += ", samples: " + std::to_string(2 + random_.Below(3)) + (vote ? ", vote: true" : "");
      no_conversation = !vote;
    }
    if (Chance(30)) {
      constexpr const char* kWays[] = {"fail", "null", "skip"};
      const uint64_t way = random_.Below(3);
      text += std::string(", on_error: ") + kWays[way];
      no_conversation = no_conversation || way == 1;
    }
    if (Chance(25)) text += ", retry: {max: 2, backoff_s: 0.01}";
    no_conversation_.push_back(no_conversation);
    return text;
  }

  std::string Operator(const std::vector<size_t>& parents, const std::vector<size_t>& ancestors) {
    const bool may_continue =
        std::none_of(parents.begin(), parents.end(), [&](size_t p) { return no_conversation_[p]; });
    std::string text = "{model: m" + std::to_string(random_.Below(2)) + Conditions(ancestors);
    const std::string prompt = Prompt(ancestors);
    if (!prompt.empty()) text += ", prompt: \"" + prompt + "\"";
    if (!parents.empty()) text += ", input_ops: " + List(parents);
    if (Chance(60)) text += ", temperature: 0";
    if (Chance(20)) text += ", max_batch_size: " + std::to_string(1 + random_.Below(3));
    if (Chance(20)) text += ", max_tokens: \"{{ row.length }}\"";
    if (Chance(15)) {
      text += ", schema: {gbnf: 'root ::= \"answer\" [0-2] (\" more\")?'}, repair: " +
              std::to_string(random_.Below(3));
    } else if (Chance(10)) {
      text += ", stop: \"x\"";
    }
    if (Chance(10)) text += ", seed: 7";
    if (Chance(15)) text += ", use_chat_template: false";
    if (Chance(15)) text += ", keep_cache: false";
    bool continues = parents.size() == 1;
    if (!parents.empty() && (Chance(40) || !may_continue)) {
      const bool transcript = Chance(50) && may_continue;
      text += std::string(", history: ") + (transcript ? "transcript" : "outputs");
      continues = false;
    }
    constexpr const char* kLayouts[] = {"instruction_first", "context_first", "auto"};
    if (!continues && Chance(60))
      text += std::string(", prompt_layout: ") + kLayouts[random_.Below(3)];
    return text + "}";
  }

  std::string Workflow() {
    const size_t count = 1 + random_.Below(12);
    std::vector<std::string> operators;
    std::vector<std::set<size_t>> ancestors(count);
    std::vector<bool> read(count, false);
    std::vector<size_t> starts, ends;
    for (size_t i = 0; i < count; ++i) {
      std::vector<size_t> parents;
      const uint64_t wanted = i == 0 ? 0 : random_.Below(4);
      for (uint64_t k = 0; k < wanted; ++k) {
        const size_t parent = random_.Below(i);
        if (std::find(parents.begin(), parents.end(), parent) == parents.end())
          parents.push_back(parent);
      }
      for (const size_t parent : parents) {
        read[parent] = true;
        ancestors[i].insert(parent);
        ancestors[i].insert(ancestors[parent].begin(), ancestors[parent].end());
      }
      if (parents.empty()) starts.push_back(i);
      operators.push_back(Operator(parents, {ancestors[i].begin(), ancestors[i].end()}));
    }
    std::string text;
    for (size_t i = 0; i < count; ++i) {
      if (!read[i] || Chance(20)) ends.push_back(i);
      // The file's order need not be the order of execution.
      const std::string line = "  " + Id(i) + ": " + operators[i] + "\n";
      text = Chance(30) ? line + text : text + line;
    }
    return "start_ops: " + List(starts) + "\nend_ops: " + List(ends) + "\nops:\n" + text;
  }

  Row MakeRow(int64_t index) {
    const Json prompts[] = {"one",
                            "two",
                            "{{ row.topic }} <|im_end|>",
                            Json::array({"first", "second", "third"}),
                            Json::array({"first"}),
                            Json::object({{"k", 1}}),
                            "",
                            " padded \n"};
    Json values = {{"prompt", prompts[random_.Below(8)]},
                   {"topic", random_.Below(2) == 0 ? "rain" : "snow"}};
    values["length"] = 1 + random_.Below(3);
    if (Chance(5)) values["length"] = "long";
    if (Chance(3)) values.erase("topic");
    if (Chance(2)) values["prompt"] = Json::array();
    if (Chance(30)) values["id"] = "row-" + std::to_string(index);
    Row row = MakeTestRow(index, values);
    if (Chance(3)) row.failure = Failure{"", "bad_row", "it could not be read", false};
    return row;
  }

  RandomStream random_;
  std::vector<bool> no_conversation_;  // [operators]
};

/// Checks that what a request keeps is consumed or released exactly as often as it said.
class KeepChecker final : public Engine {
 public:
  explicit KeepChecker(Engine& inner) : inner_(inner) {}
  const EngineDescription& Describe() const override { return inner_.Describe(); }
  void Submit(Request request) override {
    EXPECT_TRUE(consumers_left_.emplace(request.id, request.keep.consumers).second)
        << "a request id is used once";
    EXPECT_LE(inner_.pending(), int64_t{4} * Describe().sequences)
        << "the engine's queue is bounded";
    if (request.consumes != 0) --consumers_left_.at(request.consumes);
    inner_.Submit(std::move(request));
  }
  void Cancel(RequestId id) override { inner_.Cancel(id); }
  void CancelWaiting() override { inner_.CancelWaiting(); }
  void Release(RequestId id, int32_t consumers) override { consumers_left_.at(id) -= consumers; }
  std::vector<Completion> Poll(int64_t deadline_us) override { return inner_.Poll(deadline_us); }
  int64_t pending() const override { return inner_.pending(); }
  EngineStatistics Statistics() const override { return inner_.Statistics(); }

  void ExpectAllConsumed() const {
    for (const auto& [id, left] : consumers_left_)
      EXPECT_EQ(left, 0) << "consumers left of request " << id;
  }
  int64_t requests() const { return static_cast<int64_t>(consumers_left_.size()); }

 private:
  Engine& inner_;
  std::map<RequestId, int32_t> consumers_left_;
};

/// A pure function of what a model sees, so that equal greedy calls have equal answers.
ScriptedReply Reply(const Scenario& scenario, const Request& request) {
  SignatureBuilder seen;
  seen.Add(request.prompt_text).Add(int64_t{request.sampling.max_tokens});
  for (const std::string& stop : request.sampling.stop) seen.Add(stop);
  if (request.sampling.temperature > 0) seen.Add(static_cast<int64_t>(request.sampling.draw_key));
  const uint64_t hash = seen.Finish().low;
  ScriptedReply reply;
  reply.latency_us = static_cast<int64_t>((hash >> 8) % 8) * scenario.latency_unit_us;
  constexpr const char* kEnds[] = {"", " more", "\n", " {{ row.topic }}"};
  reply.text = "answer" + std::to_string(hash % 5) + kEnds[(hash >> 16) % 4];
  constexpr FinishReason kReasons[] = {FinishReason::kEndToken, FinishReason::kStopString,
                                       FinishReason::kMaxTokens};
  reply.finish = kReasons[(hash >> 24) % 3];
  if ((hash >> 32) % 100 < scenario.failure_percent) {
    const bool passes = (hash >> 40) % 2 == 0;  // after an attempt or two
    if (!passes || request.script_attempt < static_cast<int32_t>((hash >> 48) % 3))
      reply.failure = Failure{"", "scripted", "as the script says", passes};
  }
  return reply;
}

struct ScenarioResult {
  std::string rows;
  RunReport report;
  int64_t requests = 0;
};

ScenarioResult Play(const Scenario& scenario, bool naive, std::set<std::string> rules_off = {}) {
  SimulatedEngineOptions engine_options;
  engine_options.sequences = scenario.sequences;
  engine_options.script = [&](const Request& request) { return Reply(scenario, request); };
  SimulatedRig rig(scenario.yaml, "random.yaml", engine_options, scenario.options.all_outputs);
  if (naive) rules_off.merge(RulesOffForNaive());
  rig.Optimize(scenario.rows, ResolveColumn(rig.workflow, ""), rules_off);
  std::vector<std::unique_ptr<KeepChecker>> checkers;
  ListFeed feed(scenario.rows);
  ListSink sink;
  const auto chat =
      scenario.chat ? std::make_shared<ChatTemplate>("", "", "", "2026-01-31") : nullptr;
  RunSource source = rig.Source(feed, sink, chat);
  for (ModelBinding& model : source.models) {
    checkers.push_back(std::make_unique<KeepChecker>(*model.engine));
    model.engine = checkers.back().get();
  }
  ExecutorOptions options = scenario.options;
  options.naive = naive;
  const StopFlag stop{0};
  ScenarioResult result;
  result.report = Executor({source}, options, rig.clock, nullptr).Run(stop);
  // In order of completion the rows are the same, in some order.
  const auto place = [](const Json& row) {
    return row["id"].is_string() ? row["id"].get<std::string>() : row["id"].dump();
  };
  if (!scenario.options.input_order) {
    std::sort(sink.rows.begin(), sink.rows.end(),
              [&](const Json& a, const Json& b) { return place(a) < place(b); });
  }
  result.rows = JoinRows(sink.rows);
  for (const auto& checker : checkers) {
    checker->ExpectAllConsumed();
    result.requests += checker->requests();
    EXPECT_EQ(checker->pending(), 0);
  }
  EXPECT_EQ(sink.rows.size(), scenario.rows.size());
  EXPECT_TRUE(sink.finished);
  EXPECT_EQ(result.report.end, RunEnd::kFinished);
  EXPECT_LE(result.report.peak_open_rows, naive ? 1 : options.window);
  ExpectAccounting(result.report, static_cast<int64_t>(scenario.rows.size()));
  return result;
}

/// What a run with a budget wrote, row by row.
std::set<std::string> PlayWithin(const Scenario& scenario, const RunBudget& budget,
                                 RunReport& report) {
  SimulatedEngineOptions engine_options;
  engine_options.sequences = scenario.sequences;
  engine_options.script = [&](const Request& request) { return Reply(scenario, request); };
  SimulatedRig rig(scenario.yaml, "random.yaml", engine_options, scenario.options.all_outputs);
  rig.Optimize(scenario.rows, ResolveColumn(rig.workflow, ""), {});
  ListFeed feed(scenario.rows);
  ListSink sink;
  const auto chat =
      scenario.chat ? std::make_shared<ChatTemplate>("", "", "", "2026-01-31") : nullptr;
  ExecutorOptions options = scenario.options;
  options.budget = budget;
  const StopFlag stop{0};
  report = Executor({rig.Source(feed, sink, chat)}, options, rig.clock, nullptr).Run(stop);
  std::set<std::string> rows;
  for (const Json& row : sink.rows) rows.insert(row.dump());
  return rows;
}

TEST(RandomDagTest, ABudgetIsKeptToAndChangesNoRowThatIsWritten) {
  int64_t stopped = 0, written = 0;
  for (uint64_t seed = 1; seed <= kScenarios / 2 && !HasFailure(); ++seed) {
    const Scenario scenario = ScenarioMaker(seed).Make();
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + scenario.yaml);
    RunReport report;
    const std::set<std::string> all = PlayWithin(scenario, {}, report);
    int64_t calls = 0, tokens = 0;
    for (const OperatorCounts& op : report.operators) {
      calls += op.calls;
      tokens += op.prompt_tokens + op.output_tokens;
    }
    RunBudget budget;
    const double share = UniformDraw(seed, 2000);
    const bool of_calls = seed % 2 == 0;
    if (of_calls) budget.calls = static_cast<int64_t>(share * static_cast<double>(calls));
    // Calls are given what they may cost at most, which is more.
    if (!of_calls) budget.tokens = static_cast<int64_t>(20.0 * share * static_cast<double>(tokens));
    const std::set<std::string> rows = PlayWithin(scenario, budget, report);
    int64_t spent_calls = 0, spent_tokens = 0;
    for (const OperatorCounts& op : report.operators) {
      spent_calls += op.calls;
      spent_tokens += op.prompt_tokens + op.output_tokens;
    }
    EXPECT_LE(of_calls ? spent_calls : spent_tokens, of_calls ? budget.calls : budget.tokens);
    EXPECT_TRUE(std::includes(all.begin(), all.end(), rows.begin(), rows.end()));
    EXPECT_EQ(report.end == RunEnd::kStopped, report.stop_cause == StopCause::kBudget);
    EXPECT_TRUE(report.end == RunEnd::kStopped || rows == all);
    stopped += report.end == RunEnd::kStopped ? 1 : 0;
    written += static_cast<int64_t>(rows.size());
  }
  EXPECT_GT(stopped, 100);
  EXPECT_GT(written, 1000);
}

TEST(RandomDagTest, RowsEqualThoseOfTheNaiveRun) {
  int64_t merged = 0, skipped = 0, nulled = 0, omitted = 0;
  int64_t failed_rows = 0;
  int64_t calls = 0;
  for (uint64_t seed = 1; seed <= kScenarios && !HasFailure(); ++seed) {
    const Scenario scenario = ScenarioMaker(seed).Make();
    SCOPED_TRACE("seed " + std::to_string(seed) + "\n" + scenario.yaml);
    const ScenarioResult naive = Play(scenario, true);
    const ScenarioResult batched = Play(scenario, false);
    EXPECT_EQ(naive.rows, batched.rows);
    // Any set of rules, another one each time.
    std::set<std::string> rules_off;
    uint64_t draw = 1000;  // none that the scenario was made of
    for (const std::string& rule : RulesOffForNaive()) {
      if (UniformDraw(seed, ++draw) < 0.5) rules_off.insert(rule);
    }
    EXPECT_EQ(naive.rows, Play(scenario, false, rules_off).rows);
    int64_t batched_merged = 0, executed = 0, ended_without_call = 0;
    for (const OperatorCounts& op : batched.report.operators) {
      batched_merged += op.merged;
      executed += op.executed;
      ended_without_call += op.skipped + op.unfinished;
      skipped += op.skipped;
      nulled += op.nulled;
    }
    for (const OperatorCounts& op : naive.report.operators) {
      EXPECT_EQ(op.merged, 0);
      executed -= op.executed;
      ended_without_call -= op.skipped + op.unfinished;
    }
    EXPECT_EQ(executed, -batched_merged - ended_without_call)
        << "what is neither merged nor left out is executed";
    omitted += ended_without_call;
    EXPECT_LE(batched.requests, naive.requests);
    merged += batched_merged;
    failed_rows += batched.report.counts.rows_failed;
    calls += batched.requests;
  }
  // The scenarios would show little if these were rare.
  EXPECT_GT(merged, 1000);
  EXPECT_GT(skipped, 500);
  EXPECT_GT(nulled, 30);
  EXPECT_GT(omitted, 40);
  EXPECT_GT(failed_rows, 200);
  EXPECT_GT(calls, 10'000);
  RecordProperty("calls", std::to_string(calls));
  RecordProperty("merged", std::to_string(merged));
  RecordProperty("failed_rows", std::to_string(failed_rows));
}

}  // namespace
}  // namespace halo::test
