#include "model/token_grammar.h"

#include <algorithm>
#include <bit>

#include "base/error.h"

namespace halo {
namespace {

using StateId = GrammarStates::StateId;

/// Most bytes of a token of each tier; the last tier has the rest.
constexpr size_t kTierBytes[] = {4, 8, 16, 32};
constexpr size_t kMaxTokenBytes = 65'000;  // depths have 16 bits
constexpr size_t kBitsPerWord = 64;
/// A list of ids is smaller than bits below this share of the vocabulary.
constexpr int32_t kSparseShare = 32;
constexpr int64_t kEntryBytes = 160;  // of an entry of the cache beside its mask

}  // namespace

bool TokenMask::Contains(TokenId token) const {
  const auto at = static_cast<size_t>(token);
  if (is_dense) return (bits[at / kBitsPerWord] >> (at % kBitsPerWord) & 1U) != 0;
  return std::binary_search(tokens.begin(), tokens.end(), token);
}

// TokenTrie -----------------------------------------------------------------------------------

TokenTrie::TokenTrie(const std::vector<std::string>& pieces)
    : pieces_(pieces), vocabulary_size_(static_cast<int32_t>(pieces.size())) {
  constexpr size_t kTiers = std::size(kTierBytes) + 1;
  std::vector<std::vector<TokenId>> by_tier(kTiers);
  for (TokenId token = 0; token < vocabulary_size_; ++token) {
    const size_t length = Piece(token).size();
    if (length == 0 || length > kMaxTokenBytes) continue;
    const auto* tier = std::lower_bound(std::begin(kTierBytes), std::end(kTierBytes), length);
    by_tier[static_cast<size_t>(tier - std::begin(kTierBytes))].push_back(token);
  }
  for (std::vector<TokenId>& tokens : by_tier) {
    if (!tokens.empty()) AddTier(std::move(tokens));
  }
}

std::shared_ptr<const TokenTrie> TokenTrie::Of(const Vocabulary& vocabulary) {
  std::vector<std::string> pieces(static_cast<size_t>(vocabulary.size()));
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    if (vocabulary.IsEndOfGeneration(token) || vocabulary.IsSteering(token)) continue;
    pieces[static_cast<size_t>(token)] = vocabulary.Piece(token);
  }
  return std::make_shared<const TokenTrie>(pieces);
}

void TokenTrie::AddTier(std::vector<TokenId> tokens) {
  std::sort(tokens.begin(), tokens.end(), [this](TokenId a, TokenId b) {
    return std::pair<std::string_view, TokenId>(Piece(a), a) <
           std::pair<std::string_view, TokenId>(Piece(b), b);
  });
  Tier tier;
  std::vector<int32_t> path;  // nodes from the root to the last token's
  std::string_view last;
  const auto close = [&](size_t depth) {
    while (path.size() > depth) {
      tier.skips[static_cast<size_t>(path.back())] = static_cast<int32_t>(tier.bytes.size());
      path.pop_back();
    }
  };
  for (const TokenId token : tokens) {
    const std::string_view piece = Piece(token);
    const size_t shared = static_cast<size_t>(
        std::mismatch(piece.begin(), piece.begin() + std::min(piece.size(), last.size()),
                      last.begin())
            .first -
        piece.begin());
    close(shared);
    for (size_t depth = shared; depth < piece.size(); ++depth) {
      path.push_back(static_cast<int32_t>(tier.bytes.size()));
      tier.bytes.push_back(static_cast<uint8_t>(piece[depth]));
      tier.depths.push_back(static_cast<uint16_t>(depth));
      tier.skips.push_back(0);
      tier.first_token.push_back(static_cast<int32_t>(tier.tokens.size()));
    }
    tier.tokens.push_back(token);
    tier.longest = std::max(tier.longest, static_cast<int32_t>(piece.size()));
    last = piece;
  }
  close(0);
  tier.first_token.push_back(static_cast<int32_t>(tier.tokens.size()));
  tiers_.push_back(std::move(tier));
}

// TokenGrammar --------------------------------------------------------------------------------

TokenGrammar::TokenGrammar(std::shared_ptr<const Grammar> grammar,
                           std::shared_ptr<const TokenTrie> trie, Budget budget)
    : trie_(std::move(trie)), budget_(budget), states_(std::move(grammar)) {
  const auto size = static_cast<size_t>(trie_->vocabulary_size());
  made_.resize((size + kBitsPerWord - 1) / kBitsPerWord);
}

StateId TokenGrammar::Current(Cursor& cursor) {
  states_.AllowWork(budget_.work);
  if (cursor.generation == generation_) return cursor.state;
  cursor.state = states_.StepAll(states_.start(), cursor.text);
  if (cursor.state == GrammarStates::kRefused) {
    throw Failure{"", "grammar_limit", "the grammar could not be followed from the start again",
                  false};
  }
  cursor.generation = generation_;
  return cursor.state;
}

void TokenGrammar::Evict() {
  if (states_.bytes() > budget_.state_bytes) {
    states_.Clear();
    masks_.clear();
    masks_by_key_.clear();
    mask_bytes_ = 0;
    ++generation_;
  }
  while (mask_bytes_ > budget_.mask_bytes && masks_.size() > 1) {
    mask_bytes_ -= masks_.back().mask.bytes() + kEntryBytes;
    masks_by_key_.erase(masks_.back().key);
    masks_.pop_back();
  }
}

const TokenMask* TokenGrammar::Find(int64_t key) {
  const auto found = masks_by_key_.find(key);
  if (found == masks_by_key_.end()) return nullptr;
  masks_.splice(masks_.begin(), masks_, found->second);
  return &found->second->mask;
}

const TokenMask& TokenGrammar::Store(int64_t key, TokenMask mask) {
  mask_bytes_ += mask.bytes() + kEntryBytes;
  masks_.push_front({key, std::move(mask)});
  masks_by_key_.emplace(key, masks_.begin());
  return masks_.front().mask;
}

bool TokenGrammar::Accept(Cursor& cursor, TokenId token) {
  const std::string& piece = trie_->Piece(token);
  const StateId next = states_.StepAll(Current(cursor), piece);
  if (next == GrammarStates::kRefused || piece.empty()) return false;
  cursor.state = next;
  cursor.text += piece;
  return true;
}

const TokenMask& TokenGrammar::Allowed(Cursor& cursor) {
  Evict();
  const StateId state = Current(cursor);
  const size_t whole = trie_->tiers().size();
  if (const TokenMask* known = Find(KeyOf(state, whole))) return *known;
  std::vector<const TokenMask*> parts;
  for (size_t tier = 0; tier < whole; ++tier) parts.push_back(&TierMask(state, tier));
  std::fill(made_.begin(), made_.end(), 0);
  for (const TokenMask* part : parts) {
    for (const TokenId token : part->tokens) {
      made_[static_cast<size_t>(token) / kBitsPerWord] |=
          uint64_t{1} << (static_cast<size_t>(token) % kBitsPerWord);
    }
    for (size_t word = 0; word < part->bits.size(); ++word) made_[word] |= part->bits[word];
  }
  return Store(KeyOf(state, whole), TakeMade());
}

const TokenMask& TokenGrammar::TierMask(StateId state, size_t tier) {
  const TokenTrie::Tier& tokens = trie_->tiers()[tier];
  const StateId same = states_.WithoutDistantCounts(state, tokens.longest);
  if (const TokenMask* known = Find(KeyOf(same, tier))) return *known;
  Walk(same, tokens);
  return Store(KeyOf(same, tier), TakeMade());
}

void TokenGrammar::Walk(StateId state, const TokenTrie::Tier& tier) {
  ++walks_;
  std::fill(made_.begin(), made_.end(), 0);
  path_.resize(static_cast<size_t>(tier.longest) + 1);
  path_[0] = state;
  const size_t count = tier.bytes.size();
  size_t node = 0;
  while (node < count) {
    const size_t depth = tier.depths[node];
    const StateId next = states_.Step(path_[depth], tier.bytes[node]);
    if (next == GrammarStates::kRefused) {
      node = static_cast<size_t>(tier.skips[node]);
      continue;
    }
    path_[depth + 1] = next;
    for (int32_t i = tier.first_token[node]; i < tier.first_token[node + 1]; ++i) {
      const auto token = static_cast<size_t>(tier.tokens[static_cast<size_t>(i)]);
      made_[token / kBitsPerWord] |= uint64_t{1} << (token % kBitsPerWord);
    }
    ++node;
  }
}

/// The mask in `made_`, as small as it can be kept.
TokenMask TokenGrammar::TakeMade() {
  TokenMask mask;
  for (const uint64_t word : made_) mask.count += std::popcount(word);
  mask.is_dense = mask.count > trie_->vocabulary_size() / kSparseShare;
  if (mask.is_dense) {
    mask.bits = made_;
    return mask;
  }
  mask.tokens.reserve(static_cast<size_t>(mask.count));
  for (size_t word = 0; word < made_.size(); ++word) {
    for (uint64_t left = made_[word]; left != 0; left &= left - 1) {
      mask.tokens.push_back(
          static_cast<TokenId>(word * kBitsPerWord + static_cast<size_t>(std::countr_zero(left))));
    }
  }
  return mask;
}

}  // namespace halo
