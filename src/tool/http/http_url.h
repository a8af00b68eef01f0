#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// A URL that may be asked for: http or https, an ASCII host, nobody's name or password in it. Read
/// by libcurl's own parser, so that what is checked is what is connected to.
struct HttpUrl {
  std::string text;
  std::string scheme;  ///< "http" or "https"
  std::string host;    ///< lower case, no trailing dot; an IPv6 address in brackets
  uint16_t port = 0;   ///< the scheme's where the URL has none

  /// What connections, limits and secrets belong to: "https://example.com:443".
  std::string Origin() const;
  /// For messages: "example.com", "example.com:8443". Never the path or the query.
  std::string ShownHost() const;

  friend bool operator==(const HttpUrl&, const HttpUrl&) = default;
};

/// nullopt for what is none; `fault` then says why without repeating it.
std::optional<HttpUrl> ParseHttpUrl(const std::string& text, std::string& fault);
/// Where the `location` of a redirect from `url` leads, relative ones too.
std::optional<HttpUrl> ResolveHttpUrl(const HttpUrl& url, const std::string& location,
                                      std::string& fault);

/// The hosts that a workflow may reach: "example.com" (any port), "example.com:8443",
/// "*.example.com" (every name below it, not itself).
class HttpHostRules {
 public:
  /// Throws Error(kConfig) naming a rule that is none.
  explicit HttpHostRules(const std::vector<std::string>& rules);
  bool Allow(const HttpUrl& url) const;

 private:
  struct Rule {
    bool is_suffix = false;
    std::string host;
    std::optional<uint16_t> port;
  };
  std::vector<Rule> rules_;
};

}  // namespace halo
