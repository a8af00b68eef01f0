// Which request starts when, where its prefix comes from, and who makes room for it.
#include <algorithm>
#include <limits>

#include "base/check.h"
#include "engine/llama/llama_engine.h"

namespace halo {
namespace {

/// Requests looked at in one step beyond those that can start, so that a long queue costs the step
/// nothing.
constexpr int32_t kLookAhead = 256;
/// Host memory is written and read at least this fast; used before a copy was measured.
constexpr double kCopyBytesPerUs = 1000.0;
/// KV to be copied for each token that is wanted, from which on what is wanted is kept by itself.
constexpr int64_t kMuchMore = 4;
/// No KV can be taken from there.
constexpr int64_t kNoCost = std::numeric_limits<int64_t>::max();

}  // namespace

int64_t LlamaEngine::WorstCaseTokens(const Live& live) const {
  return static_cast<int64_t>(live.prompt_size) + live.max_tokens;
}

LlamaEngine::Rank LlamaEngine::RankOf(const Live& live) {
  return {-int64_t{live.request.priority}, live.request.order, live.request.id};
}

bool LlamaEngine::AnyWaiting() const {
  return std::any_of(groups_.begin(), groups_.end(),
                     [](const Group& group) { return !group.waiting.empty(); });
}

/// True if it would pass a request that was passed often enough.
bool LlamaEngine::IsClosedTo(const Rank& rank) const {
  return !closes_.empty() && *closes_.begin() < rank;
}

/// A request starts: it passes all that wait ahead of it.
void LlamaEngine::CountPassed(const Rank& by) {
  for (Group& group : groups_) {
    for (const auto& [rank, live] : group.waiting) {
      if (by < rank) break;
      if (++live->passed >= kMostPassedPerSequence * description_.sequences) closes_.insert(rank);
    }
  }
}

/// Whose requests may start. An adapter keeps its turn while it has work that may begin, since
/// every change costs the batch its width: what runs must end first. Its turn is over early for a
/// higher priority, which cuts in as it does among requests of one adapter, and when all that it
/// has left would pass a request that was passed often enough.
size_t LlamaEngine::NextGroup() const {
  size_t next = group_;
  for (size_t i = 0; i < groups_.size(); ++i) {
    if (i == next || groups_[i].waiting.empty()) continue;
    const Rank& rank = groups_[i].waiting.begin()->first;
    if (groups_[next].waiting.empty()) {
      next = i;
      continue;
    }
    const Rank& best = groups_[next].waiting.begin()->first;
    const bool urgent = std::get<0>(rank) < std::get<0>(best);
    if (urgent || (rank < best && (next != group_ || IsClosedTo(best)))) next = i;
  }
  return next;
}

/// False while what runs must end before the next adapter's turn.
bool LlamaEngine::ChooseGroup() {
  const size_t next = NextGroup();
  if (next == group_) return true;
  const int32_t priority = groups_[next].waiting.begin()->second->request.priority;
  for (const Sequence& sequence : sequences_) {
    if (sequence.live != nullptr && sequence.live->request.priority < priority)
      Preempt(*sequence.live);
  }
  if (running_ > 0) return false;
  group_ = next;
  room_->Apply(groups_[next].lora, groups_[next].scale);
  ++statistics_.adapter_changes;
  return true;
}

/// True while sequences that have become free wait for others, to be filled by one pass. What is
/// urgent, or goes before what runs, is not held up.
bool LlamaEngine::WaitsForRefill() const {
  const std::map<Rank, Live*>& waiting = groups_[group_].waiting;
  const int32_t free = batching().RunningSequences() - running_;
  if (waiting.empty() || free <= 0 || free >= batching().RefillSequences()) return false;
  if (CountRunning(Live::State::kDecoding) < running_) return false;  // prefill goes on anyway
  const int32_t first_priority = waiting.begin()->second->request.priority;
  const bool goes_before =
      std::any_of(sequences_.begin(), sequences_.end(), [&](const Sequence& sequence) {
        return sequence.live != nullptr && sequence.live->request.priority < first_priority;
      });
  const bool urgent = std::any_of(waiting.begin(), waiting.end(),
                                  [](const auto& entry) { return entry.second->request.urgent; });
  return !goes_before && !urgent;
}

void LlamaEngine::Admit() {
  std::vector<Live*> candidates;
  for (const auto& [key, live] : groups_[group_].waiting) {
    if (static_cast<int32_t>(candidates.size()) >= description_.sequences + kLookAhead) break;
    candidates.push_back(live);
  }
  for (Live* live : candidates) {
    if (IsClosedTo(RankOf(*live))) break;
    Admission admission = TryAdmit(*live);
    while (admission == Admission::kNoRoom && PreemptFor(*live)) admission = TryAdmit(*live);
    // What is next in line is not overtaken for room by what comes later, or it might never run.
    if (admission == Admission::kNoRoom) break;
  }
}

LlamaEngine::Admission LlamaEngine::TryAdmit(Live& live) {
  if (!MakeRoom(live)) return Admission::kNoRoom;
  const Source source = live.spilled ? Source{} : FindPrefix(live);
  if (source.still_computed) return Admission::kWaitsForPrefix;

  bool in_place = false;
  const int32_t sequence = ChooseSequence(live, source, in_place);
  live.sequence = sequence;
  bool taken = false;
  if (live.spilled) {
    taken = room_->Import(*live.spilled, sequence, live.spilled->tokens);
    live.computed = taken ? live.spilled->tokens : 0;
    live.spilled.reset();
  } else {
    taken = source.tokens > 0 && TakePrefix(live, source, in_place);
    live.computed = taken ? source.tokens : 0;
    // What cannot be read back is of no use to the next one either.
    if (source.tokens > 0 && !taken && kept_.contains(source.holder)) DropKept(source.holder);
  }
  if (!taken) room_->Clear(sequence);
  // A little of much is cheaper to take a second time if it lies by itself.
  if (taken && source.cost > kMuchMore * source.tokens) KeepComputed(live, false);
  live.completion.reused_tokens +=
      std::max(0, std::min(live.computed, live.prompt_size) - live.high_water);
  live.high_water = std::max(live.high_water, live.computed);
  if (!live.counted) {
    live.counted = true;
    live.completion.started_us = clock_.NowUs();
    if (live.request.consumes != 0) Consume(live.request.consumes);
  }

  if (options_.on_begin) options_.on_begin(live.request.id);
  GroupOf(live).waiting.erase(RankOf(live));
  closes_.erase(RankOf(live));
  live.passed = 0;
  CountPassed(RankOf(live));
  sequences_[static_cast<size_t>(sequence)].live = &live;
  live.state = Live::State::kPrefilling;
  live.holder = next_holder_++;
  live_holders_.emplace(live.holder, &live);
  GroupOf(live).tree.Insert(live.holder, live.tokens);
  ++running_;
  running_worst_case_ += WorstCaseTokens(live);
  return Admission::kStarted;
}

bool LlamaEngine::MakeRoom(const Live& live) {
  if (running_ >= std::min(room_->shape().sequences, batching().RunningSequences())) return false;
  if (room_->shape().layout == KvLayout::kSplit)
    return true;  // EnsureRoom made every stream long enough
  const int64_t wanted = running_worst_case_ + WorstCaseTokens(live);
  if (wanted > room_->shape().tokens) return false;
  // Unified cells are one pool: idle KV makes way, oldest first. Shared cells are counted for each
  // that holds them.
  while (true) {
    int64_t idle = 0;
    HolderId oldest = -1;
    for (const Sequence& sequence : sequences_) {
      if (sequence.kept < 0) continue;
      const Kept& kept = kept_.at(sequence.kept);
      idle += static_cast<int64_t>(kept.tokens.size());
      if (oldest < 0 || kept.last_used < kept_.at(oldest).last_used) oldest = sequence.kept;
    }
    if (wanted + idle <= room_->shape().tokens) return true;
    SpillKept(oldest);
  }
}

bool LlamaEngine::TakesOver(const Live& live, const Kept& kept, int32_t tokens) {
  // The last one that needs it takes it over as it lies, so that a conversation never copies; but
  // only if it uses all of it, or what it cuts off would be lost to others.
  const bool last =
      kept.consumers == 0 || (kept.consumers == 1 && kept.request == live.request.consumes);
  const bool whole = tokens + 1 >= static_cast<int32_t>(kept.tokens.size());
  return kept.sequence >= 0 && !kept.is_static && last && whole;
}

int64_t LlamaEngine::TakeCost(const Live& live, HolderId holder, int32_t tokens) const {
  const bool unified = room_->shape().layout == KvLayout::kUnified;
  if (const auto running = live_holders_.find(holder); running != live_holders_.end()) {
    const int32_t computed = running->second->computed;
    if (computed < tokens) return kNoCost;
    return unified ? 0 : int64_t{2} * computed;
  }
  const Kept& kept = kept_.at(holder);
  const int64_t held = static_cast<int64_t>(kept.tokens.size());
  if (kept.sequence < 0) return kept.place ? 2 * held : held;
  if (TakesOver(live, kept, tokens)) return -1;
  return unified ? 0 : 2 * held;
}

LlamaEngine::Source LlamaEngine::FindPrefix(const Live& live) const {
  if (!can_cut_) return {};
  // The last token is always computed: its logits are wanted.
  const std::span<const TokenId> prompt(live.tokens.data(), live.tokens.size() - 1);
  constexpr size_t kHolders = 64;
  const TokenTree::Match match = groups_[live.group].tree.Longest(prompt, kHolders);
  Source best;
  int64_t least = kNoCost;
  for (const HolderId holder : match.holders) {
    const int64_t cost = TakeCost(live, holder, match.tokens);
    if (cost < least) {
      least = cost;
      best = {holder, match.tokens, false, cost};
    }
  }
  if (match.tokens > 0 && least == kNoCost) best.still_computed = true;
  return best;
}

int32_t LlamaEngine::ChooseSequence(const Live& live, const Source& source, bool& in_place) {
  in_place = false;
  if (const auto kept = kept_.find(source.holder); kept != kept_.end()) {
    if (TakesOver(live, kept->second, source.tokens)) {
      in_place = true;
      return kept->second.sequence;
    }
  }
  int32_t choice = -1;
  for (int32_t i = 0; i < static_cast<int32_t>(sequences_.size()); ++i) {
    const Sequence& sequence = sequences_[static_cast<size_t>(i)];
    if (sequence.live != nullptr) continue;
    if (choice < 0) choice = i;
    // Split streams want the lowest id, but not the one that the prefix would have to leave before
    // it is copied back; elsewhere an empty one saves a copy.
    const bool split = room_->shape().layout == KvLayout::kSplit;
    if (split ? sequence.kept != source.holder || sequence.kept < 0 : sequence.kept < 0) {
      choice = i;
      break;
    }
  }
  HALO_CHECK(choice >= 0, "MakeRoom has seen a free sequence");
  const HolderId lying_there = sequences_[static_cast<size_t>(choice)].kept;
  if (lying_there >= 0) SpillKept(lying_there);
  return choice;
}

bool LlamaEngine::TakePrefix(Live& live, const Source& source, bool in_place) {
  if (in_place) {
    ++statistics_.forks;
    Kept& kept = kept_.at(source.holder);
    sequences_[static_cast<size_t>(kept.sequence)].kept = -1;
    GroupOf(live).tree.Remove(source.holder);
    if (kept.request != 0) kept_of_request_.erase(kept.request);
    kept_.erase(source.holder);
    return room_->Cut(live.sequence, source.tokens);
  }
  if (const auto running = live_holders_.find(source.holder); running != live_holders_.end()) {
    ++statistics_.forks;
    return room_->CopyPrefix(running->second->sequence, live.sequence, source.tokens);
  }
  const auto found = kept_.find(source.holder);
  if (found == kept_.end()) return false;  // host memory was full when it had to make way
  Kept& kept = found->second;
  kept.last_used = ++use_counter_;
  ++statistics_.forks;
  if (kept.sequence >= 0) return room_->CopyPrefix(kept.sequence, live.sequence, source.tokens);
  const std::shared_ptr<const KvBlob> blob = BlobOf(kept);
  return blob != nullptr && room_->Import(*blob, live.sequence, source.tokens);
}

void LlamaEngine::Consume(RequestId kept_request) { Release(kept_request, 1); }

void LlamaEngine::Release(RequestId id, int32_t consumers) {
  if (const auto live = live_.find(id); live != live_.end()) {
    KeepHint& keep = live->second->request.keep;
    keep.consumers = std::max(0, keep.consumers - consumers);
    return;
  }
  const auto found = kept_of_request_.find(id);
  if (found == kept_of_request_.end()) return;  // taken over, or dropped for room
  Kept& kept = kept_.at(found->second);
  kept.consumers = std::max(0, kept.consumers - consumers);
  kept.last_used = ++use_counter_;
  // On the disk lies what somebody is known to want; its room is for others now.
  if (kept.consumers == 0 && kept.place != nullptr && !kept.is_static) Forget(found->second);
}

bool LlamaEngine::PreemptFor(const Live& live) {
  Live* youngest = nullptr;
  for (const Sequence& sequence : sequences_) {
    if (sequence.live == nullptr || sequence.live->request.priority >= live.request.priority)
      continue;
    if (youngest == nullptr || RankOf(*sequence.live) > RankOf(*youngest)) youngest = sequence.live;
  }
  if (youngest == nullptr) return false;
  Preempt(*youngest);
  return true;
}

void LlamaEngine::Preempt(Live& live) {
  ++statistics_.preemptions;
  const int32_t sequence = live.sequence;
  const int64_t bytes = live.computed * description_.kv_bytes_per_token;
  const double spill_us = 2.0 * static_cast<double>(bytes) / kCopyBytesPerUs;  // there and back
  const double recompute_us = PrefillUsPerToken() * live.computed;
  if (spill_us < recompute_us && live.computed > 0)
    live.spilled = room_->Export(sequence, live.computed);
  Detach(live);
  FreeSequence(sequence);
  live.computed = 0;
  live.state = Live::State::kWaiting;
  GroupOf(live).waiting.emplace(RankOf(live), &live);
}

}  // namespace halo
