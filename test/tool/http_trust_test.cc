#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "base/error.h"
#include "tool/http_rig.h"

namespace halo::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

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

}  // namespace
}  // namespace halo::test
