// How a machine is shared out to workers.
#include "session/fleet_setup.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kManyCalls = 64;

TEST(AutomaticWorkers, HaveAThreadEachWhereModelsAreSmall) {
  EXPECT_EQ(AutomaticWorkers(2, 18 * kMiB, kManyCalls), 2);
  EXPECT_EQ(AutomaticWorkers(2, 145 * kMiB, kManyCalls), 2);
  EXPECT_EQ(AutomaticWorkers(8, 18 * kMiB, kManyCalls), 8);
  EXPECT_EQ(AutomaticWorkers(2, 0, kManyCalls), 2) << "a model that is not known yet";
}

TEST(AutomaticWorkers, HaveMoreThreadsForLargerModels) {
  EXPECT_EQ(AutomaticWorkers(2, 1200 * kMiB, kManyCalls), 1);
  EXPECT_EQ(AutomaticWorkers(64, 380 * kMiB, kManyCalls), 2) << "64 calls do not pay for more";
  EXPECT_EQ(AutomaticWorkers(16, 190 * kMiB, 256), 16);
  EXPECT_EQ(AutomaticWorkers(16, 380 * kMiB, 256), 8);
}

TEST(AutomaticWorkers, AreNoMoreThanCallsPayFor) {
  EXPECT_EQ(AutomaticWorkers(2, 145 * kMiB, 4), 1);
  EXPECT_EQ(AutomaticWorkers(2, 145 * kMiB, 1), 1);
  EXPECT_EQ(AutomaticWorkers(2, 145 * kMiB, 20), 2);
  EXPECT_EQ(AutomaticWorkers(8, 18 * kMiB, 4), 3);
}

TEST(AutomaticWorkers, AreAFewOnAMachineWithManyCores) {
  EXPECT_EQ(AutomaticWorkers(128, 1 * kMiB, kManyCalls), 16);
  EXPECT_EQ(AutomaticWorkers(1, 18 * kMiB, kManyCalls), 1);
}

TEST(AutomaticWorkers, ThreadsAreSharedOutWholly) {
  RunOptions options;
  options.threads = 8;
  options.workers = 3;
  EXPECT_EQ(ThreadsOfWorker(options), 2);
}

}  // namespace
}  // namespace halo
