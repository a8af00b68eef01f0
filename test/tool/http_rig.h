#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "tool/backend_rig.h"
#include "tool/http/http_backend.h"
#include "tool/http_test_server.h"

namespace halo::test {

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
  explicit Http(HttpOptions options) : Http(std::move(options), rig_.clock) {}
  Http(HttpOptions options, Clock& clock)
      : backend_(std::make_unique<HttpBackend>(std::move(options), rig_.mailbox, clock)) {}

  ToolCallId Submit(HttpCall call, ToolCall how = {}) {
    const ToolCallId id = rig_.NextId();
    how.id = id;
    how.what = std::move(call);
    backend_->Submit(std::move(how));
    return id;
  }

  ToolCompletion Wait(ToolCallId id) { return rig_.Wait(id); }

  ToolCompletion Do(HttpCall call, ToolCall how = {}) {
    return Wait(Submit(std::move(call), std::move(how)));
  }

  void Cancel(ToolCallId id) { backend_->Cancel(id); }

  /// Returns when the backend has seen everything that was told to it before, and the clock.
  void Settle() { Do({.method = "GET", .latency_mode = HttpLatencyMode::kSimulated}); }

  bool IsDone(ToolCallId id) { return rig_.IsDone(id); }

  void Stop() {
    backend_.reset();
    rig_.Take(0);
  }

 private:
  BackendRig rig_;
  std::unique_ptr<HttpBackend> backend_;  // gone before the mailbox is
};

inline constexpr char kHost[] = "api.example.com";

/// `kHost` may be reached, and stands for the server; nothing else may.
inline HttpOptions Reach(const TestHttpServer& server) {
  HttpOptions options;
  options.allowed_hosts = {kHost};
  options.pinned_addresses = {{kHost, server.port(), "127.0.0.1"}};
  return options;
}

inline std::string UrlOf(const TestHttpServer& server, const std::string& target = "/",
                         const std::string& host = kHost) {
  return "http://" + host + ":" + server.port_text() + target;
}

inline HttpCall Get(std::string url) { return {.method = "GET", .url = std::move(url)}; }

inline void ExpectFailure(const ToolCompletion& completion, const std::string& code,
                          bool retriable) {
  ASSERT_TRUE(completion.failure) << completion.value.dump();
  EXPECT_EQ(completion.failure->code, code) << completion.failure->message;
  EXPECT_EQ(completion.failure->retriable, retriable) << completion.failure->message;
  EXPECT_FALSE(completion.failure->message.empty());
  EXPECT_TRUE(completion.value.is_null());
}

inline void ExpectValue(const ToolCompletion& completion, const nlohmann::ordered_json& value) {
  EXPECT_FALSE(completion.failure)
      << completion.failure->code << ": " << completion.failure->message;
  EXPECT_EQ(completion.value, value);
  EXPECT_LE(completion.started_us, completion.finished_us);
}

}  // namespace halo::test
