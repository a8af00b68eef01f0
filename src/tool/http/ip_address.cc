#include "tool/http/ip_address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace halo {
namespace {

/// The addresses whose first `bits` bits are those of `base`.
struct Network {
  std::array<uint8_t, 16> base;
  int bits;
  std::string_view what;
};

constexpr Network kSpecialIpv4[] = {
    {{0}, 8, "unspecified"},          {{10}, 8, "private"},
    {{100, 64}, 10, "private"},  // behind a carrier's translation
    {{127}, 8, "loopback"},           {{169, 254}, 16, "link-local"},
    {{172, 16}, 12, "private"},       {{192, 0, 0}, 24, "reserved"},
    {{192, 0, 2}, 24, "reserved"},                                  // documentation
    {{192, 88, 99}, 24, "reserved"},                                // relays of 6to4
    {{192, 168}, 16, "private"},      {{198, 18}, 15, "reserved"},  // benchmarks of networks
    {{198, 51, 100}, 24, "reserved"},                               // documentation
    {{203, 0, 113}, 24, "reserved"},                                // documentation
    {{224}, 4, "multicast"},          {{255, 255, 255, 255}, 32, "broadcast"},
    {{240}, 4, "reserved"},
};

// Within the one block that is given out, 2000::/3. What is outside it is not public at all.
constexpr Network kSpecialIpv6[] = {
    {{0x20, 0x01, 0x00}, 23, "reserved"},        // protocols, Teredo among them
    {{0x20, 0x01, 0x0d, 0xb8}, 32, "reserved"},  // documentation
    {{0x3f, 0xff, 0x00}, 20, "reserved"},        // documentation
};

constexpr Network kPublicIpv6 = {{0x20}, 3, ""};

// Where an IPv6 address carries an IPv4 address, and from which byte on.
constexpr struct {
  Network network;
  size_t offset;
} kCarriers[] = {
    {{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}, 96, ""}, 12},  // mapped
    {{{0x00, 0x64, 0xff, 0x9b}, 96, ""}, 12},                    // NAT64
    {{{0x20, 0x02}, 16, ""}, 2},                                 // 6to4
};

// Names for what is outside 2000::/3.
constexpr Network kNotGivenOut[] = {
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 128, "unspecified"},
    {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 128, "loopback"},
    {{0xfc}, 7, "private"},  // unique local
    {{0xfe, 0x80}, 10, "link-local"},
    {{0xfe, 0xc0}, 10, "private"},  // site-local, of old
    {{0xff}, 8, "multicast"},
};

bool IsIn(std::span<const uint8_t> bytes, const Network& network) {
  for (int bit = 0; bit < network.bits; bit += 8) {
    const int count = std::min(8, network.bits - bit);
    const auto mask = static_cast<uint8_t>(0xff00 >> count);
    const auto at = static_cast<size_t>(bit / 8);
    if ((bytes[at] & mask) != (network.base[at] & mask)) return false;
  }
  return true;
}

std::string_view WhatIsIn(std::span<const uint8_t> bytes, std::span<const Network> networks) {
  for (const Network& network : networks) {
    if (IsIn(bytes, network)) return network.what;
  }
  return "";
}

}  // namespace

std::optional<IpAddress> ParseIpAddress(const std::string& text) {
  IpAddress address;
  if (text.find('\0') != std::string::npos) return std::nullopt;
  if (inet_pton(AF_INET, text.c_str(), address.bytes.data()) == 1) return address;
  address.is_v6 = true;
  if (inet_pton(AF_INET6, text.c_str(), address.bytes.data()) == 1) return address;
  return std::nullopt;
}

std::optional<IpAddress> ToIpAddress(const sockaddr& address) {
  // Copied out: the bytes behind a sockaddr need not lie as its subtypes want them.
  IpAddress ip;
  if (address.sa_family == AF_INET) {
    std::memcpy(ip.bytes.data(),
                reinterpret_cast<const char*>(&address) + offsetof(sockaddr_in, sin_addr), 4);
    return ip;
  }
  if (address.sa_family == AF_INET6) {
    ip.is_v6 = true;
    std::memcpy(ip.bytes.data(),
                reinterpret_cast<const char*>(&address) + offsetof(sockaddr_in6, sin6_addr), 16);
    return ip;
  }
  return std::nullopt;
}

std::string ToString(const IpAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  inet_ntop(address.is_v6 ? AF_INET6 : AF_INET, address.bytes.data(), text, sizeof(text));
  return text;
}

std::string_view WhyNotPublic(const IpAddress& address) {
  const std::span<const uint8_t> bytes = address.bytes;
  if (!address.is_v6) return WhatIsIn(bytes.first(4), kSpecialIpv4);
  for (const auto& carrier : kCarriers) {
    if (IsIn(bytes, carrier.network)) {
      return WhatIsIn(bytes.subspan(carrier.offset, 4), kSpecialIpv4);
    }
  }
  if (IsIn(bytes, kPublicIpv6)) return WhatIsIn(bytes, kSpecialIpv6);
  const std::string_view what = WhatIsIn(bytes, kNotGivenOut);
  return what.empty() ? "reserved" : what;
}

}  // namespace halo
