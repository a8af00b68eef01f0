#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "bench/call_log.h"

namespace halo::bench {

/// A trie with one node a token. Children are found through one hash table over (node, token),
/// about 40 bytes a node. Nodes are numbered from 1 in order of insertion; 0 is the root.
class TokenTrie {
 public:
  using Node = uint32_t;
  static constexpr Node kRoot = 0;
  static constexpr Node kNone = UINT32_MAX;

  TokenTrie();
  /// The child of `node` by `token`, or kNone.
  Node Child(Node node, int32_t token) const;
  /// The child of `node` by `token`, made if it was not there.
  Node Extend(Node node, int32_t token);
  /// Nodes, the root left out.
  int64_t size() const { return size_; }

 private:
  struct Slot {
    Node parent = kNone;  ///< kNone: empty
    int32_t token = 0;
    Node child = kNone;
  };
  size_t Find(Node node, int32_t token) const;
  void Grow();

  std::vector<Slot> slots_;  ///< open addressing, a power of two
  int64_t size_ = 0;
};

/// What the calls of one model had to compute at the least (contract section 7).
struct UniqueCount {
  int64_t calls = 0;  ///< neither merged nor failed
  int64_t merged_calls = 0;
  int64_t failed_calls = 0;
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  int64_t trie_tokens = 0;  ///< nodes of the trie over all prompts
  int64_t generated_in_context =
      0;  ///< of these, those that the model generated in that very context
  int64_t unique_prompt_tokens = 0;         ///< trie_tokens - generated_in_context
  int64_t whole_prompt_resident_calls = 0;  ///< by some order of calls; see allowance_tokens
  int64_t resident_in_dump_order =
      0;  ///< ... had the calls run one by one in the order of the dump

  /// An engine needs the logits after the last token of a prompt, so a call whose whole prompt lies
  /// in KV already still computes one token. This is the most that this can add in any order of the
  /// calls: one for each call that another call could have run ahead of. Of m calls with equal
  /// prompts all but the first; all m if another prompt or another call's answer runs through their
  /// prompt's end. A call that continues this call's own conversation (prompt, then its answer)
  /// comes after it by nature and does not count.
  int64_t allowance_tokens() const { return whole_prompt_resident_calls; }
};

/// The prompts of one model's calls, and which of their tokens had to be computed.
class PromptTrie {
 public:
  /// `calls` of any models, of which those of `model` count; they must outlive this object.
  PromptTrie(const std::vector<Call>& calls, const std::string& model);

  const UniqueCount& count() const { return count_; }
  /// Prompt tokens that nobody but this call has in that context, at least 1: what it must prefill
  /// even when everything of others is resident. `call` is an element of the constructor's `calls`.
  int64_t OwnPromptTokens(const Call& call) const;

 private:
  struct NodeInfo {
    uint32_t visits = 0;               ///< calls whose prompt runs through or ends here, up to 2
    uint32_t first_seen = UINT32_MAX;  ///< first call whose prompt or answer runs through here
    bool generated = false;            ///< inside an answer given in that very context
  };
  struct End {
    std::vector<const Call*> calls;  ///< whose prompts end here
    bool passed_by = false;          ///< another prompt runs on that is no continuation of these
  };
  void InsertPrompts(const std::vector<Call>& calls);
  void MarkGenerated();
  void MarkPassedEnds();
  void CountResident();

  TokenTrie trie_;
  std::vector<NodeInfo> nodes_;  ///< [trie size + 1]
  std::unordered_map<TokenTrie::Node, End> ends_;
  std::vector<const Call*> calls_;  ///< of the model, in dump order
  std::string model_;
  UniqueCount count_;
};

}  // namespace halo::bench
