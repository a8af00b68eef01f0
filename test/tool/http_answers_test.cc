#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdint>
#include <string>

#include "base/error.h"
#include "tool/http_rig.h"

namespace halo::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

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

}  // namespace
}  // namespace halo::test
