#include "bench/http_client.h"

#include <gtest/gtest.h>

namespace halo::bench {
namespace {

TEST(HttpClient, TakesAnAnswerApart) {
  const HttpAnswer plain = ParseHttpAnswer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
  EXPECT_EQ(plain.status, 200);
  EXPECT_EQ(plain.body, "{}");
  const HttpAnswer chunked = ParseHttpAnswer(
      "HTTP/1.1 503 No\r\nTransfer-Encoding: "
      "chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n");
  EXPECT_EQ(chunked.status, 503);
  EXPECT_EQ(chunked.body, "abc0123456789");
}

TEST(HttpClient, WhatIsNoAnswerHasNoStatus) {
  for (const char* text : {"", "HTTP/1.1 200 OK\r\n", "hello\r\n\r\n", "HTTP/1.1 x\r\n\r\n"}) {
    EXPECT_EQ(ParseHttpAnswer(text).status, 0) << text;
  }
}

TEST(HttpClient, NobodyListensOnAFreePort) {
  EXPECT_EQ(AskLocalServer(FreePort(), "/health", "").status, 0);
}

}  // namespace
}  // namespace halo::bench
