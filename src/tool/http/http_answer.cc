#include "tool/http/http_answer.h"

#include <curl/curl.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <ctime>
#include <optional>
#include <utility>

#include "base/text.h"
#include "sql/json_row.h"

namespace halo {
namespace {

using Json = nlohmann::ordered_json;

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t");
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t") - first + 1);
}

/// The parameter `charset` of a Content-Type in lower case, without quotes; "" without one.
std::string Charset(std::string_view content_type) {
  while (true) {
    const size_t semicolon = content_type.find(';');
    if (semicolon == std::string_view::npos) return "";
    content_type.remove_prefix(semicolon + 1);
    const std::string_view parameter = Trim(content_type.substr(0, content_type.find(';')));
    const size_t equals = parameter.find('=');
    if (equals == std::string_view::npos) continue;
    if (LowerCaseAscii(Trim(parameter.substr(0, equals))) != "charset") continue;
    std::string_view value = Trim(parameter.substr(equals + 1));
    if (value.size() >= 2 && value.front() == '"' && value.back() == '"') {
      value = value.substr(1, value.size() - 2);
    }
    return LowerCaseAscii(value);
  }
}

std::string Latin1ToUtf8(std::string_view text) {
  std::string utf8;
  utf8.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80) {
      utf8 += c;
    } else {
      utf8 += static_cast<char>(0xC0 | (byte >> 6));
      utf8 += static_cast<char>(0x80 | (byte & 0x3F));
    }
  }
  return utf8;
}

/// Of the length a step may have in a message.
std::string Shown(std::string_view text) { return PrintableExcerpt(text, {}, 60); }

HttpValue Refuse(std::string code, std::string why) {
  return {Failure{"", std::move(code), std::move(why), false}, {}};
}

HttpValue RefusePath(std::string_view path, const std::string& why) {
  return Refuse("response_path", fmt::format("response_path '{}': {}", Shown(path), why));
}

HttpValue Pick(Json value, std::string_view path) {
  size_t begin = 0;
  while (true) {
    const size_t end = std::min(path.find('.', begin), path.size());
    const std::string step(path.substr(begin, end - begin));
    const std::string where =
        begin == 0 ? "the answer" : fmt::format("'{}'", Shown(path.substr(0, begin - 1)));
    Json next;
    if (value.is_object()) {
      const auto found = value.find(step);
      if (found == value.end()) {
        return RefusePath(path, fmt::format("{} has no '{}'", where, Shown(step)));
      }
      next = std::move(*found);
    } else if (value.is_array()) {
      size_t index = 0;
      const auto read = std::from_chars(step.data(), step.data() + step.size(), index);
      if (step.empty() || read.ec != std::errc() || read.ptr != step.data() + step.size()) {
        return RefusePath(path, fmt::format("{} is a list: '{}' is no index of it, count from 0",
                                            where, Shown(step)));
      }
      if (index >= value.size()) {
        return RefusePath(path, fmt::format("{} is a list of {}: there is no '{}'", where,
                                            value.size(), Shown(step)));
      }
      next = std::move(value[index]);
    } else {
      return RefusePath(
          path, fmt::format("{} is a {} and has no '{}'", where, value.type_name(), Shown(step)));
    }
    value = std::move(next);
    if (end == path.size()) return {std::nullopt, std::move(value)};
    begin = end + 1;
  }
}

/// Length of what must not stand in a line of a log, at the beginning of well-formed `text`:
/// control characters, and those that turn the direction of writing. 0: none.
size_t UnprintableLength(std::string_view text) {
  const auto byte = static_cast<uint8_t>(text[0]);
  if (byte < 0x20 || byte == 0x7F) return 1;
  if (byte == 0xC2 && static_cast<uint8_t>(text[1]) < 0xA0) return 2;  // U+0080 to U+009F
  if (byte != 0xE2) return 0;
  const std::string_view three = text.substr(0, 3);
  const bool line_or_embedding = three >= "\u2028" && three <= "\u202E";
  const bool isolate = three >= "\u2066" && three <= "\u2069";
  return line_or_embedding || isolate ? 3 : 0;
}

}  // namespace

HttpValue ReadHttpBody(std::string body, std::string_view content_type,
                       std::string_view response_path) {
  if (body.empty()) {
    if (response_path.empty()) return {};
    return RefusePath(response_path, "the answer has no body");
  }
  const size_t bad = FindInvalidUtf8(body);
  if (bad != std::string::npos) {
    const std::string charset = Charset(content_type);
    const bool is_latin1 = charset == "iso-8859-1" || charset == "latin1";
    if (!is_latin1) {
      return Refuse("invalid_utf8",
                    fmt::format("the answer is not UTF-8 (byte {}), and its Content-Type does not "
                                "say ISO-8859-1, the one other charset that is read",
                                bad));
    }
    body = Latin1ToUtf8(body);
  }
  if (body.starts_with("\xEF\xBB\xBF")) body.erase(0, 3);  // a byte order mark

  // As the one value of an object: rows are read strictly, and every level and key of theirs
  // counted.
  JsonRow row = ParseJsonRow("{\"value\":" + body + "}");
  if (row.faults.empty() && row.values.size() == 1) {
    Json value = std::move(row.values.begin().value());
    if (!response_path.empty()) return Pick(std::move(value), response_path);
    return {std::nullopt, std::move(value)};
  }
  if (response_path.empty()) return {std::nullopt, Json(std::move(body))};
  return RefusePath(response_path, "the answer is not JSON");
}

int64_t RetryAfterUs(std::string_view retry_after, const std::string& date) {
  constexpr int64_t kMostSeconds = 3600;
  const std::string text(Trim(retry_after));
  if (text.empty()) return 0;
  int64_t seconds = 0;
  if (text.find_first_not_of("0123456789") == std::string::npos) {
    const auto read = std::from_chars(text.data(), text.data() + text.size(), seconds);
    if (read.ec == std::errc::result_out_of_range) seconds = kMostSeconds;
  } else {
    const time_t then = curl_getdate(text.c_str(), nullptr);
    if (then == -1) return 0;
    const time_t servers_now = date.empty() ? -1 : curl_getdate(date.c_str(), nullptr);
    seconds = then - (servers_now == -1 ? std::time(nullptr) : servers_now);
  }
  return std::clamp<int64_t>(seconds, 0, kMostSeconds) * 1'000'000;
}

std::string PrintableExcerpt(std::string_view text, const std::vector<std::string>& secrets,
                             size_t most_characters) {
  std::string clean(text);
  for (const std::string& secret : secrets) {
    for (size_t at = clean.find(secret); at != std::string::npos; at = clean.find(secret, at)) {
      clean.replace(at, secret.size(), "[secret]");
      at += std::string_view("[secret]").size();
    }
  }
  // Enough bytes for the characters asked for, so that a large text costs no more than a small one.
  const bool cut = clean.size() > most_characters * 16;
  if (cut) clean.resize(most_characters * 16);
  clean = ReplaceInvalidUtf8(clean);

  std::string excerpt;
  size_t characters = 0;
  bool space = false;  // to be written before the next character
  for (size_t at = 0; at < clean.size();) {
    const std::string_view rest = std::string_view(clean).substr(at);
    const size_t unprintable = UnprintableLength(rest);
    if (unprintable > 0 || rest[0] == ' ') {
      space = !excerpt.empty();
      at += std::max<size_t>(unprintable, 1);
      continue;
    }
    if (characters + (space ? 1 : 0) >= most_characters) return excerpt + "...";
    if (space) excerpt += ' ', ++characters;
    space = false;
    size_t length = 1;
    while (length < rest.size() && (static_cast<uint8_t>(rest[length]) & 0xC0) == 0x80) ++length;
    excerpt += rest.substr(0, length);
    ++characters;
    at += length;
  }
  return cut ? excerpt + "..." : excerpt;
}

}  // namespace halo
