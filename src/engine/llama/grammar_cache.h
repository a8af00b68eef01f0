#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "model/token_grammar.h"

namespace halo {

/// The grammars of an engine's requests, each compiled once, with what is known of their tokens.
/// Those that no request uses go by least recent use when there are too many or they hold too much.
/// Of one thread.
class GrammarCache {
 public:
  static constexpr size_t kGrammars = 64;
  static constexpr int64_t kBytes = int64_t{512} << 20;

  explicit GrammarCache(std::shared_ptr<const Vocabulary> vocabulary)
      : vocabulary_(std::move(vocabulary)) {}

  /// shared by the requests that run under it. Throws Error(kWorkflow) for a text that is no
  /// grammar.
  std::shared_ptr<TokenGrammar> Get(const std::string& text);

 private:
  struct Entry {
    std::string text;
    std::shared_ptr<TokenGrammar> grammar;
  };
  void Trim();

  std::shared_ptr<const Vocabulary> vocabulary_;
  std::shared_ptr<const TokenTrie> trie_;  // made for the first grammar
  std::list<Entry> entries_;               // most recently used first
};

}  // namespace halo
