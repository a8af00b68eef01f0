// Engines in child processes: ends of all kinds cost the calls under way and nothing else.
#include "engine/supervised_engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "support/test_models.h"
#include "tool/census.h"

namespace halo {
namespace {

using test::Census;
using testing::HasSubstr;

const std::string kProgram = std::string(HALO_BIN_DIR) + "/engine_program";

/// Processes that this one has started and not reaped.
bool HasChildren() {
  siginfo_t info{};
  return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

class SupervisedEngineTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_FALSE(HasChildren());
    census_ = Census();
  }
  void TearDown() override {
    engine_.reset();
    EXPECT_FALSE(HasChildren());
    EXPECT_EQ(Census(), census_);
  }

  SupervisedEngineOptions Options(std::vector<std::string> arguments) {
    SupervisedEngineOptions options;
    options.model_name = "m";
    arguments.insert(arguments.begin(), "engine_program");
    options.launch = ProgramLauncher(kProgram, std::move(arguments));
    options.first_wait_us = 1000;
    options.most_wait_us = 4000;
    options.on_restart = [this](const std::string& what) { restarts_.push_back(what); };
    return options;
  }
  void Start(std::vector<std::string> arguments = {"text"}) {
    engine_ = std::make_unique<SupervisedEngine>(Options(std::move(arguments)), clock_);
  }

  void Ask(RequestId id, const std::string& prompt) {
    Request request;
    request.id = id;
    request.prompt_text = prompt;
    engine_->Submit(std::move(request));
  }

  /// Polls until nothing is left to do; `on_answer` after each answer.
  std::map<RequestId, Completion> Drain(const std::function<void()>& on_answer = {}) {
    std::map<RequestId, Completion> all;
    const int64_t give_up_us = clock_.NowUs() + 60'000'000;
    while (engine_->pending() > 0) {
      if (clock_.NowUs() > give_up_us) {
        ADD_FAILURE() << "the engine does not come to an end";
        break;
      }
      for (Completion& completion : engine_->Poll(clock_.NowUs() + 100'000)) {
        const RequestId id = completion.id;
        EXPECT_TRUE(all.emplace(id, std::move(completion)).second) << id << " was answered twice";
        if (on_answer) on_answer();
      }
    }
    return all;
  }
  static void ExpectEcho(const Completion& completion, const std::string& prompt) {
    EXPECT_FALSE(completion.failure.has_value()) << completion.failure->message;
    EXPECT_EQ(completion.text, "echo " + prompt);
  }

  SteadyClock clock_;
  Census census_;
  std::vector<std::string> restarts_;
  std::unique_ptr<SupervisedEngine> engine_;
};

TEST_F(SupervisedEngineTest, AnswersWithoutAnyTrouble) {
  Start();
  for (RequestId id = 1; id <= 50; ++id) Ask(id, "p" + std::to_string(id));
  const auto all = Drain();
  ASSERT_EQ(all.size(), 50U);
  for (const auto& [id, completion] : all) ExpectEcho(completion, "p" + std::to_string(id));
  EXPECT_EQ(engine_->Statistics().restarts, 0);
  EXPECT_TRUE(restarts_.empty());
}

TEST_F(SupervisedEngineTest, IsKilledAtAnyMomentAndAnswersAllTheSame) {
  Start();
  std::mt19937 random(7);
  constexpr RequestId kRequests = 400;
  for (RequestId id = 1; id <= kRequests; ++id) Ask(id, "p" + std::to_string(id));
  // Each time at a random answer since the start, so that some were computing and some waited.
  int64_t kills = 0, until_kill = 5;
  const auto all = Drain([&] {
    if (--until_kill > 0 || engine_->pid() < 0) return;
    kill(engine_->pid(), SIGKILL);
    ++kills;
    until_kill = std::uniform_int_distribution<int64_t>(1, 8)(random);
  });
  ASSERT_EQ(all.size(), kRequests);
  for (const auto& [id, completion] : all) ExpectEcho(completion, "p" + std::to_string(id));
  EXPECT_GE(kills, 50);
  EXPECT_LE(engine_->Statistics().restarts, kills);
  EXPECT_GE(engine_->Statistics().restarts, kills / 2);  // two kills may meet one process
  EXPECT_GE(engine_->Statistics().steps, static_cast<int64_t>(kRequests) / 2);
  ASSERT_FALSE(restarts_.empty());
  EXPECT_THAT(restarts_[0], HasSubstr("killed by signal 9"));
  const EngineSpans spans = engine_->TakeSpans();
  EXPECT_FALSE(spans.spans.empty());
  EXPECT_LE(static_cast<int64_t>(spans.spans.size()), engine_->Statistics().restarts);
  int64_t until_us = 0;
  for (const EngineSpan& span : spans.spans) {
    EXPECT_EQ(span.kind, EngineSpan::Kind::kRestart);
    EXPECT_GE(span.start_us, until_us);
    EXPECT_GT(span.end_us, span.start_us);
    until_us = span.end_us;
  }
}

TEST_F(SupervisedEngineTest, APoisonousCallFailsAlone) {
  Start();
  for (RequestId id = 1; id <= 30; ++id) Ask(id, id == 13 ? "poison" : "p" + std::to_string(id));
  const auto all = Drain();
  ASSERT_EQ(all.size(), 30U);
  for (const auto& [id, completion] : all) {
    if (id != 13) ExpectEcho(completion, "p" + std::to_string(id));
  }
  ASSERT_TRUE(all.at(13).failure.has_value());
  EXPECT_EQ(all.at(13).failure->code, "poisonous_call");
  EXPECT_FALSE(all.at(13).failure->retriable);
  EXPECT_THAT(all.at(13).failure->message, HasSubstr("signal 6"));
  EXPECT_THAT(all.at(13).failure->message, HasSubstr("GGML_ASSERT(poison) failed"));
  // Twice with others, then alone: at most once behind others that were caught, once first.
  EXPECT_GE(engine_->Statistics().restarts, 3);
  EXPECT_LE(engine_->Statistics().restarts, 4);
}

TEST_F(SupervisedEngineTest, ACallThatCannotEvenBeTakenFailsAlone) {
  Start();
  Ask(1, "a");
  Ask(2, "poison-submit");
  Ask(3, "b");
  const auto all = Drain();
  ASSERT_EQ(all.size(), 3U);
  ExpectEcho(all.at(1), "a");
  ExpectEcho(all.at(3), "b");
  ASSERT_TRUE(all.at(2).failure.has_value());
  EXPECT_EQ(all.at(2).failure->code, "poisonous_call");
}

TEST_F(SupervisedEngineTest, WhatWasCaughtTwiceMayStillBeAnswered) {
  Start();
  const std::string file = test::FreshFolder("twice") + "/count";
  Ask(1, "a");
  Ask(2, "twice " + file);
  Ask(3, "b");
  const auto all = Drain();
  ExpectEcho(all.at(1), "a");
  ExpectEcho(all.at(2), "twice " + file);
  ExpectEcho(all.at(3), "b");
  EXPECT_EQ(engine_->Statistics().restarts, 2);
}

TEST_F(SupervisedEngineTest, WhatWasCaughtTwiceRunsAlone) {
  Start();
  const std::string file = test::FreshFolder("alone") + "/count";
  for (RequestId id = 1; id <= 3; ++id) Ask(id, "slow 20");
  Ask(4, "twice " + file);  // the other three were caught with it
  for (RequestId id = 5; id <= 12; ++id) Ask(id, "p");
  std::vector<RequestId> order;
  while (engine_->pending() > 0) {
    for (const Completion& completion : engine_->Poll(clock_.NowUs() + 100'000))
      order.push_back(completion.id);
  }
  EXPECT_EQ(order, (std::vector<RequestId>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}));
}

// The rule of the hundred kills: whoever kills from outside after an answer makes no call
// poisonous.
TEST_F(SupervisedEngineTest, KillsBetweenLoneCallsConvictNobody) {
  Start();
  for (RequestId id = 1; id <= 8; ++id) Ask(id, "slow 5");
  const auto all = Drain([&] {
    if (engine_->pid() >= 0 && engine_->Statistics().restarts < 40) kill(engine_->pid(), SIGKILL);
  });
  for (const auto& [id, completion] : all) ExpectEcho(completion, "slow 5");
}

TEST_F(SupervisedEngineTest, AnEndWhileIdleCostsNothing) {
  Start();
  Ask(1, "a");
  Drain();
  const pid_t first = engine_->pid();
  kill(first, SIGKILL);
  siginfo_t info{};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(first), &info, WEXITED | WNOWAIT), 0);
  Ask(2, "b");
  ExpectEcho(Drain().at(2), "b");
  EXPECT_NE(engine_->pid(), first);
  EXPECT_EQ(engine_->Statistics().restarts, 1);
}

TEST_F(SupervisedEngineTest, AnEndWhileIdleIsSeenOnce) {
  Start();
  Ask(1, "a");
  Drain();
  kill(engine_->pid(), SIGKILL);
  pollfd ready{engine_->ready_descriptor(), POLLIN, 0};
  constexpr int kMuchTooLongMs = 30'000;
  ASSERT_EQ(poll(&ready, 1, kMuchTooLongMs), 1);
  EXPECT_TRUE(engine_->Poll(0).empty());
  EXPECT_EQ(poll(&ready, 1, 0), 0) << "else whoever waits for it would not wait any more";
  EXPECT_EQ(engine_->pid(), -1);
  ASSERT_EQ(restarts_.size(), 1U);
  EXPECT_THAT(restarts_.front(), HasSubstr("ended while it had nothing to do"));
  Ask(2, "b");
  ExpectEcho(Drain().at(2), "b");
}

TEST_F(SupervisedEngineTest, AStartThatFailsOnceIsTriedAgain) {
  SupervisedEngineOptions options = Options({"text"});
  int starts = 0;
  options.launch = [launch = options.launch, &starts](std::span<const int> inherited) {
    if (++starts == 2) throw Error(ErrorCode::kIo, "no process could be made");
    return launch(inherited);
  };
  engine_ = std::make_unique<SupervisedEngine>(std::move(options), clock_);
  Ask(1, "a");
  Drain();
  kill(engine_->pid(), SIGKILL);
  Ask(2, "b");
  ExpectEcho(Drain().at(2), "b");
  EXPECT_EQ(starts, 3);
}

TEST_F(SupervisedEngineTest, HalfAnAnswerIsNone) {
  Start();
  Ask(1, "a");
  Ask(2, "half");
  Ask(3, "b");
  const auto all = Drain();
  ASSERT_TRUE(all.at(2).failure.has_value());
  EXPECT_EQ(all.at(2).failure->code, "poisonous_call");
  EXPECT_THAT(all.at(2).failure->message, HasSubstr("exit code 3"));
  ExpectEcho(all.at(1), "a");
  ExpectEcho(all.at(3), "b");
}

TEST_F(SupervisedEngineTest, NonsenseEndsItsProcessAndNotThisOne) {
  for (const char* what : {"nonsense", "missing", "unsealed"}) {
    Start();
    Ask(1, "a");
    Ask(2, what);
    Ask(3, "b");
    const auto all = Drain();
    ASSERT_TRUE(all.at(2).failure.has_value()) << what;
    EXPECT_EQ(all.at(2).failure->code, "poisonous_call");
    ExpectEcho(all.at(1), "a");
    ExpectEcho(all.at(3), "b");
  }
}

TEST_F(SupervisedEngineTest, LargeMessagesCrossInSharedMemory) {
  Start();
  const std::string large(5'000'000, 'p');
  Ask(1, large);
  Ask(2, "big 3000000");
  for (RequestId id = 3; id <= 20; ++id) Ask(id, std::string(100'000 + 10'000 * id, 'x'));
  const auto all = Drain();
  ExpectEcho(all.at(1), large);
  EXPECT_EQ(all.at(2).text, std::string(3'000'000, 'b'));
  for (RequestId id = 3; id <= 20; ++id)
    ExpectEcho(all.at(id), std::string(100'000 + 10'000 * id, 'x'));
}

TEST_F(SupervisedEngineTest, AnEngineThatCannotBeMadeSaysWhy) {
  try {
    Start({"fault", "no such weights"});
    FAIL() << "there is no engine";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kModel);
    EXPECT_STREQ(error.what(), "no such weights");
  }
  EXPECT_TRUE(restarts_.empty()) << "it would say the same again";
}

TEST_F(SupervisedEngineTest, AProcessThatNeverGetsAnEngineIsGivenUp) {
  try {
    Start({"dies"});
    FAIL() << "there is no engine";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kConfig);
    EXPECT_THAT(error.what(), HasSubstr("3 times in a row"));
    EXPECT_THAT(error.what(), HasSubstr("dies young"));
  }
  EXPECT_EQ(restarts_.size(), 2U);
}

TEST_F(SupervisedEngineTest, AProgramThatIsNotThereIsNamed) {
  SupervisedEngineOptions options = Options({});
  options.launch = ProgramLauncher("/nowhere/halo", {"halo"});
  try {
    SupervisedEngine engine(std::move(options), clock_);
    FAIL() << "there is no program";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("cannot start /nowhere/halo"));
  }
}

TEST_F(SupervisedEngineTest, ARestartThatFailsAgainAndAgainStopsTheRun) {
  const std::string file = test::FreshFolder("dies_later") + "/now";
  Start({"dies", file});
  Ask(1, "a");
  ExpectEcho(Drain().at(1), "a");
  std::ofstream(file) << "x" << std::flush;
  Ask(2, "poison");
  EXPECT_THROW(Drain(), Error);
  EXPECT_EQ(restarts_.size(), 3U);  // the crash, and two of three starts
}

TEST_F(SupervisedEngineTest, EndlessCrashesStopTheRun) {
  SupervisedEngineOptions options = Options({"text"});
  options.most_crashes = 7;
  engine_ = std::make_unique<SupervisedEngine>(std::move(options), clock_);
  for (RequestId id = 1; id <= 30; ++id) Ask(id, "poison");
  try {
    Drain();
    FAIL() << "nothing is ever answered";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_THAT(error.what(), HasSubstr("7 times in a row without an answer"));
  }
}

TEST_F(SupervisedEngineTest, WhatIsHeldCanBeCancelledAndExpires) {
  Start();
  Ask(1, "slow 30");
  engine_->Poll(0);
  kill(engine_->pid(), SIGKILL);
  Request late;
  late.id = 2;
  late.prompt_text = "late";
  late.deadline_us = 1;
  while (engine_->pid() >= 0) engine_->Poll(0);  // until the end is seen
  engine_->Submit(std::move(late));
  Ask(3, "a");
  Ask(4, "b");
  engine_->Cancel(3);
  engine_->Cancel(99);  // nobody
  pollfd ready{engine_->ready_descriptor(), POLLIN, 0};
  EXPECT_EQ(poll(&ready, 1, 10'000), 1) << "there is an answer to give out";
  const auto all = Drain();
  ASSERT_EQ(all.size(), 4U);
  ExpectEcho(all.at(1), "slow 30");
  EXPECT_EQ(all.at(2).failure->code, "deadline");
  EXPECT_EQ(all.at(3).failure->code, "cancelled");
  ExpectEcho(all.at(4), "b");
}

TEST_F(SupervisedEngineTest, ItsDescriptorIsReadyWheneverThereIsSomethingToDo) {
  Start();
  std::mt19937 random(3);
  for (RequestId id = 1; id <= 100; ++id) Ask(id, "p");
  size_t answers = 0;
  int64_t kills = 0;
  while (engine_->pending() > 0) {
    const auto finished = engine_->Poll(0);
    answers += finished.size();
    if (!finished.empty() && random() % 8 == 0 && engine_->pid() >= 0) {
      kill(engine_->pid(), SIGKILL);
      ++kills;
    }
    if (!finished.empty() || engine_->pending() == 0) continue;
    pollfd ready{engine_->ready_descriptor(), POLLIN, 0};
    constexpr int kMuchTooLongMs = 30'000;
    ASSERT_EQ(poll(&ready, 1, kMuchTooLongMs), 1);
  }
  EXPECT_EQ(answers, 100U);
  EXPECT_GT(kills, 3);
}

TEST_F(SupervisedEngineTest, AProcessThatIsLostWithoutRequestsHoldsNothing) {
  Start();
  SupervisedEngineOptions options = Options({"text"});
  options.description = engine_->Describe();
  engine_ = std::make_unique<SupervisedEngine>(std::move(options), clock_);
  EXPECT_EQ(engine_->pid(), -1) << "what it will be is known: it is started when it is needed";
  engine_->Load();
  kill(engine_->pid(), SIGKILL);
  const int64_t give_up_us = clock_.NowUs() + 60'000'000;
  while (engine_->pid() >= 0 && clock_.NowUs() < give_up_us) {
    EXPECT_EQ(engine_->residency(), Residency::kChanging);
    EXPECT_TRUE(engine_->Poll(0).empty());
  }
  EXPECT_EQ(engine_->residency(), Residency::kUnloaded) << "others may have its memory";
  Ask(1, "hello");
  EXPECT_EQ(Drain().at(1).text, "echo hello");
}

TEST_F(SupervisedEngineTest, ItsEndIsTheEndOfItsProcess) {
  Start();
  const pid_t idle = engine_->pid();
  engine_.reset();
  EXPECT_EQ(kill(idle, 0), -1);
  Start();
  Ask(1, "slow 60000");
  engine_->Poll(clock_.NowUs() + 50'000);
  const pid_t busy = engine_->pid();
  engine_.reset();
  EXPECT_EQ(kill(busy, 0), -1);
}

}  // namespace
}  // namespace halo
