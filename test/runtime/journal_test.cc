#include "runtime/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "support/faulty_disk.h"

namespace halo::test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class JournalTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-journal-" + std::to_string(getpid());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  Journal::Options Options(const std::string& vfs = "") const {
    return {folder_ + "/journal.db", vfs};
  }
  std::string folder_;
};

JournalRecord Answer(uint64_t key) {
  JournalRecord record;
  record.key = {key * 0x9E3779B97F4A7C15ULL, key};
  record.finish = FinishReason::kEndToken;
  record.tokens = {1, 127, 128, 16384, 127999, 0};
  record.prompt_tokens = 300;
  record.output_tokens = 6;
  return record;
}

void CommitAll(Journal& journal) {
  while (journal.committed() < journal.appended() && journal.failure().empty())
    journal.Wait(1'000'000);
}

TEST(JournalRecord, ComesBackAsItWas) {
  JournalRecord answer = Answer(7);
  answer.cut = true;
  answer.text = "what a stop string left";
  JournalRecord empty;
  empty.text = "";
  JournalRecord value;
  value.ending = JournalRecord::Ending::kValue;
  value.text = "{\"rows\":[]}";
  JournalRecord failed;
  failed.ending = JournalRecord::Ending::kFailed;
  failed.failure = Failure{"op", "timeout", "the call took longer", true};
  JournalRecord spent;
  spent.ending = JournalRecord::Ending::kSpent;
  spent.cost = 123'456'789'012;
  failed.unpaid = true;
  for (JournalRecord record : {answer, empty, value, failed, spent}) {
    std::optional<JournalRecord> read = DecodeRecord(EncodeRecord(record));
    ASSERT_TRUE(read);
    record.key = {};
    EXPECT_EQ(*read, record);
  }
  const Signature key{0x0123456789ABCDEF, 0xFEDCBA9876543210};
  EXPECT_EQ(DecodeKey(EncodeKey(key)), key);
}

TEST(JournalRecord, DamageIsNoRecord) {
  JournalRecord record = Answer(7);
  record.text = "some text";
  const std::string bytes = EncodeRecord(record);
  for (size_t size = 0; size < bytes.size(); ++size)
    EXPECT_FALSE(DecodeRecord(bytes.substr(0, size))) << size;
  EXPECT_FALSE(DecodeRecord(bytes + "x"));
  EXPECT_FALSE(DecodeRecord("\x09" + bytes.substr(1)));
}

/// The layout of journals that exist: a change of it is a new format.
TEST(JournalRecord, LayoutIsThatOfTheFiles) {
  JournalRecord record = Answer(7);
  record.text = "ab";
  EXPECT_EQ(EncodeRecord(record),
            std::string("\x00\x02\x00\xAC\x02\x06\x06\x01\x7F\x80\x01\x80\x80\x01\xFF\xE7\x07\x00"
                        "\x02"
                        "ab",
                        21));
}

TEST_F(JournalTest, NextPartFindsWhatWasCommitted) {
  {
    Journal journal(Options());
    EXPECT_EQ(journal.earlier(), 0);
    for (uint64_t key = 1; key <= 1000; ++key) journal.Append(Answer(key));
    journal.Append(WrittenRows{2, 10, 5, true});
    CommitAll(journal);
    EXPECT_EQ(journal.committed(), 1001);
    EXPECT_FALSE(journal.Find(Answer(5).key)) << "what this part appended is not looked for";
  }
  Journal journal(Options());
  EXPECT_EQ(journal.earlier(), 1000);
  for (uint64_t key = 1; key <= 1000; ++key) EXPECT_EQ(journal.Find(Answer(key).key), Answer(key));
  EXPECT_FALSE(journal.Find(Answer(1001).key));
  ASSERT_THAT(journal.earlier_rows(), SizeIs(1));
  const WrittenRows& rows = journal.earlier_rows().front();
  EXPECT_EQ(rows.source, 2U);
  EXPECT_EQ(rows.first, 10);
  EXPECT_EQ(rows.count, 5);
  EXPECT_TRUE(rows.failed);
}

TEST_F(JournalTest, ClosingCommits) {
  { Journal(Options()).Append(Answer(1)); }
  EXPECT_EQ(Journal(Options()).earlier(), 1);
}

TEST_F(JournalTest, LastRecordOfAKeyCounts) {
  JournalRecord later = Answer(1);
  later.tokens = {5};
  {
    Journal journal(Options());
    journal.Append(Answer(1));
    journal.Append(later);
  }
  EXPECT_EQ(Journal(Options()).Find(later.key), later);
}

/// What a budget of the whole run is less by: attempts that failed are among it, what no call was
/// made for is not.
TEST_F(JournalTest, KnowsWhatEarlierPartsSpent) {
  JournalRecord spent = Answer(1);
  spent.ending = JournalRecord::Ending::kSpent;
  spent.tokens.clear();
  spent.cost = 70;
  JournalRecord paid = Answer(2);
  paid.cost = 90;
  JournalRecord taken = Answer(3);
  taken.unpaid = true;
  JournalRecord begun = Answer(4);
  begun.ending = JournalRecord::Ending::kBegun;
  begun.prompt_tokens = begun.output_tokens = 0;
  {
    Journal journal(Options());
    journal.Append(Answer(1));
    for (const JournalRecord& record : {spent, spent, paid, taken, begun}) journal.Append(record);
  }
  Journal journal(Options());
  EXPECT_EQ(journal.earlier_calls(), 4);
  EXPECT_EQ(journal.earlier_tokens(), 4 * 306);
  EXPECT_EQ(journal.earlier_cost(), 70 + 70 + 90);
  EXPECT_EQ(journal.Find(Answer(1).key), Answer(1)) << "what was spent is no outcome";
}

TEST_F(JournalTest, TimeOfEarlierPartsIsASum) {
  constexpr int64_t kPart = 1'500'000;
  for (int64_t part = 0; part < 3; ++part) {
    Journal journal(Options());
    EXPECT_EQ(journal.earlier_us(), part * kPart);
    journal.SetElapsed(kPart / 2);
    journal.Append(Answer(1));
    journal.SetElapsed(kPart);  // nothing comes after it
  }
  Journal journal(Options());
  EXPECT_EQ(journal.earlier_us(), 3 * kPart);
  EXPECT_EQ(journal.earlier(), 3) << "time is no outcome";
}

/// A part that waits for one long call commits nothing else.
TEST_F(JournalTest, TimeIsCommittedBesideNothing) {
  Journal journal(Options());
  journal.SetElapsed(2'000'000);
  // The journal's own thread commits, by the machine's clock.
  while (Journal(Options()).earlier_us() == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(Journal(Options()).earlier_us(), 2'000'000);
}

TEST_F(JournalTest, DescriptorTellsOfCommits) {
  Journal journal(Options());
  journal.Append(Answer(1));
  CommitAll(journal);
  uint64_t count = 0;
  journal.TakeReady();
  EXPECT_LT(read(journal.ready_descriptor(), &count, sizeof count), 0) << "it was taken";
}

TEST_F(JournalTest, BoundHoldsAppendsBack) {
  Journal::Options options = Options();
  options.most_waiting = 3;
  options.gather_us = 60'000'000;  // nothing but the bound can be the reason
  Journal journal(options);
  for (uint64_t key = 1; key <= 100; ++key) journal.Append(Answer(key));
  EXPECT_GE(journal.committed(), 90);
}

TEST_F(JournalTest, OtherFilesAreRefused) {
  std::ofstream(Options().path) << std::string(8192, 'x');
  EXPECT_THROW(Journal{Options()}, Error);
  std::filesystem::remove(Options().path);
  sqlite3* handle = nullptr;
  sqlite3_open(Options().path.c_str(), &handle);
  sqlite3_exec(handle, "CREATE TABLE photos(id)", nullptr, nullptr, nullptr);
  sqlite3_close(handle);
  try {
    Journal journal(Options());
    FAIL() << "somebody else's database was taken for a journal";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("another program's"));
  }
}

/// What this version adds, an older one would take for damage: it must not read on.
TEST_F(JournalTest, AnOlderFormatBecomesThisOne) {
  const auto version = [&](const char* sql) {
    sqlite3* handle = nullptr;
    sqlite3_open(Options().path.c_str(), &handle);
    sqlite3_exec(handle, sql, nullptr, nullptr, nullptr);
    sqlite3_stmt* statement = nullptr;
    sqlite3_prepare_v2(handle, "PRAGMA user_version", -1, &statement, nullptr);
    sqlite3_step(statement);
    const int number = sqlite3_column_int(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(handle);
    return number;
  };
  { Journal(Options()).Append(Answer(1)); }
  const int now = version("");
  EXPECT_EQ(version("DROP TABLE parts; PRAGMA user_version=1"), 1);
  EXPECT_TRUE(Journal(Options()).Find(Answer(1).key));
  EXPECT_EQ(version(""), now);
}

TEST_F(JournalTest, NewerFormatIsRefused) {
  { const Journal journal(Options()); }
  sqlite3* handle = nullptr;
  sqlite3_open(Options().path.c_str(), &handle);
  sqlite3_exec(handle, "PRAGMA user_version=1000", nullptr, nullptr, nullptr);
  sqlite3_close(handle);
  try {
    Journal journal(Options());
    FAIL() << "a newer journal was opened";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("newer version"));
  }
}

TEST_F(JournalTest, FolderThatIsNotThere) {
  Journal::Options options;
  options.path = folder_ + "/nowhere/journal.db";
  try {
    Journal journal(options);
    FAIL() << "a journal in no folder";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("nowhere/journal.db"));
  }
}

TEST_F(JournalTest, FullDiskIsTold) {
  FaultyDisk disk("full-disk");
  {
    Journal journal(Options(disk.name()));
    journal.Append(Answer(1));
    CommitAll(journal);
    disk.Arm(FaultyDisk::Fault::kNoSpace, 0);
    journal.Append(Answer(2));
    CommitAll(journal);
    EXPECT_THAT(journal.failure(), HasSubstr("full"));
    EXPECT_EQ(journal.committed(), 1);
    disk.Arm(FaultyDisk::Fault::kNone, 0);
    journal.Append(Answer(3));  // nobody is held up, and nothing is taken for committed
    journal.Wait(1000);
    EXPECT_EQ(journal.committed(), 1);
  }
  Journal journal(Options());
  EXPECT_TRUE(journal.Find(Answer(1).key));
  EXPECT_FALSE(journal.Find(Answer(3).key)) << "nothing follows a gap";
}

/// What was said to be committed is there after a loss of power at any change of the files, and
/// what is there is whole.
TEST_F(JournalTest, CommittedSurvives) {
  FaultyDisk disk("any-change");
  using Fault = FaultyDisk::Fault;
  for (const Fault fault : {Fault::kStop, Fault::kTorn, Fault::kPowerLoss, Fault::kNoSpace}) {
    for (int64_t at = 0;; ++at) {
      std::filesystem::remove_all(folder_);
      std::filesystem::create_directories(folder_);
      { const Journal made(Options(disk.name())); }
      int64_t committed = 0;
      bool reached = false;
      try {
        Journal journal(Options(disk.name()));
        disk.Arm(fault, at);
        for (uint64_t key = 1; key <= 40; ++key) {
          journal.Append(Answer(key));
          if (key % 8 == 0) CommitAll(journal);
        }
        committed = journal.committed();
        reached = !journal.failure().empty();
      } catch (const Error&) {
        reached = true;
      }
      disk.Arm(Fault::kNone, 0);
      Journal journal(Options(disk.name()));
      EXPECT_GE(journal.earlier(), committed);
      for (int64_t key = 1; key <= journal.earlier(); ++key) {
        const JournalRecord wanted = Answer(static_cast<uint64_t>(key));
        EXPECT_EQ(journal.Find(wanted.key), wanted) << at;
      }
      if (!reached) {
        EXPECT_GT(at, 10);
        break;
      }
    }
  }
}

}  // namespace
}  // namespace halo::test
