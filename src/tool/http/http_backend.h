#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "tool/tool_backend.h"

namespace halo {

/// The address that a host is reached at, whatever the name service says. Whoever writes it down
/// allows it for that host, also if it is a private one.
struct HttpPinnedAddress {
  std::string host;
  uint16_t port = 0;
  std::string address;  ///< IPv4 or IPv6, without brackets
};

/// What one host takes, instead of what all do.
struct HttpHostLimit {
  std::string host;                  ///< as in HttpOptions::allowed_hosts
  int32_t concurrency = 0;           ///< 0: as all
  double requests_per_second = 0.0;  ///< 0: as all
};

/// What requests may reach, and how many of them at once.
struct HttpOptions {
  /// "example.com" (any port), "example.com:8443", "*.example.com". Nothing else is reached, by
  /// redirects neither, and none of these at a private, loopback or link-local address.
  std::vector<std::string> allowed_hosts;
  /// Any host, and private, loopback and link-local addresses too (`--allow net`).
  bool allow_everything = false;
  int32_t concurrency = 32;                 ///< requests in flight to one host (scheme, name, port)
  int32_t concurrency_in_all = 256;         ///< to all hosts
  double requests_per_second = 0.0;         ///< started to one host; 0: no limit
  std::vector<HttpHostLimit> host_limits;   ///< the first that fits counts
  int64_t default_timeout_us = 60'000'000;  ///< of a call without a deadline, from its start
  int64_t connect_timeout_us = 10'000'000;  ///< name look-up and TLS included
  std::vector<HttpPinnedAddress> pinned_addresses;
  /// A PEM file of the authorities whose certificates are believed; "": those of the system.
  std::string certificate_file;
};

/// HTTP requests by libcurl's multi interface: many in flight from one thread, connections kept
/// alive, HTTP/2 where the server has it over TLS. Proxies, cookies and passwords of the
/// environment are not looked at. One attempt a call: whether another is made is the scheduler's to
/// decide, by Failure::retriable and retry_after_us.
///
/// Failures, retriable ones with a star: http_status (* for 408, 429 and 5xx), connection* (also a
/// name that is not found), tls (* unless it is the certificate), timeout*, deadline, cancelled,
/// too_large, bad_response, invalid_utf8, response_path, redirect, host_not_allowed,
/// address_not_allowed, bad_url, bad_method, bad_header. Messages name method and host, never the
/// rest of a URL, nor a header's value.
///
/// Redirects are requests of their own: each waits for its place to its host, and is checked like
/// the first. Simulated calls and answers that are held back keep their place, as the call that
/// they stand for would.
class HttpBackend final : public ToolBackend {
 public:
  /// `mailbox` and `clock` outlive it. Throws Error(kConfig) if libcurl cannot start, or naming an
  /// option that makes no sense.
  HttpBackend(HttpOptions options, ToolMailbox& mailbox, Clock& clock);
  ~HttpBackend() override;

  void Submit(ToolCall call) override;  ///< an HttpCall
  void Cancel(ToolCallId id) override;
  int64_t held_back() const override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace halo
