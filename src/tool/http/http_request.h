#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "tool/http/http_answer.h"
#include "tool/http/http_url.h"
#include "tool/tool.h"

namespace halo {

/// Redirects that one call follows.
inline constexpr int kMostHttpRedirects = 5;

/// What is wrong with a request's method or headers ("bad_method", "bad_header"), before anything
/// is sent. Names a header, never its value.
std::optional<Failure> CheckHttpRequest(const HttpCall& call);

/// The values of headers that no message may repeat, longest first: those that are secret,
/// Authorization and cookies. Of "Bearer abc" also "abc".
std::vector<std::string> SecretsOf(const HttpCall& call);

/// True if the answer is a redirect that says where to.
bool IsHttpRedirect(const HttpAnswer& answer);

/// Changes `call` and `url` into the request that a redirect leads to: GET after 303 and after POST
/// with 301 or 302; without secrets if scheme, host or port change. Fails ("redirect") where it
/// leads from https to http, or to what is no URL. Whether the host may be reached is not asked
/// here.
std::optional<Failure> FollowHttpRedirect(const HttpAnswer& answer, HttpCall& call, HttpUrl& url);

}  // namespace halo
