#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "tool/http_rig.h"

namespace halo::test {
namespace {

using testing::ElementsAre;
using Json = nlohmann::ordered_json;

TEST(HttpBackend, SendsWhatItIsGiven) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "{\"a\": [1]}"); });
  Http http(Reach(server));
  ExpectValue(http.Do({.method = "POST",
                       .url = UrlOf(server, "/a/../b%20c?q=%26"),
                       .headers = {{"X-Key", "word", true}, {"X-Empty", ""}},
                       .body = "the body"}),
              Json::parse("{\"a\": [1]}"));
  ExpectValue(http.Do({.method = "DELETE", .url = UrlOf(server)}), Json::parse("{\"a\": [1]}"));
  ExpectValue(http.Do({.method = "PUT", .url = UrlOf(server)}), Json::parse("{\"a\": [1]}"));
  ExpectValue(http.Do({.method = "HEAD", .url = UrlOf(server)}), nullptr);
  const std::vector<TestHttpRequest> requests = server.requests();
  ASSERT_EQ(requests.size(), 4u);
  EXPECT_EQ(requests[0].method, "POST");
  EXPECT_EQ(requests[0].target, "/a/../b%20c?q=%26");
  EXPECT_EQ(requests[0].body, "the body");
  EXPECT_EQ(requests[0].headers.at("host"), kHost + (":" + server.port_text()));
  EXPECT_EQ(requests[0].headers.at("x-key"), "word");
  EXPECT_EQ(requests[0].headers.at("x-empty"), "");
  EXPECT_EQ(requests[0].headers.at("user-agent"), "halo");
  EXPECT_EQ(requests[0].headers.count("content-type"), 0u);
  EXPECT_EQ(requests[0].headers.count("expect"), 0u);
  EXPECT_EQ(requests[1].method, "DELETE");
  EXPECT_EQ(requests[2].headers.at("content-length"), "0");
  EXPECT_EQ(requests[3].method, "HEAD");
}

TEST(HttpBackend, KeepsConnectionsAlive) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  Http http(Reach(server));
  for (int i = 0; i < 10; ++i) ExpectValue(http.Do(Get(UrlOf(server))), 1);
  EXPECT_EQ(server.requests().size(), 10u);
  EXPECT_EQ(server.connections(), 1);
}

TEST(HttpBackend, HasManyInFlightUpToItsBound) {
  TestHttpServer* seen = nullptr;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    seen->WaitUntil([&] { return seen->most_at_once() >= 4; });
    exchange.Reply(200, "1");
  });
  seen = &server;
  HttpOptions options = Reach(server);
  options.concurrency = 4;
  Http http(options);
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 32; ++i) ids.push_back(http.Submit(Get(UrlOf(server))));
  for (const ToolCallId id : ids) ExpectValue(http.Wait(id), 1);
  EXPECT_EQ(server.most_at_once(), 4);
  EXPECT_EQ(server.connections(), 4);
  EXPECT_EQ(server.requests().size(), 32u);
}

TEST(HttpBackend, WaitingCallsStartByTheirOrder) {
  std::atomic<bool> open = false;
  TestHttpServer* seen = nullptr;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    seen->WaitUntil([&] { return open.load(); });
    exchange.Reply(200, "1");
  });
  seen = &server;
  HttpOptions options = Reach(server);
  options.concurrency = 1;
  Http http(options);
  std::vector<ToolCallId> ids = {http.Submit(Get(UrlOf(server, "/first")))};
  http.Settle();
  for (const int64_t order : {5, 3, 4, 1, 3}) {
    const std::string target = "/" + std::to_string(order) + "/" + std::to_string(ids.size());
    ids.push_back(http.Submit(Get(UrlOf(server, target)), {.order = order}));
  }
  http.Settle();
  open = true;
  server.Notify();
  for (const ToolCallId id : ids) ExpectValue(http.Wait(id), 1);
  std::vector<std::string> targets;
  for (const TestHttpRequest& request : server.requests()) targets.push_back(request.target);
  EXPECT_THAT(targets, ElementsAre("/first", "/1/4", "/3/2", "/3/5", "/4/3", "/5/1"));
}

TEST(HttpBackend, StartsNoFasterThanItMay) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  HttpOptions options = Reach(server);
  options.requests_per_second = 1;
  HandClock clock;
  Http http(options, clock);
  const ToolCallId first = http.Submit(Get(UrlOf(server)));
  const ToolCallId second = http.Submit(Get(UrlOf(server)));
  ExpectValue(http.Wait(first), 1);
  http.Settle();
  EXPECT_FALSE(http.IsDone(second));
  EXPECT_EQ(server.requests().size(), 1u);
  clock.Advance(1'000'000);
  http.Cancel(0);  // only to be looked at
  ExpectValue(http.Wait(second), 1);
}

TEST(HttpBackend, ADeadlineEndsACallThatIsNotAnswered) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    exchange.Send("HTTP/1.1 200 OK\r\nX-Slow: ");
    exchange.WaitForClient();
  });
  HandClock clock;
  Http http(Reach(server), clock);
  const ToolCallId id = http.Submit(Get(UrlOf(server)), {.deadline_us = clock.NowUs() + 3'000'000});
  ASSERT_TRUE(server.WaitUntil([&] { return server.requests().size() == 1; }));
  clock.Advance(2'999'999);
  http.Settle();
  EXPECT_FALSE(http.IsDone(id));
  clock.Advance(1);
  http.Settle();
  const ToolCompletion done = http.Wait(id);
  ExpectFailure(done, "deadline", false);
  EXPECT_EQ(done.finished_us - done.started_us, 3'000'000);
  EXPECT_TRUE(server.WaitUntilIdle());
}

TEST(HttpBackend, ADeadlineEndsACallThatWaits) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.WaitForClient(); });
  HttpOptions options = Reach(server);
  options.concurrency = 1;
  HandClock clock;
  Http http(options, clock);
  const ToolCallId first = http.Submit(Get(UrlOf(server)));
  const ToolCallId second = http.Submit(Get(UrlOf(server)), {.deadline_us = clock.NowUs() + 1'000});
  http.Settle();
  clock.Advance(1'000);
  http.Settle();
  ExpectFailure(http.Wait(second), "deadline", false);
  ExpectFailure(http.Do(Get(UrlOf(server)), {.deadline_us = 1}), "deadline", false);
  EXPECT_FALSE(http.IsDone(first));
}

TEST(HttpBackend, WithoutADeadlineThereIsATimeLimit) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.WaitForClient(); });
  HttpOptions options = Reach(server);
  options.concurrency = 1;
  HandClock clock;
  Http http(options, clock);
  const ToolCallId first = http.Submit(Get(UrlOf(server)));
  const ToolCallId second = http.Submit(Get(UrlOf(server)));
  http.Settle();
  clock.Advance(options.default_timeout_us);
  http.Settle();
  ExpectFailure(http.Wait(first), "timeout", true);
  EXPECT_FALSE(http.IsDone(second)) << "it has waited, and its time begins now";
  clock.Advance(options.default_timeout_us);
  http.Settle();
  ExpectFailure(http.Wait(second), "timeout", true);
}

TEST(HttpBackend, AWriteReachesTheServerOnce) {
  // libcurl sends a request again when a connection that it kept turns out to be closed.
  TestHttpServer server([](TestHttpExchange& exchange) {
    if (exchange.request.target == "/") return exchange.Reply(200, "1");
    exchange.Close();
  });
  Http http(Reach(server));
  ExpectValue(http.Do(Get(UrlOf(server))), 1);
  ExpectFailure(http.Do({.method = "POST", .url = UrlOf(server, "/write"), .body = "x"},
                        {.effect = ToolEffect::kWrite}),
                "connection", true);
  EXPECT_EQ(server.requests().size(), 2u);
}

TEST(HttpBackend, PaddedAnswersAreHeldBack) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    exchange.Reply(exchange.request.target == "/" ? 200 : 404, "1");
  });
  HttpOptions options = Reach(server);
  options.concurrency = 1;
  HandClock clock;
  Http http(options, clock);
  HttpCall call = Get(UrlOf(server));
  call.latency_mode = HttpLatencyMode::kPadded;
  call.latency_us = 5'000'000;
  const ToolCallId padded = http.Submit(call);
  const ToolCallId behind = http.Submit(Get(UrlOf(server)));
  ASSERT_TRUE(server.WaitUntil([&] { return server.requests().size() == 1; }));
  clock.Advance(4'999'999);
  http.Settle();
  EXPECT_FALSE(http.IsDone(padded));
  EXPECT_FALSE(http.IsDone(behind)) << "the place is the held call's";
  clock.Advance(1);
  http.Cancel(0);
  const ToolCompletion done = http.Wait(padded);
  ExpectValue(done, 1);
  EXPECT_EQ(done.finished_us - done.started_us, 5'000'000);
  ExpectValue(http.Wait(behind), 1);
  call.url = UrlOf(server, "/nothing");
  ExpectFailure(http.Do(call), "http_status", false);  // not held back: the clock stands still
}

TEST(HttpBackend, SimulatedCallsSendNothing) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  HttpOptions options = Reach(server);
  options.concurrency = 2;
  HandClock clock;
  Http http(options, clock);
  HttpCall call = Get(UrlOf(server));
  call.latency_mode = HttpLatencyMode::kSimulated;
  call.latency_us = 3'000'000;
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 3; ++i) ids.push_back(http.Submit(call));
  http.Settle();
  clock.Advance(3'000'000);
  http.Settle();
  ExpectValue(http.Wait(ids[0]), {{"status", "ok"}});
  ExpectValue(http.Wait(ids[1]), {{"status", "ok"}});
  EXPECT_FALSE(http.IsDone(ids[2])) << "two at once";
  clock.Advance(3'000'000);
  http.Cancel(0);
  const ToolCompletion last = http.Wait(ids[2]);
  ExpectValue(last, {{"status", "ok"}});
  EXPECT_EQ(last.finished_us - last.started_us, 3'000'000);
  call.url = "";
  call.latency_us = 0;
  ExpectValue(http.Do(call), {{"status", "ok"}});
  EXPECT_EQ(server.connections(), 0);
}

TEST(HttpBackend, CancelEndsACallInEveryState) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    if (exchange.request.target == "/") return exchange.WaitForClient();
    exchange.Reply(200, "1");
  });
  HttpOptions options = Reach(server);
  options.concurrency = 2;
  HandClock clock;
  Http http(options, clock);
  HttpCall padded = Get(UrlOf(server, "/padded"));
  padded.latency_mode = HttpLatencyMode::kPadded;
  padded.latency_us = 1'000'000;
  const ToolCallId held = http.Submit(padded);
  const ToolCallId running = http.Submit(Get(UrlOf(server)));
  const ToolCallId waiting = http.Submit(Get(UrlOf(server)));
  ASSERT_TRUE(server.WaitUntil([&] { return server.requests().size() == 2; }));
  for (const ToolCallId id : {waiting, held, running}) {
    http.Cancel(id);
    ExpectFailure(http.Wait(id), "cancelled", false);
  }
  const ToolCallId finished = http.Submit(Get(UrlOf(server, "/quick")));
  ExpectValue(http.Wait(finished), 1);
  http.Cancel(finished);
  http.Cancel(12345);
  http.Settle();
  EXPECT_FALSE(http.IsDone(finished)) << "one completion a call";
  EXPECT_EQ(server.requests().size(), 3u);
}

int64_t OpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

TEST(HttpBackend, ItsEndCancelsEverythingAndLeaksNothing) {
  std::atomic<bool> answers = true;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    if (answers) return exchange.Reply(200, "1");
    exchange.WaitForClient();
  });
  HttpOptions options = Reach(server);
  options.concurrency = 8;
  Http(options).Settle();  // what libcurl opens once a process is open now
  const int64_t before = OpenFiles();
  auto owner = std::make_unique<Http>(options);
  Http& http = *owner;
  std::vector<ToolCallId> ids;
  for (int i = 0; i < 8; ++i) ids.push_back(http.Submit(Get(UrlOf(server))));
  for (const ToolCallId id : ids) ExpectValue(http.Wait(id), 1);
  answers = false;
  ids.clear();
  for (int i = 0; i < 20; ++i) ids.push_back(http.Submit(Get(UrlOf(server))));
  ASSERT_TRUE(server.WaitUntil([&] { return server.requests().size() == 16; }));
  EXPECT_GT(OpenFiles(), before);
  http.Stop();
  for (const ToolCallId id : ids) {
    ASSERT_TRUE(http.IsDone(id));
    ExpectFailure(http.Wait(id), "cancelled", false);
  }
  ASSERT_TRUE(server.WaitUntilIdle());
  owner.reset();
  EXPECT_EQ(OpenFiles(), before);
}

TEST(HttpBackend, OptionsThatMakeNoSenseAreRefused) {
  ToolMailbox mailbox;
  SteadyClock clock;
  const auto refused = [&](HttpOptions options) {
    EXPECT_THROW(HttpBackend(std::move(options), mailbox, clock), Error);
  };
  refused({.allowed_hosts = {"http://example.com"}});
  refused({.concurrency = 0});
  refused({.requests_per_second = -1});
  refused({.default_timeout_us = 0});
  refused({.pinned_addresses = {{"example.com", 80, "localhost"}}});
}

}  // namespace
}  // namespace halo::test
