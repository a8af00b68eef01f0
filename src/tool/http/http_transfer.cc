#include "tool/http/http_transfer.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "base/check.h"
#include "base/text.h"

namespace halo {
namespace {

// Kept of the body of an answer that says why there is none: enough for a message.
constexpr int64_t kMostOtherBytes = 64 * 1024;

bool IsSuccess(long status) { return status >= 200 && status < 300; }

bool HasFeature(int feature) {
  return (curl_version_info(CURLVERSION_NOW)->features & feature) != 0;
}

}  // namespace

HttpTransfer::HttpTransfer(const HttpCall& call, const HttpUrl& url, bool once,
                           const HttpOptions& options)
    : call_(call), url_(url), once_(once), options_(options), handle_(curl_easy_init()) {
  HALO_CHECK(handle_ != nullptr, "memory for a transfer");
  Set(CURLOPT_ERRORBUFFER, error_);
  Set(CURLOPT_HEADERFUNCTION, &OnHeader);
  Set(CURLOPT_HEADERDATA, this);
  Set(CURLOPT_WRITEFUNCTION, &OnBody);
  Set(CURLOPT_WRITEDATA, this);
  SetRequest();
  SetTrust();
  SetConnection();
}

template <typename Value>
void HttpTransfer::Set(CURLoption option, Value value) {
  const CURLcode code = curl_easy_setopt(handle_.get(), option, value);
  HALO_CHECK(code == CURLE_OK, "libcurl knows the options that Halo sets");
}

void HttpTransfer::Append(List& list, const std::string& text) {
  curl_slist* longer = curl_slist_append(list.get(), text.c_str());
  HALO_CHECK(longer != nullptr, "memory for a header");
  static_cast<void>(list.release());  // the first node, if there was one, stays the first
  list.reset(longer);
}

void HttpTransfer::SetRequest() {
  Set(CURLOPT_URL, url_.text.c_str());
  Set(CURLOPT_PATH_AS_IS, 1L);
  Set(CURLOPT_FOLLOWLOCATION, 0L);
  if (call_.method == "HEAD") {
    Set(CURLOPT_NOBODY, 1L);
  } else if (call_.body || call_.method == "POST" || call_.method == "PUT" ||
             call_.method == "PATCH") {
    // A body that is left out where one is expected is an empty one, and its length is sent.
    Set(CURLOPT_POST, 1L);
    Set(CURLOPT_POSTFIELDS, call_.body ? call_.body->c_str() : "");
    Set(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(call_.body ? call_.body->size() : 0));
  } else {
    Set(CURLOPT_HTTPGET, 1L);
  }
  if (call_.method != "HEAD") Set(CURLOPT_CUSTOMREQUEST, call_.method.c_str());

  bool has_content_type = false, has_user_agent = false;
  for (const HttpHeader& header : call_.headers) {
    const std::string name = LowerCaseAscii(header.name);
    has_content_type = has_content_type || name == "content-type";
    has_user_agent = has_user_agent || name == "user-agent";
    const bool is_blank = header.value.find_first_not_of(" \t") == std::string::npos;
    // libcurl's way of saying that a header has no value; "name:" would leave it out.
    Append(headers_, is_blank ? header.name + ";" : header.name + ": " + header.value);
  }
  // libcurl's own would say that the body is a form, and wait for a server's leave to send it.
  if (!has_content_type) Append(headers_, "Content-Type:");
  if (!has_user_agent) Append(headers_, "User-Agent: halo");
  Append(headers_, "Expect:");
  Set(CURLOPT_HTTPHEADER, headers_.get());
  Set(CURLOPT_ACCEPT_ENCODING, "");  // whatever can be decompressed
}

void HttpTransfer::SetTrust() {
  Set(CURLOPT_PROTOCOLS_STR, "http,https");
  Set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  // Nothing that the environment or files in a home folder say.
  Set(CURLOPT_PROXY, "");
  Set(CURLOPT_NETRC, static_cast<long>(CURL_NETRC_IGNORED));
  Set(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
  Set(CURLOPT_SSL_VERIFYPEER, 1L);
  Set(CURLOPT_SSL_VERIFYHOST, 2L);
  Set(CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
  if (!options_.certificate_file.empty()) {
    Set(CURLOPT_CAINFO, options_.certificate_file.c_str());
    Set(CURLOPT_CAPATH, static_cast<const char*>(nullptr));
  }
  Set(CURLOPT_OPENSOCKETFUNCTION, &OnOpenSocket);
  Set(CURLOPT_OPENSOCKETDATA, this);
  Set(CURLOPT_PREREQFUNCTION, &OnConnected);
  Set(CURLOPT_PREREQDATA, this);
}

void HttpTransfer::SetConnection() {
  Set(CURLOPT_NOSIGNAL, 1L);
  // A name server that does not answer must not hold up the one thread when a call is given up.
  Set(CURLOPT_QUICK_EXIT, 1L);
  Set(CURLOPT_CONNECTTIMEOUT_MS,
      static_cast<long>(std::max<int64_t>(1, options_.connect_timeout_us / 1000)));
  if (HasFeature(CURL_VERSION_HTTP2)) {
    Set(CURLOPT_HTTP_VERSION, static_cast<long>(CURL_HTTP_VERSION_2TLS));
    // Over TLS, wait for the first connection to say whether it carries many requests.
    Set(CURLOPT_PIPEWAIT, url_.scheme == "https" ? 1L : 0L);
  }
  // libcurl sends a request again by itself if a connection that was kept alive turns out to be
  // closed, not knowing whether the server has read it. On a fresh connection it never does.
  if (once_) Set(CURLOPT_FRESH_CONNECT, 1L);
  for (const HttpPinnedAddress& pinned : options_.pinned_addresses) {
    if (LowerCaseAscii(pinned.host) != url_.host || pinned.port != url_.port) continue;
    const bool is_v6 = pinned.address.find(':') != std::string::npos;
    const std::string address = is_v6 ? "[" + pinned.address + "]" : pinned.address;
    Append(resolve_, fmt::format("{}:{}:{}", url_.host, pinned.port, address));
    Set(CURLOPT_RESOLVE, resolve_.get());
  }
}

int64_t HttpTransfer::most_bytes() const { return std::max<int64_t>(0, call_.most_bytes); }

size_t HttpTransfer::OnHeader(char* data, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<HttpTransfer*>(self);
  const size_t bytes = size * count;
  long status = 0;
  curl_easy_getinfo(transfer.handle_.get(), CURLINFO_RESPONSE_CODE, &status);
  if (!IsSuccess(status) || transfer.call_.method == "HEAD") return bytes;

  constexpr std::string_view kName = "content-length:";
  const std::string_view line(data, bytes);
  if (LowerCaseAscii(std::string(line.substr(0, kName.size()))) != kName) return bytes;
  const size_t digits = line.find_first_not_of(" \t", kName.size());
  if (digits == std::string_view::npos) return bytes;
  int64_t length = 0;
  const auto read = std::from_chars(line.data() + digits, line.data() + line.size(), length);
  const bool is_large = read.ec == std::errc::result_out_of_range ||
                        (read.ec == std::errc() && length > transfer.most_bytes());
  if (!is_large) return bytes;
  transfer.stop_ = Stop::kTooLarge;
  return 0;
}

size_t HttpTransfer::OnBody(char* data, size_t size, size_t count, void* self) {
  auto& transfer = *static_cast<HttpTransfer*>(self);
  const size_t bytes = size * count;
  long status = 0;
  curl_easy_getinfo(transfer.handle_.get(), CURLINFO_RESPONSE_CODE, &status);
  const int64_t most = IsSuccess(status) ? transfer.most_bytes() : kMostOtherBytes;
  const auto room = most - static_cast<int64_t>(transfer.body_.size());
  if (static_cast<int64_t>(bytes) > room) {
    transfer.stop_ = IsSuccess(status) ? Stop::kTooLarge : Stop::kEnough;
    return 0;
  }
  transfer.body_.append(data, bytes);
  return bytes;
}

bool HttpTransfer::IsAllowed(const std::optional<IpAddress>& address) {
  if (options_.allow_everything) return true;
  if (!address) {
    refused_address_ = "an address that is no IP address";
    return false;
  }
  for (const HttpPinnedAddress& pinned : options_.pinned_addresses) {
    if (LowerCaseAscii(pinned.host) == url_.host && pinned.port == url_.port &&
        ParseIpAddress(pinned.address) == address) {
      return true;
    }
  }
  const std::string_view why = WhyNotPublic(*address);
  if (why.empty()) return true;
  refused_address_ = fmt::format("{}, a {} address", ToString(*address), why);
  return false;
}

curl_socket_t HttpTransfer::OnOpenSocket(void* self, curlsocktype /*purpose*/,
                                         curl_sockaddr* address) {
  auto& transfer = *static_cast<HttpTransfer*>(self);
  if (!transfer.IsAllowed(ToIpAddress(address->addr))) return CURL_SOCKET_BAD;
  transfer.tried_address_ = true;
  // Programs that Halo starts do not inherit it.
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

int HttpTransfer::OnConnected(void* self, char* address, char* /*local*/, int /*port*/,
                              int /*local_port*/) {
  auto& transfer = *static_cast<HttpTransfer*>(self);
  if (transfer.IsAllowed(ParseIpAddress(address))) return CURL_PREREQFUNC_OK;
  transfer.tried_address_ = false;
  return CURL_PREREQFUNC_ABORT;
}

std::string HttpTransfer::Header(const char* name) const {
  curl_header* header = nullptr;
  const CURLHcode code = curl_easy_header(handle_.get(), name, 0, CURLH_HEADER, -1, &header);
  return code == CURLHE_OK ? header->value : "";
}

HttpTransfer::Outcome HttpTransfer::Finish(CURLcode code) {
  if (stop_ == Stop::kTooLarge) {
    return {
        Failure{"", "too_large",
                fmt::format("the answer has more than {} bytes: ask for less of it", most_bytes()),
                false},
        {}};
  }
  if (code != CURLE_OK && stop_ != Stop::kEnough) return {Describe(code), {}};
  Outcome outcome;
  HttpAnswer& answer = outcome.answer;
  long status = 0;
  curl_easy_getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &status);
  answer.status = static_cast<int32_t>(status);
  answer.body = std::move(body_);
  answer.content_type = Header("Content-Type");
  answer.location = Header("Location");
  answer.retry_after = Header("Retry-After");
  answer.date = Header("Date");
  return outcome;
}

Failure HttpTransfer::Describe(CURLcode code) const {
  const bool was_refused = !refused_address_.empty() && !tried_address_;
  if (was_refused && (code == CURLE_COULDNT_CONNECT || code == CURLE_ABORTED_BY_CALLBACK)) {
    return {"", "address_not_allowed",
            fmt::format("the host is {}: pass `--allow net` to reach it", refused_address_), false};
  }
  const std::string why = error_[0] != '\0' ? error_ : curl_easy_strerror(code);
  switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
    case CURLE_SSL_INVALIDCERTSTATUS:
    case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
      return {"", "tls", why, false};
    case CURLE_SSL_CONNECT_ERROR:  // as likely a connection that broke as a server without TLS
      return {"", "tls", why, true};
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR:  // of the decompression
      return {"", "bad_response", why, false};
    default:
      return {"", "connection", why, true};
  }
}

}  // namespace halo
