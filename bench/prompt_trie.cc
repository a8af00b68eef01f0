#include "bench/prompt_trie.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

namespace halo::bench {

TokenTrie::TokenTrie() : slots_(1024) {}

size_t TokenTrie::Find(Node node, int32_t token) const {
  uint64_t hash = (static_cast<uint64_t>(node) << 32) | static_cast<uint32_t>(token);
  hash *= 0x9E3779B97F4A7C15ULL;
  hash ^= hash >> 32;
  const size_t mask = slots_.size() - 1;
  size_t at = static_cast<size_t>(hash) & mask;
  while (slots_[at].parent != kNone && (slots_[at].parent != node || slots_[at].token != token)) {
    at = (at + 1) & mask;
  }
  return at;
}

TokenTrie::Node TokenTrie::Child(Node node, int32_t token) const {
  return slots_[Find(node, token)].child;
}

TokenTrie::Node TokenTrie::Extend(Node node, int32_t token) {
  size_t at = Find(node, token);
  if (slots_[at].parent != kNone) return slots_[at].child;
  if (static_cast<size_t>(size_ + 1) * 3 > slots_.size() * 2) {
    Grow();
    at = Find(node, token);
  }
  if (size_ + 1 >= static_cast<int64_t>(kNone))
    throw std::runtime_error("too many tokens to count");
  slots_[at] = {node, token, static_cast<Node>(++size_)};
  return slots_[at].child;
}

void TokenTrie::Grow() {
  std::vector<Slot> old = std::exchange(slots_, std::vector<Slot>(slots_.size() * 2));
  for (const Slot& slot : old) {
    if (slot.parent != kNone) slots_[Find(slot.parent, slot.token)] = slot;
  }
}

PromptTrie::PromptTrie(const std::vector<Call>& calls, const std::string& model) : model_(model) {
  nodes_.resize(1);
  InsertPrompts(calls);
  MarkGenerated();
  MarkPassedEnds();
  CountResident();
  count_.trie_tokens = trie_.size();
  count_.unique_prompt_tokens = count_.trie_tokens - count_.generated_in_context;
}

void PromptTrie::InsertPrompts(const std::vector<Call>& calls) {
  for (const Call& call : calls) {
    if (call.model != model_) continue;
    if (call.merged || call.failed()) {
      ++(call.merged ? count_.merged_calls : count_.failed_calls);
      continue;
    }
    const auto number = static_cast<uint32_t>(calls_.size());
    calls_.push_back(&call);
    ++count_.calls;
    count_.prompt_tokens += static_cast<int64_t>(call.prompt.size());
    count_.output_tokens += static_cast<int64_t>(call.output.size());
    TokenTrie::Node node = TokenTrie::kRoot;
    for (const int32_t token : call.prompt) {
      node = trie_.Extend(node, token);
      if (node == nodes_.size()) nodes_.emplace_back();
      NodeInfo& info = nodes_[node];
      info.visits = std::min(info.visits + 1, 2U);
      info.first_seen = std::min(info.first_seen, number);
    }
    ends_[node].calls.push_back(&call);
  }
}

/// The last sampled token was never an input, so it has no KV.
void PromptTrie::MarkGenerated() {
  for (uint32_t number = 0; number < calls_.size(); ++number) {
    const Call& call = *calls_[number];
    TokenTrie::Node node = TokenTrie::kRoot;
    for (const int32_t token : call.prompt) node = trie_.Child(node, token);
    for (size_t k = 0; k + 1 < call.output.size(); ++k) {
      node = trie_.Child(node, call.output[k]);
      if (node == TokenTrie::kNone) break;
      NodeInfo& info = nodes_[node];
      if (!info.generated) ++count_.generated_in_context;
      info.generated = true;
      info.first_seen = std::min(info.first_seen, number);
    }
  }
}

void PromptTrie::MarkPassedEnds() {
  for (const Call* call : calls_) {
    TokenTrie::Node node = TokenTrie::kRoot;
    for (size_t i = 0; i + 1 < call->prompt.size(); ++i) {
      node = trie_.Child(node, call->prompt[i]);
      const auto end = ends_.find(node);
      if (end == ends_.end() || end->second.passed_by) continue;
      const auto rest = call->prompt.begin() + static_cast<std::ptrdiff_t>(i) + 1;
      const size_t left = call->prompt.size() - i - 1;
      const bool continues =
          std::any_of(end->second.calls.begin(), end->second.calls.end(), [&](const Call* before) {
            const std::vector<int32_t>& answer = before->output;
            return !answer.empty() && answer.size() <= left &&
                   std::equal(answer.begin(), answer.end(), rest);
          });
      if (!continues) end->second.passed_by = true;
    }
  }
}

void PromptTrie::CountResident() {
  for (const auto& [node, end] : ends_) {
    const bool others = end.passed_by || nodes_[node].generated;
    count_.whole_prompt_resident_calls += static_cast<int64_t>(end.calls.size()) - (others ? 0 : 1);
  }
  for (uint32_t number = 0; number < calls_.size(); ++number) {
    TokenTrie::Node node = TokenTrie::kRoot;
    for (const int32_t token : calls_[number]->prompt) node = trie_.Child(node, token);
    if (nodes_[node].first_seen < number) ++count_.resident_in_dump_order;
  }
}

int64_t PromptTrie::OwnPromptTokens(const Call& call) const {
  TokenTrie::Node node = TokenTrie::kRoot;
  int64_t shared = 0;
  for (size_t i = 0; i < call.prompt.size(); ++i) {
    node = trie_.Child(node, call.prompt[i]);
    if (node == TokenTrie::kNone) break;
    if (nodes_[node].visits > 1 || nodes_[node].generated) shared = static_cast<int64_t>(i) + 1;
  }
  return std::max<int64_t>(1, static_cast<int64_t>(call.prompt.size()) - shared);
}

}  // namespace halo::bench
