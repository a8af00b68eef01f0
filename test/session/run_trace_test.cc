#include "session/run_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace halo {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;

std::string PathOf(const std::string& name) { return testing::TempDir() + name; }

Json Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  return Json::parse(text);
}

TEST(TraceFile, IsWholeAfterEachFlush) {
  const std::string path = PathOf("whole.json");
  TraceFile file(path, 1000);
  EXPECT_TRUE(Read(path).at("traceEvents").empty());
  file.NameProcess(1, "scheduler");
  file.AddSpan({1, 2}, "na\"me\n\xFF", 1500, 1700, {{"tokens", 3}});
  file.Flush();
  const Json first = Read(path).at("traceEvents");
  ASSERT_EQ(first.size(), 3U);
  EXPECT_EQ(first[2], Json({{"ph", "X"},
                            {"pid", 1},
                            {"tid", 1'000'002},
                            {"name", "na\"me\n\xEF\xBF\xBD"},
                            {"ts", 500},
                            {"dur", 200},
                            {"args", {{"tokens", 3}}}}));
  file.AddCounter(1, "rows open", 1800, 7);
  file.AddInstant({1, 2}, "row", 1900);
  file.Flush();
  const Json then = Read(path);
  EXPECT_EQ(then.at("traceEvents").size(), 5U);
  EXPECT_EQ(then.at("traceEvents")[3].at("args"), Json({{"value", 7}}));
  EXPECT_EQ(then.at("otherData").at("events_left_out"), "0");
}

TEST(TraceFile, WritesWithoutBeingAskedWhenItHoldsMuch) {
  const std::string path = PathOf("much.json");
  TraceFile file(path, 0);
  for (int i = 0; i < 10'000; ++i) file.AddInstant({1, 1}, "event", i);
  EXPECT_GT(Read(path).at("traceEvents").size(), 8'000U);
}

TEST(TraceFile, LeavesOutAndCountsWhatIsTooMuch) {
  const std::string path = PathOf("bounded.json");
  TraceFile file(path, 0, 500);
  for (int i = 0; i < 100; ++i) file.AddInstant({1, 1}, "event", i);
  file.AddLeftOut(3);
  file.Flush();
  const Json trace = Read(path);
  const auto kept = static_cast<int64_t>(trace.at("traceEvents").size());
  EXPECT_GT(kept, 3);
  EXPECT_LT(kept, 20);
  EXPECT_EQ(file.left_out(), 100 - kept + 3);
  EXPECT_EQ(trace.at("otherData").at("events_left_out"), std::to_string(file.left_out()));
  EXPECT_EQ(file.fault(), "");
}

TEST(TraceFile, NeedsAFileThatCanBeWritten) {
  EXPECT_THROW(TraceFile("/nowhere/trace.json", 0), Error);
  EXPECT_THROW(TraceFile("/dev/full", 0), Error);
  const std::string pipe = PathOf("pipe.json");
  std::remove(pipe.c_str());
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::fstream reader(pipe, std::ios::in | std::ios::out);
  EXPECT_THROW(TraceFile(pipe, 0), Error);
}

TEST(TraceSlots, SpansOfASlotDoNotOverlap) {
  TraceSlots slots;
  EXPECT_EQ(slots.Take(0, 10), 0U);
  EXPECT_EQ(slots.Take(5, 12), 1U);
  EXPECT_EQ(slots.Take(12, 20), 1U);  // the one that was used last
  EXPECT_EQ(slots.Take(11, 21), 0U);
  EXPECT_EQ(slots.Take(19, 22), 2U);
  EXPECT_EQ(slots.size(), 3U);
}

/// Has done what it was told to have done.
class RecordedEngine final : public Engine {
 public:
  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request) override {}
  void Cancel(RequestId) override {}
  void CancelWaiting() override {}
  void Release(RequestId, int32_t) override {}
  std::vector<Completion> Poll(int64_t) override { return {}; }
  int64_t pending() const override { return 0; }
  EngineStatistics Statistics() const override { return {}; }
  EngineSpans TakeSpans() override { return std::exchange(recorded, {}); }

  EngineSpans recorded;

 private:
  EngineDescription description_;
};

/// Events of one kind by their name.
std::vector<Json> EventsOf(const Json& trace, const std::string& type, const std::string& name) {
  std::vector<Json> events;
  for (const Json& event : trace.at("traceEvents")) {
    if (event.at("ph") == type && event.at("name") == name) events.push_back(event);
  }
  return events;
}

TEST(RunTrace, PutsCallsPassesAndCopiesOnTheirLanes) {
  const std::string path = PathOf("run.json");
  VirtualClock clock;
  RecordedEngine engine;
  RunTrace trace(path, 0, clock);
  trace.AddEngine("m", engine, 0, [&engine]() -> Engine* { return &engine; });
  engine.recorded = {{{EngineSpan::Kind::kPrefill, 10, 20, 300, 2, 2, 300},
                      {EngineSpan::Kind::kDecode, 20, 25, 2, 2, 2, 302},
                      {EngineSpan::Kind::kSpill, 25, 26, 150}},
                     4};
  Operator op;
  op.id = "judge";
  Row row;
  row.id = std::string(200, 'x');
  Request request;
  request.script_attempt = 1;
  Prompt prompt;
  prompt.text = "the secret";
  Completion done;
  done.failure = Failure{"", "engine", "the secret", true};
  done.started_us = 8;
  done.finished_us = 25;
  trace.OnAttempt({op, row, request, prompt, done, 0, false, &engine});
  trace.OnAttempt({op, row, request, prompt, done, 0, false, &engine});
  done.started_us = 0;
  trace.OnAttempt({op, row, request, prompt, done, 0, false, &engine});
  trace.OnTurn({0, 0, 3, 0, 5, 0});
  EXPECT_THAT(trace.Finish(), HasSubstr("4 events"));

  const Json written = Read(path);
  EXPECT_EQ(written.dump().find("secret"), std::string::npos);
  const std::vector<Json> calls = EventsOf(written, "X", "judge");
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_NE(calls[0].at("tid"), calls[1].at("tid"));  // they ran side by side
  EXPECT_EQ(calls[0].at("args").at("failed"), "engine");
  EXPECT_EQ(calls[0].at("args").at("attempt"), 1);
  EXPECT_LT(calls[0].at("args").at("row").get<std::string>().size(), 110U);
  EXPECT_EQ(EventsOf(written, "i", "judge").size(), 1U);
  const std::vector<Json> passes = EventsOf(written, "X", "prefill");
  ASSERT_EQ(passes.size(), 1U);
  EXPECT_EQ(passes[0].at("args"), Json({{"tokens", 300}, {"sequences", 2}}));
  EXPECT_EQ(EventsOf(written, "X", "decode")[0].at("tid"), passes[0].at("tid"));
  EXPECT_NE(EventsOf(written, "X", "spill")[0].at("tid"), passes[0].at("tid"));
  EXPECT_EQ(EventsOf(written, "C", "KV tokens").size(), 2U);
  EXPECT_EQ(EventsOf(written, "C", "rows open")[0].at("args").at("value"), 3);
  EXPECT_EQ(EventsOf(written, "C", "calls in flight")[0].at("args").at("value"), 5);
}

}  // namespace
}  // namespace halo
