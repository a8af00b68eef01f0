#include "demo_model/byte_pair_encoding.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/error.h"

namespace halo::demo {
namespace {

constexpr int64_t kBytes = 256;
constexpr int64_t kMostTokens = 8192;  // a count for each pair of them: 512 MiB

bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool IsSign(char c) { return !IsLetter(c) && !IsDigit(c) && !IsSpace(c); }

/// Length of a contraction ('s, 't, 're, 've, 'm, 'll, 'd) that text begins with, or 0.
size_t ContractionLength(std::string_view text) {
  for (const std::string_view ending : {"'s", "'t", "'m", "'d", "'re", "'ve", "'ll"}) {
    if (text.starts_with(ending)) return ending.size();
  }
  return 0;
}

/// Length of the word that the text begins with; the text is not empty.
size_t WordLength(std::string_view text) {
  if (const size_t length = ContractionLength(text); length > 0) return length;
  const size_t first = text[0] == ' ' ? 1 : 0;
  if (first < text.size()) {
    for (const auto is_kind : {IsLetter, IsDigit, IsSign}) {
      size_t end = first;
      while (end < text.size() && is_kind(text[end])) ++end;
      if (end > first) return end;
    }
  }
  size_t blanks = 0;
  while (blanks < text.size() && IsSpace(text[blanks])) ++blanks;
  // The last blank before a word stays with the word (or alone).
  return blanks > 1 && blanks < text.size() ? blanks - 1 : blanks;
}

uint64_t PairKey(TokenId left, TokenId right) {
  return static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
}

void CheckAscii(std::string_view text) {
  const auto bad = std::find_if(text.begin(), text.end(),
                                [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
  if (bad == text.end()) return;
  throw Error(ErrorCode::kUsage,
              fmt::format("text for the demo model's training is ASCII, byte {} of it is 0x{:02x}",
                          bad - text.begin(), static_cast<unsigned char>(*bad)));
}

std::vector<TokenId> BytesAsIds(std::string_view word) {
  std::vector<TokenId> ids;
  for (const char byte : word) ids.push_back(static_cast<unsigned char>(byte));
  return ids;
}

/// Replaces each pair in `ids`, from the left, by `merged`.
void MergeIn(std::vector<TokenId>& ids, BytePairEncoding::Pair pair, TokenId merged) {
  size_t kept = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const bool found = i + 1 < ids.size() && ids[i] == pair.first && ids[i + 1] == pair.second;
    ids[kept++] = found ? merged : ids[i];
    if (found) ++i;
  }
  ids.resize(kept);
}

struct CountedWord {
  std::vector<TokenId> ids;
  int64_t count = 0;
};

}  // namespace

std::vector<std::string_view> SplitWords(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const size_t length = WordLength(text);
    words.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return words;
}

BytePairEncoding BytePairEncoding::Train(const std::vector<std::string>& texts, int64_t tokens,
                                         std::vector<std::string> controls) {
  if (tokens > kMostTokens) {
    throw Error(ErrorCode::kUsage,
                fmt::format("a vocabulary of {} tokens was asked for, at most {} "
                            "can be learned",
                            tokens, kMostTokens));
  }
  std::map<std::string_view, int64_t> counts;
  for (const std::string& text : texts) {
    CheckAscii(text);
    for (const std::string_view word : SplitWords(text)) ++counts[word];
  }
  std::vector<CountedWord> words;
  for (const auto& [word, count] : counts) words.push_back({BytesAsIds(word), count});
  std::vector<Pair> merges;
  std::vector<int64_t> pairs(static_cast<size_t>(tokens * tokens));
  while (kBytes + std::ssize(merges) + std::ssize(controls) < tokens) {
    // Ids are below `tokens`, so that a table has a place for each pair; the first of the largest
    // counts is that of the lowest ids.
    std::fill(pairs.begin(), pairs.end(), 0);
    for (const CountedWord& word : words) {
      for (size_t i = 0; i + 1 < word.ids.size(); ++i)
        pairs[static_cast<size_t>(word.ids[i] * tokens + word.ids[i + 1])] += word.count;
    }
    const auto most = std::max_element(pairs.begin(), pairs.end());
    if (*most < 2) {
      throw Error(ErrorCode::kUsage,
                  fmt::format("the corpus has pairs for {} tokens only, {} were asked for",
                              kBytes + std::ssize(merges) + std::ssize(controls), tokens));
    }
    const int64_t place = most - pairs.begin();
    const auto merged = static_cast<TokenId>(kBytes + std::ssize(merges));
    merges.push_back({static_cast<TokenId>(place / tokens), static_cast<TokenId>(place % tokens)});
    for (CountedWord& word : words) MergeIn(word.ids, merges.back(), merged);
  }
  return BytePairEncoding(std::move(merges), std::move(controls));
}

BytePairEncoding::BytePairEncoding(std::vector<Pair> merges, std::vector<std::string> controls)
    : merges_(std::move(merges)), controls_(std::move(controls)) {
  for (int64_t byte = 0; byte < kBytes; ++byte)
    pieces_.emplace_back(1, static_cast<char>(static_cast<unsigned char>(byte)));
  for (const auto& [left, right] : merges_) {
    merged_.emplace(PairKey(left, right), static_cast<TokenId>(pieces_.size()));
    pieces_.push_back(pieces_[static_cast<size_t>(left)] + pieces_[static_cast<size_t>(right)]);
  }
}

int64_t BytePairEncoding::size() const { return std::ssize(pieces_) + std::ssize(controls_); }

TokenId BytePairEncoding::ControlId(size_t index) const {
  return static_cast<TokenId>(pieces_.size() + index);
}

std::vector<TokenId> BytePairEncoding::Encode(std::string_view text) const {
  CheckAscii(text);
  std::vector<TokenId> ids;
  for (const std::string_view word : SplitWords(text)) EncodeWord(word, ids);
  return ids;
}

/// Applies the earliest learned merge, leftmost first, until there is none.
void BytePairEncoding::EncodeWord(std::string_view word, std::vector<TokenId>& ids) const {
  std::vector<TokenId> parts = BytesAsIds(word);
  for (;;) {
    TokenId first = -1;
    Pair pair;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = merged_.find(PairKey(parts[i], parts[i + 1]));
      if (found == merged_.end() || (first >= 0 && found->second >= first)) continue;
      first = found->second;
      pair = {parts[i], parts[i + 1]};
    }
    if (first < 0) break;
    MergeIn(parts, pair, first);
  }
  ids.insert(ids.end(), parts.begin(), parts.end());
}

}  // namespace halo::demo
