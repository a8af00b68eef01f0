#include "bench/call_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

namespace halo::bench {
namespace {

constexpr char kModelCall[] =
    R"({"source":0,"row":"r1","operator":"a","model":"m","merged":false,"prompt":[1,2],"output":[3],)"
    R"("finish":"end","max_tokens":8,"temperature":0.7,"top_p":0.9})";

std::string Write(const std::string& text) {
  const std::string path =
      testing::TempDir() + "call_log_test-" + std::to_string(getpid()) + ".jsonl";
  std::ofstream(path) << text;
  return path;
}

std::string FaultOf(const std::string& text) {
  try {
    ReadCallLog(Write(text));
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "read";
}

TEST(CallLog, ReadsADumpAndNamesTheLineThatIsWrong) {
  const std::string good = kModelCall;
  const std::vector<Call> calls = ReadCallLog(Write(good + "\n\n" + good + "\n")).llm;
  ASSERT_EQ(calls.size(), 2U);
  EXPECT_EQ(calls[0].row, "r1");
  EXPECT_EQ(calls[0].prompt, (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(calls[0].top_p, 0.9);
  EXPECT_NE(FaultOf(good + "\n{\"row\":\"r1\"}\n").find(":2: "), std::string::npos);
}

TEST(CallLog, ReadsCallsOfToolsBesideThoseOfModels) {
  std::string labelled = kModelCall;
  labelled.insert(1, R"("kind":"llm",)");
  const std::string made =
      R"({"kind":"http","source":1,"row":7,"operator":"h","merged":false,"target":"http://x","request":"0f",)"
      R"("may_share":true,"finish":"end","latency_s":3.5,"drawn":true,"busy_s":3.6})";
  const std::string query =
      R"({"kind":"sql","source":0,"row":"r1","operator":"q","merged":false,"target":"db","request":"1f",)"
      R"("may_share":false,"finish":"failed","latency_s":0.5,"drawn":false,"busy_s":0.5,"cpu_s":0.25})";
  const std::string merged =
      R"({"kind":"http","source":1,"row":8,"operator":"h","merged":true,"target":"http://x","request":"0f",)"
      R"("may_share":true,"finish":"end"})";
  const CallLog log =
      ReadCallLog(Write(labelled + "\n" + made + "\n" + query + "\n" + merged + "\n"));
  EXPECT_EQ(log.llm.size(), 1U);
  ASSERT_EQ(log.tools.size(), 3U);
  EXPECT_EQ(log.tools[0].tool(), "http http://x");
  EXPECT_EQ(log.tools[0].row, "7");
  EXPECT_TRUE(log.tools[0].drawn && log.tools[0].may_share && !log.tools[0].failed);
  EXPECT_EQ(log.tools[0].latency_s, 3.5);
  EXPECT_FALSE(log.tools[0].cpu_s);
  EXPECT_EQ(log.tools[1].cpu_s, 0.25);
  EXPECT_TRUE(log.tools[1].failed);
  EXPECT_TRUE(log.tools[2].merged);
  EXPECT_EQ(log.tools[2].request, log.tools[0].request);
}

TEST(CallLog, AKindThatIsNotKnownIsAnError) {
  EXPECT_NE(FaultOf(R"({"kind":"mail","row":"r1"})").find(":1: unknown kind 'mail'"),
            std::string::npos);
}

}  // namespace
}  // namespace halo::bench
