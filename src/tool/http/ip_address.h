#pragma once

#include <sys/socket.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace halo {

/// An IPv4 or IPv6 address without a port.
struct IpAddress {
  bool is_v6 = false;
  std::array<uint8_t, 16> bytes{};  ///< in network order; IPv4 takes the first 4

  friend bool operator==(const IpAddress&, const IpAddress&) = default;
};

/// "192.0.2.1" or "2001:db8::1", without brackets; nullopt for anything else.
std::optional<IpAddress> ParseIpAddress(const std::string& text);
/// nullopt for an address of another family.
std::optional<IpAddress> ToIpAddress(const sockaddr& address);
std::string ToString(const IpAddress& address);

/// What makes an address other than one of the public internet: "loopback", "private",
/// "link-local", "multicast", "reserved", ...; "" for a public one. An IPv6 address that carries an
/// IPv4 address (mapped, NAT64, 6to4) is what that one is. Source: IANA's registries of
/// special-purpose addresses.
std::string_view WhyNotPublic(const IpAddress& address);

}  // namespace halo
