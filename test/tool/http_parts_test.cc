#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "tool/http/http_answer.h"
#include "tool/http/http_request.h"
#include "tool/http/http_start_queue.h"
#include "tool/http/http_url.h"
#include "tool/http/ip_address.h"

namespace halo {
namespace {

using testing::HasSubstr;
using testing::Not;
using Json = nlohmann::ordered_json;

std::string WhyNot(const std::string& text) {
  const std::optional<IpAddress> address = ParseIpAddress(text);
  if (!address) return "no address";
  EXPECT_EQ(ParseIpAddress(ToString(*address)), address) << text;
  return std::string(WhyNotPublic(*address));
}

TEST(IpAddress, KnowsWhatIsNotPublic) {
  const std::pair<const char*, const char*> cases[] = {
      {"8.8.8.8", ""},
      {"1.1.1.1", ""},
      {"9.255.255.255", ""},
      {"11.0.0.0", ""},
      {"100.63.255.255", ""},
      {"100.128.0.0", ""},
      {"172.15.255.255", ""},
      {"172.32.0.0", ""},
      {"192.167.255.255", ""},
      {"223.255.255.255", ""},
      {"0.0.0.0", "unspecified"},
      {"10.0.0.0", "private"},
      {"10.255.255.255", "private"},
      {"100.64.0.0", "private"},
      {"100.127.255.255", "private"},
      {"127.0.0.1", "loopback"},
      {"127.255.255.255", "loopback"},
      {"169.254.169.254", "link-local"},
      {"172.16.0.0", "private"},
      {"172.31.255.255", "private"},
      {"192.0.2.1", "reserved"},
      {"192.168.0.1", "private"},
      {"198.19.0.1", "reserved"},
      {"224.0.0.1", "multicast"},
      {"239.255.255.255", "multicast"},
      {"240.0.0.1", "reserved"},
      {"255.255.255.255", "broadcast"},
      {"2606:4700::1111", ""},
      {"::", "unspecified"},
      {"::1", "loopback"},
      {"::7f00:1", "reserved"},  // 127.0.0.1 in a form of old
      {"fc00::1", "private"},
      {"fdff::1", "private"},
      {"fe80::1", "link-local"},
      {"fec0::1", "private"},
      {"ff02::1", "multicast"},
      {"2001:db8::1", "reserved"},
      {"2001::1", "reserved"},       // Teredo
      {"64:ff9b:1::1", "reserved"},  // NAT64 of a network's own
      {"100::1", "reserved"},
      {"::ffff:127.0.0.1", "loopback"},
      {"::ffff:8.8.8.8", ""},
      {"64:ff9b::10.1.2.3", "private"},
      {"64:ff9b::8.8.8.8", ""},
      {"2002:c0a8:0001::1", "private"},  // 192.168.0.1
      {"2002:0808:0808::1", ""},
      {"1.2.3", "no address"},
      {"fe80::1%eth0", "no address"},
      {"", "no address"},
  };
  for (const auto& [text, why] : cases) EXPECT_EQ(WhyNot(text), why) << text;
}

std::string Fault(const std::string& text) {
  std::string fault;
  return ParseHttpUrl(text, fault) ? "" : fault;
}

HttpUrl Url(const std::string& text) {
  std::string fault;
  const std::optional<HttpUrl> url = ParseHttpUrl(text, fault);
  EXPECT_TRUE(url) << text << ": " << fault;
  return url.value_or(HttpUrl{});
}

TEST(HttpUrl, IsTakenApartAsLibcurlTakesIt) {
  const HttpUrl url = Url("HTTPS://API.Example.com.:8443/a/../b?q=%20#part");
  EXPECT_EQ(url.scheme, "https");
  EXPECT_EQ(url.host, "api.example.com");
  EXPECT_EQ(url.port, 8443);
  EXPECT_EQ(url.Origin(), "https://api.example.com:8443");
  EXPECT_EQ(url.ShownHost(), "api.example.com:8443");
  EXPECT_THAT(url.text, HasSubstr("/a/../b?q=%20"));
  EXPECT_EQ(Url("http://example.com").ShownHost(), "example.com");
  EXPECT_EQ(Url("http://example.com").port, 80);
  EXPECT_EQ(Url("https://example.com").port, 443);
  EXPECT_EQ(Url("http://[::1]:80/").host, "[::1]");
  EXPECT_EQ(Url("http://0x7f.1/").host, "127.0.0.1") << "other ways to write an address";
  EXPECT_EQ(Url("http://2130706433/").host, "127.0.0.1");
  EXPECT_EQ(Url("http:///path").host, "path") << "libcurl connects to it, so it is what is checked";
}

TEST(HttpUrl, RefusesWhatMustNotBeAskedFor) {
  const std::pair<std::string, const char*> cases[] = {
      {"ftp://example.com/", "neither http nor https"},
      {"file:///etc/passwd", "neither http nor https"},
      {"example.com/", ""},
      {"http://user@example.com/", "user name"},
      {"http://user:word@example.com/", "user name"},
      {"http://example.com@10.0.0.1/", "user name"},
      {"http://", ""},
      {"http://a..b/", "host"},
      {"http://exa%2fmple.com/", ""},
      {"http://%ef%bc%85.example.com/", "host"},
      {"http://[fe80::1%25eth0]/", "host"},
      {"http://example.com:0/", "port"},
      {"http://example.com:99999/", ""},
      {"http://example.com/a b", "percent-encoded"},
      {"http://example.com/\r\nHost: x", "percent-encoded"},
      {"http://b\xC3\xBC"
       "cher.example/",
       "percent-encoded"},
      {std::string("http://example.com/\0.other.com", 30), "percent-encoded"},
      {"http://example.com/" + std::string(70'000, 'a'), "64 KiB"},
  };
  for (const auto& [text, why] : cases) {
    EXPECT_NE(Fault(text), "") << text;
    EXPECT_THAT(Fault(text), HasSubstr(why)) << text;
  }
}

TEST(HttpUrl, ResolvesRedirects) {
  const HttpUrl from = Url("http://example.com:8080/a/b?c=d");
  const std::pair<const char*, const char*> cases[] = {
      {"/x", "http://example.com:8080/x"},
      {"x?y=z", "http://example.com:8080/a/x?y=z"},
      {"//other.com/x", "http://other.com/x"},
      {"https://other.com/", "https://other.com/"},
      {"/caf\xC3\xA9 1", "http://example.com:8080/caf%c3%a9%201"},
  };
  for (const auto& [location, url] : cases) {
    std::string fault;
    const std::optional<HttpUrl> to = ResolveHttpUrl(from, location, fault);
    ASSERT_TRUE(to) << location << ": " << fault;
    EXPECT_EQ(to->text, url);
  }
  std::string fault;
  EXPECT_FALSE(ResolveHttpUrl(from, "ftp://example.com/", fault));
  EXPECT_FALSE(ResolveHttpUrl(from, "http://user:word@example.com/", fault));
  EXPECT_FALSE(ResolveHttpUrl(from, "http://exa\xE2\x84\x80mple.com/", fault));
}

TEST(HttpHostRules, AllowWhatTheySay) {
  const HttpHostRules rules({"Example.com", "api.test:8443", "*.wiki.org", "[2001:DB8::1]:80"});
  const auto allows = [&](const char* url) { return rules.Allow(Url(url)); };
  EXPECT_TRUE(allows("http://example.com/"));
  EXPECT_TRUE(allows("https://EXAMPLE.com.:9000/"));
  EXPECT_FALSE(allows("http://www.example.com/"));
  EXPECT_FALSE(allows("http://notexample.com/"));
  EXPECT_FALSE(allows("http://example.com.evil.org/"));
  EXPECT_TRUE(allows("https://api.test:8443/"));
  EXPECT_FALSE(allows("https://api.test/"));
  EXPECT_TRUE(allows("https://en.wiki.org/"));
  EXPECT_TRUE(allows("https://a.b.wiki.org/"));
  EXPECT_FALSE(allows("https://wiki.org/"));
  EXPECT_FALSE(allows("https://evilwiki.org/"));
  EXPECT_TRUE(allows("http://[2001:db8:0::1]/"));
  EXPECT_FALSE(allows("http://[2001:db8::1]:81/"));
  EXPECT_FALSE(HttpHostRules({}).Allow(Url("http://example.com/")));
}

TEST(HttpHostRules, RefuseWhatIsNoHost) {
  for (const char* rule :
       {"http://example.com", "example.com/path", "", "*", "*.", "a b", "a@b", "example.com:x"}) {
    EXPECT_THROW(HttpHostRules({rule}), Error) << rule;
  }
}

TEST(HttpRequest, RefusesHeadersThatSayMoreThanOne) {
  const auto code = [](const char* name, const std::string& value) {
    HttpCall call{.method = "GET", .url = "http://example.com/", .headers = {{name, value, true}}};
    const std::optional<Failure> failure = CheckHttpRequest(call);
    EXPECT_THAT(failure ? failure->message : "", Not(HasSubstr("word")));
    return failure ? failure->code : "";
  };
  EXPECT_EQ(code("X-Name", "word"), "");
  EXPECT_EQ(code("X-Name", "w\xC3\xB6rd\tword"), "");
  EXPECT_EQ(code("X-Name", ""), "");
  for (const char* name : {"", "X Name", "X:Name", ":path", "X\r\nName", "N\xC3\xA4me", "Host",
                           "content-length", "Transfer-Encoding", "Connection"}) {
    EXPECT_EQ(code(name, "word"), "bad_header") << name;
  }
  for (const std::string& value : {std::string("word\r\nX: y"), std::string("word\n"),
                                   std::string("word\0", 5), std::string("\x1bword")}) {
    EXPECT_EQ(code("X-Name", value), "bad_header");
  }
  EXPECT_EQ(code("X-Name", std::string(70'000, 'w')), "bad_header");
}

TEST(HttpRequest, RefusesMethodsThatAreNone) {
  for (const char* method : {"", "get", "GET /", "G\r\nET", "CONNECT", "TRACE"}) {
    const std::optional<Failure> failure =
        CheckHttpRequest({.method = method, .url = "http://example.com/"});
    ASSERT_TRUE(failure) << method;
    EXPECT_EQ(failure->code, "bad_method");
  }
}

TEST(HttpRequest, FollowsRedirectsAsTheirStatusSays) {
  const struct {
    int32_t status;
    const char *method, *next;
  } cases[] = {{301, "GET", "GET"},   {301, "POST", "GET"},  {302, "POST", "GET"},
               {302, "PUT", "PUT"},   {303, "PUT", "GET"},   {303, "HEAD", "HEAD"},
               {307, "POST", "POST"}, {308, "POST", "POST"}, {303, "DELETE", "GET"}};
  for (const auto& a_case : cases) {
    HttpCall call{.method = a_case.method,
                  .url = "http://example.com/a",
                  .headers = {{"Content-Type", "text/plain"}, {"X-Other", "1"}},
                  .body = "text"};
    HttpUrl url = Url(call.url);
    HttpAnswer answer{.status = a_case.status, .location = "/b"};
    ASSERT_TRUE(IsHttpRedirect(answer));
    ASSERT_FALSE(FollowHttpRedirect(answer, call, url));
    EXPECT_EQ(call.method, a_case.next) << a_case.status << a_case.method;
    EXPECT_EQ(call.url, "http://example.com/b");
    const bool changed = std::string(a_case.method) != a_case.next;
    EXPECT_EQ(call.body.has_value(), !changed);
    EXPECT_EQ(call.headers.size(), changed ? 1u : 2u);
  }
  EXPECT_FALSE(IsHttpRedirect({.status = 302}));
  EXPECT_FALSE(IsHttpRedirect({.status = 304, .location = "/"}));
  EXPECT_FALSE(IsHttpRedirect({.status = 200, .location = "/"}));
}

TEST(HttpRequest, SecretsStayWithTheirOrigin) {
  const std::vector<HttpHeader> headers = {
      {"X-Key", "k1", true}, {"authorization", "Bearer k2"}, {"Cookie", "k3"}, {"Accept", "*/*"}};
  const std::pair<const char*, size_t> cases[] = {
      {"/other", 4},
      {"https://example.com:443/x", 4},
      {"https://example.com:444/x", 1},
      {"https://www.example.com/x", 1},
  };
  for (const auto& [location, left] : cases) {
    HttpCall call{.method = "GET", .url = "https://example.com/", .headers = headers};
    HttpUrl url = Url(call.url);
    ASSERT_FALSE(FollowHttpRedirect({.status = 302, .location = location}, call, url));
    EXPECT_EQ(call.headers.size(), left) << location;
    EXPECT_EQ(call.headers.back().name, "Accept");
  }
  HttpCall call{.method = "GET", .url = "https://example.com/", .headers = headers};
  HttpUrl url = Url(call.url);
  const std::optional<Failure> failure =
      FollowHttpRedirect({.status = 302, .location = "http://example.com/"}, call, url);
  ASSERT_TRUE(failure);
  EXPECT_EQ(failure->code, "redirect");
  EXPECT_THAT(failure->message, HasSubstr("https to http"));
}

TEST(HttpRequest, KnowsItsSecrets) {
  const HttpCall call{.headers = {{"X-Key", "a key", true},
                                  {"X-Open", "open value"},
                                  {"AUTHORIZATION", "Bearer token"},
                                  {"X-Short", "abc", true}}};
  EXPECT_THAT(SecretsOf(call), testing::ElementsAre("Bearer token", "a key", "token"));
}

HttpTicket Ticket(int64_t order, uint64_t number) { return {order, number, number}; }

TEST(HttpStartQueue, StartsByOrderUpToTheBounds) {
  HttpStartQueue queue(3);
  const HttpHostBounds two{2, 0};
  queue.Add("a", Ticket(5, 1), two);
  queue.Add("a", Ticket(1, 2), two);
  queue.Add("a", Ticket(1, 3), two);
  queue.Add("b", Ticket(0, 4), two);
  queue.Add("b", Ticket(9, 5), two);
  EXPECT_EQ(queue.StartNext(0), Ticket(0, 4));
  EXPECT_EQ(queue.StartNext(0), Ticket(1, 2));
  EXPECT_EQ(queue.StartNext(0), Ticket(1, 3));
  EXPECT_EQ(queue.StartNext(0), std::nullopt) << "three in all";
  EXPECT_EQ(queue.held_back(), 0) << "they wait for places, not for time";
  queue.Release("b");
  EXPECT_EQ(queue.StartNext(0), Ticket(9, 5)) << "two to a";
  queue.Release("a");
  queue.Remove("a", Ticket(5, 1));
  EXPECT_EQ(queue.StartNext(0), std::nullopt);
  EXPECT_EQ(queue.next_start_us(), std::nullopt);
}

TEST(HttpStartQueue, KeepsToTheRateOfAHost) {
  HttpStartQueue queue(10);
  const HttpHostBounds ten{10, 10.0};  // one in 100 ms
  for (uint64_t i = 1; i <= 3; ++i) queue.Add("a", Ticket(0, i), ten);
  queue.Add("b", Ticket(1, 4), ten);
  EXPECT_EQ(queue.StartNext(1'000'000), Ticket(0, 1));
  EXPECT_EQ(queue.StartNext(1'000'000), Ticket(1, 4)) << "the other host has a rate of its own";
  EXPECT_EQ(queue.StartNext(1'050'000), std::nullopt);
  EXPECT_EQ(queue.held_back(), 2) << "two to a; b has nothing left";
  const int64_t next_us = queue.next_start_us().value();
  EXPECT_EQ(queue.StartNext(next_us - 1), std::nullopt);
  EXPECT_EQ(queue.StartNext(next_us), Ticket(0, 2));
  EXPECT_EQ(queue.StartNext(next_us), std::nullopt);
  int started = 0;
  queue.Add("a", Ticket(0, 9), ten);
  for (int64_t now_us = next_us; now_us < next_us + 10'000'000; now_us += 1'000) {
    while (queue.StartNext(now_us)) {
      ++started;
      queue.Release("a");
      queue.Add("a", Ticket(0, 100 + static_cast<uint64_t>(started)), ten);
    }
  }
  EXPECT_GE(started, 99);
  EXPECT_LE(started, 101);
}

TEST(HttpStartQueue, EachHostHasBoundsOfItsOwn) {
  HttpStartQueue queue(10);
  for (uint64_t i = 1; i <= 3; ++i) {
    queue.Add("one", Ticket(0, i), {1, 0});
    queue.Add("slow", Ticket(1, 10 + i), {3, 2.0});
    queue.Add("free", Ticket(2, 20 + i), {3, 0});
  }
  int started = 0;
  while (queue.StartNext(0)) ++started;
  EXPECT_EQ(started, 1 + 1 + 3);
  EXPECT_GT(queue.next_start_us().value(), 400'000);
}

TEST(HttpAnswer, RetryAfterInSecondsAndAsADate) {
  const std::string now = "Tue, 15 Nov 1994 08:12:31 GMT";
  EXPECT_EQ(RetryAfterUs("", now), 0);
  EXPECT_EQ(RetryAfterUs("7", now), 7'000'000);
  EXPECT_EQ(RetryAfterUs(" 7 ", now), 7'000'000);
  EXPECT_EQ(RetryAfterUs("999999", now), 3'600'000'000);
  EXPECT_EQ(RetryAfterUs("99999999999999999999999", now), 3'600'000'000);
  EXPECT_EQ(RetryAfterUs("-1", now), 0);
  EXPECT_EQ(RetryAfterUs("soon", now), 0);
  EXPECT_EQ(RetryAfterUs("Tue, 15 Nov 1994 08:12:41 GMT", now), 10'000'000);
  EXPECT_EQ(RetryAfterUs("Tue, 15 Nov 1994 08:12:21 GMT", now), 0);
  EXPECT_EQ(RetryAfterUs("Tue, 15 Nov 2094 08:12:21 GMT", now), 3'600'000'000);
  EXPECT_EQ(RetryAfterUs("Tue, 15 Nov 1994 08:12:41 GMT", ""), 0) << "long past on this machine";
}

TEST(HttpAnswer, ExcerptsAreOneLineWithoutSecrets) {
  EXPECT_EQ(PrintableExcerpt("  a\r\n\tb \x1b[31mc\x7f", {}, 100), "a b [31mc");
  EXPECT_EQ(PrintableExcerpt("abcdef", {}, 3), "abc...");
  EXPECT_EQ(PrintableExcerpt("abc \n", {}, 3), "abc");
  EXPECT_EQ(PrintableExcerpt("\xC3\xA4\xC3\xB6\xC3\xBC", {}, 2), "\xC3\xA4\xC3\xB6...");
  EXPECT_EQ(PrintableExcerpt("a\xFFz", {}, 9), "a\xEF\xBF\xBDz");
  EXPECT_EQ(PrintableExcerpt("a\xC2\x85\xE2\x80\xAE\xE2\x81\xA6z", {}, 9), "a z")
      << "nothing that turns the direction of writing";
  EXPECT_EQ(PrintableExcerpt("no token here, token", {"token"}, 100), "no [secret] here, [secret]");
  EXPECT_EQ(PrintableExcerpt(std::string(500, 'x') + "token", {"token"}, 503),
            std::string(500, 'x') + "[se...");
  EXPECT_EQ(PrintableExcerpt(std::string(100'000, '\n') + "x", {}, 5), "...");
}

TEST(HttpAnswer, TheBodyDecidesWhetherItIsJson) {
  const auto value = [](std::string body, const char* type = "text/html") {
    HttpValue read = ReadHttpBody(std::move(body), type, "");
    EXPECT_FALSE(read.failure);
    return read.value;
  };
  EXPECT_EQ(value(""), Json());
  EXPECT_EQ(value("{\"b\": [1, -2.5, \"x\\u00e4\", true, null], \"a\": {}}").dump(),
            "{\"b\":[1,-2.5,\"x\xC3\xA4\",true,null],\"a\":{}}");
  EXPECT_EQ(value(" 17 \n"), Json(17));
  EXPECT_EQ(value("null"), Json());
  EXPECT_EQ(value("\xEF\xBB\xBF[1]"), Json({1}));
  // Almost JSON is text.
  for (const char* text :
       {"{'a': 1}", "[1,]", "[1] [2]", "1}", "1, \"a\": 2", "1, \"value\": 2",
        "{\"a\": 1, \"a\": 2}", "NaN", "// x\n1", "hello", " ", "\"a\nb\"", "1e999"}) {
    EXPECT_EQ(value(text, "application/json"), Json(text)) << text;
  }
  const auto nested = [](size_t levels) {
    return std::string(levels, '[') + std::string(levels, ']');
  };
  EXPECT_TRUE(value(nested(63)).is_array());
  EXPECT_TRUE(value(nested(64)).is_string());
  EXPECT_TRUE(value(nested(1'000'000)).is_string());
}

TEST(HttpAnswer, ManyKeysTakeNoLongerThanTheyMust) {
  std::string body = "{";
  for (int i = 0; i < 300'000; ++i) body += "\"k" + std::to_string(i) + "\":1,";
  body.back() = '}';
  EXPECT_EQ(ReadHttpBody(body, "", "k299999").value, Json(1));
}

TEST(HttpAnswer, TextIsUtf8OrSaysWhatItIs) {
  const std::string latin = "caf\xE9";
  EXPECT_EQ(ReadHttpBody(latin, "text/plain; charset=ISO-8859-1", "").value, Json("caf\xC3\xA9"));
  EXPECT_EQ(ReadHttpBody(latin, "text/plain;a=b ; Charset=\"iso-8859-1\"", "").value,
            Json("caf\xC3\xA9"));
  EXPECT_EQ(ReadHttpBody("[\"\xE9\"]", "application/json; charset=latin1", "0").value,
            Json("\xC3\xA9"));
  EXPECT_EQ(ReadHttpBody("caf\xC3\xA9", "text/plain; charset=iso-8859-1", "").value,
            Json("caf\xC3\xA9"))
      << "what is UTF-8 is UTF-8";
  for (const char* type : {"", "text/plain", "text/plain; charset=utf-8", "application/json"}) {
    const HttpValue read = ReadHttpBody(latin, type, "");
    ASSERT_TRUE(read.failure) << type;
    EXPECT_EQ(read.failure->code, "invalid_utf8");
    EXPECT_THAT(read.failure->message, HasSubstr("byte 3"));
    EXPECT_FALSE(read.failure->retriable);
  }
}

TEST(HttpAnswer, ResponsePathPicksOrSaysWhichStepIsMissing) {
  const std::string body = R"({"choices": [{"message": {"content": "hi", "0": "zero"}}], "n": 1})";
  const auto pick = [&](const char* path) { return ReadHttpBody(body, "", path); };
  EXPECT_EQ(pick("choices.0.message.content").value, Json("hi"));
  EXPECT_EQ(pick("choices.0.message.0").value, Json("zero"));
  EXPECT_EQ(pick("n").value, Json(1));
  const std::pair<const char*, const char*> missing[] = {
      {"choice", "the answer has no 'choice'"},
      {"choices.1", "'choices' is a list of 1: there is no '1'"},
      {"choices.first", "'choices' is a list: 'first' is no index"},
      {"choices.-1", "no index"},
      {"choices.0.message.text", "'choices.0.message' has no 'text'"},
      {"n.x", "'n' is a number and has no 'x'"},
      {"choices..x", "no index"},
      {".n", "has no ''"},
  };
  for (const auto& [path, why] : missing) {
    const HttpValue read = pick(path);
    ASSERT_TRUE(read.failure) << path;
    EXPECT_EQ(read.failure->code, "response_path");
    EXPECT_THAT(read.failure->message, HasSubstr(why));
  }
  EXPECT_EQ(ReadHttpBody("hello", "", "a").failure->code, "response_path");
  EXPECT_EQ(ReadHttpBody("", "", "a").failure->code, "response_path");
}

}  // namespace
}  // namespace halo
