// KV that outlives its request: where it lies, when it moves to host memory, and when it goes.
#include <algorithm>

#include "base/check.h"
#include "engine/llama/llama_engine.h"

namespace halo {
namespace {

/// Prompts that nobody planned to begin alike may still do so a little further than any two did so
/// far.
constexpr int32_t kChanceTokens = 32;
/// A prefill this fast is faster than any machine this runs on without a GPU; used before one was
/// measured.
constexpr double kPrefillUsPerToken = 20.0;

}  // namespace

void LlamaEngine::KeepOrFree(Live& live) {
  const int32_t sequence = live.sequence;
  const KeepHint hint = live.request.keep;
  int32_t tokens = hint.answer ? live.computed : live.prompt_size;
  const auto reused = static_cast<int32_t>(live.completion.reused_tokens);
  const RequestId request = live.request.id;
  Group& group = GroupOf(live);
  std::vector<TokenId> held(live.tokens.begin(), live.tokens.begin() + tokens);
  Detach(live);
  bool keep = can_cut_ && tokens > 0;
  if (keep && hint.consumers == 0) {
    // Worth its memory only if nothing else that is kept has these tokens.
    const TokenTree::Match match = group.tree.Longest(held);
    if (hint.lone) {
      // What it took from another is what two began with, though the other may have made way for
      // it.
      const int32_t alike = std::max(match.tokens, reused);
      tokens = std::min(tokens, alike + kChanceTokens);
      held.resize(static_cast<size_t>(tokens));
    }
    keep = match.tokens < tokens || !kept_.contains(match.holders.front());
  }
  if (!keep || !room_->Cut(sequence, tokens)) {
    FreeSequence(sequence);
    return;
  }
  const HolderId holder = next_holder_++;
  group.tree.Insert(holder, held);
  Kept kept;
  kept.request = request;
  kept.group = live.group;
  kept.tokens = std::move(held);
  kept.consumers = hint.consumers;
  kept.sequence = sequence;
  kept.last_used = ++use_counter_;
  kept_.emplace(holder, std::move(kept));
  kept_of_request_.emplace(request, holder);
  sequences_[static_cast<size_t>(sequence)].kept = holder;
  ++statistics_.keeps;
}

void LlamaEngine::KeepStaticPrefix(const Live& live) {
  if (!can_cut_) return;
  const std::span<const TokenId> prefix(live.tokens.data(), static_cast<size_t>(live.computed));
  constexpr size_t kHolders = 64;
  for (const HolderId holder : GroupOf(live).tree.Longest(prefix, kHolders).holders) {
    const auto kept = kept_.find(holder);
    if (kept != kept_.end() && kept->second.is_static &&
        kept->second.tokens.size() >= prefix.size())
      return;
  }
  KeepComputed(live, true);
}

void LlamaEngine::KeepComputed(const Live& live, bool is_static) {
  Kept kept;
  kept.group = live.group;
  kept.blob = room_->Export(live.sequence, live.computed);
  if (!kept.blob) return;
  kept.tokens.assign(live.tokens.begin(), live.tokens.begin() + live.computed);
  kept.is_static = is_static;
  kept.last_used = ++use_counter_;
  kept_bytes_ += kept.blob->size();
  const HolderId holder = next_holder_++;
  GroupOf(live).tree.Insert(holder, kept.tokens);
  kept_.emplace(holder, std::move(kept));
  EvictKeptOver(options_.kept_bytes);
}

void LlamaEngine::Export(RequestId id) {
  KvTransfer kv;
  kv.id = id;
  const auto found = kept_of_request_.find(id);
  if (found != kept_of_request_.end()) {
    const Kept& kept = kept_.at(found->second);
    Descriptor memory;
    try {
      if (kept.sequence >= 0) {
        memory =
            room_->ExportShared(kept.sequence, static_cast<int32_t>(kept.tokens.size()), kv.bytes);
      } else if (const std::shared_ptr<const KvBlob> blob = BlobOf(kept)) {
        memory = ExportBlob(*blob, kv.bytes);
      }
    } catch (const Error&) {
      kv.bytes = 0;  // no memory to share: whoever asks computes it
    }
    if (memory) {
      kv.adapter = groups_[kept.group].adapter;
      kv.tokens = kept.tokens;
      kv.kv = std::make_shared<const Descriptor>(std::move(memory));
      ++statistics_.migrations;
    } else {
      kv.bytes = 0;
    }
    Release(id, 1);
  }
  exports_.push_back(std::move(kv));
}

/// Weights may be gone while KV is kept: then there is no room, whose memory lies prepared.
Descriptor LlamaEngine::ExportBlob(const KvBlob& blob, int64_t& bytes) {
  if (room_ != nullptr) return room_->ExportShared(blob, bytes);
  bytes = static_cast<int64_t>(blob.data().size());
  return ShareBytes(blob.data());
}

void LlamaEngine::Import(KvTransfer kv) {
  const auto group = std::find_if(groups_.begin(), groups_.end(),
                                  [&](const Group& g) { return g.adapter == kv.adapter; });
  const bool is_wanted = can_cut_ && kv.kv != nullptr && !kv.tokens.empty() &&
                         group != groups_.end() && !kept_of_request_.contains(kv.id);
  if (!is_wanted) return;
  auto blob = std::make_shared<KvBlob>();
  blob->shared = MappedMemory::Sealed(*kv.kv, static_cast<size_t>(kv.bytes));
  blob->tokens = static_cast<int32_t>(kv.tokens.size());
  Kept kept;
  kept.request = kv.id;
  kept.group = static_cast<size_t>(group - groups_.begin());
  kept.tokens = std::move(kv.tokens);
  kept.consumers = 1;
  kept.blob = std::move(blob);
  kept.last_used = ++use_counter_;
  kept_bytes_ += kept.blob->size();
  const HolderId holder = next_holder_++;
  group->tree.Insert(holder, kept.tokens);
  kept_of_request_.emplace(kv.id, holder);
  kept_.emplace(holder, std::move(kept));
  EvictKeptOver(options_.kept_bytes);
}

void LlamaEngine::SpillKept(HolderId holder) {
  Kept& kept = kept_.at(holder);
  const int32_t sequence = kept.sequence;
  const int32_t tokens = static_cast<int32_t>(kept.tokens.size());
  kept.blob = room_->Export(sequence, tokens);
  if (!kept.blob) {
    DropKept(holder);
    return;
  }
  kept.sequence = -1;
  kept_bytes_ += kept.blob->size();
  sequences_[static_cast<size_t>(sequence)].kept = -1;
  FreeSequence(sequence);
  EvictKeptOver(options_.kept_bytes);
}

void LlamaEngine::DropKept(HolderId holder) {
  Forget(holder);
  ++statistics_.evictions;
}

void LlamaEngine::Forget(HolderId holder) {
  const auto found = kept_.find(holder);
  HALO_CHECK(found != kept_.end(), "only what is kept can be dropped");
  Kept& kept = found->second;
  groups_[kept.group].tree.Remove(holder);
  if (kept.request != 0) kept_of_request_.erase(kept.request);
  if (kept.blob) kept_bytes_ -= kept.blob->size();
  if (kept.sequence >= 0) {
    sequences_[static_cast<size_t>(kept.sequence)].kept = -1;
    FreeSequence(kept.sequence);
  }
  kept_.erase(found);
}

void LlamaEngine::DropAllKept() {
  while (!kept_.empty()) DropKept(kept_.begin()->first);
}

void LlamaEngine::EvictKeptOver(int64_t budget_bytes) {
  while (kept_bytes_ > budget_bytes) {
    HolderId victim = -1;
    std::tuple<bool, bool, int64_t> lowest;
    for (const auto& [holder, kept] : kept_) {
      if (!kept.blob) continue;
      const std::tuple worth(kept.is_static, kept.consumers > 0, kept.last_used);
      if (victim < 0 || worth < lowest) {
        victim = holder;
        lowest = worth;
      }
    }
    HALO_CHECK(victim >= 0, "bytes are held by blobs");
    if (!MoveToDisk(kept_.at(victim))) DropKept(victim);
  }
}

bool LlamaEngine::MoveToDisk(Kept& kept) {
  // What nobody is known to want is seldom asked for.
  if (!disk_ || (kept.consumers == 0 && !kept.is_static)) return false;
  const int64_t bytes = kept.blob->size();
  const double compute_us = PrefillUsPerToken() * static_cast<double>(kept.tokens.size());
  if (disk_->UsPerByte() * static_cast<double>(bytes) >= compute_us) return false;
  kept.place = disk_->Put(kept.blob);
  if (kept.place == nullptr) return false;
  kept.blob.reset();
  kept_bytes_ -= bytes;
  ++statistics_.disk_writes;
  return true;
}

std::shared_ptr<const KvBlob> LlamaEngine::BlobOf(const Kept& kept) {
  if (kept.blob) return kept.blob;
  ++statistics_.disk_reads;
  return disk_->Read(*kept.place);
}

double LlamaEngine::PrefillUsPerToken() const {
  if (statistics_.prefill_tokens == 0) return kPrefillUsPerToken;
  return static_cast<double>(statistics_.prefill_us) /
         static_cast<double>(statistics_.prefill_tokens);
}

void LlamaEngine::FreeSequence(int32_t sequence) { room_->Clear(sequence); }

void LlamaEngine::Compact() {
  if (room_->shape().layout != KvLayout::kSplit) return;
  int32_t hole = 0;
  int32_t last = static_cast<int32_t>(sequences_.size()) - 1;
  while (true) {
    while (hole < static_cast<int32_t>(sequences_.size()) &&
           sequences_[static_cast<size_t>(hole)].live)
      ++hole;
    while (last >= 0 && !sequences_[static_cast<size_t>(last)].live) --last;
    if (hole >= last) return;
    MoveSequence(last, hole);
  }
}

void LlamaEngine::MoveSequence(int32_t from, int32_t to) {
  Sequence& source = sequences_[static_cast<size_t>(from)];
  Sequence& target = sequences_[static_cast<size_t>(to)];
  if (target.kept >= 0) SpillKept(target.kept);
  Live& live = *source.live;
  const bool moved = room_->CopyPrefix(from, to, live.computed);
  HALO_CHECK(moved, "a stream has room for what another of the same size holds");
  room_->Clear(from);
  target.live = &live;
  source.live = nullptr;
  live.sequence = to;
}

}  // namespace halo
