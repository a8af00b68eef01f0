#pragma once

#include <curl/curl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/error.h"
#include "tool/http/http_answer.h"
#include "tool/http/http_backend.h"
#include "tool/http/http_url.h"
#include "tool/http/ip_address.h"
#include "tool/tool.h"

namespace halo {

/// One request and its answer, on a libcurl handle of its own: a redirect is an answer, no
/// connection goes to an address that is not allowed, and no more is read than wanted.
class HttpTransfer {
 public:
  /// What came of it: an answer of any status, or why there is none ("connection", "tls",
  /// "address_not_allowed", "too_large", "bad_response").
  struct Outcome {
    std::optional<Failure> failure;
    HttpAnswer answer;
  };

  /// `call`, `url` and `options` outlive it. `once`: a request that must not reach the server
  /// twice.
  HttpTransfer(const HttpCall& call, const HttpUrl& url, bool once, const HttpOptions& options);
  HttpTransfer(const HttpTransfer&) = delete;
  HttpTransfer& operator=(const HttpTransfer&) = delete;

  /// To be taken out of a multi handle before this is destroyed. CURLOPT_PRIVATE is the caller's.
  CURL* handle() const { return handle_.get(); }
  /// Once libcurl has said how it ended.
  Outcome Finish(CURLcode code);

 private:
  struct FreeHandle {
    void operator()(CURL* handle) const { curl_easy_cleanup(handle); }
  };
  struct FreeList {
    void operator()(curl_slist* list) const { curl_slist_free_all(list); }
  };
  using List = std::unique_ptr<curl_slist, FreeList>;
  /// kEnough: of the body of an answer that is no success or a redirect, the beginning is here.
  enum class Stop : uint8_t { kNo, kTooLarge, kEnough };

  template <typename Value>
  void Set(CURLoption option, Value value);
  static void Append(List& list, const std::string& text);
  void SetRequest();
  void SetTrust();
  void SetConnection();

  // What libcurl calls; `self` is the transfer.
  static size_t OnHeader(char* data, size_t size, size_t count, void* self);
  static size_t OnBody(char* data, size_t size, size_t count, void* self);
  static curl_socket_t OnOpenSocket(void* self, curlsocktype purpose, curl_sockaddr* address);
  static int OnConnected(void* self, char* address, char* local, int port, int local_port);

  bool IsAllowed(const std::optional<IpAddress>& address);
  int64_t most_bytes() const;
  std::string Header(const char* name) const;
  Failure Describe(CURLcode code) const;

  const HttpCall& call_;
  const HttpUrl& url_;
  const bool once_;
  const HttpOptions& options_;
  std::unique_ptr<CURL, FreeHandle> handle_;
  List headers_, resolve_;
  char error_[CURL_ERROR_SIZE] = "";
  std::string body_;
  Stop stop_ = Stop::kNo;
  std::string refused_address_;  ///< "10.0.0.5, a private address"
  bool tried_address_ = false;   ///< one that is allowed
};

}  // namespace halo
