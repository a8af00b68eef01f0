#include "engine/engine_turns.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <vector>

#include "engine/shared_memory.h"

namespace halo {
namespace {

class EngineTurnsTest : public testing::Test {
 protected:
  /// What two processes share beside the turns.
  struct Shared {
    std::atomic<int> inside, clashes, turns, is_ready;
  };

  static constexpr ThreadShares kShares{3, 2};

  /// A child that runs `work` and ends.
  template <typename Work>
  static pid_t Fork(Work work) {
    const pid_t child = fork();
    if (child == 0) {
      work();
      _exit(0);
    }
    EXPECT_GT(child, 0);
    return child;
  }

  void TakeTurns(int count) {
    for (int i = 0; i < count; ++i) {
      turns_.Take();
      if (shared_.inside.fetch_add(1) != 0) shared_.clashes.fetch_add(1);
      usleep(50);
      shared_.turns.fetch_add(1);
      shared_.inside.fetch_sub(1);
      turns_.GiveBack();
    }
  }

  /// A child with an engine of a worker that announces `fullness` and then does `work`, until it is
  /// killed.
  template <typename Work>
  pid_t ForkAnother(int32_t fullness, int32_t worker, const ThreadShares& shares, Work work) {
    shared_.is_ready.store(0);
    const pid_t child = Fork([&] {
      // Not made before the fork: closing it there would give this process's locks back.
      EngineTurns theirs{Descriptor(dup(file_.get())), worker, shares};
      theirs.Announce(fullness);
      work(theirs);
      shared_.is_ready.store(1);
      while (true) pause();
    });
    // Two processes share this memory and nothing that one could wait on.
    while (shared_.is_ready.load() == 0) usleep(100);
    return child;
  }
  pid_t ForkAnother(int32_t fullness, int32_t worker = 0) {
    return ForkAnother(fullness, worker, kShares, [](EngineTurns&) {});
  }
  static void Kill(pid_t child) {
    kill(child, SIGKILL);
    EXPECT_EQ(waitpid(child, nullptr, 0), child);
  }

  Descriptor memory_ = MakeSharedMemory("test", sizeof(Shared));
  MappedMemory mapping_ = MappedMemory::Writable(memory_, sizeof(Shared));
  Shared& shared_ = *static_cast<Shared*>(mapping_.data());
  Descriptor file_ = EngineTurns::MakeFile();
  EngineTurns turns_{Descriptor(dup(file_.get())), 0, kShares};
};

TEST_F(EngineTurnsTest, OneAtATime) {
  constexpr int kTurns = 500;
  const pid_t child = Fork([&] { TakeTurns(kTurns); });
  TakeTurns(kTurns);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(shared_.clashes.load(), 0);
  EXPECT_EQ(shared_.turns.load(), 2 * kTurns);
}

TEST_F(EngineTurnsTest, WhoWaitsGoesBeforeWhoHadATurn) {
  turns_.Take();
  EXPECT_FALSE(turns_.IsAwaited());
  const pid_t child = Fork([&] { TakeTurns(1); });
  // Another process waits in the kernel for a lock: nothing tells of it, so it is asked for.
  while (!turns_.IsAwaited()) usleep(100);
  EXPECT_EQ(shared_.turns.load(), 0);
  turns_.GiveBack();
  turns_.Take();
  EXPECT_EQ(shared_.turns.load(), 1);
  turns_.GiveBack();
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(EngineTurnsTest, AProcessThatIsKilledGivesItsTurnBack) {
  const pid_t child = Fork([&] {
    turns_.Take();
    shared_.is_ready.store(1);
    while (true) pause();
  });
  while (shared_.is_ready.load() == 0) usleep(100);
  kill(child, SIGKILL);
  turns_.Take();  // or the test does not end
  turns_.GiveBack();
  EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(EngineTurnsTest, WhosePassesWouldBeMuchEmptierLetsCallsGather) {
  const pid_t child = ForkAnother(EngineTurns::kFull);
  turns_.Announce(EngineTurns::kFull / 8);
  EXPECT_FALSE(turns_.MayTake());
  turns_.Announce(EngineTurns::kFull * 3 / 4);
  EXPECT_TRUE(turns_.MayTake());
  turns_.Announce(EngineTurns::kFull);
  EXPECT_TRUE(turns_.MayTake());
  Kill(child);
}

TEST_F(EngineTurnsTest, TheFullestNeverWaits) {
  const pid_t child = ForkAnother(3);
  turns_.Announce(4);
  EXPECT_TRUE(turns_.MayTake());
  Kill(child);
}

TEST_F(EngineTurnsTest, AProcessThatHasEndedHoldsNobodyUp) {
  const pid_t child = ForkAnother(EngineTurns::kFull);
  turns_.Announce(1);
  EXPECT_FALSE(turns_.MayTake());
  Kill(child);
  EXPECT_TRUE(turns_.MayTake());
}

TEST_F(EngineTurnsTest, NobodyWaitsForEver) {
  const pid_t child = ForkAnother(EngineTurns::kFull);
  turns_.Announce(1);
  for (int32_t i = 0; i < EngineTurns::kMostRefusals; ++i) ASSERT_FALSE(turns_.MayTake());
  EXPECT_TRUE(turns_.MayTake());
  turns_.Take();
  turns_.GiveBack();
  EXPECT_FALSE(turns_.MayTake());
  Kill(child);
}

TEST_F(EngineTurnsTest, ThreadsOfWorkersWithNothingToDoAreLent) {
  EXPECT_EQ(turns_.Take(), 6) << "two threads of each of three workers";
  turns_.GiveBack();
  const pid_t busy = ForkAnother(1, 1);
  EXPECT_EQ(turns_.Take(), 4);
  turns_.GiveBack();
  Kill(busy);
  EXPECT_EQ(turns_.Take(), 6) << "a process that has ended needs none";
  turns_.GiveBack();
}

TEST_F(EngineTurnsTest, WhatIsLentComesBackAfterThePass) {
  turns_.Announce(1);
  EXPECT_EQ(turns_.Take(), 6);
  EXPECT_FALSE(turns_.IsAwaited());
  const Descriptor file(dup(file_.get()));
  const pid_t child = Fork([&] {
    EngineTurns theirs{Descriptor(file.get()), 2, kShares};
    theirs.Announce(1);
    shared_.is_ready.store(theirs.Take());
    while (true) pause();
  });
  while (!turns_.IsAwaited()) usleep(100);
  EXPECT_EQ(shared_.is_ready.load(), 0);
  turns_.GiveBack();
  while (shared_.is_ready.load() == 0) usleep(100);
  EXPECT_EQ(shared_.is_ready.load(), 4)
      << "its own and the second worker's, not those of one with work";
  EXPECT_EQ(turns_.Take(), 2) << "what others have is not lent";
  turns_.GiveBack();
  Kill(child);
}

TEST_F(EngineTurnsTest, OtherWorkersPassesHoldNobodyUp) {
  const pid_t child = ForkAnother(EngineTurns::kFull, 1);
  turns_.Announce(1);
  EXPECT_TRUE(turns_.MayTake());
  Kill(child);
}

TEST(ThreadShares, LanesHaveEqualParts) {
  EXPECT_EQ(ThreadShares::LanesFor(2, 1), 1);
  EXPECT_EQ(ThreadShares::LanesFor(1, 3), 1);
  EXPECT_EQ(ThreadShares::LanesFor(2, 3), 2);
  EXPECT_EQ(ThreadShares::LanesFor(8, 3), 2);
  EXPECT_EQ(ThreadShares::LanesFor(9, 4), 3);
  EXPECT_EQ(ThreadShares::LanesFor(7, 3), 1);
  EXPECT_EQ(ThreadShares::LanesFor(4, 0), 1);
}

/// One worker of four threads, two lanes.
class EngineLanesTest : public EngineTurnsTest {
 protected:
  static constexpr ThreadShares kLanes{2, 4, 2};
  EngineTurns ours_{Descriptor(dup(file_.get())), 0, kLanes};
};

TEST_F(EngineLanesTest, EnginesOfAWorkerComputeSideBySide) {
  ours_.Announce(4);
  const pid_t busy = ForkAnother(4, 1, kLanes, [](EngineTurns&) {});
  EXPECT_EQ(ours_.Take(), 4) << "alone on its worker";
  ours_.GiveBack();
  const pid_t child =
      ForkAnother(4, 0, kLanes, [&](EngineTurns& theirs) { shared_.turns.store(theirs.Take()); });
  EXPECT_EQ(shared_.turns.load(), 2);
  EXPECT_EQ(ours_.Take(), 2) << "while the other one computes";
  EXPECT_FALSE(ours_.IsAwaited());
  ours_.GiveBack();
  Kill(child);
  EXPECT_EQ(ours_.Take(), 4);
  ours_.GiveBack();
  Kill(busy);
  EXPECT_EQ(ours_.Take(), 8) << "and of the worker that has nothing to do";
  ours_.GiveBack();
}

TEST_F(EngineLanesTest, NoMoreComputeThanThereAreLanes) {
  ours_.Announce(4);
  std::vector<pid_t> children;
  for (int i = 0; i < 2; ++i)
    children.push_back(ForkAnother(4, 0, kLanes, [](EngineTurns& theirs) { theirs.Take(); }));
  const pid_t third = Fork([&] {
    EngineTurns theirs{Descriptor(dup(file_.get())), 0, kLanes};
    theirs.Announce(4);
    theirs.Take();
    shared_.turns.store(1);
    while (true) pause();
  });
  usleep(20'000);  // what is wrong would show by then; what is right holds however long it is
  EXPECT_EQ(shared_.turns.load(), 0);
  for (const pid_t child : children) Kill(child);
  while (shared_.turns.load() == 0) usleep(100);  // as in ForkAnother
  Kill(third);
}

TEST_F(EngineLanesTest, WhoLetsCallsGatherLendsItsLane) {
  ours_.Announce(EngineTurns::kFull);
  const pid_t child = ForkAnother(EngineTurns::kFull / 8, 0, kLanes,
                                  [](EngineTurns& theirs) { EXPECT_FALSE(theirs.MayTake()); });
  const pid_t busy = ForkAnother(4, 1, kLanes, [](EngineTurns&) {});
  EXPECT_EQ(ours_.Take(), 4);
  ours_.GiveBack();
  Kill(child);
  Kill(busy);
}

TEST_F(EngineTurnsTest, QueriesHaveTheirThreads) {
  const pid_t one = ForkAnother(1, 1);
  BusyTools tools(file_);
  tools.Add(1);
  EXPECT_EQ(turns_.Take(), 3);
  turns_.GiveBack();
  tools.Add(7);
  EXPECT_EQ(turns_.Take(), 1) << "a pass has a thread in any case";
  turns_.GiveBack();
  tools.Add(-8);
  EXPECT_EQ(turns_.Take(), 4);
  turns_.GiveBack();
  Kill(one);
}

}  // namespace
}  // namespace halo
