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
  EXPECT_EQ(AutomaticWorkers(4, 18 * kMiB, kManyCalls), 4);
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
  EXPECT_EQ(AutomaticWorkers(2, 145 * kMiB, 24), 2);
  EXPECT_EQ(AutomaticWorkers(2, 18 * kMiB, 16), 1) << "batches of 8 are worth less than threads";
  EXPECT_EQ(AutomaticWorkers(2, 18 * kMiB, 24), 2);
  EXPECT_EQ(AutomaticWorkers(8, 18 * kMiB, kManyCalls), 4);
  EXPECT_EQ(AutomaticWorkers(8, 18 * kMiB, 4), 2) << "four threads each at most";
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

TEST(AcceleratorWorkers, AreOneForEachUnlessAModelNeedsSeveral) {
  constexpr int64_t kGiB = 1024 * kMiB;
  const std::vector<int64_t> four(4, 80 * kGiB);
  EXPECT_EQ(AcceleratorWorkers({80 * kGiB}, 16 * kGiB), 1);
  EXPECT_EQ(AcceleratorWorkers(four, 16 * kGiB), 4);
  EXPECT_EQ(AcceleratorWorkers(four, 60 * kGiB), 2) << "two each";
  EXPECT_EQ(AcceleratorWorkers(four, 140 * kGiB), 1);
  EXPECT_EQ(AcceleratorWorkers(four, 4000 * kGiB), 1) << "it will say that it does not fit";
  EXPECT_EQ(AcceleratorWorkers({80 * kGiB, 24 * kGiB}, 16 * kGiB), 1) << "the smaller one counts";
}

TEST(AcceleratorWorkers, ShareOutAllAccelerators) {
  using Devices = std::vector<int32_t>;
  EXPECT_EQ(DevicesOfWorker(0, 1, 0), Devices{});
  EXPECT_EQ(DevicesOfWorker(0, 1, 4), (Devices{0, 1, 2, 3}));
  EXPECT_EQ(DevicesOfWorker(1, 2, 4), (Devices{2, 3}));
  EXPECT_EQ(DevicesOfWorker(2, 4, 4), (Devices{2}));
  EXPECT_EQ(DevicesOfWorker(0, 2, 3), (Devices{0}));
  EXPECT_EQ(DevicesOfWorker(1, 2, 3), (Devices{1, 2}));
  EXPECT_EQ(DevicesOfWorker(3, 4, 2), (Devices{1})) << "two workers each";
}

TEST(WorkersOfMemory, AreAsManyAsHaveRoomWithoutMoreTurns) {
  // 16 calls of 1,024 tokens: 16 MiB of KV.
  const ModelToHost model = {.name = "m",
                             .weights_bytes = 20 * kMiB,
                             .kv_token_bytes = 1024,
                             .sequences = 64,
                             .expected_tokens = 1000};
  EXPECT_EQ(WorkersOfMemory(72 * kMiB, {model}, 2), 2);
  EXPECT_EQ(WorkersOfMemory(71 * kMiB, {model}, 2), 1);
  EXPECT_EQ(WorkersOfMemory(1000 * kMiB, {model}, 4), 4);
  EXPECT_EQ(WorkersOfMemory(144 * kMiB, {model, model}, 2), 2) << "both on each";
  EXPECT_EQ(WorkersOfMemory(100 * kMiB, {model, model}, 2), 1) << "side by side on one";
  EXPECT_EQ(WorkersOfMemory(71 * kMiB, {model, model}, 2), 1);
  EXPECT_EQ(WorkersOfMemory(107 * kMiB, {model, model, model}, 2), 2) << "they take turns anyway";
  ModelToHost unknown = model;
  unknown.expected_tokens = 0;
  EXPECT_EQ(WorkersOfMemory(1000 * kMiB, {model, unknown}, 2), 1);
}

TEST(ShareMemory, AnAcceleratorsMemoryIsItsOwn) {
  RunOptions options;
  options.workers = 1;
  const std::vector<ModelToHost> models = {
      {.name = "m", .weights_bytes = 1000 * kMiB, .kv_token_bytes = 1024}};
  EXPECT_EQ(ShareMemory(options, models, 10'000 * kMiB).memory_bytes, 8500 * kMiB);
  options.worker_memory_bytes = 2000 * kMiB;
  EXPECT_EQ(ShareMemory(options, models, 10'000 * kMiB).memory_bytes, 2000 * kMiB);
  EXPECT_THROW(ShareMemory({}, models, 900 * kMiB), Error);
}

}  // namespace
}  // namespace halo
