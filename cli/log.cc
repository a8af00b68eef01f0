#include "log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <chrono>
#include <iostream>

namespace halo::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string NowUtc() {
  const auto now = std::chrono::system_clock::now();
  const auto whole = std::chrono::time_point_cast<std::chrono::seconds>(now);
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(now - whole).count();
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.{:03}Z",
                     fmt::gmtime(std::chrono::system_clock::to_time_t(whole)), ms);
}

const char* NameOf(LogLevel level) {
  switch (level) {
    case LogLevel::kInfo:
      return "info";
    case LogLevel::kWarning:
      return "warning";
    case LogLevel::kError:
      return "error";
  }
  return "?";
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    constexpr unsigned char kDelete = 0x7F, kC1Lead = 0xC2, kC1End = 0xA0;
    const bool is_c1 =
        byte == kC1Lead && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < kC1End;
    if (byte == '\n' || byte == '\t') {
      shown += ' ';
    } else if (byte < ' ' || byte == kDelete || is_c1) {
      shown += '?';
      if (is_c1) ++i;
    } else {
      shown += text[i];
    }
  }
  return shown;
}

void Log::Say(LogLevel level, const std::string& event, const std::string& message,
              const Json& fields) const {
  if (quiet_ && level != LogLevel::kError) return;
  if (!is_json_) {
    std::cerr << message << "\n";
    return;
  }
  Json line = {
      {"time", NowUtc()}, {"level", NameOf(level)}, {"event", event}, {"message", message}};
  line.update(fields);
  std::cerr << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace halo::cli
