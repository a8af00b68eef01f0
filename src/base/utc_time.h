#pragma once

#include <cstdint>
#include <ctime>
#include <string>

namespace halo {

/// A time in UTC, `seconds` since 1970, as strftime() writes it: 63 bytes at most.
inline std::string UtcText(int64_t seconds, const char* format) {
  const auto time = static_cast<std::time_t>(seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, format, &parts)};
}

}  // namespace halo
