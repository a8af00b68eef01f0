#include "model/special_tokens.h"

#include <algorithm>
#include <cctype>
#include <map>

namespace halo {

void SpecialTokenFinder::Build(const std::vector<SpecialToken>& tokens) {
  edges_.clear();
  rank_of_node_.assign(1, -1);
  for (size_t rank = 0; rank < tokens.size(); ++rank) {
    const std::string& text = tokens[rank].text;
    if (text.empty()) continue;
    starts_[static_cast<unsigned char>(text[0])] = true;
    uint32_t node = 0;
    for (const char c : text) {
      const uint64_t key = uint64_t{node} << 8 | static_cast<unsigned char>(c);
      const auto [edge, is_new] = edges_.emplace(key, static_cast<uint32_t>(rank_of_node_.size()));
      if (is_new) rank_of_node_.push_back(-1);
      node = edge->second;
    }
    // Two tokens of one text: llama.cpp never gets to the second.
    if (rank_of_node_[node] < 0) rank_of_node_[node] = static_cast<int32_t>(rank);
  }
}

void SpecialTokenFinder::Find(std::string_view text, size_t begin, size_t end,
                              std::vector<Match>* matches) const {
  for (size_t start = begin; start < end; ++start) {
    if (!starts_[static_cast<unsigned char>(text[start])]) continue;
    uint32_t node = 0;
    for (size_t i = start; i < end; ++i) {
      const auto edge = edges_.find(uint64_t{node} << 8 | static_cast<unsigned char>(text[i]));
      if (edge == edges_.end()) break;
      node = edge->second;
      if (rank_of_node_[node] >= 0) matches->push_back({start, rank_of_node_[node]});
    }
  }
}

namespace {

bool IsSpace(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

}  // namespace

std::vector<PromptFragment> PartitionBySpecialTokens(
    std::string_view text, const std::vector<std::pair<size_t, size_t>>& template_ranges,
    const std::vector<SpecialToken>& tokens, const SpecialTokenFinder& finder) {
  std::vector<SpecialTokenFinder::Match> matches;
  for (const auto& [begin, end] : template_ranges) finder.Find(text, begin, end, &matches);
  std::sort(matches.begin(), matches.end(), [](const auto& a, const auto& b) {
    return a.rank != b.rank ? a.rank < b.rank : a.begin < b.begin;
  });

  std::map<size_t, size_t> free_text;  // begin -> end of what no token has taken yet
  if (!text.empty()) free_text.emplace(0, text.size());
  std::vector<PromptFragment> fragments;
  for (const SpecialTokenFinder::Match& match : matches) {
    const SpecialToken& token = tokens[static_cast<size_t>(match.rank)];
    const size_t match_end = match.begin + token.text.size();
    auto around = free_text.upper_bound(match.begin);
    if (around == free_text.begin()) continue;
    --around;
    const auto [begin, end] = *around;
    if (match_end > end) continue;
    free_text.erase(around);
    size_t left_end = match.begin;
    while (token.strip_left && left_end > begin && IsSpace(text[left_end - 1])) --left_end;
    size_t right_begin = match_end;
    while (token.strip_right && right_begin < end && IsSpace(text[right_begin])) ++right_begin;
    if (left_end > begin) free_text.emplace(begin, left_end);
    if (right_begin < end) free_text.emplace(right_begin, end);
    fragments.push_back({token.id, match.begin, match_end});
  }
  for (const auto& [begin, end] : free_text) fragments.push_back({-1, begin, end});
  std::sort(fragments.begin(), fragments.end(),
            [](const PromptFragment& a, const PromptFragment& b) { return a.begin < b.begin; });
  return fragments;
}

}  // namespace halo
