#include "runtime/result_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "base/error.h"
#include "support/faulty_disk.h"

namespace halo::test {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr int64_t kUsPerS = 1'000'000;

class ResultCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-cache-" + std::to_string(getpid());
    fs::remove_all(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  ResultCache::Options Options() {
    ResultCache::Options options;
    options.folder = folder_ + "/answers";
    options.now_us = [this] { return now_us_; };
    return options;
  }
  std::string path() const { return folder_ + "/answers/answers.db"; }

  /// Keeps these, and closes.
  void Keep(uint64_t first, uint64_t last) {
    ResultCache cache(Options());
    for (uint64_t key = first; key <= last; ++key) cache.Put(Question(key), Answer(key));
  }

  static CacheQuestion Question(uint64_t key) {
    CacheQuestion question;
    question.key = {key * 0x9E3779B97F4A7C15ULL, key * 0xD1B54A32D192ED03ULL};
    question.at(QuestionPart::kPrompt) = static_cast<uint32_t>(key);
    question.asker = 7;
    return question;
  }
  static JournalRecord Answer(uint64_t key) {
    JournalRecord record;
    record.key = Question(key).key;
    record.finish = FinishReason::kEndToken;
    record.tokens = {static_cast<TokenId>(key % 1000), 5, 127999};
    record.prompt_tokens = 100;
    record.output_tokens = 3;
    return record;
  }

  std::string folder_;
  int64_t now_us_ = 1'800'000'000 * kUsPerS;
};

TEST_F(ResultCacheTest, LaterRunsFindWhatWasKept) {
  {
    ResultCache cache(Options());
    for (uint64_t key = 1; key <= 500; ++key) cache.Put(Question(key), Answer(key));
    cache.Flush();
    EXPECT_EQ(cache.kept(), 500);
  }
  ResultCache cache(Options());
  for (uint64_t key = 1; key <= 500; ++key)
    EXPECT_EQ(cache.Find(Question(key).key, std::nullopt), Answer(key));
  EXPECT_FALSE(cache.Find(Question(501).key, std::nullopt));
  Signature other = Question(7).key;
  ++other.high;
  EXPECT_FALSE(cache.Find(other, std::nullopt)) << "all bits of a key count";
  cache.EndTurn();
  const CacheContents contents = cache.Contents();
  EXPECT_EQ(contents.answers, 500);
  EXPECT_EQ(contents.results, 0);
  EXPECT_EQ(contents.first_us, now_us_);
  EXPECT_THAT(cache.notice() + cache.failure(), IsEmpty());
}

TEST_F(ResultCacheTest, IsItsOwnersAlone) {
  Keep(1, 1);
  struct stat facts {};
  ASSERT_EQ(stat((folder_ + "/answers").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700U);
  ASSERT_EQ(stat(path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0600U);
}

/// Counted from the beginning of the run that asks, so that all its rows see the same.
TEST_F(ResultCacheTest, ReadsGrowOld) {
  Keep(1, 1);
  now_us_ += 60 * kUsPerS;
  ResultCache cache(Options());
  EXPECT_TRUE(cache.Find(Question(1).key, 60.0));
  EXPECT_FALSE(cache.Find(Question(1).key, 59.0));
  now_us_ += 60 * kUsPerS;
  EXPECT_TRUE(cache.Find(Question(1).key, 60.0));
  cache.Put(Question(2), Answer(2));
  cache.Flush();
  cache.EndTurn();
  EXPECT_FALSE(cache.Find(Question(2).key, 60.0)) << "the run has asked it itself";
}

TEST_F(ResultCacheTest, TheLeastRecentlyUsedGo) {
  ResultCache::Options options = Options();
  options.most_bytes = 1 << 20;
  constexpr uint64_t kFirst = 2000;
  {
    ResultCache cache(options);
    for (uint64_t key = 1; key <= kFirst; ++key) cache.Put(Question(key), Answer(key));
  }
  for (uint64_t part = 1; part <= 10; ++part) {
    now_us_ += 7200 * kUsPerS;
    ResultCache cache(options);
    for (uint64_t key = 1; key <= 100; ++key)
      EXPECT_TRUE(cache.Find(Question(key).key, std::nullopt)) << "it was used each time";
    cache.EndTurn();
    for (uint64_t key = 1; key <= 1000; ++key)
      cache.Put(Question(part * kFirst + key), Answer(key));
    cache.Flush();
    EXPECT_LE(cache.Contents().bytes, options.most_bytes);
  }
  ResultCache cache(options);
  for (uint64_t key = 101; key <= kFirst; ++key)
    EXPECT_FALSE(cache.Find(Question(key).key, std::nullopt));
  EXPECT_TRUE(cache.Find(Question(10 * kFirst + 1).key, std::nullopt));
  EXPECT_GT(cache.Contents().answers, 2000);
  EXPECT_LE(static_cast<int64_t>(fs::file_size(path())), options.most_bytes + (1 << 19));
}

TEST_F(ResultCacheTest, WhatIsTooLargeIsNotKept) {
  ResultCache::Options options = Options();
  options.most_bytes = 1 << 16;
  ResultCache cache(options);
  JournalRecord value;
  value.ending = JournalRecord::Ending::kValue;
  value.text = std::string(1 << 13, 'x');
  CacheQuestion question = Question(1);
  question.is_tool = true;
  cache.Put(question, value);
  EXPECT_EQ(cache.left_out(), 1);
  value.text = "small";
  cache.Put(question, value);
  EXPECT_EQ(cache.Contents().results, 1);
}

TEST_F(ResultCacheTest, ErrorsAreNotKept) {
  ResultCache cache(Options());
  JournalRecord failed;
  failed.ending = JournalRecord::Ending::kFailed;
  failed.failure = Failure{"op", "broken", "it broke", false};
  EXPECT_DEATH(cache.Put(Question(1), failed), "never cached");
}

TEST_F(ResultCacheTest, ForgetsEverything) {
  Keep(1, 300);
  EXPECT_GT(ClearCache(folder_ + "/answers"), 0);
  ResultCache cache(Options());
  EXPECT_EQ(cache.Contents().answers, 0);
  EXPECT_EQ(ClearCache(folder_ + "/nothing"), 0);
  EXPECT_FALSE(fs::exists(folder_ + "/nothing"));
}

// ---- files that are not what they should be

TEST_F(ResultCacheTest, NoCacheIsSetAside) {
  fs::create_directories(folder_ + "/answers");
  std::ofstream(path()) << std::string(10'000, 'x');
  {
    ResultCache cache(Options());
    EXPECT_THAT(cache.notice(), HasSubstr("answers.db.damaged"));
    cache.Put(Question(1), Answer(1));
  }
  EXPECT_EQ(fs::file_size(path() + ".damaged"), 10'000U);
  ResultCache cache(Options());
  EXPECT_THAT(cache.notice(), IsEmpty());
  EXPECT_TRUE(cache.Find(Question(1).key, std::nullopt));
}

TEST_F(ResultCacheTest, AnotherProgramsDatabaseIsSetAside) {
  fs::create_directories(folder_ + "/answers");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "CREATE TABLE theirs(x)", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  ResultCache cache(Options());
  EXPECT_THAT(cache.notice(), HasSubstr("answers.db.damaged"));
  EXPECT_TRUE(fs::exists(path() + ".damaged"));
}

TEST_F(ResultCacheTest, ANewerFileIsLeftAlone) {
  Keep(1, 1);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(path().c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, "PRAGMA user_version=99", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  try {
    const ResultCache cache(Options());
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("newer version"));
  }
  EXPECT_FALSE(fs::exists(path() + ".damaged"));
}

/// Wherever a byte is wrong: an answer is what was kept, or none; and the next cache works.
TEST_F(ResultCacheTest, DamageIsNeverAnAnswer) {
  Keep(1, 400);
  const auto size = static_cast<int64_t>(fs::file_size(path()));
  std::string good(static_cast<size_t>(size), '\0');
  std::ifstream(path(), std::ios::binary).read(good.data(), size);
  for (int64_t at = 30; at < size; at += 1777) {
    SCOPED_TRACE("byte " + std::to_string(at));
    std::string bad = good;
    for (int64_t i = at; i < std::min(size, at + 40); ++i) bad[static_cast<size_t>(i)] ^= 0x5A;
    for (const char* end : {"", "-wal", "-shm"}) fs::remove(path() + end);
    std::ofstream(path(), std::ios::binary) << bad;
    {
      ResultCache cache(Options());
      for (uint64_t key = 1; key <= 400; ++key) {
        const auto found = cache.Find(Question(key).key, std::nullopt);
        EXPECT_TRUE(!found || *found == Answer(key));
      }
      cache.EndTurn();
      for (uint64_t key = 401; key <= 450; ++key) cache.Put(Question(key), Answer(key));
      cache.Flush();
    }
  }
}

TEST_F(ResultCacheTest, AFolderThatCannotBeMadeIsAnError) {
  std::ofstream(folder_) << "a file";
  EXPECT_THROW(ResultCache{Options()}, Error);
  fs::remove(folder_);
}

TEST_F(ResultCacheTest, AFullDiskEndsTheKeeping) {
  FaultyDisk disk("full");
  Keep(1, 100);
  ResultCache::Options options = Options();
  options.vfs = "full";
  ResultCache cache(options);
  disk.Arm(FaultyDisk::Fault::kNoSpace, 0);
  cache.Put(Question(500), Answer(500));
  cache.Flush();
  EXPECT_THAT(cache.failure(), HasSubstr("no more answers are kept"));
  EXPECT_TRUE(cache.Find(Question(50).key, std::nullopt)) << "what is there can still be had";
  disk.Arm(FaultyDisk::Fault::kNone, 0);
}

// ---- several at once

TEST_F(ResultCacheTest, TwoProcessesShareIt) {
  constexpr uint64_t kEach = 3000;
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    {
      ResultCache cache(Options());
      for (uint64_t key = 1; key <= kEach; ++key) {
        cache.Put(Question(key), Answer(key));
        if (key % 100 == 0) cache.Flush();
      }
    }
    _exit(0);
  }
  {
    ResultCache cache(Options());
    for (uint64_t key = kEach + 1; key <= 2 * kEach; ++key) {
      cache.Put(Question(key), Answer(key));
      if (key % 100 == 0) cache.Flush();
      const auto found = cache.Find(Question(key - kEach).key, std::nullopt);
      EXPECT_TRUE(!found || *found == Answer(key - kEach));
      cache.EndTurn();
    }
    EXPECT_THAT(cache.failure(), IsEmpty());
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ResultCache cache(Options());
  EXPECT_EQ(cache.Contents().answers, static_cast<int64_t>(2 * kEach));
}

/// Killed while it writes: what is there is whole, and others go on.
TEST_F(ResultCacheTest, AKilledWriterLeavesAGoodFile) {
  for (int round = 0; round < 5; ++round) {
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ResultCache::Options options = Options();
      options.gather_us = 100;
      ResultCache cache(options);
      for (uint64_t key = 1;; ++key) {
        cache.Put(Question(key), Answer(key));
        if (key == 5000) cache.Flush();
        if (key == 5000 && write(ready[1], "x", 1) != 1) _exit(1);
        if (key % 1000 == 0) usleep(200);
      }
    }
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    kill(child, SIGKILL);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    close(ready[0]);
    close(ready[1]);
    ResultCache cache(Options());
    EXPECT_THAT(cache.notice(), IsEmpty());
    int64_t found = 0;
    for (uint64_t key = 1; key <= 5000; ++key) {
      const auto answer = cache.Find(Question(key).key, std::nullopt);
      if (!answer) continue;
      ++found;
      EXPECT_EQ(*answer, Answer(key));
    }
    EXPECT_EQ(found, 5000);
    cache.EndTurn();
    cache.Put(Question(1'000'000), Answer(1));
    cache.Flush();
    EXPECT_EQ(cache.kept(), 1);
  }
}

}  // namespace
}  // namespace halo::test
