#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "base/clock.h"
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
  explicit Http(HttpOptions options) : Http(std::move(options), steady_) {}
  Http(HttpOptions options, Clock& clock)
      : backend_(std::make_unique<HttpBackend>(std::move(options), mailbox_, clock)) {}

  ToolCallId Submit(HttpCall call, ToolCall how = {}) {
    how.id = ++last_id_;
    how.what = std::move(call);
    backend_->Submit(std::move(how));
    return last_id_;
  }

  /// The completion of a call. A minute is for ever; however many others end in it.
  ToolCompletion Wait(ToolCallId id) {
    constexpr int64_t kMostUs = 60'000'000;
    const int64_t end_us = steady_.NowUs() + kMostUs;
    while (!done_.contains(id)) {
      const int64_t left_us = end_us - steady_.NowUs();
      if (left_us <= 0) {
        ADD_FAILURE() << "call " << id << " does not end";
        ToolCompletion none;
        none.failure = Failure{"", "test_never_ended", "", false};
        return none;
      }
      Take(left_us);
    }
    return done_.extract(id).mapped();
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
