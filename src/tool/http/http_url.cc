#include "tool/http/http_url.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <memory>

#include "base/check.h"
#include "base/error.h"
#include "base/text.h"

namespace halo {
namespace {

struct FreeUrl {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using CurlUrl = std::unique_ptr<CURLU, FreeUrl>;

CurlUrl NewUrl() {
  CurlUrl url(curl_url());
  HALO_CHECK(url != nullptr, "memory for a URL");
  return url;
}

std::string Part(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, part, &text, flags) != CURLUE_OK) return "";
  std::string copy = text;
  curl_free(text);
  return copy;
}

/// Letters of ASCII only: other letters would be mapped when the name is looked up, some of them to
/// dots and slashes, and a checked name would stand for another one.
bool IsPlainHost(std::string_view host) {
  if (host.empty()) return false;
  if (host.front() == '[') return host.find('%') == std::string_view::npos;
  if (host.front() == '.' || host.back() == '.') return false;
  if (host.find("..") != std::string_view::npos) return false;
  return std::all_of(host.begin(), host.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

std::optional<HttpUrl> Describe(CURLU* url, std::string& fault) {
  HttpUrl described;
  described.scheme = LowerCaseAscii(Part(url, CURLUPART_SCHEME));
  if (described.scheme != "http" && described.scheme != "https") {
    fault = "the URL is neither http nor https";
    return std::nullopt;
  }
  described.host = LowerCaseAscii(Part(url, CURLUPART_HOST));
  if (described.host.ends_with('.')) described.host.pop_back();
  if (!IsPlainHost(described.host) || !Part(url, CURLUPART_ZONEID).empty()) {
    fault = "the URL's host is not a name of letters, digits, '-' and '.' nor an address";
    return std::nullopt;
  }
  const std::string port = Part(url, CURLUPART_PORT, CURLU_DEFAULT_PORT);
  const auto read = std::from_chars(port.data(), port.data() + port.size(), described.port);
  if (read.ec != std::errc() || read.ptr != port.data() + port.size() || described.port == 0) {
    fault = "the URL's port is not between 1 and 65535";
    return std::nullopt;
  }
  described.text = Part(url, CURLUPART_URL);
  constexpr size_t kMostBytes = 64 * 1024;
  if (described.text.size() > kMostBytes) {
    fault = "the URL is longer than 64 KiB: send long values in a body";
    return std::nullopt;
  }
  return described;
}

std::optional<HttpUrl> Read(CURLU* url, const std::string& text, unsigned flags,
                            std::string& fault) {
  // c_str() below would end at a NUL, and another URL than the checked one would be read.
  if (text.find('\0') != std::string::npos) {
    fault = "the URL has a NUL character in it";
    return std::nullopt;
  }
  const CURLUcode code =
      curl_url_set(url, CURLUPART_URL, text.c_str(), CURLU_DISALLOW_USER | flags);
  if (code == CURLUE_USER_NOT_ALLOWED) {
    fault = "the URL has a user name or a password in it: send them as a header";
    return std::nullopt;
  }
  if (code != CURLUE_OK) {
    fault = fmt::format("the URL cannot be read: {}", curl_url_strerror(code));
    return std::nullopt;
  }
  return Describe(url, fault);
}

}  // namespace

std::string HttpUrl::Origin() const { return fmt::format("{}://{}:{}", scheme, host, port); }

std::string HttpUrl::ShownHost() const {
  const uint16_t usual = scheme == "https" ? 443 : 80;
  return port == usual ? host : fmt::format("{}:{}", host, port);
}

std::optional<HttpUrl> ParseHttpUrl(const std::string& text, std::string& fault) {
  const auto is_plain = [](char c) { return c > ' ' && c < '\x7f'; };
  if (!std::all_of(text.begin(), text.end(), is_plain)) {
    fault = "the URL has characters in it that must be percent-encoded";
    return std::nullopt;
  }
  const CurlUrl url = NewUrl();
  return Read(url.get(), text, CURLU_PATH_AS_IS, fault);
}

std::optional<HttpUrl> ResolveHttpUrl(const HttpUrl& url, const std::string& location,
                                      std::string& fault) {
  const CurlUrl resolved = NewUrl();
  const CURLUcode code =
      curl_url_set(resolved.get(), CURLUPART_URL, url.text.c_str(), CURLU_PATH_AS_IS);
  HALO_CHECK(code == CURLUE_OK, "a URL that was read before is read again");
  // Servers send spaces and letters of any alphabet here; they are encoded, the host's are refused.
  return Read(resolved.get(), location, CURLU_URLENCODE | CURLU_ALLOW_SPACE, fault);
}

HttpHostRules::HttpHostRules(const std::vector<std::string>& rules) {
  for (const std::string& text : rules) {
    Rule rule;
    std::string rest = text;
    if (rest.starts_with("*.")) {
      rule.is_suffix = true;
      rest = rest.substr(2);
    }
    std::string fault;
    std::optional<HttpUrl> url;
    if (rest.find_first_of("/?#@\\") == std::string::npos) {
      url = ParseHttpUrl("http://" + rest + "/", fault);
    }
    if (!url) {
      throw Error(ErrorCode::kConfig,
                  fmt::format("allow_hosts: '{}' is no host: write example.com, example.com:8443 "
                              "or *.example.com",
                              text));
    }
    rule.host = url->host;
    const size_t colon = rest.rfind(':');
    const size_t bracket = rest.rfind(']');
    const bool has_port =
        colon != std::string::npos && (bracket == std::string::npos || colon > bracket);
    if (has_port) rule.port = url->port;
    rules_.push_back(std::move(rule));
  }
}

bool HttpHostRules::Allow(const HttpUrl& url) const {
  return std::any_of(rules_.begin(), rules_.end(), [&](const Rule& rule) {
    if (rule.port && *rule.port != url.port) return false;
    if (!rule.is_suffix) return url.host == rule.host;
    return url.host.size() > rule.host.size() + 1 && url.host.ends_with("." + rule.host);
  });
}

}  // namespace halo
