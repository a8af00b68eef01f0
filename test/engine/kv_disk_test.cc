// KV in a file: what comes back, what room there is, what happens when the disk fails.
#include "engine/llama/kv_disk.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

namespace halo {
namespace {

constexpr size_t kBytes = 100'000;

std::shared_ptr<const KvBlob> Blob(char fill, size_t bytes = kBytes) {
  auto blob = std::make_shared<KvBlob>();
  blob->own = std::make_unique<uint8_t[]>(bytes);
  blob->own_bytes = bytes;
  blob->tokens = 7;
  std::memset(blob->own.get(), fill, bytes);
  return blob;
}

/// Reads until it comes from the disk, which it does once its blob has gone from memory.
std::shared_ptr<const KvBlob> ReadFromDisk(KvDisk& disk, KvDisk::Place& place,
                                           const std::weak_ptr<const KvBlob>& in_memory) {
  std::shared_ptr<const KvBlob> read = disk.Read(place);
  while (read != nullptr && read == in_memory.lock()) read = disk.Read(place);
  return read;
}

TEST(KvDisk, WhatIsPutComesBack) {
  KvDisk disk(testing::TempDir(), 10 * kBytes);
  std::vector<std::shared_ptr<KvDisk::Place>> places;
  std::vector<std::weak_ptr<const KvBlob>> in_memory;
  for (char fill = 'a'; fill < 'k'; ++fill) {
    std::shared_ptr<const KvBlob> blob = Blob(fill);
    in_memory.push_back(blob);
    places.push_back(disk.Put(std::move(blob)));
    ASSERT_NE(places.back(), nullptr);
  }
  EXPECT_EQ(disk.Put(Blob('x')), nullptr) << "more than it may take";
  for (size_t i = 0; i < places.size(); ++i) {
    const std::shared_ptr<const KvBlob> read = ReadFromDisk(disk, *places[i], in_memory[i]);
    ASSERT_NE(read, nullptr);
    EXPECT_EQ(read->tokens, 7);
    EXPECT_EQ(read->data(), std::string(kBytes, static_cast<char>('a' + i)));
  }
  EXPECT_EQ(disk.faults(), 0);
}

TEST(KvDisk, BytesThatChangedAreNotTakenForKv) {
  KvDisk disk(testing::TempDir(), 10 * kBytes);
  std::shared_ptr<const KvBlob> blob = Blob('a');
  const std::weak_ptr<const KvBlob> in_memory = blob;
  const std::shared_ptr<KvDisk::Place> place = disk.Put(std::move(blob));
  ASSERT_NE(ReadFromDisk(disk, *place, in_memory), nullptr);
  // As file systems do that find out too late that they cannot write.
  bool is_found = false;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code error;
    const std::string path = std::filesystem::read_symlink(entry.path(), error).string();
    if (path.find("halo-kv-") == std::string::npos) continue;
    is_found = true;
    std::fstream(entry.path(), std::ios::in | std::ios::out | std::ios::binary).put('\0');
  }
  ASSERT_TRUE(is_found);
  EXPECT_EQ(disk.Read(*place), nullptr);
  EXPECT_EQ(disk.faults(), 1);
}

TEST(KvDisk, RoomThatIsGivenBackIsUsedAgain) {
  KvDisk disk(testing::TempDir(), 4 * kBytes);
  std::vector<std::shared_ptr<KvDisk::Place>> places;
  for (int i = 0; i < 4; ++i) places.push_back(disk.Put(Blob('a')));
  ASSERT_NE(places.back(), nullptr);
  places[1].reset();
  places[0].reset();
  EXPECT_EQ(disk.Put(Blob('b', 2 * kBytes + 1)), nullptr);
  const std::shared_ptr<const KvBlob> blob = Blob('b', 2 * kBytes);
  std::shared_ptr<KvDisk::Place> both;
  // The writer may hold on to what was given back a moment longer.
  for (int i = 0; both == nullptr && i < 10'000; ++i) {
    both = disk.Put(blob);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  ASSERT_NE(both, nullptr) << "the two gaps are one";
  EXPECT_EQ(disk.Read(*both)->data(), blob->data());
  EXPECT_EQ(disk.Put(Blob('c', 1)), nullptr);
  EXPECT_EQ(disk.Read(*places[2])->data(), std::string(kBytes, 'a'));
}

TEST(KvDisk, NoFolderIsAFault) {
  KvDisk disk("/nonexistent", 10 * kBytes);
  EXPECT_EQ(disk.faults(), 0);
  EXPECT_EQ(disk.Put(Blob('a')), nullptr);
  EXPECT_EQ(disk.Put(Blob('a')), nullptr);
  EXPECT_EQ(disk.faults(), 1);
}

TEST(KvDisk, WhatAFullDiskDoesNotTakeIsLostAndNothingElseIs) {
  struct rlimit before = {};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const struct rlimit full = {kBytes + kBytes / 2, before.rlim_max};
  // A file of more than so many bytes cannot be written, as on a full disk.
  ASSERT_NE(std::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &full), 0);
  {
    KvDisk disk(testing::TempDir(), 10 * kBytes);
    const std::shared_ptr<KvDisk::Place> fits = disk.Put(Blob('a'));
    const std::shared_ptr<KvDisk::Place> does_not = disk.Put(Blob('b'));
    ASSERT_NE(does_not, nullptr);
    while (disk.Read(*does_not) != nullptr) std::this_thread::yield();
    EXPECT_EQ(disk.faults(), 1);
    EXPECT_EQ(disk.Put(Blob('c')), nullptr) << "nothing is written any more";
    EXPECT_EQ(disk.Read(*fits)->data(), std::string(kBytes, 'a'));
  }
  setrlimit(RLIMIT_FSIZE, &before);
}

}  // namespace
}  // namespace halo
