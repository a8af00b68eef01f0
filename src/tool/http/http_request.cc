#include "tool/http/http_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <string_view>

#include "base/text.h"

namespace halo {
namespace {

template <size_t n>
bool IsOneOf(std::string_view name, const std::string_view (&names)[n]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// A "token" of RFC 9110.
bool IsToken(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c != '\0' && std::strchr("!#$%&'*+-.^_`|~", c) != nullptr);
  });
}

/// Headers that say where a message ends, or whom it goes to: a second opinion about these is how
/// requests are smuggled.
constexpr std::string_view kOwnHeaders[] = {"connection", "content-length",    "expect",
                                            "host",       "keep-alive",        "te",
                                            "trailer",    "transfer-encoding", "upgrade"};
constexpr std::string_view kSecretHeaders[] = {"authorization", "cookie", "proxy-authorization"};
constexpr std::string_view kBodyHeaders[] = {"content-encoding", "content-language",
                                             "content-location", "content-type"};

constexpr size_t kMostHeaderBytes = 64 * 1024;

bool IsSecret(const HttpHeader& header) {
  return header.is_secret || IsOneOf(LowerCaseAscii(header.name), kSecretHeaders);
}

Failure Refuse(std::string code, std::string message) {
  return {"", std::move(code), std::move(message), false};
}

}  // namespace

std::optional<Failure> CheckHttpRequest(const HttpCall& call) {
  const bool is_upper_case = !call.method.empty() && call.method.size() <= 32 &&
                             std::all_of(call.method.begin(), call.method.end(),
                                         [](char c) { return c >= 'A' && c <= 'Z'; });
  if (!is_upper_case || call.method == "CONNECT" || call.method == "TRACE") {
    return Refuse("bad_method",
                  "the method is none that is sent: use GET, HEAD, POST, PUT, PATCH, "
                  "DELETE or OPTIONS");
  }
  if (call.method == "HEAD" && call.body) {
    return Refuse("bad_method", "HEAD has no body: leave it out, or use another method");
  }
  size_t bytes = 0;
  for (const HttpHeader& header : call.headers) {
    bytes += header.name.size() + header.value.size() + 4;
    if (bytes > kMostHeaderBytes) {
      return Refuse("bad_header", "the headers are longer than 64 KiB: send long values in a body");
    }
    if (!IsToken(header.name)) {
      return Refuse("bad_header", "a header's name may have letters, digits and '-' only");
    }
    if (IsOneOf(LowerCaseAscii(header.name), kOwnHeaders)) {
      return Refuse("bad_header",
                    fmt::format("the header {} is for Halo to set: leave it out", header.name));
    }
    const auto is_control = [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == '\x7f'; };
    if (std::any_of(header.value.begin(), header.value.end(), is_control)) {
      return Refuse("bad_header",
                    fmt::format("the value of the header {} has a line break or another control "
                                "character in it",
                                header.name));
    }
  }
  return std::nullopt;
}

std::vector<std::string> SecretsOf(const HttpCall& call) {
  // What is shorter would be found in every text, and protects nothing.
  constexpr size_t kFewestBytes = 4;
  std::vector<std::string> secrets;
  for (const HttpHeader& header : call.headers) {
    if (!IsSecret(header)) continue;
    const size_t space = header.value.find(' ');
    if (header.value.size() >= kFewestBytes) secrets.push_back(header.value);
    if (space != std::string::npos && header.value.size() - space - 1 >= kFewestBytes) {
      secrets.push_back(header.value.substr(space + 1));
    }
  }
  std::sort(secrets.begin(), secrets.end(), [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() > b.size() : a < b;
  });
  return secrets;
}

bool IsHttpRedirect(const HttpAnswer& answer) {
  const int32_t status = answer.status;
  const bool redirects =
      status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
  return redirects && !answer.location.empty();
}

std::optional<Failure> FollowHttpRedirect(const HttpAnswer& answer, HttpCall& call, HttpUrl& url) {
  std::string fault;
  std::optional<HttpUrl> target = ResolveHttpUrl(url, answer.location, fault);
  if (!target) {
    return Refuse("redirect", fmt::format("redirected ({}) to what cannot be asked for: {}",
                                          answer.status, fault));
  }
  if (url.scheme == "https" && target->scheme == "http") {
    return Refuse("redirect",
                  fmt::format("redirected ({}) from https to http, which would send the request "
                              "unencrypted: ask for the new address if that is wanted",
                              answer.status));
  }
  const bool becomes_get =
      (answer.status == 303 && call.method != "HEAD") ||
      ((answer.status == 301 || answer.status == 302) && call.method == "POST");
  if (becomes_get) {
    call.method = "GET";
    call.body.reset();
    std::erase_if(call.headers, [](const HttpHeader& header) {
      return IsOneOf(LowerCaseAscii(header.name), kBodyHeaders);
    });
  }
  if (target->Origin() != url.Origin()) std::erase_if(call.headers, IsSecret);
  url = std::move(*target);
  call.url = url.text;
  return std::nullopt;
}

}  // namespace halo
