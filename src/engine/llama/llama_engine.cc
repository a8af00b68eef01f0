#include "engine/llama/llama_engine.h"

#include <llama.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/llama/exactness.h"
#include "engine/llama/loaded_model.h"

namespace halo {
namespace {

constexpr int32_t kSequenceLimit = 256;  // LLAMA_MAX_SEQ
constexpr int32_t kRoomGranularity = 256;

int64_t MachineMemoryBytes() {
  return static_cast<int64_t>(sysconf(_SC_PHYS_PAGES)) *
         static_cast<int64_t>(sysconf(_SC_PAGE_SIZE));
}

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

BatchingLimits LimitsOf(const LlamaSetup& setup, const KvRoom::Shape& shape) {
  return {.sequences = shape.sequences,
          .batch_tokens = shape.batch_tokens,
          .micro_batch_tokens = shape.micro_batch_tokens,
          .fixed_pass_tokens = setup.batch_tokens,
          .fixed_running_sequences = setup.running_sequences,
          .fixed_refill_sequences = setup.refill_sequences,
          .fixed_draft_tokens = setup.draft_tokens};
}

}  // namespace

LlamaEngine::LlamaEngine(LlamaEngineOptions options, const Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      threads_(std::max(1, options_.threads)),
      sampler_(threads_),
      grammars_(options_.vocabulary) {
  if (options_.exactness != Exactness::kOff) {
    std::string why_not =
        WhyNotExact(options_.model_path, options_.layout, options_.exactness == Exactness::kIfFree);
    for (const LlamaAdapter& adapter : options_.adapters) {
      if (why_not.empty()) why_not = WhyNotExactAdapter(adapter.path);
    }
    if (!why_not.empty() && options_.exactness == Exactness::kRequired) {
      throw Error(ErrorCode::kConfig,
                  options_.model_name + ": --deterministic is not known to hold here: " + why_not);
    }
    exact_ = why_not.empty();
  }
  groups_.resize(1 + options_.adapters.size());
  if (options_.kept_disk_bytes > 0 && !options_.kept_folder.empty()) {
    // Beside what is kept in memory, and no more than that.
    constexpr int64_t kLeastUnwrittenBytes = int64_t{16} << 20;
    disk_.emplace(
        options_.kept_folder, options_.kept_disk_bytes,
        std::clamp(options_.kept_bytes, kLeastUnwrittenBytes, KvDisk::kMostUnwrittenBytes));
  }
  if (options_.load) Load();
  Describe(model_ ? model_.get() : DescribeLlamaModel(options_.model_path).get());
  const Vocabulary& vocabulary = *options_.vocabulary;
  for (TokenId token = 0; token < vocabulary.size(); ++token) {
    if (vocabulary.IsEndOfGeneration(token)) end_tokens_.push_back(token);
  }
}

void LlamaEngine::Describe(const llama_model* model) {
  can_cut_ = options_.reuse && llama_model_n_swa(model) == 0 && !llama_model_is_recurrent(model) &&
             !llama_model_is_hybrid(model);
  const int32_t trained = std::max(1, llama_model_n_ctx_train(model));
  const int64_t kv_bytes = options_.kv_bytes > 0 ? options_.kv_bytes : MachineMemoryBytes() / 4;
  if (options_.kept_bytes == 0) options_.kept_bytes = MachineMemoryBytes() / 8;
  description_.name = "llama";
  description_.model = options_.model_name;
  description_.vocabulary = options_.vocabulary->id();
  description_.kv_bytes_per_token = KvBytesPerToken(model);
  description_.kv_tokens = kv_bytes / std::max<int64_t>(1, description_.kv_bytes_per_token);
  const int64_t wanted =
      options_.context_tokens > 0 ? std::min(options_.context_tokens, trained) : trained;
  description_.context_tokens = static_cast<int32_t>(std::min(wanted, description_.kv_tokens));
  description_.sequences =
      std::min(options_.sequences > 0 ? options_.sequences : kDefaultSequences, kSequenceLimit);
  description_.has_token_ids = true;
  description_.has_kv = true;
  description_.exact = exact_;
  if (description_.context_tokens < 2) {
    throw Error(ErrorCode::kConfig, "no room for the KV of one token of " + options_.model_name +
                                        "; give more with --worker-memory");
  }
}

LlamaEngine::~LlamaEngine() = default;

void LlamaEngine::Load() {
  if (model_) return;
  const int64_t start_us = clock_.NowUs();
  model_ = LoadLlamaModel(options_.model_path, exact_, options_.devices);
  LoadAdapters();
  ++statistics_.loads;
  statistics_.load_us += clock_.NowUs() - start_us;
  RecordSpan(EngineSpan::Kind::kLoad, start_us);
}

void LlamaEngine::Unload() {
  HALO_CHECK(live_.empty() && completed_.empty(), "nothing is pending when weights are given back");
  if (!model_) return;
  for (Sequence& sequence : sequences_) {
    if (sequence.kept >= 0) SpillKept(sequence.kept);
  }
  sequences_.clear();
  statistics_ = Statistics();
  room_.reset();
  for (Group& group : groups_) group.lora = nullptr;
  model_.reset();
}

void LlamaEngine::LoadAdapters() {
  for (size_t i = 0; i < options_.adapters.size(); ++i) {
    const LlamaAdapter& adapter = options_.adapters[i];
    HALO_CHECK(!adapter.name.empty(), "an adapter has a name");
    ForgetLlamaError();
    Group& group = groups_[i + 1];
    group.adapter = adapter.name;
    group.scale = static_cast<float>(adapter.scale);
    group.lora = llama_adapter_lora_init(model_.get(), adapter.path.c_str());
    if (group.lora == nullptr) {
      throw Error(ErrorCode::kModel,
                  adapter.path + ": llama.cpp cannot load this adapter: " +
                      (LastLlamaError().empty() ? "no reason given" : LastLlamaError()));
    }
  }
}

const KvRoom::Shape& LlamaEngine::room_shape() const { return room_->shape(); }

EngineStatistics LlamaEngine::Statistics() const {
  EngineStatistics total = statistics_;
  if (room_) {
    const EngineStatistics& room = room_->statistics();
    total.copy_us += room.copy_us;
    total.copies += room.copies;
    total.spills += room.spills;
    total.restores += room.restores;
  }
  if (disk_) total.disk_faults = disk_->faults();
  return total;
}

void LlamaEngine::Submit(Request request) {
  auto owned = std::make_unique<Live>();
  Live& live = *owned;
  live.request = std::move(request);
  live.completion.id = live.request.id;
  live.tokens = live.request.prompt_tokens;
  live.prompt_size = static_cast<int32_t>(live.tokens.size());
  live.completion.prompt_tokens = live.prompt_size;
  HALO_CHECK(!live_.contains(live.request.id), "a request id is used once");
  live_.emplace(live.request.id, std::move(owned));

  const auto group = std::find_if(groups_.begin(), groups_.end(), [&](const Group& g) {
    return g.adapter == live.request.adapter;
  });
  if (group == groups_.end()) {
    return Fail(live, "unknown_adapter", "the engine has no adapter '" + live.request.adapter + "'",
                false);
  }
  live.group = static_cast<size_t>(group - groups_.begin());
  const int32_t context = description_.context_tokens;
  if (live.prompt_size == 0) {
    Fail(live, "empty_prompt", "the prompt has no tokens", false);
  } else if (live.prompt_size >= context) {
    Fail(live, "prompt_too_long",
         "the prompt has " + std::to_string(live.prompt_size) + " tokens, the context holds " +
             std::to_string(context) + " with at least one for the answer: " +
             std::to_string(live.prompt_size - context + 1) + " too many",
         false);
  } else {
    try {
      const int64_t start_us = clock_.NowUs();
      if (!live.request.grammar.empty()) live.grammar = grammars_.Get(live.request.grammar);
      statistics_.grammar_us += clock_.NowUs() - start_us;
    } catch (const Error& error) {
      return Fail(live, "bad_grammar", error.what(), false);
    }
    live.max_tokens = std::min(live.request.sampling.max_tokens, context - live.prompt_size);
    live.guesses = &guess_rates_[live.request.script_operator];
    const auto begins_with = kept_of_request_.find(live.request.consumes);
    if (begins_with != kept_of_request_.end()) {
      const Kept& kept = kept_.at(begins_with->second);
      if (kept.place) disk_->Expect(*kept.place);
    }
    group->waiting.emplace(RankOf(live), &live);
  }
}

void LlamaEngine::Cancel(RequestId id) {
  const auto found = live_.find(id);
  if (found != live_.end()) Fail(*found->second, "cancelled", "the call was cancelled", false);
}

void LlamaEngine::CancelWaiting() {
  std::vector<RequestId> ids;
  for (const Group& group : groups_) {
    for (const auto& [key, live] : group.waiting) {
      if (!live->counted) ids.push_back(live->request.id);  // what was preempted has started
    }
  }
  for (const RequestId id : ids) Cancel(id);
}

std::vector<Completion> LlamaEngine::Poll(int64_t deadline_us) {
  do {
    if (!completed_.empty() || live_.empty()) break;
    Step();
  } while (clock_.NowUs() < deadline_us);
  return std::exchange(completed_, {});
}

void LlamaEngine::Step() {
  const int64_t start_us = clock_.NowUs();
  FailExpired();
  if (!AnyWaiting() && running_ == 0) return;
  Load();
  EnsureRoom();
  if (ChooseGroup() && !WaitsForRefill()) Admit();
  HALO_CHECK(running_ > 0 || !AnyWaiting(),
             "a request that fits alone is admitted when nothing runs");
  const int32_t decoding = CountRunning(Live::State::kDecoding);
  const bool is_decodes_turn = (prefilled_last_ && AnyRuns(Live::State::kDecoding, true)) ||
                               batching().IsDecodeDue(decoding);
  prefilled_last_ = !is_decodes_turn && PrefillStep(decoding);
  if (!prefilled_last_ && decoding > 0) DecodeStep(decoding);
  statistics_.busy_us += clock_.NowUs() - start_us;
}

void LlamaEngine::FailExpired() {
  const int64_t now = clock_.NowUs();
  std::vector<Live*> expired;
  for (const auto& [id, live] : live_) {
    if (live->request.deadline_us > 0 && live->request.deadline_us < now)
      expired.push_back(live.get());
  }
  for (Live* live : expired)
    Fail(*live, "deadline", "the call took longer than its deadline allows", false);
}

void LlamaEngine::EnsureRoom() {
  int64_t longest = 0;
  for (const Group& group : groups_) {
    for (const auto& [key, live] : group.waiting)
      longest = std::max(longest, WorstCaseTokens(*live));
  }
  if (!room_) {
    const int32_t least = std::max(options_.expected_tokens, last_shape_.tokens_per_sequence);
    ShapeRoom(std::max<int64_t>(longest, least));
  } else if (longest > room_->shape().tokens_per_sequence) {
    // Rare: a request longer than anything foreseen. Everything is spilled and the room laid out
    // anew.
    ShapeRoom(std::max<int64_t>(longest, 2 * room_->shape().tokens_per_sequence));
  }
}

void LlamaEngine::ShapeRoom(int64_t longest_request) {
  for (Sequence& sequence : sequences_) {
    if (sequence.live != nullptr) Preempt(*sequence.live);
    if (sequence.kept >= 0) SpillKept(sequence.kept);
  }
  const KvRoom::Shape before = last_shape_;
  if (room_) {
    statistics_ = Statistics();
    room_.reset();
  }
  KvRoom::Shape shape;
  const int64_t most = std::min<int64_t>(description_.context_tokens, description_.kv_tokens);
  const int64_t each =
      std::min(RoundUp(longest_request, kRoomGranularity), RoundUp(most, kRoomGranularity));
  const int64_t split_sequences =
      std::min<int64_t>(description_.sequences, description_.kv_tokens / each);
  shape.layout = options_.layout;
  if (shape.layout == KvLayout::kAuto) {
    // Split streams decode faster at any batch size on the CPU (docs/benchmarks/engine.md), unless
    // requests are so long that the room holds only a few of them side by side: then unified cells
    // let the short ones share what is left.
    constexpr int64_t kFewSequences = 4;
    const bool few = split_sequences < std::min<int64_t>(kFewSequences, description_.sequences);
    shape.layout = few && !exact_ ? KvLayout::kUnified : KvLayout::kSplit;
  }
  const bool split = shape.layout == KvLayout::kSplit;
  shape.sequences =
      split ? static_cast<int32_t>(std::max<int64_t>(1, split_sequences)) : description_.sequences;
  shape.tokens_per_sequence = static_cast<int32_t>(each);
  // Unified cells for all sequences at the foreseen length, within the memory given.
  shape.tokens = split ? each * shape.sequences
                       : std::max(each, std::min(RoundUp(description_.kv_tokens, kRoomGranularity),
                                                 each * shape.sequences));
  shape.threads = threads_;
  shape.batch_tokens = options_.batch_tokens > 0 ? options_.batch_tokens : kBatchTokens;
  if (options_.micro_batch_tokens > 0) shape.micro_batch_tokens = options_.micro_batch_tokens;
  shape.exact = exact_;
  // llama.cpp's state of a sequence can be read back only by a context with as many streams.
  if (before.tokens > 0 &&
      (before.layout != shape.layout || (split && before.sequences != shape.sequences)))
    DropAllKept();
  if (before.layout != shape.layout || before.sequences != shape.sequences) batching_.clear();
  batching_.try_emplace(threads_, LimitsOf(options_, shape));
  const int64_t start_us = clock_.NowUs();
  room_ = std::make_unique<KvRoom>(model_.get(), shape, options_.record_spans ? &spans_ : nullptr);
  RecordSpan(EngineSpan::Kind::kLayOut, start_us);
  room_->Apply(groups_[group_].lora, groups_[group_].scale);
  last_shape_ = shape;
  sequences_.assign(static_cast<size_t>(shape.sequences), Sequence{});
}

void LlamaEngine::UseThreads(int32_t threads) {
  HALO_CHECK(threads >= 1, "a pass has a thread");
  if (threads == threads_) return;
  threads_ = threads;
  sampler_.UseThreads(threads);
  if (room_ == nullptr) return;
  room_->UseThreads(threads);
  batching_.try_emplace(threads, LimitsOf(options_, room_->shape()));
}

/// What may be in the next prefill pass, first in line first.
std::vector<LlamaEngine::Live*> LlamaEngine::ChoosePrefill() const {
  const bool urgent = AnyRuns(Live::State::kPrefilling, true);
  std::vector<Live*> chosen;
  for (const Sequence& sequence : sequences_) {
    Live* live = sequence.live;
    if (live == nullptr || live->state != Live::State::kPrefilling) continue;
    if (live->request.urgent >= urgent) chosen.push_back(live);
  }
  // Urgent tokens wait for one prompt at a time.
  if (chosen.size() > 1 && AnyRuns(Live::State::kDecoding, true)) chosen.resize(1);
  return chosen;
}

int32_t LlamaEngine::CountRunning(Live::State state) const {
  return static_cast<int32_t>(
      std::count_if(sequences_.begin(), sequences_.end(), [&](const Sequence& sequence) {
        return sequence.live != nullptr && sequence.live->state == state;
      }));
}

bool LlamaEngine::AnyRuns(Live::State state, bool urgent) const {
  return std::any_of(sequences_.begin(), sequences_.end(), [&](const Sequence& sequence) {
    return sequence.live != nullptr && sequence.live->state == state &&
           sequence.live->request.urgent >= urgent;
  });
}

bool LlamaEngine::PrefillStep(int32_t decoding) {
  std::vector<KvRoom::BatchToken> batch;
  std::vector<Live*> lives;
  const std::vector<Live*> chosen = ChoosePrefill();
  int64_t to_compute = 0;
  for (const Live* live : chosen)
    to_compute += static_cast<int64_t>(live->tokens.size()) - live->computed;
  int32_t budget = to_compute > 0 ? batching().PrefillTokens(to_compute, decoding) : 0;
  for (Live* live : chosen) {
    if (budget == 0) break;
    const int32_t known = static_cast<int32_t>(live->tokens.size());
    int32_t end = std::min(known, live->computed + budget);
    // The pass ends with the static prefix once, so that exactly that much can be kept.
    const int32_t fixed = live->request.static_prefix_tokens;
    if (can_cut_ && live->computed < fixed && fixed < end) end = fixed;
    for (int32_t at = live->computed; at < end; ++at) {
      const bool wants_logits = at + 1 == known && live->max_tokens > 0;
      batch.push_back({live->tokens[static_cast<size_t>(at)], at, live->sequence, wants_logits});
    }
    budget -= end - live->computed;
    lives.push_back(live);
  }
  if (batch.empty()) return false;
  const int64_t start_us = clock_.NowUs();
  const bool worked = RunBatch(batch, lives);
  const int64_t pass_us = clock_.NowUs() - start_us;
  statistics_.prefill_us += pass_us;
  if (!worked) return true;
  RecordSpan(EngineSpan::Kind::kPrefill, start_us, batch.size(), lives.size());
  statistics_.prefill_tokens += static_cast<int64_t>(batch.size());

  std::unordered_map<int32_t, int32_t> logits_at;  // sequence -> batch index
  std::unordered_map<int32_t, int32_t> computed;   // sequence -> tokens
  for (size_t i = 0; i < batch.size(); ++i) {
    computed[batch[i].sequence] = batch[i].position + 1;
    if (batch[i].wants_logits) logits_at[batch[i].sequence] = static_cast<int32_t>(i);
  }
  std::vector<Drawn> drawn;
  for (Live* live : lives) {
    const int32_t before = live->computed;
    live->computed = computed.at(live->sequence);
    live->engine_us += static_cast<double>(pass_us) * (live->computed - before) /
                       static_cast<double>(batch.size());
    // First attempts count as prefilled, prompt tokens only; whatever was computed before counts as
    // recomputed.
    live->completion.recomputed_tokens +=
        std::max(0, std::min(live->high_water, live->computed) - before);
    live->completion.prefilled_tokens += std::max(
        0, std::min(live->computed, live->prompt_size) - std::max(before, live->high_water));
    live->high_water = std::max(live->high_water, live->computed);
    if (live->computed == live->request.static_prefix_tokens) KeepStaticPrefix(*live);
    const auto at = logits_at.find(live->sequence);
    if (live->max_tokens == 0 && live->computed == live->prompt_size) {
      Finish(*live, FinishReason::kMaxTokens);
      continue;
    }
    if (at == logits_at.end()) continue;
    live->state = Live::State::kDecoding;
    drawn.push_back({live, room_->Logits(at->second)});
  }
  SampleNext(drawn);
  batching().PrefillTook(static_cast<int32_t>(batch.size()), decoding, clock_.NowUs() - start_us);
  return true;
}

void LlamaEngine::DecodeStep(int32_t decoding) {
  // Beside sequences that prefill, the batch has gaps anyway.
  if (!AnyRuns(Live::State::kPrefilling, false)) Compact();
  std::vector<KvRoom::BatchToken> batch;
  std::vector<Live*> lives;
  // Those that are left out take the places of what ends, since nothing begins before they run.
  const bool all = AnyRuns(Live::State::kDecoding, true);
  const int32_t most = all ? decoding : batching().DecodeSequences(decoding);
  for (const Sequence& sequence : sequences_) {
    Live* live = sequence.live;
    if (live == nullptr || live->state != Live::State::kDecoding) continue;
    if (static_cast<int32_t>(lives.size()) == most) break;
    lives.push_back(live);
  }
  DraftFor(lives);
  for (const Live* live : lives) {
    auto position = static_cast<int32_t>(live->tokens.size()) - 1;
    batch.push_back({live->tokens.back(), position, live->sequence, true});
    for (const TokenId token : live->draft)
      batch.push_back({token, ++position, live->sequence, true});
  }
  const int64_t start_us = clock_.NowUs();
  const bool worked = RunBatch(batch, lives);
  const int64_t step_us = clock_.NowUs() - start_us;
  statistics_.decode_us += step_us;
  if (!worked) return;
  RecordSpan(EngineSpan::Kind::kDecode, start_us, batch.size(), lives.size());
  ++statistics_.decode_steps;
  const size_t draft_tokens = batch.size() - lives.size();
  statistics_.decode_tokens += static_cast<int64_t>(lives.size());
  statistics_.draft_tokens += static_cast<int64_t>(draft_tokens);
  std::vector<Drawn> drawn;
  for (Live* live : lives) {
    live->computed = static_cast<int32_t>(live->tokens.size());
    live->engine_us += static_cast<double>(step_us) / static_cast<double>(lives.size());
    for (size_t i = 0; i <= live->draft.size(); ++i)
      drawn.push_back({live, room_->Logits(static_cast<int32_t>(drawn.size()))});
  }
  SampleNext(drawn);
  batching().DecodeTook(static_cast<int32_t>(lives.size()), draft_tokens > 0,
                        clock_.NowUs() - start_us);
}

/// As many for each of them, else llama.cpp cuts the batch of split streams into passes.
/// Now and then there are none, so that what a step takes by itself stays known.
void LlamaEngine::DraftFor(const std::vector<Live*>& lives) {
  constexpr int32_t kMostTokens = 8;
  constexpr int32_t kMostDraftedSteps = 15;
  const bool may_round = exact_ || options_.exactness != Exactness::kIfKnown;
  if (!options_.prompt_lookup || !can_cut_ || !may_round || lives.empty()) return;
  const int32_t each = room_->shape().most_logits() / static_cast<int32_t>(lives.size());
  int32_t tokens = std::min(kMostTokens, each - 1);
  if (std::exchange(drafted_steps_, 0) == kMostDraftedSteps) return;
  for (const Live* live : lives) {
    const int32_t left = live->max_tokens - live->sampled() - 1;
    if (!live->lookup.has_guess() || tokens < 1) return;
    tokens = batching().DraftTokens(live->guesses->value(), std::min(tokens, left));
  }
  if (tokens < 1) return;
  ++drafted_steps_;
  for (Live* live : lives) live->draft = live->lookup.Draft(live->tokens, tokens);
}

bool LlamaEngine::RunBatch(const std::vector<KvRoom::BatchToken>& batch,
                           const std::vector<Live*>& lives) {
  bool restored = false;
  ++statistics_.steps;
  if (room_->Decode(batch, restored)) return true;
  // Admission has made room for every token of the batch, so this is a fault of the engine, not of
  // the requests.
  const std::string reason = LastLlamaError().empty() ? "no reason given" : LastLlamaError();
  for (Live* live : lives) {
    Fail(*live, "engine", "llama.cpp could not compute a batch: " + reason, true);
  }
  return false;
}

/// What has just ended, for who traces. Before its tokens are counted as computed.
void LlamaEngine::RecordSpan(EngineSpan::Kind kind, int64_t start_us, size_t tokens,
                             size_t sequences) {
  if (!options_.record_spans) return;
  EngineSpan span{kind,
                  start_us,
                  clock_.NowUs(),
                  static_cast<int64_t>(tokens),
                  static_cast<int32_t>(sequences),
                  running_,
                  static_cast<int64_t>(tokens)};
  for (const Sequence& sequence : sequences_) {
    if (sequence.live != nullptr) span.kv_tokens += sequence.live->computed;
    if (sequence.kept >= 0)
      span.kv_tokens += static_cast<int64_t>(kept_.at(sequence.kept).tokens.size());
  }
  spans_.Add(span);
}

void LlamaEngine::Detach(Live& live) {
  GroupOf(live).tree.Remove(live.holder);
  live_holders_.erase(live.holder);
  sequences_[static_cast<size_t>(live.sequence)].live = nullptr;
  running_worst_case_ -= WorstCaseTokens(live);
  --running_;
  live.holder = -1;
  live.sequence = -1;
}

void LlamaEngine::CheckInvariants() const {
  int32_t running = 0;
  int64_t worst_case = 0;
  size_t resident = 0;
  for (size_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& sequence = sequences_[i];
    HALO_CHECK(sequence.live == nullptr || sequence.kept < 0, "a sequence has one holder");
    if (sequence.live != nullptr) {
      HALO_CHECK(sequence.live->sequence == static_cast<int32_t>(i),
                 "a request knows its sequence");
      HALO_CHECK(groups_[sequence.live->group].tree.Contains(sequence.live->holder),
                 "what runs is in its tree");
      HALO_CHECK(sequence.live->group == group_, "what runs has the adapter that is applied");
      ++running;
      worst_case += WorstCaseTokens(*sequence.live);
    }
    if (sequence.kept >= 0) {
      HALO_CHECK(kept_.at(sequence.kept).sequence == static_cast<int32_t>(i),
                 "what is kept knows its sequence");
      ++resident;
    }
  }
  HALO_CHECK(running == running_ && worst_case == running_worst_case_,
             "counts of running requests agree");
  size_t in_trees = 0, closing = 0;
  for (const Group& group : groups_) {
    in_trees += group.tree.size();
    for (const auto& [rank, live] : group.waiting) {
      HALO_CHECK(live->passed <= kMostPassedPerSequence * description_.sequences,
                 "nobody is passed more often than may be");
      closing += closes_.count(rank);
    }
  }
  HALO_CHECK(closing == closes_.size(), "what closes the line is waiting in it");
  HALO_CHECK(in_trees == live_holders_.size() + kept_.size(), "the trees hold exactly the holders");
  int64_t blob_bytes = 0;
  size_t in_sequences = 0;
  for (const auto& [holder, kept] : kept_) {
    const int places = (kept.sequence >= 0 ? 1 : 0) + (kept.blob ? 1 : 0) + (kept.place ? 1 : 0);
    HALO_CHECK(places == 1, "kept KV lies in one place");
    HALO_CHECK(groups_[kept.group].tree.Contains(holder), "what is kept is in its tree");
    if (kept.blob) blob_bytes += kept.blob->size();
    in_sequences += kept.sequence >= 0 ? 1 : 0;
  }
  HALO_CHECK(in_sequences == resident && blob_bytes == kept_bytes_, "counts of kept KV agree");
}

}  // namespace halo
