#include "log.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
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

/// How many bytes at the front are one character that a terminal acts on: C0, C1, and those that
/// turn the direction of a text (U+202A to U+202E, U+2066 to U+2069). 0: it is shown as it is.
size_t ControlBytes(std::string_view text) {
  constexpr unsigned char kDelete = 0x7F;
  const auto first = static_cast<unsigned char>(text.front());
  if (first < ' ' || first == kDelete) return 1;
  const auto is_between = [&](std::string_view low, std::string_view high) {
    const std::string_view front = text.substr(0, low.size());
    return front.size() == low.size() && low <= front && front <= high;
  };
  if (is_between("\xC2\x80", "\xC2\x9F")) return 2;
  if (is_between("\xE2\x80\xAA", "\xE2\x80\xAE")) return 3;
  return is_between("\xE2\x81\xA6", "\xE2\x81\xA9") ? 3 : 0;
}

}  // namespace

std::string Printable(std::string_view text) {
  std::string shown;
  shown.reserve(text.size());
  while (!text.empty()) {
    const size_t control = ControlBytes(text);
    const bool is_blank = text.front() == '\n' || text.front() == '\t';
    shown += is_blank ? ' ' : control > 0 ? '?' : text.front();
    text.remove_prefix(std::max<size_t>(control, 1));
  }
  return shown;
}

std::string PrintableLines(std::string_view text) {
  std::string shown;
  while (true) {
    const size_t end = text.find('\n');
    shown += Printable(text.substr(0, end));
    if (end == std::string_view::npos) return shown;
    shown += '\n';
    text.remove_prefix(end + 1);
  }
}

void Log::Say(LogLevel level, const std::string& event, const std::string& message,
              const Json& fields) const {
  if (quiet_ && level != LogLevel::kError) return;
  if (!is_json_) {
    std::cerr << PrintableLines(message) << "\n";
    return;
  }
  Json line = {
      {"time", NowUtc()}, {"level", NameOf(level)}, {"event", event}, {"message", message}};
  line.update(fields);
  std::cerr << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
}

}  // namespace halo::cli
