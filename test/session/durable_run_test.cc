#include "session/durable_run.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "base/error.h"
#include "base/random.h"

namespace halo {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(RowSet, IsASetOfRows) {
  RandomStream draws(8);
  constexpr uint64_t kMostRow = 60, kMostCount = 9;
  for (int round = 0; round < 200; ++round) {
    RowSet rows;
    std::set<int64_t> wanted;
    for (int step = 0; step < 30; ++step) {
      const auto first = static_cast<int64_t>(draws.Below(kMostRow));
      const auto count = static_cast<int64_t>(draws.Below(kMostCount)) + 1;
      const bool adds = draws.Below(2) == 0;
      for (int64_t row = first; row < first + count; ++row) {
        if (adds) {
          wanted.insert(row);
        } else {
          wanted.erase(row);
        }
      }
      adds ? rows.Add(first, count) : rows.Remove(first, count);
      ASSERT_EQ(rows.size(), static_cast<int64_t>(wanted.size()));
      for (int64_t row = -1; row < 80; ++row) ASSERT_EQ(rows.Contains(row), wanted.contains(row));
    }
  }
}

TEST(RunManifest, UrlsLoseTheirPasswords) {
  EXPECT_EQ(MaskedUrl("postgres://me:secret@host/db"), "postgres://me:***@host/db");
  EXPECT_EQ(MaskedUrl("postgres://me:se@cr:et@host/db"), "postgres://me:***@host/db");
  EXPECT_EQ(MaskedUrl("postgres://host/db?user=me&password=secret&x=1"),
            "postgres://host/db?user=me&password=***&x=1");
  // Not what a URL may have, but what people paste.
  EXPECT_EQ(MaskedUrl("postgres://me:se/cr@et@host:5432/db"), "postgres://me:***@host:5432/db");
  EXPECT_EQ(MaskedUrl("postgres://me:s@e/cret@host/db?a=b@c"), "postgres://me:***@host/db?a=b@c");
  EXPECT_EQ(MaskedUrl("postgres://[::1]:5432/a@b"), "postgres://[::1]:5432/a@b");
  EXPECT_EQ(MaskedUrl("postgres://me@host:5432/db"), "postgres://me@host:5432/db");
  EXPECT_EQ(MaskedUrl("postgres://host:5432/a@b"), "postgres://host:5432/a@b");
  EXPECT_EQ(MaskedUrl("postgres://me:${env:PW}@host/db"), "postgres://me:${env:PW}@host/db");
  EXPECT_EQ(MaskedUrl("duckdb:shop.db"), "duckdb:shop.db");
}

class RunFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "halo-run-folder-" + std::to_string(getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }
  std::string runs() const { return folder_ + "/runs"; }
  static constexpr int64_t kNow = 1'795'350'918;
  std::string folder_;
};

TEST_F(RunFolderTest, IsNamedAfterItsBeginningAndPrivate) {
  RunFolder one = RunFolder::MakeIn(runs(), kNow);
  RunFolder two = RunFolder::MakeIn(runs(), kNow);
  EXPECT_EQ(one.id(), "20261122-123518");
  EXPECT_EQ(two.id(), "20261122-123518-2");
  struct stat facts {};
  ASSERT_EQ(stat(one.path().c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 0777, 0700U);
  one.Keep();
  EXPECT_EQ(fs::read_symlink(runs() + "/last"), one.id());
  two.Keep();
  EXPECT_EQ(fs::read_symlink(runs() + "/last"), two.id());
}

TEST_F(RunFolderTest, GoesIfNothingBegins) {
  { const RunFolder folder = RunFolder::MakeIn(runs(), kNow); }
  EXPECT_FALSE(fs::exists(runs()));
  { RunFolder::MakeIn(runs(), kNow).Keep(); }
  EXPECT_TRUE(fs::exists(runs() + "/20261122-123518"));
  { const RunFolder folder = RunFolder::MakeIn(runs(), kNow); }
  EXPECT_FALSE(fs::exists(runs() + "/20261122-123518-2"));
}

TEST_F(RunFolderTest, HasOneProcessAtATime) {
  RunFolder folder = RunFolder::MakeIn(runs(), kNow);
  folder.Keep();
  EXPECT_TRUE(IsLocked(folder.path()));
  EXPECT_THROW(RunFolder::Open(folder.path()), Error) << "there is no manifest yet";
  WriteWhole(folder.File("manifest.json"), "{}");
  try {
    RunFolder::Open(folder.path());
    FAIL() << "two work on one run";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("another process"));
  }
  const std::string path = folder.path();
  { const RunFolder ends = std::move(folder); }
  EXPECT_FALSE(IsLocked(path));
  EXPECT_EQ(RunFolder::Open(path).path(), path);
  EXPECT_THAT(ListRuns(runs()), ElementsAre(path));
  EXPECT_EQ(FindRun("20261122-123518", runs()), path);
  EXPECT_THROW(FindRun("nothing", runs()), Error);
}

TEST_F(RunFolderTest, OfOnesOwnIsEmpty) {
  { RunFolder::Make(folder_ + "/own").Keep(); }
  EXPECT_THROW(RunFolder::Make(folder_ + "/own"), Error) << "its lock is in it";
  EXPECT_THROW(RunFolder::Make(folder_ + "/no/where"), Error);
}

TEST_F(RunFolderTest, UnfinishedRunsAreFound) {
  RunFolder folder = RunFolder::MakeIn(runs(), kNow);
  WriteWhole(folder.File("manifest.json"), "{}");
  EXPECT_FALSE(FindUnfinished(runs(), "abc"));
  PointUnfinished(runs(), "abc", folder.id());
  EXPECT_EQ(FindUnfinished(runs(), "abc"), folder.path());
  PointUnfinished(runs(), "abc", "");
  EXPECT_FALSE(FindUnfinished(runs(), "abc"));
  PointUnfinished(runs(), "abc", "deleted");
  EXPECT_FALSE(FindUnfinished(runs(), "abc")) << "somebody has deleted it";
}

TEST_F(RunFolderTest, FilesAreKnownByTheirContent) {
  const std::string path = folder_ + "/file";
  std::ofstream(path) << "some text";
  const FileFacts first = LookAt(path, {});
  EXPECT_EQ(first.bytes, 9);
  std::ofstream(path) << "same text";
  EXPECT_NE(LookAt(path, {}).digest, first.digest);
  FileFacts known = LookAt(path, {});
  known.digest = "taken over";
  EXPECT_EQ(LookAt(path, {known}).digest, "taken over");
  EXPECT_THROW(LookAt(folder_ + "/nothing", {}), Error);
  // More than one read of it.
  std::ofstream(path) << std::string(3 << 20, 'x') << "end";
  const std::string large = LookAt(path, {}).digest;
  std::ofstream(path) << std::string(3 << 20, 'x') << "End";
  EXPECT_NE(LookAt(path, {}).digest, large);
}

TEST(RunManifest, SaysWhatHasChangedAndWhy) {
  RunManifest before;
  RunManifest::Input& input = before.inputs.emplace_back();
  input.workflow.path = "w.yaml";
  input.operators = {{"a", "1", {}}, {"b", "2", {"a"}}, {"c", "3", {}}};
  input.rows = {"rows.jsonl", 1, 1, "r"};
  before.models = {{"m.gguf", 1, 1, "m"}};
  EXPECT_THAT(Changes(before, before), IsEmpty());
  RunManifest now = before;
  now.inputs[0].operators = {{"a", "7", {}}, {"b", "8", {"a"}}, {"c", "3", {}}, {"d", "4", {}}};
  now.inputs[0].rows.digest = "s";
  now.models[0].digest = "n";
  EXPECT_THAT(Changes(before, now),
              ElementsAre(HasSubstr("'a' is asked again where its prompts differ: it has changed"),
                          HasSubstr("'b' is asked again where its prompts differ: it looks at 'a'"),
                          HasSubstr("'d' is asked again where its prompts differ: it is new"),
                          HasSubstr("rows.jsonl has changed"), HasSubstr("m.gguf is another")));
}

TEST_F(RunFolderTest, ManifestComesBack) {
  RunManifest manifest;
  manifest.created = kNow;
  manifest.parts = 3;
  manifest.in_runs = true;
  manifest.working_folder = "/somewhere";
  manifest.same = "abc";
  manifest.options.inputs = {{"w.yaml", "rows.jsonl"}};
  manifest.options.output = "out.csv";
  manifest.options.models = {{"m", "m.gguf"}};
  manifest.options.connections = {{"db", "postgres://me:secret@host/db"}};
  manifest.options.allow = {"net"};
  manifest.options.seed = UINT64_MAX;
  manifest.options.date = "2026-01-31";
  manifest.options.deterministic = Determinism::kRequired;
  manifest.options.max_failures_share = 0.05;
  manifest.options.engine_program = "/proc/self/exe";
  RunManifest::Input& input = manifest.inputs.emplace_back();
  input.workflow = {"w.yaml", 5, 6, "d"};
  input.text = "name: \"w\"\n";
  input.operators = {{"a", "1", {"b"}}};
  manifest.models = {{"m.gguf", 1, 2, "m"}};
  const std::string text = ManifestText(manifest);
  EXPECT_THAT(text, testing::Not(HasSubstr("secret")));
  std::ofstream(folder_ + "/manifest.json") << text;
  const RunManifest read = ReadManifest(folder_);
  EXPECT_EQ(ManifestText(read), text);
  EXPECT_EQ(read.options.seed, UINT64_MAX);
  EXPECT_EQ(read.options.inputs[0].rows, "rows.jsonl");
  EXPECT_EQ(read.options.deterministic, Determinism::kRequired);
  EXPECT_THAT(MaskedConnections(read.options), ElementsAre("db"));
  std::ofstream(folder_ + "/manifest.json") << "{\"format\": 1}";
  EXPECT_THROW(ReadManifest(folder_), Error);
  std::ofstream(folder_ + "/manifest.json") << "{\"format\": 1000}";
  EXPECT_THROW(ReadManifest(folder_), Error);
}

}  // namespace
}  // namespace halo
