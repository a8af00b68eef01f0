#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "model/grammar_states.h"
#include "model/token_mask.h"
#include "model/vocabulary.h"

namespace halo {

/// The tokens of a vocabulary that an answer is made of, as trees of their bytes, so that all
/// tokens that begin with what a grammar refuses are passed over at once. One tree for each range
/// of lengths, see TokenGrammar. Immutable.
class TokenTrie {
 public:
  /// `pieces`: [vocabulary], the bytes of each token; "" for those that are never allowed (end and
  /// control tokens).
  explicit TokenTrie(const std::vector<std::string>& pieces);
  /// Of a vocabulary, without end tokens and what data must never become (control and user-defined
  /// tokens).
  static std::shared_ptr<const TokenTrie> Of(const Vocabulary& vocabulary);

  /// Nodes in preorder; the root is not among them.
  struct Tier {
    int32_t longest = 0;               ///< bytes of the longest token
    std::vector<uint8_t> bytes;        ///< [nodes]
    std::vector<uint16_t> depths;      ///< [nodes] from 0
    std::vector<int32_t> skips;        ///< [nodes] the first node that is not below this one
    std::vector<int32_t> first_token;  ///< [nodes + 1] into `tokens`
    std::vector<TokenId> tokens;
  };
  const std::vector<Tier>& tiers() const { return tiers_; }
  int32_t vocabulary_size() const { return vocabulary_size_; }
  const std::string& Piece(TokenId token) const { return pieces_[static_cast<size_t>(token)]; }

 private:
  void AddTier(std::vector<TokenId> tokens);

  std::vector<std::string> pieces_;
  std::vector<Tier> tiers_;
  int32_t vocabulary_size_;
};

/// A grammar over the tokens of a vocabulary: which tokens may come next in a state, found by one
/// walk over the vocabulary's bytes and remembered.
///
/// What is expensive is a walk from a state that takes almost anything (the inside of a string):
/// milliseconds for 128k tokens. A string of at most 200 characters has 200 such states, which
/// differ for long tokens only. So tokens are walked in tiers of lengths, each from the state
/// without the counts that its tokens cannot exhaust (GrammarStates::WithoutDistantCounts): the
/// tier of up to 4 bytes is walked for the last 4 characters and once for all before. The idea of
/// remembering masks by automaton state, and of telling apart what depends on the stack, is that of
/// XGrammar (Dong et al., 2024); there, tokens that depend on the stack are tested at run time,
/// here states are told apart by as much of the stack as a tier's tokens can see.
///
/// Of one thread, shared by all calls with the same grammar. States and masks are bounded: beyond
/// their budgets masks go by least recent use, and states all at once (cursors read their text
/// again).
class TokenGrammar {
 public:
  struct Budget {
    int64_t state_bytes = int64_t{64} << 20;
    int64_t mask_bytes = int64_t{64} << 20;
    /// Readings looked at for one mask or token before the call fails; about a second.
    int64_t work = 20'000'000;
  };

  TokenGrammar(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie,
               Budget budget);
  TokenGrammar(std::shared_ptr<const Grammar> grammar, std::shared_ptr<const TokenTrie> trie)
      : TokenGrammar(std::move(grammar), std::move(trie), Budget{}) {}

  /// How far one answer has come.
  struct Cursor {
    std::string text;
    GrammarStates::StateId state = 0;
    int64_t generation = -1;  ///< of the states
  };

  /// The tokens that may come next, end tokens aside. Valid until the next call of anything here.
  /// Throws Failure("grammar_limit").
  const TokenMask& Allowed(Cursor& cursor);
  /// True if the answer may end here. Throws like Allowed.
  bool CanEnd(Cursor& cursor) { return states_.CanEnd(Current(cursor)); }
  /// True if nothing may follow. Throws like Allowed.
  bool MustEnd(Cursor& cursor) { return states_.MustEnd(Current(cursor)); }
  /// Goes on by a token; false, and no change, if the grammar refuses it. Throws like Allowed.
  bool Accept(Cursor& cursor, TokenId token);

  int64_t bytes() const { return states_.bytes() + mask_bytes_; }
  int64_t walks() const { return walks_; }
  const GrammarStates& states() const { return states_; }

 private:
  GrammarStates::StateId Current(Cursor& cursor);
  const TokenMask& TierMask(GrammarStates::StateId state, size_t tier);
  void Walk(GrammarStates::StateId state, const TokenTrie::Tier& tier);
  TokenMask TakeMade();
  const TokenMask* Find(int64_t key);
  const TokenMask& Store(int64_t key, TokenMask mask);
  void Evict();
  int64_t KeyOf(GrammarStates::StateId state, size_t tier) const {
    return int64_t{state} * static_cast<int64_t>(trie_->tiers().size() + 1) +
           static_cast<int64_t>(tier);
  }

  std::shared_ptr<const TokenTrie> trie_;
  Budget budget_;
  GrammarStates states_;
  int64_t generation_ = 0;

  struct Entry {
    int64_t key;
    TokenMask mask;
  };
  std::list<Entry> masks_;  // most recently used first
  std::unordered_map<int64_t, std::list<Entry>::iterator> masks_by_key_;
  int64_t mask_bytes_ = 0;
  int64_t walks_ = 0;

  std::vector<uint64_t> made_;                // [vocabulary / 64] the mask that is made
  std::vector<GrammarStates::StateId> path_;  // [depth] states along a walk
};

}  // namespace halo
