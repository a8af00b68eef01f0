#include "tool/function/host_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <future>
#include <stdexcept>
#include <thread>

#include "tool/backend_rig.h"

namespace halo::test {
namespace {

using Json = nlohmann::ordered_json;
using testing::ElementsAre;
using testing::HasSubstr;

/// A function that waits until it is let go.
class Gate {
 public:
  std::string Pass() {
    ++inside;
    opened_.wait();
    return "\"passed\"";
  }
  void Open() { open_.set_value(); }
  void WaitUntilInside(int count) const {
    while (inside < count) std::this_thread::yield();
  }
  std::atomic<int> inside{0};

 private:
  std::promise<void> open_;
  std::shared_future<void> opened_ = open_.get_future().share();
};

class HostBackendTest : public testing::Test {
 protected:
  ToolCall Call(const std::string& function, Json inputs = Json::object(), int64_t order = 0) {
    ToolCall call;
    call.id = rig_.NextId();
    call.what = FunctionCall{function, Json::object(), std::move(inputs), {"x"}};
    call.order = order;
    return call;
  }
  ToolCallId Submit(HostBackend& backend, ToolCall call) {
    const ToolCallId id = call.id;
    backend.Submit(std::move(call));
    return id;
  }
  BackendRig rig_;
};

TEST_F(HostBackendTest, GivesInputsAndTakesTheValue) {
  HostBackend backend({{"f", {[](const std::string& call) { return call; }, 1}}}, rig_.mailbox,
                      rig_.clock);
  const ToolCompletion done = rig_.Wait(Submit(backend, Call("f", {{"a", 1}, {"b", "zwei"}})));
  EXPECT_EQ(CodeOf(done), "");
  EXPECT_EQ(done.value.dump(), R"({"inputs":{"a":1,"b":"zwei"},"config":{},"outputs":["x"]})");
  EXPECT_GE(done.finished_us, done.started_us);
}

TEST_F(HostBackendTest, WhatGoesWrongFailsTheCall) {
  HostBackend backend(
      {{"throws", {[](const std::string&) -> std::string { throw std::runtime_error("why"); }, 1}},
       {"garbage", {[](const std::string&) { return std::string("{"); }, 1}},
       {"huge", {[](const std::string&) { return std::string(size_t{9} << 20, ' '); }, 1}}},
      rig_.mailbox, rig_.clock);
  const ToolCompletion thrown = rig_.Wait(Submit(backend, Call("throws")));
  EXPECT_EQ(CodeOf(thrown), "function_failed");
  EXPECT_EQ(MessageOf(thrown), "throws: why");
  EXPECT_THAT(MessageOf(rig_.Wait(Submit(backend, Call("garbage")))), HasSubstr("is no JSON"));
  EXPECT_EQ(CodeOf(rig_.Wait(Submit(backend, Call("huge")))), "result_too_large");
}

TEST_F(HostBackendTest, AsManyRunAsMayAndInTheirOrder) {
  Gate gate;
  HostBackend backend({{"f", {[&](const std::string&) { return gate.Pass(); }, 2}}}, rig_.mailbox,
                      rig_.clock);
  const ToolCallId first = Submit(backend, Call("f", Json::object(), 1));
  const ToolCallId second = Submit(backend, Call("f", Json::object(), 2));
  gate.WaitUntilInside(2);
  const ToolCallId last = Submit(backend, Call("f", Json::object(), 9));
  const ToolCallId third = Submit(backend, Call("f", Json::object(), 3));
  EXPECT_EQ(gate.inside, 2);
  gate.Open();
  for (const ToolCallId id : {first, second, third, last}) EXPECT_EQ(rig_.Wait(id).value, "passed");
  EXPECT_EQ(gate.inside, 4);
}

TEST_F(HostBackendTest, ASlowFunctionHoldsUpNoOther) {
  Gate gate;
  HostBackend backend({{"slow", {[&](const std::string&) { return gate.Pass(); }, 1}},
                       {"quick", {[](const std::string&) { return std::string("1"); }, 1}}},
                      rig_.mailbox, rig_.clock);
  const ToolCallId slow = Submit(backend, Call("slow"));
  gate.WaitUntilInside(1);
  EXPECT_EQ(rig_.Wait(Submit(backend, Call("quick"))).value, 1);
  EXPECT_FALSE(rig_.IsDone(slow));
  gate.Open();
  EXPECT_EQ(rig_.Wait(slow).value, "passed");
}

TEST_F(HostBackendTest, CancelledAndLateCallsAreAnsweredAtOnce) {
  Gate gate;
  HostBackend backend({{"f", {[&](const std::string&) { return gate.Pass(); }, 1}}}, rig_.mailbox,
                      rig_.clock);
  const ToolCallId running = Submit(backend, Call("f"));
  gate.WaitUntilInside(1);
  const ToolCallId waiting = Submit(backend, Call("f"));
  ToolCall late = Call("f");
  late.deadline_us = rig_.clock.NowUs() + 1;
  const ToolCallId overdue = Submit(backend, late);
  EXPECT_EQ(CodeOf(rig_.Wait(overdue)), "deadline");
  backend.Cancel(waiting);
  backend.Cancel(running);
  EXPECT_EQ(CodeOf(rig_.Wait(waiting)), "cancelled");
  EXPECT_EQ(CodeOf(rig_.Wait(running)), "cancelled");
  gate.Open();
  EXPECT_EQ(rig_.Wait(Submit(backend, Call("f"))).value, "passed");
  EXPECT_EQ(gate.inside, 2) << "what was given up while it waited is not called";
}

TEST_F(HostBackendTest, TheLimitOfACallBeginsWithIt) {
  Gate gate;
  HostBackend backend({{"f", {[&](const std::string&) { return gate.Pass(); }, 1}}}, rig_.mailbox,
                      rig_.clock);
  const ToolCallId first = Submit(backend, Call("f"));
  gate.WaitUntilInside(1);
  ToolCall limited = Call("f");
  limited.timeout_us = int64_t{60} * 1'000'000;
  const ToolCallId waiting = Submit(backend, limited);
  ToolCall brief = Call("f");
  brief.timeout_us = 1;
  const ToolCallId next = Submit(backend, brief);
  EXPECT_FALSE(rig_.IsDone(next)) << "it has not begun";
  gate.Open();
  EXPECT_EQ(rig_.Wait(first).value, "passed");
  EXPECT_EQ(rig_.Wait(waiting).value, "passed");
  EXPECT_GT(rig_.Wait(next).started_us, 0);
}

TEST_F(HostBackendTest, ACallThatTakesLongerThanItsLimitIsLate) {
  Gate gate;
  HostBackend backend({{"f", {[&](const std::string&) { return gate.Pass(); }, 1}}}, rig_.mailbox,
                      rig_.clock);
  ToolCall call = Call("f");
  call.timeout_us = 1;
  EXPECT_EQ(CodeOf(rig_.Wait(Submit(backend, call))), "deadline");
  gate.Open();
}

TEST_F(HostBackendTest, ItsEndWaitsForWhatRuns) {
  std::atomic<bool> has_returned{false};
  {
    Gate gate;
    HostBackend backend({{"f",
                          {[&](const std::string&) {
                             const std::string value = gate.Pass();
                             has_returned = true;
                             return value;
                           },
                           1}}},
                        rig_.mailbox, rig_.clock);
    Submit(backend, Call("f"));
    gate.WaitUntilInside(1);
    gate.Open();
  }
  EXPECT_TRUE(has_returned);
}

}  // namespace
}  // namespace halo::test
