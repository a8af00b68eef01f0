#include "engine/simulated/simulated_kv.h"

#include <algorithm>

#include "base/check.h"

namespace halo {
namespace {

constexpr int64_t kChanceTokens = 32;  // as LlamaEngine

}  // namespace

SimulatedKv::Prefix SimulatedKv::FindPrefix(const Request& request,
                                            std::span<const TokenId> prompt) const {
  const auto tree = trees_.find(request.adapter);
  if (tree == trees_.end() || prompt.size() < 2) return {};
  constexpr size_t kHolders = 64;
  const TokenTree::Match match =
      tree->second.Longest(prompt.subspan(0, prompt.size() - 1), kHolders);
  if (match.tokens == 0) return {};
  Prefix best;
  int best_rank = 0;
  for (const HolderId holder : match.holders) {
    const auto running = running_.find(holder);
    if (running != running_.end() && running->second.computed < match.tokens) continue;
    int rank = 2;  // a running one's, or on the device
    if (const auto kept = kept_.find(holder); kept != kept_.end()) {
      if (!kept->second.on_device) rank = 1;
      if (kept->second.on_device && kept->second.request == request.consumes) rank = 3;
    }
    if (rank <= best_rank) continue;
    best_rank = rank;
    best = {holder, match.tokens};
  }
  best.still_computed = best_rank == 0;
  if (const Kept* kept = Find(best.holder); kept != nullptr) {
    const bool last =
        kept->consumers == 0 || (kept->consumers == 1 && kept->request == request.consumes);
    best.in_place =
        kept->on_device && kept->request != 0 && last && best.tokens + 1 >= kept->tokens;
  }
  return best;
}

SimulatedKv::HolderId SimulatedKv::AddRunning(const std::string& adapter,
                                              std::span<const TokenId> prompt) {
  const HolderId holder = next_holder_++;
  trees_[adapter].Insert(holder, prompt);
  running_.emplace(holder, Running{adapter, 0});
  return holder;
}

void SimulatedKv::RemoveRunning(HolderId holder) {
  const auto found = running_.find(holder);
  HALO_CHECK(found != running_.end(), "a running request holds its KV once");
  trees_.at(found->second.adapter).Remove(holder);
  running_.erase(found);
}

void SimulatedKv::Insert(HolderId holder, Kept kept, std::span<const TokenId> tokens) {
  kept.tokens = static_cast<int64_t>(tokens.size());
  kept.last_used = ++uses_;
  trees_[kept.adapter].Insert(holder, tokens);
  (kept.on_device ? device_tokens_ : host_tokens_) += kept.tokens;
  OrderOf(kept).insert(WorthOf(holder, kept));
  if (kept.request != 0) of_request_.emplace(kept.request, holder);
  kept_.emplace(holder, std::move(kept));
}

void SimulatedKv::Keep(const Request& request, std::span<const TokenId> tokens, int64_t reused) {
  if (tokens.empty()) return;
  if (request.keep.consumers == 0) {
    const TokenTree::Match match = trees_[request.adapter].Longest(tokens);
    if (match.tokens >= static_cast<int32_t>(tokens.size()) &&
        kept_.contains(match.holders.front()))
      return;
    if (request.keep.lone) {
      const int64_t alike = std::max<int64_t>(match.tokens, reused);
      tokens =
          tokens.subspan(0, std::min(tokens.size(), static_cast<size_t>(alike + kChanceTokens)));
    }
  }
  Kept kept;
  kept.request = request.id;
  kept.adapter = request.adapter;
  kept.consumers = request.keep.consumers;
  kept.on_device = true;
  Insert(next_holder_++, std::move(kept), tokens);
}

bool SimulatedKv::KeepStatic(const std::string& adapter, std::span<const TokenId> prefix) {
  constexpr size_t kHolders = 64;
  for (const HolderId holder : trees_[adapter].Longest(prefix, kHolders).holders) {
    const Kept* kept = Find(holder);
    if (kept != nullptr && kept->request == 0 &&
        kept->tokens >= static_cast<int64_t>(prefix.size()))
      return false;
  }
  Kept kept;
  kept.adapter = adapter;
  Insert(next_holder_++, std::move(kept), prefix);
  return true;
}

const SimulatedKv::Kept* SimulatedKv::Find(HolderId holder) const {
  const auto found = kept_.find(holder);
  return found == kept_.end() ? nullptr : &found->second;
}

void SimulatedKv::Touch(HolderId holder) {
  const auto found = kept_.find(holder);
  if (found == kept_.end()) return;
  Kept& kept = found->second;
  OrderOf(kept).erase(WorthOf(holder, kept));
  kept.last_used = ++uses_;
  OrderOf(kept).insert(WorthOf(holder, kept));
}

void SimulatedKv::Drop(HolderId holder) {
  const auto found = kept_.find(holder);
  HALO_CHECK(found != kept_.end(), "only what is kept can be dropped");
  const Kept& kept = found->second;
  OrderOf(kept).erase(WorthOf(holder, kept));
  (kept.on_device ? device_tokens_ : host_tokens_) -= kept.tokens;
  trees_.at(kept.adapter).Remove(holder);
  if (kept.request != 0) of_request_.erase(kept.request);
  kept_.erase(found);
}

void SimulatedKv::DropAll() {
  while (!kept_.empty()) Drop(kept_.begin()->first);
}

void SimulatedKv::Release(RequestId request, int32_t consumers) {
  const auto found = of_request_.find(request);
  if (found == of_request_.end()) return;  // taken over, or dropped for room
  Kept& kept = kept_.at(found->second);
  OrderOf(kept).erase(WorthOf(found->second, kept));
  kept.consumers = std::max(0, kept.consumers - consumers);
  kept.last_used = ++uses_;
  OrderOf(kept).insert(WorthOf(found->second, kept));
}

std::optional<int64_t> SimulatedKv::SpillOne(HolderId but) {
  for (const Worth& worth : device_order_) {
    const HolderId holder = std::get<3>(worth);
    if (holder == but) continue;
    Kept& kept = kept_.at(holder);
    device_order_.erase(worth);
    kept.on_device = false;
    host_order_.insert(WorthOf(holder, kept));
    device_tokens_ -= kept.tokens;
    host_tokens_ += kept.tokens;
    return kept.tokens;
  }
  return std::nullopt;
}

int64_t SimulatedKv::ShrinkHost(int64_t tokens) {
  int64_t dropped = 0;
  while (host_tokens_ > tokens && !host_order_.empty()) {
    Drop(std::get<3>(*host_order_.begin()));
    ++dropped;
  }
  return dropped;
}

}  // namespace halo
