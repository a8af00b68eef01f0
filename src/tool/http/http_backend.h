#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tool/tool_backend.h"

namespace halo {

/// What requests may reach, and how many of them at once.
struct HttpOptions {
  /// "example.com" (any port), "example.com:8443", "*.example.com". Nothing else is reached, by
  /// redirects neither.
  std::vector<std::string> allowed_hosts;
  /// Any host, and private, loopback and link-local addresses too (`--allow net`).
  bool allow_everything = false;
  int32_t concurrency = 32;                 ///< requests in flight to one host (scheme, name, port)
  double requests_per_second = 0.0;         ///< started to one host; 0: no limit
  int64_t default_timeout_us = 60'000'000;  ///< of a call without a deadline
  int64_t connect_timeout_us = 10'000'000;
};

/// HTTP requests by libcurl's multi interface: many in flight from one thread, connections kept
/// alive, HTTP/2 where the server has it. One attempt a call: whether another is made is the
/// scheduler's to decide, by Failure::retriable and retry_after_us.
class HttpBackend final : public ToolBackend {
 public:
  /// `mailbox` and `clock` outlive it. Throws Error(kConfig) if libcurl cannot start.
  HttpBackend(HttpOptions options, ToolMailbox& mailbox, Clock& clock);
  ~HttpBackend() override;

  void Submit(ToolCall call) override;  ///< an HttpCall
  void Cancel(ToolCallId id) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
