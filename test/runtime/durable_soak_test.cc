// A long run that is kept: memory stays flat, and not one row is lost or counted twice.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/random.h"
#include "runtime/executor.h"
#include "runtime/journal.h"
#include "support/simulated_run.h"

namespace halo::test {
namespace {

constexpr int64_t kRows = 1'000'000;

/// One row in a hundred, by its number alone.
bool Fails(int64_t row) { return UniformDraw(8, static_cast<uint64_t>(row)) < 0.01; }

int64_t ResidentKib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmRSS:")) return std::stoll(line.substr(6));
  }
  return 0;
}

/// Rows one by one; looks at the memory on the way.
class ManyRows final : public RowFeed {
 public:
  Pull Next(Row& row) override {
    if (next_ == kRows) return Pull::kClosed;
    row = Row{};
    row.index = next_;
    row.id = next_;
    row.values = {{"prompt", "row " + std::to_string(next_)}};
    ++next_;
    if (next_ == kRows / 4) early_kib = ResidentKib();
    if (next_ == kRows) late_kib = ResidentKib();
    return Pull::kRow;
  }
  int64_t early_kib = 0, late_kib = 0;

 private:
  int64_t next_ = 0;
};

class CountingSink final : public ResultSink {
 public:
  void Write(const RowResult& row) override {
    in_order = in_order && row.index == rows;
    right = right && row.failure.has_value() == Fails(row.index);
    ++rows;
  }
  void Finish() override {}
  void Flush() override {}
  int64_t rows = 0;
  bool in_order = true, right = true;
};

TEST(DurableSoak, AMillionRowsOfWhichSomeFail) {
  const std::string folder = testing::TempDir() + "halo-soak-" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  int64_t failing = 0;
  for (int64_t row = 0; row < kRows; ++row) failing += Fails(row) ? 1 : 0;
  for (const bool is_first : {true, false}) {
    int64_t made = 0;
    SimulatedEngineOptions engine;
    engine.sequences = 256;
    engine.script = [&](const Request& request) {
      ++made;
      ScriptedReply reply;
      reply.text = "ok";
      if (Fails(request.row_index)) reply.failure = Failure{"", "broken", "it broke", false};
      return reply;
    };
    SimulatedRig rig("start_ops: [a]\nend_ops: [a]\nops: {a: {model: m, prompt: Go.}}\n", "w.yaml",
                     engine);
    ManyRows feed;
    CountingSink sink;
    Journal journal({folder + "/journal.db", ""});
    ExecutorOptions options;
    options.journal = &journal;
    const StopFlag stop{0};
    const RunReport report =
        Executor({rig.Source(feed, sink)}, options, rig.clock, nullptr).Run(stop);
    ExpectAccounting(report, kRows);
    EXPECT_EQ(made, is_first ? kRows : 0);
    EXPECT_EQ(report.counts.rows_failed, failing);
    EXPECT_EQ(sink.rows, kRows);
    EXPECT_TRUE(sink.in_order);
    EXPECT_TRUE(sink.right);
    constexpr int64_t kMostMoreKib = 64 << 10;
    EXPECT_LT(feed.late_kib - feed.early_kib, kMostMoreKib) << "beside " << feed.early_kib;
  }
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace halo::test
