// Runs that end early and go on: what the journal keeps, what is asked again, what the rows are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <sstream>

#include "runtime/executor.h"
#include "runtime/journal.h"
#include "runtime/simulated_tools.h"
#include "support/faulty_disk.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// Every kind of call: merged ones, drawn ones, several samples, a failure that is passed over.
constexpr const char* kDag = R"(start_ops: [kind, draft]
end_ops: [verdict]
ops:
  kind:    {model: m, prompt: "Which kind is it?", temperature: 0}
  draft:   {model: m, prompt: "Write.", samples: 2}
  doubt:   {model: m, prompt: "Doubt it.", input_ops: [kind, draft], on_error: "null"}
  verdict: {model: m, prompt: "Judge.", input_ops: [draft, doubt], history: outputs}
)";

std::vector<Json> ManyRows(int count) {
  std::vector<Json> rows;
  for (int i = 0; i < count; ++i) {
    rows.push_back(
        {{"id", "r" + std::to_string(i)}, {"prompt", "text number " + std::to_string(i % 25)}});
  }
  return rows;
}

/// A pure function of what is asked; one row in eleven has an operator that fails.
ScriptedReply Reply(const Request& request) {
  ScriptedReply reply;
  const int row = std::stoi(request.script_row.substr(1));
  reply.latency_us = 1000 + row % 3 * 700;
  if (request.script_operator == "doubt" && row % 11 == 3)
    reply.failure = Failure{"", "broken", "it broke", false};
  if (request.script_operator == "verdict" && row % 13 == 5)
    reply.failure = Failure{"", "broken", "it broke, too", false};
  const bool is_drawn = request.sampling.temperature > 0.0F;
  reply.text = request.script_operator + " says " + std::to_string(Hash64(request.prompt_text)) +
               " " + std::to_string(is_drawn ? request.sampling.draw_key : 0);
  return reply;
}

/// Waits for the journal after each turn, so that a run makes the same changes to the disk each
/// time, and there are many of them.
class CommitEachTurn final : public RunObserver {
 public:
  explicit CommitEachTurn(Journal& journal) : journal_(journal) {}
  void OnTurn(const RunCounts&) override {
    while (journal_.committed() < journal_.appended() && journal_.failure().empty())
      journal_.Wait(1'000'000);
  }

 private:
  Journal& journal_;
};

/// One part of a run.
struct Part {
  int64_t made = 0;  // calls that a model or a tool was asked
  bool stopped = false;
  std::string fault;
  RunReport report;
  int64_t known = 0;  // records that the journal began with
};

class DurableExecutor : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-durable-" + std::to_string(getpid());
    Clear();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Clear() const {
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  std::string out() const { return folder_ + "/out.jsonl"; }
  static std::string Content(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

  /// `with_journal` false: the undisturbed run.
  Part Run(bool with_journal = true, const std::string& vfs = "") {
    Part part;
    SimulatedEngineOptions engine;
    engine.sequences = 4;
    engine.script = [&](const Request& request) {
      ++part.made;
      return script(request);
    };
    SimulatedRig rig(yaml, "flow.yaml", engine);
    ListFeed feed = ListFeed::Of(rows);
    SimulatedToolOptions tool_options;
    tool_options.timeline = rig.timeline;
    tool_options.script = [&](const ToolCall& call) {
      ++part.made;
      return tool_script(call);
    };
    SimulatedTools tools(tool_options, rig.clock);
    ExecutorOptions options = how;
    options.tools = &tools;
    options.rows_side_by_side = 4;
    try {
      std::unique_ptr<Journal> journal;
      std::unique_ptr<CommitEachTurn> observer;
      if (with_journal) {
        journal = std::make_unique<Journal>(Journal::Options{folder_ + "/journal.db", vfs});
        observer = std::make_unique<CommitEachTurn>(*journal);
        part.known = journal->earlier();
        options.journal = journal.get();
      }
      const auto sink = OpenResultSink(out(), {"verdict"}, STDOUT_FILENO);
      part.report =
          Executor({rig.Source(feed, *sink)}, options, rig.clock, observer.get()).Run(stop);
      // A run that is ended early may have looked at one row more, to see whether any is left.
      const bool finished = part.report.end == RunEnd::kFinished;
      ExpectAccounting(part.report, finished ? static_cast<int64_t>(feed.taken()) : -1);
    } catch (const Error& error) {
      part.stopped = true;
      part.fault = error.what();
    }
    return part;
  }

  std::string folder_;
  std::string yaml = kDag;
  std::vector<Json> rows = ManyRows(50);
  std::function<ScriptedReply(const Request&)> script = Reply;
  std::function<ScriptedResult(const ToolCall&)> tool_script = [](const ToolCall&) {
    return ScriptedResult{};
  };
  ExecutorOptions how;
  StopFlag stop{0};
};

int64_t Sum(const RunReport& report, int64_t OperatorCounts::*count) {
  int64_t sum = 0;
  for (const OperatorCounts& op : report.operators) sum += op.*count;
  return sum;
}

TEST_F(DurableExecutor, JournalChangesNoRow) {
  const Part undisturbed = Run(false);
  const std::string wanted = Content(out());
  Clear();
  const Part part = Run();
  EXPECT_EQ(Content(out()), wanted);
  EXPECT_EQ(part.made, undisturbed.made);
  EXPECT_EQ(Sum(part.report, &OperatorCounts::cached), 0);
}

TEST_F(DurableExecutor, FinishedRunAsksNothingAgain) {
  const Part first = Run();
  const std::string wanted = Content(out());
  const Part again = Run();
  EXPECT_EQ(again.made, 0);
  EXPECT_EQ(Content(out()), wanted);
  EXPECT_EQ(Sum(again.report, &OperatorCounts::executed), 0);
  EXPECT_EQ(Sum(again.report, &OperatorCounts::cached),
            Sum(first.report, &OperatorCounts::executed));
  EXPECT_EQ(again.report.counts.rows_failed, first.report.counts.rows_failed);
}

TEST_F(DurableExecutor, SecondsAreThoseOfAllParts) {
  how.budget.time_us = 40'000;
  const Part first = Run();
  EXPECT_EQ(first.report.stop_cause, StopCause::kBudget);
  EXPECT_GT(first.made, 0);
  EXPECT_GE(Journal({folder_ + "/journal.db", ""}).earlier_us(), how.budget.time_us);
  const Part second = Run();
  EXPECT_EQ(second.made, 0);
  EXPECT_EQ(second.report.stop_cause, StopCause::kBudget);
  how.budget.time_us *= 2;
  EXPECT_GT(Run().made, 0);
}

/// A call that fails twice before it works has cost three, in this part and in the next one's
/// budget.
TEST_F(DurableExecutor, FailedAttemptsAreSpent) {
  yaml = R"(start_ops: [verdict]
end_ops: [verdict]
ops:
  verdict: {model: m, prompt: "Judge.", retry: {max: 5, backoff_s: 0}}
)";
  rows = ManyRows(10);
  script = [](const Request& request) {
    ScriptedReply reply = Reply(request);
    if (request.script_attempt < 2) reply.failure = Failure{"", "busy", "it was busy", true};
    return reply;
  };
  EXPECT_EQ(Run().made, 30);
  EXPECT_EQ(Journal({folder_ + "/journal.db", ""}).earlier_calls(), 30);
  how.budget.calls = 30;
  rows = ManyRows(11);
  const Part second = Run();
  EXPECT_EQ(second.made, 0);
  EXPECT_EQ(second.report.stop_cause, StopCause::kBudget);
  how.budget.calls = 33;
  EXPECT_EQ(Run().made, 3);
}

/// Stopped by a fault of the disk at every `step`-th change of the journal's files.
struct Stops {
  const char* name;
  FaultyDisk::Fault fault;
  int64_t step;
};

class DurableExecutorStops : public DurableExecutor, public testing::WithParamInterface<Stops> {};

/// Wherever the process ends: what comes of the run is the same to the byte, and no call is made
/// again but those whose outcome had not been committed.
TEST_P(DurableExecutorStops, GoesOn) {
  const Part undisturbed = Run(false);
  const std::string wanted = Content(out());
  FaultyDisk disk(GetParam().name);
  int64_t at = 0;
  for (bool reached = true; reached; at += GetParam().step) {
    SCOPED_TRACE("at change " + std::to_string(at));
    Clear();
    disk.Arm(GetParam().fault, at);
    const Part first = Run(true, disk.name());
    reached = first.stopped;
    disk.Arm(FaultyDisk::Fault::kNone, 0);
    if (std::filesystem::exists(out())) {
      ASSERT_EQ(Content(out()), wanted);
    }
    const Part second = Run(true, disk.name());
    ASSERT_FALSE(second.stopped) << second.fault;
    ASSERT_EQ(Content(out()), wanted);
    const int64_t extra = first.made + second.made - undisturbed.made;
    ASSERT_LE(extra, first.made - second.known) << "a committed call was made again";
    // Those that ran, and those whose outcome came in the same turn.
    ASSERT_LE(extra, 8);
  }
  EXPECT_GT(at, 300) << "there are that many places to stop at";
}

INSTANTIATE_TEST_SUITE_P(Faults, DurableExecutorStops,
                         testing::Values(Stops{"Stop", FaultyDisk::Fault::kStop, 1},
                                         Stops{"Torn", FaultyDisk::Fault::kTorn, 5},
                                         Stops{"PowerLoss", FaultyDisk::Fault::kPowerLoss, 5},
                                         Stops{"NoSpace", FaultyDisk::Fault::kNoSpace, 5}),
                         [](const testing::TestParamInfo<Stops>& stops) {
                           return std::string(stops.param.name);
                         });

TEST_F(DurableExecutor, StoppedAgainAndAgain) {
  const Part undisturbed = Run(false);
  const std::string wanted = Content(out());
  Clear();
  FaultyDisk disk("again-and-again");
  int parts = 0;
  for (Part part{0, true, "", {}, 0}; part.stopped; ++parts) {
    ASSERT_LT(parts, 1000);
    disk.Arm(FaultyDisk::Fault::kPowerLoss, 40);
    part = Run(true, disk.name());
  }
  EXPECT_EQ(Content(out()), wanted);
  EXPECT_GT(parts, 5);
}

TEST_F(DurableExecutor, PublishedRowsAreCommitted) {
  FaultyDisk disk("published");
  disk.Arm(FaultyDisk::Fault::kPowerLoss, 150);
  ASSERT_TRUE(Run(true, disk.name()).stopped);
  const std::string part = Content(out() + ".part");
  disk.Arm(FaultyDisk::Fault::kNone, 0);
  ASSERT_FALSE(part.empty());
  EXPECT_EQ(part.back(), '\n') << "whole lines only";
  // Nothing is asked of a model for the rows that were there.
  const auto published = std::count(part.begin(), part.end(), '\n');
  std::map<std::string, int> asked;
  script = [&](const Request& request) {
    ++asked[request.script_row];
    return Reply(request);
  };
  ASSERT_FALSE(Run(true, disk.name()).stopped);
  for (int row = 0; row < published; ++row) EXPECT_FALSE(asked.contains("r" + std::to_string(row)));
  EXPECT_TRUE(Content(out()).starts_with(part));
}

TEST_F(DurableExecutor, SignalThenResume) {
  Run(false);
  const std::string wanted = Content(out());
  Clear();
  int asked = 0;
  script = [&](const Request& request) {
    if (++asked == 60) stop = 1;
    return Reply(request);
  };
  const Part first = Run();
  EXPECT_EQ(first.report.end, RunEnd::kInterrupted);
  EXPECT_GT(first.report.rows_unfinished, 0);
  stop = 0;
  const Part second = Run();
  EXPECT_EQ(Content(out()), wanted);
  EXPECT_EQ(second.known, first.made) << "what ran was finished, and is kept";
}

/// An answer that does not fit is repaired by the second question.
constexpr const char* kRepaired = R"(start_ops: [verdict]
end_ops: [verdict]
ops:
  verdict: {model: m, prompt: "Judge.", repair: 1, schema: {gbnf: 'root ::= "good"'}}
)";

TEST_F(DurableExecutor, ARepairThatTheBudgetHasNoRoomForIsLeftForLater) {
  yaml = kRepaired;
  rows = ManyRows(1);
  script = [](const Request& request) {
    return ScriptedReply{request.script_attempt == 0 ? "bad" : "good", 1000,
                         FinishReason::kEndToken, std::nullopt};
  };
  how.budget.calls = 1;
  EXPECT_EQ(Run().made, 1);
  const Part second = Run();
  EXPECT_EQ(second.made, 0) << "its first answer is known";
  EXPECT_EQ(second.report.stop_cause, StopCause::kBudget);
  EXPECT_EQ(second.report.rows_unfinished, 1);
  how.budget.calls = 2;
  const Part third = Run();
  EXPECT_EQ(third.made, 1);
  EXPECT_EQ(third.report.counts.rows_ok, 1);
}

TEST_F(DurableExecutor, ARepairThatWasNotAskedBeforeTheRunStoppedIsAskedByTheNextOne) {
  yaml = kRepaired;
  rows = ManyRows(1);
  script = [&](const Request& request) {
    if (request.script_attempt == 0) stop = 1;
    return ScriptedReply{request.script_attempt == 0 ? "bad" : "good", 1000,
                         FinishReason::kEndToken, std::nullopt};
  };
  EXPECT_EQ(Run().made, 1);
  stop = 0;
  const Part second = Run();
  EXPECT_EQ(second.made, 1);
  EXPECT_EQ(second.report.counts.rows_ok, 1);
}

TEST_F(DurableExecutor, FailuresStayUntilTheyAreTriedAgain) {
  const Part first = Run();
  const std::string with_failures = Content(out());
  ASSERT_GT(first.report.counts.rows_failed, 0);
  // What was wrong is mended.
  script = [](const Request& request) {
    ScriptedReply reply = Reply(request);
    reply.failure.reset();
    return reply;
  };
  EXPECT_EQ(Run().made, 0);
  EXPECT_EQ(Content(out()), with_failures);
  how.tries_again = [](size_t, int64_t row) { return row % 13 == 5; };
  const Part retry = Run();
  EXPECT_EQ(retry.made, first.report.counts.rows_failed);
  EXPECT_EQ(retry.report.counts.rows_failed, 0);
  how.tries_again = nullptr;
  EXPECT_EQ(Run().made, 0) << "what came of it counts from then on";
}

TEST_F(DurableExecutor, ChangedPromptAsksAgainWhatItReaches) {
  Run();
  yaml.replace(yaml.find("Doubt it."), 9, "Doubt all.");
  const Part part = Run();
  std::map<std::string, int64_t> executed, cached;
  for (const OperatorCounts& op : part.report.operators) {
    executed[op.id] = op.executed;
    cached[op.id] = op.cached;
  }
  EXPECT_EQ(executed["kind"], 0);
  EXPECT_EQ(executed["draft"], 0);
  EXPECT_EQ(executed["doubt"], 50);
  // It shows nothing of a doubt that has failed, then as before.
  EXPECT_EQ(executed["verdict"], 45);
  EXPECT_EQ(cached["verdict"], 5);
}

TEST_F(DurableExecutor, ChangedRowAsksAgainForItself) {
  Run();
  rows[7]["prompt"] = "another text";
  const Part part = Run();
  EXPECT_EQ(part.made, 5) << "its kind, two drafts, a doubt and a verdict";
  const std::string after = Content(out());
  Clear();
  Run(false);
  EXPECT_EQ(after, Content(out()));
}

TEST_F(DurableExecutor, RowsInOrderOfCompletion) {
  how.input_order = false;
  Run(false);
  const std::string wanted = Content(out());
  Clear();
  FaultyDisk disk("completion");
  disk.Arm(FaultyDisk::Fault::kStop, 100);
  ASSERT_TRUE(Run(true, disk.name()).stopped);
  disk.Arm(FaultyDisk::Fault::kNone, 0);
  ASSERT_FALSE(Run(true, disk.name()).stopped);
  const auto sorted = [](const std::string& text) {
    std::istringstream stream(text);
    std::set<std::string> lines;
    for (std::string line; std::getline(stream, line);) lines.insert(line);
    return lines;
  };
  EXPECT_EQ(sorted(Content(out())), sorted(wanted));
}

TEST_F(DurableExecutor, NaiveRunsGoOnToo) {
  how.naive = true;
  rows = ManyRows(6);
  const Part undisturbed = Run(false);
  const std::string wanted = Content(out());
  Clear();
  FaultyDisk disk("naive");
  disk.Arm(FaultyDisk::Fault::kStop, 40);
  const Part first = Run(true, disk.name());
  ASSERT_TRUE(first.stopped);
  disk.Arm(FaultyDisk::Fault::kNone, 0);
  const Part second = Run(true, disk.name());
  EXPECT_EQ(Content(out()), wanted);
  // One whose record could not be written, and one that was made before that was noticed.
  EXPECT_LE(first.made + second.made, undisturbed.made + 2);
}

// Tools

constexpr const char* kWriting = R"(graph:
  allow_hosts: [example.org]
  nodes:
    - {id: in, type: input, outputs: [q]}
    - {id: look, type: http, url: "http://example.org/{{ q }}", coalesce: true, outputs: [seen]}
    - {id: tell, type: http, method: POST, url: "http://example.org/{{ q }}", IDEMPOTENT params: {seen: "{{ seen }}"}, outputs: [told]}
)";

std::string Writing(const std::string& idempotent) {
  std::string text = kWriting;
  const std::string mark = "IDEMPOTENT ";
  return text.replace(text.find(mark), mark.size(), idempotent);
}

std::vector<Json> Questions() {
  std::vector<Json> rows;
  for (int i = 0; i < 12; ++i)
    rows.push_back({{"id", "r" + std::to_string(i)}, {"q", "q" + std::to_string(i % 3)}});
  return rows;
}

/// A write begins when the journal says so, and never twice.
TEST_F(DurableExecutor, WriteOfUnknownOutcomeIsNotRepeated) {
  yaml = Writing("");
  rows = Questions();
  std::map<std::string, int> told;
  tool_script = [&](const ToolCall& call) {
    ScriptedResult result;
    result.latency_us = 1000;
    result.value = call.script_operator + call.script_row;
    if (call.script_operator == "tell") ++told[call.script_row];
    return result;
  };
  FaultyDisk disk("writes");
  int unknown = 0;
  int64_t at = 0;
  for (bool reached = true; reached; ++at) {
    Clear();
    told.clear();
    disk.Arm(FaultyDisk::Fault::kPowerLoss, at);
    reached = Run(true, disk.name()).stopped;
    disk.Arm(FaultyDisk::Fault::kNone, 0);
    const Part second = Run(true, disk.name());
    ASSERT_FALSE(second.stopped) << second.fault;
    for (const auto& [row, times] : told) ASSERT_EQ(times, 1) << row << ", stopped at " << at;
    const int64_t failed = second.report.counts.rows_failed;
    if (failed > 0) {
      EXPECT_THAT(Content(out()), HasSubstr("write_unknown"));
    }
    unknown += static_cast<int>(failed);
    EXPECT_EQ(Run(true, disk.name()).report.counts.rows_failed, failed) << "it stays unknown";
    how.tries_again = [](size_t, int64_t) { return true; };
    EXPECT_EQ(Run(true, disk.name()).report.counts.rows_failed, 0) << "until somebody decides";
    how.tries_again = nullptr;
  }
  EXPECT_GT(unknown, 0);
}

TEST_F(DurableExecutor, IdempotentWriteIsRepeatedWithItsKey) {
  yaml = Writing("idempotent: true, ");
  rows = Questions();
  how.run_id = "a-run";
  std::map<std::string, std::set<std::string>> keys;
  tool_script = [&](const ToolCall& call) {
    ScriptedResult result;
    result.latency_us = 1000;
    result.value = call.script_operator;
    for (const HttpHeader& header : std::get<HttpCall>(call.what).headers) {
      if (header.name == "Idempotency-Key") keys[call.script_row].insert(header.value);
    }
    return result;
  };
  FaultyDisk disk("idempotent");
  int64_t repeated = 0;
  int64_t at = 0;
  for (bool reached = true; reached; ++at) {
    Clear();
    disk.Arm(FaultyDisk::Fault::kStop, at);
    const Part first = Run(true, disk.name());
    reached = first.stopped;
    disk.Arm(FaultyDisk::Fault::kNone, 0);
    const Part second = Run(true, disk.name());
    EXPECT_EQ(second.report.counts.rows_failed, 0);
    repeated += first.made + second.made - 15;
  }
  EXPECT_GT(repeated, 0);
  EXPECT_EQ(keys.size(), 12U);
  std::set<std::string> all;
  for (const auto& [row, of_row] : keys) {
    EXPECT_EQ(of_row.size(), 1U) << row;
    all.insert(of_row.begin(), of_row.end());
  }
  EXPECT_EQ(all.size(), 12U);
}

}  // namespace
}  // namespace halo::test
