#include "base/text.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

namespace halo {
namespace {

enum class Utf8Step { kValid, kInvalid, kTruncated };

/// Reads one code point at `at`; `length` gets the bytes it takes, or the bytes to replace when
/// ill-formed.
Utf8Step ReadUtf8(std::string_view text, size_t at, size_t& length) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(at);
  length = 1;
  if (lead < 0x80) return Utf8Step::kValid;
  size_t want = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    want = 1;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    want = 2;
    if (lead == 0xE0) low = 0xA0;   // no overlong forms
    if (lead == 0xED) high = 0x9F;  // no surrogates
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    want = 3;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;  // at most U+10FFFF
  } else {
    return Utf8Step::kInvalid;
  }
  for (size_t i = 0; i < want; ++i) {
    if (at + 1 + i >= text.size()) return Utf8Step::kTruncated;
    const uint8_t next = byte(at + 1 + i);
    if (next < low || next > high) return Utf8Step::kInvalid;
    low = 0x80;
    high = 0xBF;
    ++length;
  }
  return Utf8Step::kValid;
}

/// Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment).
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1);
  std::vector<size_t> last(b.size() + 1);
  std::vector<size_t> row(b.size() + 1);
  std::iota(last.begin(), last.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      row[j] =
          std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      const bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before[j - 2] + 1);
    }
    std::swap(before, last);
    std::swap(last, row);
  }
  return last.back();
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    if (ReadUtf8(text, at, length) != Utf8Step::kValid) return at;
  }
  return std::string_view::npos;
}

size_t CompleteUtf8Length(std::string_view text) {
  // Only the last three bytes can belong to an unfinished sequence.
  for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
    const size_t at = text.size() - back;
    if ((static_cast<uint8_t>(text[at]) & 0xC0U) == 0x80U) continue;
    size_t length = 0;
    return ReadUtf8(text, at, length) == Utf8Step::kTruncated ? at : text.size();
  }
  return text.size();
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  if (FindInvalidUtf8(text) == std::string_view::npos) return std::string(text);
  std::string clean;
  clean.reserve(text.size() + 16);
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    const Utf8Step step = ReadUtf8(text, at, length);
    if (step == Utf8Step::kTruncated) length = text.size() - at;
    if (step == Utf8Step::kValid) {
      clean.append(text.substr(at, length));
    } else {
      clean.append("\xEF\xBF\xBD");
    }
  }
  return clean;
}

std::string LowerCaseAscii(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates) {
  std::string best;
  size_t best_distance = std::max<size_t>(1, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(word, candidate);
    if (distance < best_distance) {
      best_distance = distance;
      best = candidate;
    }
  }
  return best;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  const std::string nearest = NearestWord(word, candidates);
  return nearest.empty() ? "" : " (did you mean '" + nearest + "'?)";
}

std::string Counted(int64_t count, std::string_view what) {
  return std::to_string(count) + " " + std::string(what) + (count == 1 ? "" : "s");
}

}  // namespace halo
