#include "engine/llama/grammar_cache.h"

#include <algorithm>

namespace halo {

std::shared_ptr<TokenGrammar> GrammarCache::Get(const std::string& text) {
  const auto known = std::find_if(entries_.begin(), entries_.end(),
                                  [&](const Entry& entry) { return entry.text == text; });
  if (known != entries_.end()) {
    entries_.splice(entries_.begin(), entries_, known);
    return entries_.front().grammar;
  }
  std::shared_ptr<const Grammar> grammar = Grammar::Compile(text, "grammar");
  if (!trie_) trie_ = TokenTrie::Of(*vocabulary_);
  entries_.push_front({text, std::make_shared<TokenGrammar>(std::move(grammar), trie_)});
  Trim();
  return entries_.front().grammar;
}

void GrammarCache::Trim() {
  int64_t bytes = 0;
  size_t count = 0;
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    bytes += entry->grammar->bytes();
    const bool too_much = ++count > kGrammars || bytes > kBytes;
    const bool used = entry->grammar.use_count() > 1 || entry == entries_.begin();
    entry = too_much && !used ? entries_.erase(entry) : std::next(entry);
  }
}

}  // namespace halo
