#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace halo {

/// What a server sent back to one request.
struct HttpAnswer {
  int32_t status = 0;
  std::string body;  ///< decompressed; of other answers than 2xx the beginning
  // Headers, "" where there is none.
  std::string content_type, location, retry_after, date;
};

/// What became of a body.
struct HttpValue {
  std::optional<Failure> failure;
  nlohmann::ordered_json value;
};

/// The value of a body, picked by a dotted path if there is one: null if it is empty, its JSON if
/// it is strict JSON (as rows are: no key twice, fewer than 64 levels), else its text. Failures
/// ("invalid_utf8", "response_path") do not repeat it.
HttpValue ReadHttpBody(std::string body, std::string_view content_type,
                       std::string_view response_path);

/// What Retry-After asks for, seconds or a date, between 0 and an hour. Dates count from `date`,
/// the server's own, so that its clock need not be right; without one from this machine's.
int64_t RetryAfterUs(std::string_view retry_after, const std::string& date);

/// The beginning of a text that somebody else wrote, fit for a message: secrets taken out, then one
/// line of at most `most_characters`, "..." behind it if there was more.
std::string PrintableExcerpt(std::string_view text, const std::vector<std::string>& secrets,
                             size_t most_characters);

}  // namespace halo
