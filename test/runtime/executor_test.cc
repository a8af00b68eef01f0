#include "runtime/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "support/simulated_run.h"

namespace halo::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* kOne = "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m}\n";
constexpr const char* kOneGreedy =
    "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, temperature: 0}\n";
constexpr const char* kChain =
    "start_ops: [a]\nend_ops: [b]\nops:\n  a: {model: m, prompt: A}\n  b: {model: m, prompt: B, "
    "input_ops: [a]}\n";
constexpr const char* kTwo =
    "start_ops: [a, b]\nend_ops: [a, b]\nops:\n  a: {model: m}\n  b: {model: m}\n";

std::vector<Json> Prompts(int count, const std::string& text = "p") {
  std::vector<Json> rows;
  for (int i = 0; i < count; ++i) rows.push_back({{"prompt", text}});
  return rows;
}

SimulatedEngineOptions Latency(int64_t latency_us, int32_t sequences = 64) {
  SimulatedEngineOptions options;
  options.sequences = sequences;
  options.script = [latency_us](const Request& request) {
    ScriptedReply reply;
    reply.text = request.script_operator + ":" + request.script_row;
    reply.latency_us = latency_us;
    return reply;
  };
  return options;
}

std::vector<std::string> Statuses(const ListSink& sink) {
  std::vector<std::string> statuses;
  for (const Json& row : sink.rows) {
    statuses.push_back(row["error"].is_null() ? "ok" : row["error"]["code"].get<std::string>());
  }
  return statuses;
}

RunReport RunSources(std::vector<RunSource> sources, Clock& clock, ExecutorOptions options = {},
                     RunObserver* observer = nullptr) {
  const StopFlag stop{0};
  return Executor(std::move(sources), options, clock, observer).Run(stop);
}

/// Steps of an open source: "." nothing yet, "r" a row; at the end it closes.
class OpenFeed final : public RowFeed {
 public:
  explicit OpenFeed(std::string steps) : steps_(std::move(steps)) {}
  Pull Next(Row& row) override {
    if (step_ == steps_.size()) return Pull::kClosed;
    if (steps_[step_++] == '.') return Pull::kNothingYet;
    row = MakeTestRow(rows_++, {{"prompt", "p"}});
    return Pull::kRow;
  }

 private:
  std::string steps_;
  size_t step_ = 0;
  int64_t rows_ = 0;
};

TEST(ExecutorTest, AnOpenSourceGivesRowsWhenItHasThem) {
  SimulatedRig rig(kChain, "f", Latency(1000));
  OpenFeed feed("..r.rr....r..");
  ListSink sink;
  const RunReport report = RunSources({rig.Source(feed, sink)}, rig.clock);
  EXPECT_EQ(report.end, RunEnd::kFinished);
  EXPECT_TRUE(sink.finished);
  EXPECT_THAT(Statuses(sink), ElementsAre("ok", "ok", "ok", "ok"));
  ExpectAccounting(report, 4);
}

TEST(ExecutorTest, AnOpenSourceDoesNotHoldAnotherUp) {
  SimulatedRig rig(kOne, "f", Latency(1000));
  OpenFeed slow("..........r");
  ListFeed quick = ListFeed::Of(Prompts(2));
  ListSink slow_sink, quick_sink;
  const RunReport report =
      RunSources({rig.Source(slow, slow_sink), rig.Source(quick, quick_sink)}, rig.clock);
  EXPECT_THAT(Statuses(slow_sink), ElementsAre("ok"));
  EXPECT_THAT(Statuses(quick_sink), ElementsAre("ok", "ok"));
  ExpectAccounting(report, 3);
  ASSERT_EQ(report.operators.size(), 2U);
  EXPECT_EQ(report.operators[0].executed, 1);
  EXPECT_EQ(report.operators[1].executed, 2);
  EXPECT_EQ(report.operators[1].source, 1U);
}

TEST(ExecutorTest, SourcesShareEnginesByPriority) {
  std::vector<std::string> started;
  SimulatedEngineOptions options = Latency(1000, 1);
  options.script = [&](const Request& request) {
    started.push_back(request.script_row);
    return ScriptedReply{"x", 1000, FinishReason::kEndToken, std::nullopt};
  };
  SimulatedRig rig(kOne, "f", options);
  const auto named = [](const std::string& name) {
    std::vector<Json> rows;
    for (int i = 0; i < 3; ++i) rows.push_back({{"id", name + std::to_string(i)}, {"prompt", "p"}});
    return ListFeed::Of(rows);
  };
  ListFeed low = named("low"), high = named("high"), middle = named("middle");
  ListSink low_sink, high_sink, middle_sink;
  std::vector<RunSource> sources = {rig.Source(low, low_sink), rig.Source(high, high_sink),
                                    rig.Source(middle, middle_sink)};
  sources[0].priority = -1;
  sources[1].priority = 5;
  sources[2].priority = 2;
  const RunReport report = RunSources(sources, rig.clock);
  // The engine has one place, so a few of the first rows are opened before the others are known;
  // within what is open the priority decides.
  EXPECT_EQ(started.size(), 9U);
  const auto place = [&](const std::string& row) {
    return std::find(started.begin(), started.end(), row) - started.begin();
  };
  EXPECT_LT(place("high2"), place("middle2"));
  EXPECT_LT(place("middle2"), place("low2"));
  EXPECT_EQ(started[0], "high0");
  EXPECT_EQ(started[8], "low2");
  EXPECT_EQ(report.counts.rows_ok, 9);
}

TEST(ExecutorTest, RowsOfHigherPriorityGoFirst) {
  std::vector<std::string> started;
  SimulatedEngineOptions options = Latency(1000, 1);
  options.script = [&](const Request& request) {
    started.push_back(request.script_row);
    return ScriptedReply{"x", 1000, FinishReason::kEndToken, std::nullopt};
  };
  SimulatedRig rig(kChain, "f", options);
  /// Each row has the next of these priorities.
  class PriorityFeed final : public RowFeed {
   public:
    Pull Next(Row& row) override {
      constexpr int32_t kPriorities[] = {0, 0, 3, -1, 3};
      if (rows_ == std::size(kPriorities)) return Pull::kClosed;
      row = MakeTestRow(static_cast<int64_t>(rows_), {{"prompt", "p"}});
      row.priority = kPriorities[rows_++];
      return Pull::kRow;
    }

   private:
    size_t rows_ = 0;
  };
  PriorityFeed feed;
  ListSink sink;
  ExecutorOptions how;
  how.rows_side_by_side = 8;
  RunSources({rig.Source(feed, sink)}, rig.clock, how);
  // Three calls wait in the engine besides the one that runs, so that four rows are there at first.
  // What is open goes by priority, then by operator.
  EXPECT_EQ(sink.rows.size(), 5U);
  const auto first = [&](const std::string& row) {
    return std::find(started.begin(), started.end(), row) - started.begin();
  };
  const auto last = [&](const std::string& row) {
    return started.rend() - std::find(started.rbegin(), started.rend(), row);
  };
  EXPECT_LT(last("2"), first("1"));
  EXPECT_LT(last("4"), last("0"));
  EXPECT_EQ(last("3"), static_cast<int64_t>(started.size()));
}

/// Calls back on events of a run.
class Observer final : public RunObserver {
 public:
  std::function<void(const CallRecord&)> on_call = [](const CallRecord&) {};
  std::function<void(size_t, const RowResult&)> on_row = [](size_t, const RowResult&) {};
  void OnCall(const CallRecord& call) override { on_call(call); }
  void OnRow(size_t source, const RowResult& row) override { on_row(source, row); }
};

/// A chain over rows of which row 1's first call takes long; `at` cancels rows when row 0's first
/// call has ended.
struct CancelRig {
  explicit CancelRig(const char* yaml, std::vector<int64_t> cancelled,
                     const std::string& prompt_of_others = "p")
      : rig(yaml, "f", Options()), feed(ListFeed::Of(Rows(prompt_of_others))) {
    observer.on_call = [this, cancelled](const CallRecord& call) {
      if (call.row.index == 0 && call.op.id == "a") {
        for (const int64_t row : cancelled) executor->CancelRow(0, row);
      }
    };
    executor = std::make_unique<Executor>(std::vector<RunSource>{rig.Source(feed, sink)},
                                          ExecutorOptions{}, rig.clock, &observer);
  }
  static std::vector<Json> Rows(const std::string& prompt_of_others) {
    return {{{"prompt", "quick"}},
            {{"prompt", "slow"}},
            {{"prompt", prompt_of_others}},
            {{"prompt", prompt_of_others}}};
  }
  static SimulatedEngineOptions Options() {
    SimulatedEngineOptions options;
    options.script = [](const Request& request) {
      const bool slow = request.prompt_text.find("slow") != std::string::npos;
      return ScriptedReply{"done", slow ? 90'000 : 1'000, FinishReason::kEndToken, std::nullopt};
    };
    return options;
  }
  RunReport Run() {
    const StopFlag stop{0};
    return executor->Run(stop);
  }

  SimulatedRig rig;
  ListFeed feed;
  ListSink sink;
  Observer observer;
  std::unique_ptr<Executor> executor;
};

TEST(ExecutorTest, CancelRowEndsItsCallsAndNothingElse) {
  CancelRig rig(kChain, {1, 77});
  const RunReport report = rig.Run();
  EXPECT_THAT(Statuses(rig.sink), ElementsAre("ok", "cancelled", "ok", "ok"));
  EXPECT_LT(rig.rig.clock.NowUs(), 90'000);  // the slow call was not waited for
  EXPECT_EQ(report.end, RunEnd::kFinished);
  EXPECT_EQ(report.operators[0].failed, 1);
  EXPECT_EQ(report.operators[1].unfinished, 1);
  ExpectAccounting(report, 4);
}

TEST(ExecutorTest, CancelRowOfAnEndedOrUnknownRowDoesNothing) {
  CancelRig rig(kOne, {5, -1});
  EXPECT_EQ(rig.Run().counts.rows_ok, 4);
}

TEST(ExecutorTest, ACancelledRowFailsEvenIfOthersWantItsAnswer) {
  // Rows 1 to 3 share one greedy call; it goes on for those who are left.
  CancelRig rig(kOneGreedy, {1, 3}, "slow");
  const RunReport report = rig.Run();
  EXPECT_THAT(Statuses(rig.sink), ElementsAre("ok", "cancelled", "ok", "cancelled"));
  EXPECT_EQ(report.operators[0].executed, 2);
  EXPECT_EQ(report.operators[0].merged, 2);
  ExpectAccounting(report, 4);
}

TEST(ExecutorTest, ARowThatComesAfterACancellationMakesTheCallAnew) {
  // Row 1 gives up the only call for "slow" in the moment in which row 2, with the same prompt,
  // comes in.
  SimulatedRig rig(kOneGreedy, "f", CancelRig::Options());
  class Feed final : public RowFeed {
   public:
    Pull Next(Row& row) override {
      if (next == 2 && !cancelled) return Pull::kNothingYet;
      if (next == 3) return Pull::kClosed;
      row = MakeTestRow(next, {{"prompt", next == 0 ? "quick" : "slow"}});
      ++next;
      return Pull::kRow;
    }
    int64_t next = 0;
    bool cancelled = false;
  } feed;
  ListSink sink;
  Observer observer;
  Executor executor({rig.Source(feed, sink)}, {}, rig.clock, &observer);
  observer.on_call = [&](const CallRecord& call) {
    if (call.row.index != 0) return;
    executor.CancelRow(0, 1);
    feed.cancelled = true;
  };
  const StopFlag stop{0};
  const RunReport report = executor.Run(stop);
  EXPECT_THAT(Statuses(sink), ElementsAre("ok", "cancelled", "ok"));
  ExpectAccounting(report, 3);
}

/// A model that is busy, and tried again after a minute.
constexpr const char* kPatient =
    "start_ops: [a]\nend_ops: [a]\nops:\n"
    "  a: {model: m, temperature: 0, retry: {max: 5, backoff_s: 60}}\n";

SimulatedEngineOptions Busy(int32_t attempts) {
  SimulatedEngineOptions options = Latency(1000);
  options.script = [attempts](const Request& request) {
    ScriptedReply reply{"said", 1000, FinishReason::kEndToken, std::nullopt};
    if (request.script_attempt < attempts) reply.failure = Failure{"", "busy", "it was busy", true};
    return reply;
  };
  return options;
}

TEST(ExecutorTest, NoCallIsTriedAgainForARowThatWillBeOverByThen) {
  SimulatedRig rig(kPatient, "f", Busy(1));
  ListFeed hasty = ListFeed::Of(Prompts(1)), patient = ListFeed::Of(Prompts(1));
  ListSink hasty_sink, patient_sink;
  std::vector<RunSource> sources = {rig.Source(hasty, hasty_sink),
                                    rig.Source(patient, patient_sink)};
  sources[0].row_timeout_us = 5'000'000;
  const int64_t start_us = rig.clock.NowUs();
  const RunReport report = RunSources(sources, rig.clock);
  EXPECT_THAT(Statuses(hasty_sink), ElementsAre("busy"));
  EXPECT_THAT(Statuses(patient_sink), ElementsAre("ok")) << "who waits with it asks anew";
  EXPECT_LT(rig.clock.NowUs() - start_us, 70'000'000);
  ExpectAccounting(report, 2);
}

TEST(ExecutorTest, ACancelledRowDoesNotWaitForItsRetry) {
  SimulatedRig rig(kPatient, "f", Busy(5));
  ListFeed feed = ListFeed::Of(Prompts(1));
  ListSink sink;
  StopFlag stop{0};
  Executor* running = nullptr;
  class CancelAfterAttempt final : public RunObserver {
   public:
    explicit CancelAfterAttempt(Executor*& executor) : executor_(executor) {}
    void OnTurn(const RunCounts& counts) override {
      if (counts.calls_done > 0) executor_->CancelRow(0, 0);
    }

   private:
    Executor*& executor_;
  } observer(running);
  Executor executor({rig.Source(feed, sink)}, {}, rig.clock, &observer);
  running = &executor;
  const int64_t start_us = rig.clock.NowUs();
  const RunReport report = executor.Run(stop);
  EXPECT_THAT(Statuses(sink), ElementsAre("cancelled"));
  EXPECT_LT(rig.clock.NowUs() - start_us, 60'000'000);
  ExpectAccounting(report, 1);
}

TEST(ExecutorTest, ADeadlineOfOneRowIsNotThatOfThoseThatMergedWithIt) {
  SimulatedRig rig(kOneGreedy, "f", Latency(500'000));
  ListFeed hasty = ListFeed::Of(Prompts(2)), patient = ListFeed::Of(Prompts(2));
  ListSink hasty_sink, patient_sink;
  std::vector<RunSource> sources = {rig.Source(hasty, hasty_sink),
                                    rig.Source(patient, patient_sink)};
  sources[0].row_timeout_us = 100'000;
  const RunReport report = RunSources(sources, rig.clock);
  EXPECT_THAT(Statuses(hasty_sink), ElementsAre("deadline", "deadline"));
  EXPECT_THAT(Statuses(patient_sink), ElementsAre("ok", "ok"));
  ExpectAccounting(report, 4);
}

TEST(ExecutorTest, ACallMadeAnewForThoseWhoWaitAsksTheSame) {
  SimulatedEngineOptions options;
  options.script = [](const Request& request) {
    ScriptedReply reply;
    reply.text = "by '" + request.adapter + "', at most " +
                 std::to_string(request.sampling.max_tokens) + " tokens";
    reply.latency_us = 500'000;
    return reply;
  };
  SimulatedRig rig(
      "start_ops: [a]\nend_ops: [a]\nops:\n"
      "  a: {model: m, temperature: 0, max_tokens: 7, lora_config: {file: x}}\n",
      "f", options);
  ListFeed hasty = ListFeed::Of(Prompts(1)), patient = ListFeed::Of(Prompts(1));
  ListSink hasty_sink, patient_sink;
  std::vector<RunSource> sources = {rig.Source(hasty, hasty_sink),
                                    rig.Source(patient, patient_sink)};
  sources[0].row_timeout_us = 100'000;
  const RunReport report = RunSources(sources, rig.clock);
  EXPECT_THAT(Statuses(hasty_sink), ElementsAre("deadline"));
  EXPECT_EQ(patient_sink.rows.at(0)["outputs"]["a"], "by 'x:1.000000', at most 7 tokens");
  ExpectAccounting(report, 2);
}

/// Raises the stop flag when the `when`-th call starts.
struct StopRig {
  StopRig(int64_t when, int level, int rows, int32_t sequences)
      : rig(kChain, "f", Options(when, level, sequences)), feed(ListFeed::Of(Prompts(rows))) {}
  SimulatedEngineOptions Options(int64_t when, int level, int32_t sequences) {
    SimulatedEngineOptions options = Latency(1000, sequences);
    options.script = [this, when, level](const Request& request) {
      if (++calls == when) stop = level;
      return ScriptedReply{request.script_operator, 1000, FinishReason::kEndToken, std::nullopt};
    };
    return options;
  }
  RunReport Run() { return Executor({rig.Source(feed, sink)}, {}, rig.clock, nullptr).Run(stop); }

  int64_t calls = 0;
  StopFlag stop{0};
  SimulatedRig rig;
  ListFeed feed;
  ListSink sink;
};

TEST(ExecutorTest, OneStopSignalDrains) {
  StopRig rig(5, 1, 10, 2);
  const RunReport report = rig.Run();
  EXPECT_EQ(report.end, RunEnd::kInterrupted);
  EXPECT_FALSE(rig.sink.finished);
  EXPECT_GT(rig.sink.flushes, 0);
  EXPECT_EQ(rig.rig.engines[0]->pending(), 0);  // what ran was finished
  EXPECT_EQ(report.counts.calls_done, rig.calls);
  EXPECT_GT(report.rows_unfinished, 0);
  EXPECT_LE(rig.calls, 6);  // two run at once; what had not begun is given up
  ExpectAccounting(report);
  for (const Json& row : rig.sink.rows) EXPECT_EQ(row["status"], "ok");
}

TEST(ExecutorTest, ASecondStopSignalAborts) {
  StopRig rig(5, 2, 10, 2);
  const RunReport report = rig.Run();
  EXPECT_EQ(report.end, RunEnd::kInterrupted);
  EXPECT_FALSE(rig.sink.finished);
  EXPECT_LE(rig.calls, 6);
  ExpectAccounting(report);
  int64_t unfinished = 0;
  for (const OperatorCounts& op : report.operators) unfinished += op.unfinished;
  EXPECT_GT(unfinished, 0);
}

TEST(ExecutorTest, StoppedBeforeItBeginsItDoesNothing) {
  for (const int level : {1, 2}) {
    StopRig rig(-1, 0, 3, 2);
    rig.stop = level;
    const RunReport report = rig.Run();
    EXPECT_EQ(report.end, RunEnd::kInterrupted);
    EXPECT_EQ(rig.calls, 0);
    EXPECT_EQ(rig.feed.taken(), 0U);
    ExpectAccounting(report, 0);
  }
}

TEST(ExecutorTest, ASourceThatStaysOpenEndsWithAStopSignal) {
  SimulatedRig rig(kOne, "f", Latency(1000));
  class NeverClosed final : public RowFeed {
   public:
    explicit NeverClosed(StopFlag& stop) : stop_(stop) {}
    Pull Next(Row&) override {
      if (++asked_ == 10) stop_ = 1;
      return Pull::kNothingYet;
    }

   private:
    StopFlag& stop_;
    int asked_ = 0;
  };
  StopFlag stop{0};
  NeverClosed feed(stop);
  ListSink sink;
  EXPECT_EQ(Executor({rig.Source(feed, sink)}, {}, rig.clock, nullptr).Run(stop).end,
            RunEnd::kInterrupted);
}

TEST(ExecutorTest, AnIdleSourceIsWaitedForAndNotAskedWithoutEnd) {
  SimulatedRig rig(kOne, "f", Latency(1000));
  class Slow final : public RowFeed {
   public:
    Pull Next(Row& row) override {
      ++asked;
      if (waits < 3) return Pull::kNothingYet;
      if (given) return Pull::kClosed;
      given = true;
      row = MakeTestRow(0, {{"prompt", "p"}});
      return Pull::kRow;
    }
    void Wait(int64_t most_us) override {
      EXPECT_GT(most_us, 0);
      ++waits;
    }
    int asked = 0, waits = 0;
    bool given = false;
  } feed;
  ListSink sink;
  EXPECT_EQ(RunSources({rig.Source(feed, sink)}, rig.clock).end, RunEnd::kFinished);
  EXPECT_EQ(feed.waits, 3);
  EXPECT_LE(feed.asked, 3 + 3);
}

TEST(ExecutorTest, EachSourceHasAWindowOfItsOwn) {
  // The first row of one source takes longer than all the others of both together.
  SimulatedEngineOptions engine = Latency(1000, 4);
  engine.script = [](const Request& request) {
    const bool straggler = request.script_row == "slow";
    return ScriptedReply{"f", straggler ? 1'000'000 : 1000, FinishReason::kEndToken, std::nullopt};
  };
  SimulatedRig rig(kOne, "f", engine);
  ListFeed held =
      ListFeed::Of({{{"id", "slow"}, {"prompt", "p"}}, {{"prompt", "q"}}, {{"prompt", "r"}}});
  ListFeed free = ListFeed::Of(Prompts(20));
  ListSink held_sink, free_sink;
  size_t free_rows_before_straggler = 0;
  Observer observer;
  observer.on_call = [&](const CallRecord& call) {
    if (call.request.script_row == "slow") free_rows_before_straggler = free_sink.rows.size();
  };
  ExecutorOptions options;
  options.window = 4;
  RunSources({rig.Source(held, held_sink), rig.Source(free, free_sink)}, rig.clock, options,
             &observer);
  EXPECT_EQ(free_rows_before_straggler, 20U);
  EXPECT_EQ(held_sink.rows.size(), 3U);
}

TEST(ExecutorTest, RowsSideBySideGoOperatorByOperator) {
  std::vector<std::string> started;
  SimulatedEngineOptions engine = Latency(1000, 1);
  engine.script = [&started](const Request& request) {
    started.push_back(request.script_operator + request.script_row);
    return ScriptedReply{"f", 1000, FinishReason::kEndToken, std::nullopt};
  };
  SimulatedRig rig(kTwo, "f", engine);
  ListFeed feed = ListFeed::Of(Prompts(4));
  ListSink sink;
  ExecutorOptions options;
  options.rows_side_by_side = 2;
  RunSources({rig.Source(feed, sink)}, rig.clock, options);
  EXPECT_THAT(started, ElementsAre("a0", "a1", "b0", "b1", "a2", "a3", "b2", "b3"));
}

TEST(ExecutorTest, AFullDiskEndsTheRunWithTheSinksError) {
  class FullSink final : public ResultSink {
   public:
    void Write(const RowResult& row) override {
      if (row.index == 2)
        throw Error(ErrorCode::kIo, "out.jsonl.part: cannot write: no space left");
    }
    void Finish() override { finished = true; }
    void Flush() override {}
    bool finished = false;
  };
  SimulatedRig rig(kChain, "f", Latency(1000));
  ListFeed feed = ListFeed::Of(Prompts(5));
  FullSink sink;
  try {
    RunSources({rig.Source(feed, sink)}, rig.clock);
    FAIL() << "the error was lost";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("no space left"));
  }
  EXPECT_FALSE(sink.finished);
}

TEST(ExecutorTest, ASourceThatCannotBeReadEndsTheRunWithItsError) {
  class BrokenFeed final : public RowFeed {
   public:
    Pull Next(Row& row) override {
      if (++asked_ == 3) throw Error(ErrorCode::kIo, "rows.jsonl: cannot read");
      row = MakeTestRow(asked_ - 1, {{"prompt", "p"}});
      return Pull::kRow;
    }

   private:
    int asked_ = 0;
  };
  SimulatedRig rig(kChain, "f", Latency(1000));
  BrokenFeed feed;
  ListSink sink;
  EXPECT_THROW(RunSources({rig.Source(feed, sink)}, rig.clock), Error);
}

TEST(ExecutorTest, AFewFailuresAmongFewRowsAreNoShareYet) {
  SimulatedEngineOptions engine = Latency(1000, 1);
  engine.script = [](const Request& request) {
    ScriptedReply reply;
    reply.latency_us = 1000;
    if (request.script_row == "1" || request.script_row.size() > 1)
      reply.failure = Failure{"", "no", "no", false};
    return reply;
  };
  SimulatedRig rig(kOne, "f", engine);
  ListFeed feed = ListFeed::Of(Prompts(200));
  ListSink sink;
  ExecutorOptions options;
  options.max_failures_share = 0.5;
  const RunReport report = RunSources({rig.Source(feed, sink)}, rig.clock, options);
  // 9 of the rows 0 to 9 are ok, all others fail; the share is looked at from 20 rows on.
  EXPECT_EQ(report.end, RunEnd::kStopped);
  EXPECT_GE(report.counts.rows_failed, 11);
  EXPECT_LE(report.counts.rows_failed, 15);
  EXPECT_EQ(report.counts.rows_ok, 9);
  ExpectAccounting(report);
}

TEST(ExecutorTest, DrawKeysDependOnPlaceAndSeedOnly) {
  constexpr const char* kDraws =
      "start_ops: [a, b, c]\nend_ops: [a, b, c]\nops:\n  a: {model: m}\n  b: {model: m}\n  c: "
      "{model: m, seed: 3}\n";
  const auto keys = [&](bool naive, uint64_t seed, int32_t sequences) {
    std::map<std::pair<std::string, std::string>, uint64_t> found;
    SimulatedEngineOptions options;
    options.sequences = sequences;
    options.script = [&](const Request& request) {
      found[{request.script_operator, request.script_row}] = request.sampling.draw_key;
      return ScriptedReply{};
    };
    SimulatedRig rig(kDraws, "f", options);
    ListFeed feed =
        ListFeed::Of({{{"prompt", "p"}}, {{"id", "0"}, {"prompt", "p"}}, {{"prompt", "p"}}});
    ListSink sink;
    ExecutorOptions executor_options;
    executor_options.naive = naive;
    executor_options.seed = seed;
    RunSources({rig.Source(feed, sink)}, rig.clock, executor_options);
    return found;
  };
  const auto batched = keys(false, 0, 64);
  EXPECT_EQ(batched, keys(true, 0, 1));
  // The row ids 0 and "0" share a name in scripts, so row 0's key is overwritten by row 1's.
  std::set<uint64_t> distinct;
  for (const auto& [place, key] : batched) distinct.insert(key);
  EXPECT_EQ(distinct.size(), batched.size());
  const auto reseeded = keys(false, 1, 64);
  EXPECT_NE(batched.at({"a", "2"}), reseeded.at({"a", "2"}));
  EXPECT_EQ(batched.at({"c", "2"}), reseeded.at({"c", "2"}));  // its own seed replaces the run's
}

TEST(ExecutorTest, ObserversSeeEveryCallAndRowOnce) {
  SimulatedRig rig(
      "start_ops: [a]\nend_ops: [b]\nops:\n  a: {model: m, temperature: 0}\n  b: {model: m, "
      "input_ops: [a]}\n",
      "f", Latency(1000));
  ListFeed feed = ListFeed::Of(Prompts(3));
  ListSink sink;
  std::vector<std::string> calls;
  std::vector<int64_t> rows;
  Observer observer;
  observer.on_call = [&](const CallRecord& call) {
    EXPECT_FALSE(call.prompt.text.empty());
    EXPECT_FALSE(call.completion.failure);
    calls.push_back(call.op.id + std::to_string(call.row.index) + (call.merged ? "m" : ""));
  };
  observer.on_row = [&](size_t source, const RowResult& row) {
    EXPECT_EQ(source, 0U);
    rows.push_back(row.index);
  };
  RunSources({rig.Source(feed, sink)}, rig.clock, {}, &observer);
  EXPECT_THAT(calls, ElementsAre("a0", "a1m", "a2m", "b0", "b1", "b2"));
  EXPECT_THAT(rows, ElementsAre(0, 1, 2));
}

TEST(ExecutorTest, RequestsSayWhatIsWorthKeeping) {
  std::map<std::string, Request> requests;
  SimulatedEngineOptions options;
  options.script = [&](const Request& request) {
    requests[request.script_operator] = request;
    return ScriptedReply{};
  };
  SimulatedRig rig(
      "start_ops: [a, v, w]\nend_ops: [b, c, v, w]\nops:\n"
      "  a: {model: m, prompt: A}\n"
      "  b: {model: m, prompt: B, input_ops: [a]}\n"
      "  c: {model: m, prompt: C, input_ops: [a]}\n"
      "  v: {model: m, prompt: V, prompt_layout: context_first}\n"
      "  w: {model: m, prompt: W, prompt_layout: context_first}\n",
      "f", options);
  ListFeed feed = ListFeed::Of(Prompts(1));
  ListSink sink;
  RunSources({rig.Source(feed, sink)}, rig.clock);
  EXPECT_EQ(requests["a"].keep.consumers, 2);
  EXPECT_TRUE(requests["a"].keep.answer);
  EXPECT_EQ(requests["b"].consumes, requests["a"].id);
  EXPECT_EQ(requests["c"].consumes, requests["a"].id);
  EXPECT_EQ(requests["v"].keep.consumers, 1);
  EXPECT_FALSE(requests["v"].keep.answer);
  EXPECT_EQ(requests["w"].consumes, requests["v"].id);
  EXPECT_EQ(requests["w"].keep.consumers, 0);
  EXPECT_EQ(requests["a"].consumes, 0U);

  ExecutorOptions naive;
  naive.naive = true;
  ListFeed again = ListFeed::Of(Prompts(1));
  RunSources({rig.Source(again, sink)}, rig.clock, naive);
  EXPECT_EQ(requests["a"].keep.consumers, 0);
  EXPECT_EQ(requests["b"].consumes, 0U);
}

TEST(ExecutorTest, TheWindowBoundsOpenRowsOverAllSources) {
  SimulatedRig rig(kOne, "f", Latency(1000));
  ListFeed first = ListFeed::Of(Prompts(20)), second = ListFeed::Of(Prompts(20));
  ListSink first_sink, second_sink;
  ExecutorOptions options;
  options.window = 4;
  const RunReport report = RunSources(
      {rig.Source(first, first_sink), rig.Source(second, second_sink)}, rig.clock, options);
  EXPECT_EQ(report.peak_open_rows, 4);
  EXPECT_EQ(first_sink.rows.size(), 20U);
  EXPECT_EQ(second_sink.rows.size(), 20U);
  ExpectAccounting(report, 40);
}

TEST(ExecutorTest, RowsOfASourceAreFedByARowSource) {
  SimulatedRig rig(kOne, "f", Latency(1000));
  const auto rows = RowsFromValues(Prompts(3));
  const auto feed = FeedFrom(*rows);
  ListSink sink;
  EXPECT_EQ(RunSources({rig.Source(*feed, sink)}, rig.clock).counts.rows_ok, 3);
}

}  // namespace
}  // namespace halo::test
