#include "tool/http/http_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <set>
#include <utility>

#include "base/error.h"
#include "tool/http_test_server.h"

namespace halo {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;

/// Stands still until it is told to go on.
class HandClock final : public Clock {
 public:
  int64_t NowUs() const override { return now_us_; }
  void SleepUntil(int64_t /*time_us*/) override {}
  void Advance(int64_t by_us) { now_us_ += by_us; }

 private:
  std::atomic<int64_t> now_us_{1'000'000};
};

/// A backend with its mailbox.
class Http {
 public:
  explicit Http(HttpOptions options) : Http(std::move(options), steady_) {}
  Http(HttpOptions options, Clock& clock)
      : backend_(std::make_unique<HttpBackend>(std::move(options), mailbox_, clock)) {}

  ToolCallId Submit(HttpCall call, ToolCall how = {}) {
    how.id = ++last_id_;
    how.what = std::move(call);
    backend_->Submit(std::move(how));
    return last_id_;
  }

  ToolCompletion Wait(ToolCallId id) {
    for (int second = 0; second < 60; ++second) {
      const auto at = done_.find(id);
      if (at != done_.end()) return done_.extract(at).mapped();
      Take(1'000'000);
    }
    ADD_FAILURE() << "call " << id << " does not end";
    return {};
  }

  ToolCompletion Do(HttpCall call, ToolCall how = {}) {
    return Wait(Submit(std::move(call), std::move(how)));
  }

  void Cancel(ToolCallId id) { backend_->Cancel(id); }

  /// Returns when the backend has seen everything that was told to it before, and the clock.
  void Settle() { Do({.method = "GET", .latency_mode = HttpLatencyMode::kSimulated}); }

  bool IsDone(ToolCallId id) {
    Take(0);
    return done_.contains(id);
  }

  void Stop() {
    backend_.reset();
    Take(0);
  }

 private:
  void Take(int64_t most_us) {
    for (ToolCompletion& completion : mailbox_.Take(most_us)) {
      const ToolCallId id = completion.id;
      EXPECT_TRUE(seen_.insert(id).second) << "call " << id << " ends twice";
      done_.emplace(id, std::move(completion));
    }
  }

  SteadyClock steady_;
  ToolMailbox mailbox_;
  ToolCallId last_id_ = 0;
  std::map<ToolCallId, ToolCompletion> done_;
  std::set<ToolCallId> seen_;
  std::unique_ptr<HttpBackend> backend_;
};

constexpr char kHost[] = "api.example.com";

/// `kHost` may be reached, and stands for the server; nothing else may.
HttpOptions Reach(const TestHttpServer& server) {
  HttpOptions options;
  options.allowed_hosts = {kHost};
  options.pinned_addresses = {{kHost, server.port(), "127.0.0.1"}};
  return options;
}

std::string UrlOf(const TestHttpServer& server, const std::string& target = "/",
                  const std::string& host = kHost) {
  return "http://" + host + ":" + server.port_text() + target;
}

HttpCall Get(std::string url) { return {.method = "GET", .url = std::move(url)}; }

void ExpectFailure(const ToolCompletion& completion, const std::string& code, bool retriable) {
  ASSERT_TRUE(completion.failure) << completion.value.dump();
  EXPECT_EQ(completion.failure->code, code) << completion.failure->message;
  EXPECT_EQ(completion.failure->retriable, retriable) << completion.failure->message;
  EXPECT_FALSE(completion.failure->message.empty());
  EXPECT_TRUE(completion.value.is_null());
}

void ExpectValue(const ToolCompletion& completion, const Json& value) {
  EXPECT_FALSE(completion.failure)
      << completion.failure->code << ": " << completion.failure->message;
  EXPECT_EQ(completion.value, value);
  EXPECT_LE(completion.started_us, completion.finished_us);
}

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

TEST(HttpBackend, StatusSaysWhetherToTryAgain) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    exchange.Reply(std::stoi(exchange.request.target.substr(1)), "It\r\nis\x1b broken.");
  });
  Http http(Reach(server));
  for (const int status : {408, 429, 500, 502, 503, 504, 599}) {
    const ToolCompletion done = http.Do(Get(UrlOf(server, "/" + std::to_string(status))));
    ExpectFailure(done, "http_status", true);
    EXPECT_EQ(done.failure->message, "GET api.example.com:" + server.port_text() + ": answered " +
                                         std::to_string(status) + ": It is broken.");
  }
  for (const int status : {300, 302, 304, 400, 401, 403, 404, 410, 422}) {
    ExpectFailure(http.Do(Get(UrlOf(server, "/" + std::to_string(status)))), "http_status", false);
  }
  ExpectValue(http.Do(Get(UrlOf(server, "/201"))), "It\r\nis\x1b broken.");
}

TEST(HttpBackend, RetryAfterIsPassedOn) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const std::string& target = exchange.request.target;
    exchange.Reply(std::stoi(target.substr(1)), "",
                   target.ends_with("date") ? "Date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
                                              "Retry-After: Tue, 15 Nov 1994 08:12:34 GMT\r\n"
                                            : "Retry-After: 7\r\n");
  });
  Http http(Reach(server));
  const auto patience = [&](const char* target) {
    const ToolCompletion done = http.Do(Get(UrlOf(server, target)));
    ExpectFailure(done, "http_status", true);
    return done.retry_after_us;
  };
  EXPECT_EQ(patience("/429"), 7'000'000);
  EXPECT_EQ(patience("/503"), 7'000'000);
  EXPECT_EQ(patience("/503date"), 3'000'000);
  EXPECT_EQ(patience("/500"), 0);
}

TEST(HttpBackend, ABodyThatNeverEndsIsNotReadOn) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const std::string status = exchange.request.target.substr(1);
    exchange.Send("HTTP/1.1 " + status + " Said\r\nTransfer-Encoding: chunked\r\n\r\n");
    const std::string chunk = "1000\r\n" + std::string(0x1000, 'x') + "\r\n";
    while (exchange.Send(chunk)) {
    }
  });
  Http http(Reach(server));
  HttpCall call = Get(UrlOf(server, "/200"));
  call.most_bytes = 100'000;
  const ToolCompletion done = http.Do(call);
  ExpectFailure(done, "too_large", false);
  EXPECT_THAT(done.failure->message, HasSubstr("100000 bytes"));
  const ToolCompletion failed = http.Do(Get(UrlOf(server, "/500")));
  ExpectFailure(failed, "http_status", true);
  EXPECT_THAT(failed.failure->message, HasSubstr("answered 500: xxx"));
  EXPECT_LT(failed.failure->message.size(), 300u);
  EXPECT_TRUE(server.WaitUntilIdle()) << "both connections are given up";
}

TEST(HttpBackend, AnAnnouncedSizeIsBelieved) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    exchange.Send("HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n");
    exchange.WaitForClient();
  });
  Http http(Reach(server));
  HttpCall call = Get(UrlOf(server));
  call.most_bytes = 100'000;
  ExpectFailure(http.Do(call), "too_large", false);
}

/// `size` letters a, compressed by hand to a 150th: gzip's head, one deflate block of fixed codes
/// (a letter, then copies of 258 letters from a distance of 1), checksum and size.
std::string GzipOfLetters(size_t size) {
  std::string packed("\x1f\x8b\x08\0\0\0\0\0\0\xff", 10);
  uint32_t bits = 0;
  int count = 0;
  const auto put = [&](uint32_t value, int width) {  // lowest bit first
    for (int i = 0; i < width; ++i) {
      bits |= ((value >> i) & 1) << count;
      if (++count == 8) {
        packed += static_cast<char>(bits);
        bits = 0, count = 0;
      }
    }
  };
  const auto put_code = [&](uint32_t value, int width) {  // codes are stored highest bit first
    for (int i = width - 1; i >= 0; --i) put((value >> i) & 1, 1);
  };
  put(1, 1), put(1, 2);  // the last block; fixed codes
  for (size_t left = size; left > 0;) {
    if (left == size || left < 258) {
      put_code(0x30 + 'a', 8);
      --left;
    } else {
      put_code(0b11000101, 8), put_code(0, 5);  // 258 from a distance of 1
      left -= 258;
    }
  }
  put_code(0, 7);  // the end
  if (count > 0) packed += static_cast<char>(bits);
  uint32_t checksum = 0xffffffff;
  for (size_t i = 0; i < size; ++i) {
    checksum ^= 'a';
    for (int bit = 0; bit < 8; ++bit) checksum = (checksum >> 1) ^ (checksum & 1 ? 0xedb88320 : 0);
  }
  for (const uint32_t word : {~checksum, static_cast<uint32_t>(size)}) {
    for (int i = 0; i < 4; ++i) packed += static_cast<char>(word >> (8 * i));
  }
  return packed;
}

TEST(HttpBackend, CompressedBodiesAreBoundedByWhatTheyBecome) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const size_t size = std::stoul(exchange.request.target.substr(1));
    exchange.Reply(200, GzipOfLetters(size), "Content-Encoding: gzip\r\n");
  });
  Http http(Reach(server));
  ASSERT_LT(GzipOfLetters(5'000'000).size(), 40'000u);
  HttpCall call = Get(UrlOf(server, "/100000"));
  call.most_bytes = 100'000;
  ExpectValue(http.Do(call), std::string(100'000, 'a'));
  call.url = UrlOf(server, "/100001");
  ExpectFailure(http.Do(call), "too_large", false);
  call.url = UrlOf(server, "/5000000");
  ExpectFailure(http.Do(call), "too_large", false);
  EXPECT_THAT(server.requests()[0].headers.at("accept-encoding"), HasSubstr("gzip"));
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

TEST(HttpBackend, FollowsAFewRedirects) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const int left = std::stoi(exchange.request.target.substr(1));
    if (left == 0) return exchange.Reply(200, "\"there\"");
    exchange.Reply(302, "moved", "Location: /" + std::to_string(left - 1) + "\r\n");
  });
  Http http(Reach(server));
  ExpectValue(http.Do({.method = "POST",
                       .url = UrlOf(server, "/5"),
                       .headers = {{"X-Key", "k", true}, {"Content-Type", "text/plain"}},
                       .body = "text"}),
              "there");
  const std::vector<TestHttpRequest> requests = server.requests();
  ASSERT_EQ(requests.size(), 6u);
  EXPECT_EQ(requests[0].body, "text");
  EXPECT_EQ(requests[5].method, "GET");
  EXPECT_EQ(requests[5].body, "");
  EXPECT_EQ(requests[5].headers.count("content-type"), 0u);
  EXPECT_EQ(requests[5].headers.at("x-key"), "k");
  EXPECT_EQ(server.connections(), 1);
  const ToolCompletion done = http.Do(Get(UrlOf(server, "/6")));
  ExpectFailure(done, "redirect", false);
  EXPECT_THAT(done.failure->message, HasSubstr("more than 5 times"));
}

TEST(HttpBackend, RedirectsReachNothingElse) {
  TestHttpServer inside([](TestHttpExchange& exchange) { exchange.Reply(200, "secret"); });
  std::string location;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    exchange.Reply(307, "", "Location: " + location + "\r\n");
  });
  const auto redirected = [&](const std::string& host, std::vector<std::string> allowed) {
    location = UrlOf(inside, "/", host);
    HttpOptions options = Reach(server);
    options.allowed_hosts.insert(options.allowed_hosts.end(), allowed.begin(), allowed.end());
    return Http(options).Do(Get(UrlOf(server)));
  };
  for (const char* host : {"127.0.0.1", "localhost", "0x7f.1", "[::1]", "other.example.com"}) {
    const ToolCompletion done = redirected(host, {});
    ExpectFailure(done, "host_not_allowed", false);
    EXPECT_THAT(done.failure->message,
                AllOf(HasSubstr("redirected"), HasSubstr("allow_hosts"), HasSubstr("--allow net")));
  }
  for (const char* host : {"127.0.0.1", "localhost", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"}) {
    const ToolCompletion done =
        redirected(host, {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"});
    ExpectFailure(done, "address_not_allowed", false);
    EXPECT_THAT(done.failure->message, HasSubstr("--allow net"));
  }
  for (const char* elsewhere : {"file:///etc/passwd", "gopher://127.0.0.1/", "http://a:b@c/"}) {
    location = elsewhere;
    ExpectFailure(Http(Reach(server)).Do(Get(UrlOf(server))), "redirect", false);
  }
  Http anywhere({.allow_everything = true});
  ExpectValue(anywhere.Do(Get(UrlOf(inside, "/", "127.0.0.1"))), "secret");
  EXPECT_EQ(inside.connections(), 1) << "the ones before were not made";
}

TEST(HttpBackend, ANameForAPrivateAddressIsNotReached) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  HttpOptions options;
  options.allowed_hosts = {"localhost", "127.0.0.1"};
  {
    Http http(options);
    for (const char* host : {"localhost", "127.0.0.1"}) {
      const ToolCompletion done = http.Do(Get(UrlOf(server, "/", host)));
      ExpectFailure(done, "address_not_allowed", false);
      EXPECT_THAT(done.failure->message, HasSubstr("a loopback address"));
    }
    ExpectFailure(http.Do(Get("http://example.org/")), "host_not_allowed", false);
  }
  options.allowed_hosts.clear();
  options.allow_everything = true;
  ExpectValue(Http(options).Do(Get(UrlOf(server, "/", "127.0.0.1"))), 1);
  EXPECT_EQ(server.connections(), 1) << "the ones before were not made";
}

TEST(HttpBackend, SecretsAreLeftBehindForGood) {
  std::string there;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    if (exchange.request.target == "/back") return exchange.Reply(200, "1");
    exchange.Reply(307, "", "Location: " + there + "\r\n");
  });
  TestHttpServer other([&](TestHttpExchange& exchange) {
    exchange.Reply(307, "", "Location: " + UrlOf(server, "/back") + "\r\n");
  });
  HttpOptions options = Reach(server);
  options.allowed_hosts.push_back("other.example.com");
  options.pinned_addresses.push_back({"other.example.com", other.port(), "127.0.0.1"});
  there = UrlOf(other, "/", "other.example.com");
  Http http(options);
  HttpCall call = Get(UrlOf(server));
  call.headers = {{"X-Key", "k1", true}, {"Authorization", "Bearer k2"}, {"X-Open", "k3"}};
  ExpectValue(http.Do(call), 1);
  ASSERT_EQ(server.requests().size(), 2u);
  ASSERT_EQ(other.requests().size(), 1u);
  EXPECT_EQ(server.requests()[0].headers.at("x-key"), "k1");
  EXPECT_EQ(server.requests()[0].headers.at("authorization"), "Bearer k2");
  for (const TestHttpRequest& request : {other.requests()[0], server.requests()[1]}) {
    EXPECT_EQ(request.headers.count("x-key"), 0u);
    EXPECT_EQ(request.headers.count("authorization"), 0u);
    EXPECT_EQ(request.headers.at("x-open"), "k3");
  }
}

TEST(HttpBackend, NoMessageRepeatsASecret) {
  std::string said;
  TestHttpServer server([&](TestHttpExchange& exchange) {
    const std::string& target = exchange.request.target;
    const std::string key = exchange.request.headers.at("x-key");
    if (target == "/echo") return exchange.Reply(500, "your key is '" + key + "'");
    if (target == "/host") {
      return exchange.Reply(302, "", "Location: http://" + key + ".example.org/\r\n");
    }
    if (target == "/type")
      return exchange.Reply(200, "\xff" + key, "Content-Type: " + key + "\r\n");
    if (target == "/encoding") {
      return exchange.Reply(200, key, "Content-Encoding: " + key + "\r\n");
    }
    exchange.Send("HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n");
    exchange.Close();
  });
  Http http(Reach(server));
  for (const char* target : {"/echo", "/host", "/type", "/encoding", "/length"}) {
    HttpCall call = Get(UrlOf(server, std::string(target) + "?"));
    call.url.pop_back();
    call.headers = {{"X-Key", "topsecret", true}, {"Authorization", "Bearer topsecret"}};
    const ToolCompletion done = http.Do(call);
    if (!done.failure) continue;
    EXPECT_THAT(done.failure->message, Not(HasSubstr("topsecret"))) << target;
    said += done.failure->code + " ";
  }
  EXPECT_THAT(said, HasSubstr("http_status host_not_allowed invalid_utf8"));
  HttpCall call = Get(UrlOf(server));
  call.headers = {{"X-Key", "topsecret\r\nX-Other: 1", true}};
  const ToolCompletion done = http.Do(call);
  ExpectFailure(done, "bad_header", false);
  EXPECT_THAT(done.failure->message, Not(HasSubstr("topsecret")));
}

TEST(HttpBackend, NothingIsSentThatWouldBeTwoRequests) {
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  Http http(Reach(server));
  HttpCall call = Get(UrlOf(server));
  call.headers = {{"X-A", "b\r\n\r\nGET /second HTTP/1.1\r\nHost: x"}};
  ExpectFailure(http.Do(call), "bad_header", false);
  call = Get(UrlOf(server, "/ HTTP/1.1\r\nX: y"));
  ExpectFailure(http.Do(call), "bad_url", false);
  call = {.method = "GET /x HTTP/1.1\r\nX:", .url = UrlOf(server)};
  ExpectFailure(http.Do(call), "bad_method", false);
  ExpectFailure(http.Do(Get("http://user:topsecret@api.example.com/")), "bad_url", false);
  ExpectFailure(http.Do(Get("file:///etc/passwd")), "bad_url", false);
  EXPECT_EQ(server.connections(), 0);
}

/// A port of 127.0.0.1 that nobody listens on as long as this lives.
class DeafPort {
 public:
  DeafPort() : socket_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    auto* const generic = reinterpret_cast<sockaddr*>(&address);
    EXPECT_EQ(bind(socket_, generic, size), 0);
    EXPECT_EQ(getsockname(socket_, generic, &size), 0);
    port_ = ntohs(address.sin_port);
  }
  ~DeafPort() { close(socket_); }
  uint16_t port() const { return port_; }

 private:
  const int socket_;
  uint16_t port_ = 0;
};

TEST(HttpBackend, WhatCannotBeReachedMayBeTriedAgain) {
  const DeafPort deaf;
  HttpOptions options;
  options.allowed_hosts = {kHost, "nobody.invalid"};
  options.pinned_addresses = {{kHost, deaf.port(), "127.0.0.1"}};
  Http http(options);
  const ToolCompletion refused =
      http.Do(Get("http://api.example.com:" + std::to_string(deaf.port()) + "/path?key=topsecret"));
  ExpectFailure(refused, "connection", true);
  EXPECT_THAT(refused.failure->message,
              AllOf(HasSubstr("GET api.example.com"), Not(HasSubstr("topsecret"))));
  const ToolCompletion unknown = http.Do(Get("http://nobody.invalid/"));
  ExpectFailure(unknown, "connection", true);
  EXPECT_THAT(unknown.failure->message, HasSubstr("nobody.invalid"));
}

TEST(HttpBackend, AConnectionThatBreaksMayBeTriedAgain) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const std::string& target = exchange.request.target;
    if (target != "/at_once") exchange.Send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
    if (target == "/closed") return exchange.Close();
    exchange.Reset();
  });
  Http http(Reach(server));
  for (const char* target : {"/at_once", "/reset", "/closed"}) {
    ExpectFailure(http.Do(Get(UrlOf(server, target))), "connection", true);
  }
}

TEST(HttpBackend, WhatIsNoHttpIsABadResponse) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const bool packed = exchange.request.target == "/packed";
    if (packed) return exchange.Reply(200, "not packed", "Content-Encoding: gzip\r\n");
    exchange.Send("220 mail.example.com\r\n\r\n");
    exchange.Close();
  });
  Http http(Reach(server));
  ExpectFailure(http.Do(Get(UrlOf(server))), "bad_response", false);
  ExpectFailure(http.Do(Get(UrlOf(server, "/packed"))), "bad_response", false);
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

TEST(HttpBackend, AnswersBecomeValues) {
  TestHttpServer server([](TestHttpExchange& exchange) {
    const std::string& target = exchange.request.target;
    if (target == "/latin") {
      return exchange.Reply(200, "caf\xe9", "Content-Type: text/plain; charset=ISO-8859-1\r\n");
    }
    if (target == "/bytes") return exchange.Reply(200, "caf\xe9");
    if (target == "/empty") return exchange.Reply(204, "");
    exchange.Reply(200, "{\"choices\": [{\"text\": \"hi\"}]}");
  });
  Http http(Reach(server));
  ExpectValue(http.Do(Get(UrlOf(server, "/latin"))), "caf\xC3\xA9");
  ExpectFailure(http.Do(Get(UrlOf(server, "/bytes"))), "invalid_utf8", false);
  ExpectValue(http.Do(Get(UrlOf(server, "/empty"))), nullptr);
  HttpCall call = Get(UrlOf(server));
  call.response_path = "choices.0.text";
  ExpectValue(http.Do(call), "hi");
  call.response_path = "choices.1.text";
  ExpectFailure(http.Do(call), "response_path", false);
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
  Http http(options);
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
  EXPECT_EQ(OpenFiles(), before);
}

TEST(HttpBackend, TheEnvironmentSaysNothing) {
  TestHttpServer proxy([](TestHttpExchange& exchange) { exchange.Reply(200, "\"proxy\""); });
  TestHttpServer server([](TestHttpExchange& exchange) { exchange.Reply(200, "1"); });
  const std::string address = "http://127.0.0.1:" + proxy.port_text();
  for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY"})
    setenv(name, address.c_str(), 1);
  ExpectValue(Http(Reach(server)).Do(Get(UrlOf(server))), 1);
  for (const char* name : {"http_proxy", "all_proxy", "ALL_PROXY"}) unsetenv(name);
  EXPECT_EQ(proxy.connections(), 0);
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
}  // namespace halo
