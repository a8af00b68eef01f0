#include "halo/row_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <condition_variable>
#include <fstream>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "halo/error.h"
#include "halo/session.h"
#include "session/durable_run.h"
#include "session/simulated_run.h"
#include "support/test_models.h"

namespace halo::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// Sessions on a tiny model whose rows come from streams and go to this object.
class RowStreamTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = FreshFolder(std::string("stream_") +
                          testing::UnitTest::GetInstance()->current_test_info()->name());
    Write("flow.yaml",
          "start_ops: [a]\nend_ops: [a]\nops:\n  a: {model: m, prompt: Say, temperature: 0, "
          "max_tokens: 3}\n");
    Stream(RowStream::Arrival::kBefore);
    options_.models = {{"m", TinyModel()}};
    options_.threads = 1;
    options_.input_order = false;
    options_.use_history = false;
    options_.on_row = [this](FinishedRow row) {
      const std::lock_guard lock(mutex_);
      rows_.push_back(std::move(row));
      changed_.notify_all();
    };
  }

  /// The input is a new stream.
  void Stream(RowStream::Arrival arrival) {
    options_.inputs = {{folder_ + "/flow.yaml", "", std::make_shared<RowStream>(arrival)}};
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }
  RowStream& stream() { return *options_.inputs.front().stream; }

  RunOutcome Run() {
    const std::atomic<int> stop{0};
    return Session(options_).Run(stop, [](const Progress&) {});
  }
  std::string FaultOfRun() {
    try {
      Run();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  /// Waits until so many rows have come.
  void WaitForRows(size_t count) {
    std::unique_lock lock(mutex_);
    constexpr std::chrono::seconds kForEver(60);
    ASSERT_TRUE(changed_.wait_for(lock, kForEver, [&] { return rows_.size() >= count; }));
  }
  std::vector<int64_t> Indices() {
    const std::lock_guard lock(mutex_);
    std::vector<int64_t> indices;
    for (const FinishedRow& row : rows_) indices.push_back(row.index);
    return indices;
  }
  Json RowOf(int64_t index) {
    const std::lock_guard lock(mutex_);
    for (const FinishedRow& row : rows_) {
      if (row.index == index) return Json::parse(row.json);
    }
    return {};
  }

  std::string folder_;
  RunOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<FinishedRow> rows_;  // under mutex_
};

TEST_F(RowStreamTest, RowsThatComeBeforeAreLikeAFile) {
  Write("rows.jsonl", "{\"id\": \"x\", \"prompt\": \"one\"}\n{\"prompt\": \"two\"}\n");
  stream().Add(R"({"id": "x", "prompt": "one"})");
  stream().Add(R"({"prompt": "two"})");
  stream().Close();
  options_.input_order = true;
  const Json given = Json::parse(Run().summary_json);
  EXPECT_EQ(given["rows"]["total"], 2);
  const std::vector<FinishedRow> of_stream = std::exchange(rows_, {});
  options_.inputs = {{folder_ + "/flow.yaml", folder_ + "/rows.jsonl", nullptr}};
  Run();
  ASSERT_EQ(of_stream.size(), 2U);
  ASSERT_EQ(rows_.size(), 2U);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(of_stream[i].json, rows_[i].json);
    EXPECT_EQ(of_stream[i].index, static_cast<int64_t>(i));
    EXPECT_TRUE(of_stream[i].is_ok);
    EXPECT_GE(of_stream[i].ended_s, of_stream[i].opened_s);
  }
}

TEST_F(RowStreamTest, FaultsOfRowsThatComeBeforeAreFoundFirst) {
  stream().Add(R"({"prompt": "one"})");
  stream().Add(R"({"prompt": )");
  stream().Add(R"({"id": 0, "prompt": "three"})");
  stream().Add(R"({"promt": "four"})");
  stream().Close();
  EXPECT_THAT(FaultOfRun(), AllOf(HasSubstr("rows:2:12: "), HasSubstr("the id 0 is already"),
                                  HasSubstr("row 4 has no column 'prompt'")));
  EXPECT_TRUE(rows_.empty());
  Stream(RowStream::Arrival::kBefore);
  EXPECT_THAT(FaultOfRun(), HasSubstr("has to be closed"));
}

TEST_F(RowStreamTest, RowsMayComeWhileItRuns) {
  Stream(RowStream::Arrival::kAnyTime);
  std::thread caller([this] {
    const int64_t first = stream().Add(R"({"prompt": "one"})");
    WaitForRows(1);
    EXPECT_THAT(Indices(), ElementsAre(first));
    stream().Add(R"({"prompt": "two"})");
    stream().Add(R"([1])");
    stream().Add(R"({"id": 1, "prompt": "again"})");
    WaitForRows(4);
    stream().Close();
  });
  const RunOutcome outcome = Run();
  caller.join();
  EXPECT_EQ(outcome.status, RunStatus::kRowsFailed);
  EXPECT_EQ(RowOf(0)["status"], "ok");
  EXPECT_EQ(RowOf(1)["status"], "ok");
  EXPECT_EQ(RowOf(2)["error"]["code"], "bad_row");
  EXPECT_EQ(RowOf(2)["id"], "row:3");
  EXPECT_EQ(RowOf(3)["error"]["code"], "duplicate_id");
  EXPECT_THROW(stream().Add("{}"), Error) << "it is closed";
}

TEST_F(RowStreamTest, HigherPrioritiesGoFirst) {
  // One row at a time, so that the order in which rows are taken is that in which they end.
  options_.naive = true;
  for (const int32_t priority : {0, 5, -1, 5}) stream().Add(R"({"prompt": "p"})", {priority, 0.0});
  stream().Close();
  Run();
  EXPECT_THAT(Indices(), ElementsAre(1, 3, 0, 2));
}

TEST_F(RowStreamTest, CancelledRowsFailAlone) {
  options_.naive = true;
  stream().Add(R"({"prompt": "one"})");
  stream().Add(R"({"prompt": "two"})");
  stream().Cancel(1);
  stream().Close();
  const RunOutcome outcome = Run();
  EXPECT_EQ(outcome.status, RunStatus::kRowsFailed);
  EXPECT_EQ(RowOf(0)["status"], "ok");
  EXPECT_EQ(RowOf(1)["error"]["code"], "cancelled");
  stream().Cancel(0);  // it has ended: nothing happens
}

TEST_F(RowStreamTest, ARowMayBeCancelledWhileItRuns) {
  Stream(RowStream::Arrival::kAnyTime);
  std::atomic<bool> is_inside{false};
  std::promise<void> end;
  std::shared_future<void> ended = end.get_future().share();
  options_.functions["hold"] = {[&](const std::string&) {
                                  is_inside = true;
                                  ended.wait();
                                  return std::string("{}");
                                },
                                1};
  Write("flow.yaml",
        "graph:\n  nodes:\n    - {id: in, type: input, outputs: [prompt]}\n    - {id: f, type: "
        "processor, processor: hold, inputs: [prompt], outputs: [x]}\n");
  stream().Add(R"({"prompt": "one"})");
  std::thread caller([&] {
    while (!is_inside) std::this_thread::yield();
    stream().Cancel(0);
    WaitForRows(1);  // although the function goes on
    end.set_value();
    stream().Close();
  });
  Run();
  caller.join();
  EXPECT_EQ(RowOf(0)["error"]["code"], "cancelled");
}

TEST_F(RowStreamTest, TheLimitTakesRowsFromTheFront) {
  for (const int32_t priority : {0, 1, 9}) stream().Add(R"({"prompt": "p"})", {priority, 0.0});
  stream().Close();
  options_.limit = 2;
  options_.naive = true;
  Run();
  EXPECT_THAT(Indices(), ElementsAre(1, 0));
}

TEST_F(RowStreamTest, WhoAddsMayWaitForRoom) {
  Stream(RowStream::Arrival::kAnyTime);
  stream().Add(R"({"prompt": "one"})");
  EXPECT_EQ(stream().waiting(), 1);
  EXPECT_FALSE(stream().WaitBelow(1, 0.0));
  std::thread caller([this] {
    EXPECT_TRUE(stream().WaitBelow(1, 60.0));
    stream().Close();
  });
  Run();
  caller.join();
}

TEST_F(RowStreamTest, FunctionsOfTheProgramAreTools) {
  options_.functions["double"] = {[](const std::string& call) {
                                    const Json inputs = Json::parse(call)["inputs"];
                                    if (inputs["n"] == 3) throw std::runtime_error("no three");
                                    return Json(inputs["n"].get<int>() * 2).dump();
                                  },
                                  2};
  Write("flow.yaml",
        "graph:\n  nodes:\n    - {id: in, type: input, outputs: [n]}\n    - {id: f, type: "
        "processor, processor: double, inputs: [n], outputs: [twice]}\n");
  for (int n = 1; n <= 4; ++n) stream().Add(Json{{"n", n}}.dump());
  stream().Close();
  Run();
  EXPECT_EQ(RowOf(3)["outputs"]["twice"], 8);
  EXPECT_EQ(RowOf(2)["error"]["code"], "function_failed");
  EXPECT_EQ(RowOf(2)["error"]["message"], "double: no three");
  options_.functions["join"] = options_.functions["double"];
  EXPECT_THAT(FaultOfRun(), HasSubstr("'join' has the name of one that comes with Halo"));
  options_.functions.clear();
  EXPECT_THAT(FaultOfRun(), HasSubstr("there is no function 'double'"));
}

TEST_F(RowStreamTest, AKeptRunHasItsRowsAndNamesItsFunctions) {
  options_.functions["f"] = {[](const std::string&) { return std::string("1"); }, 1};
  Write("flow.yaml",
        "graph:\n  nodes:\n    - {id: in, type: input, outputs: [n]}\n    - {id: f, type: "
        "processor, processor: f, inputs: [n], outputs: [x]}\n");
  options_.run_folder = folder_ + "/run";
  stream().Add(R"({"n": 1})", {1, 0.0});
  stream().Add(R"({"n": 2})", {2, 0.0});
  stream().Close();
  Run();
  const std::vector<FinishedRow> before = std::exchange(rows_, {});
  RunOptions again = OptionsToResume(folder_ + "/run");
  again.on_row = options_.on_row;
  options_ = again;
  EXPECT_THAT(FaultOfRun(), HasSubstr("'f' calls 'f', a function of the program that began"));
  options_.functions["f"] = {[](const std::string&) -> std::string {
                               throw std::runtime_error("what is kept is not asked again");
                             },
                             1};
  Run();
  ASSERT_EQ(rows_.size(), 2U);
  std::set<std::string> texts, texts_before;
  for (const FinishedRow& row : rows_) texts.insert(row.json);
  for (const FinishedRow& row : before) texts_before.insert(row.json);
  EXPECT_EQ(texts, texts_before);
}

TEST_F(RowStreamTest, SimulationsTakeRowsThatComeBefore) {
  for (int i = 0; i < 5; ++i) stream().Add(R"({"prompt": "p"})");
  stream().Close();
  SimulationOptions simulation;
  simulation.run = options_;
  EXPECT_EQ(Simulate(simulation).rows_ok, 5);
  EXPECT_EQ(rows_.size(), 5U);
}

}  // namespace
}  // namespace halo::test
