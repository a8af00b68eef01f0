#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace halo {

/// Byte offset of the first byte that is not well-formed UTF-8, or npos.
size_t FindInvalidUtf8(std::string_view text);

/// Length of the longest prefix that does not end inside a UTF-8 sequence. Bytes that can never
/// become well-formed are left for ReplaceInvalidUtf8.
size_t CompleteUtf8Length(std::string_view text);

/// The text with every maximal ill-formed part replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

/// The letters A to Z in lower case, everything else as it is.
std::string LowerCaseAscii(std::string_view text);

/// The candidate nearest to `word` by edit distance, or "" if none is near enough to be a typing
/// error.
std::string NearestWord(std::string_view word, const std::vector<std::string>& candidates);

/// " (did you mean 'x'?)" or "".
std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates);

/// "1 row", "2 rows".
std::string Counted(int64_t count, std::string_view what);

}  // namespace halo
