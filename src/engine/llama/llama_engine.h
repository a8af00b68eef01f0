#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "engine/engine.h"
#include "engine/llama/batching_controller.h"
#include "engine/llama/grammar_cache.h"
#include "engine/llama/kv_disk.h"
#include "engine/llama/kv_room.h"
#include "engine/llama/llama_setup.h"
#include "engine/llama/loaded_model.h"
#include "engine/llama/prompt_lookup.h"
#include "engine/llama/step_sampler.h"
#include "engine/llama/token_tree.h"
#include "engine/span_log.h"
#include "model/vocabulary.h"

struct llama_adapter_lora;
struct llama_model;

namespace halo {

struct LlamaEngineOptions : LlamaSetup {
  std::shared_ptr<const Vocabulary> vocabulary;  ///< shared with the tokenizing side; immutable
  /// Told of a request before its first token is computed, and each time it goes on after a
  /// preemption. May be empty.
  std::function<void(RequestId)> on_begin;
};

/// llama.cpp behind the Engine seam: continuous batching, planned prefix reuse, admission by worst
/// case.
///
///   waiting --Admit--> prefilling --PrefillStep--> decoding --DecodeStep--> finished
///      ^                    |                          |
///      +------- Preempt (spilled, or to be computed again) <+
///
/// A step is a prefill or a decode pass, never both: mixing gains nothing on the CPU and cuts a
/// decode batch into more passes. Prefill goes first, so that decode runs with as many sequences as
/// there is work for. How large passes are, how many requests run side by side, how many free
/// sequences are worth a prefill pass, and how long that may hold up decoding, a
/// BatchingController finds out from what passes take. While an urgent request decodes, the two
/// take turns: a row of long prompts would hold up for seconds what needs a few more tokens.
///
/// Reuse. A TokenTree holds what each running, idle and parked holder of KV has or will have. A
/// request takes the longest prefix there is; if the longest is still being computed by another, it
/// waits for it (leader first), so that no prompt token is computed twice while it is known to be
/// needed. A finished request's KV stays in its sequence until that is needed, then moves to host
/// memory; what goes first when host memory is full is what has no known consumer, oldest first.
/// What has one goes to the disk, where reading it back takes less time than computing it again.
///
/// Adapters. llama.cpp applies an adapter to a whole context, so one batch has one adapter: what
/// runs together has the same, and waiting requests are taken adapter by adapter, in turns
/// (NextGroup). A change waits until nothing runs, unless a request of higher priority asks for it.
/// Each adapter has a tree of its own, since the same tokens have other KV; kept KV stays through
/// changes.
///
/// Fairness. A request whose adapter has no turn, or whose prefix is on its way, is passed by
/// kMostPassedPerSequence requests a sequence at most; one that waits for room by none.
///
/// Sequences. With split streams, running sequences must be ids 0 .. n-1 or llama.cpp cuts the
/// batch (ARCHITECTURE.md, "How passes are made up"), so a hole is filled by the next request or by
/// moving the last sequence down.
class LlamaEngine final : public Engine {
 public:
  static constexpr int32_t kDefaultSequences = 64;
  static constexpr int32_t kBatchTokens = 2048;  ///< most tokens of one prefill step
  /// What plans assume of a pass on a CPU: so many prompts of at least so many tokens are in it.
  static constexpr int32_t kLongPromptTokens = 128;
  static constexpr int32_t kLongTogether = 4;

  /// Loads the weights. Throws Error(kModel) or Error(kConfig).
  LlamaEngine(LlamaEngineOptions options, const Clock& clock);
  ~LlamaEngine() override;

  const EngineDescription& Describe() const override { return description_; }
  void Submit(Request request) override;
  void Cancel(RequestId id) override;
  void CancelWaiting() override;
  void Release(RequestId id, int32_t consumers) override;
  std::vector<Completion> Poll(int64_t deadline_us) override;
  int64_t pending() const override {
    return static_cast<int64_t>(live_.size() + completed_.size());
  }
  EngineStatistics Statistics() const override;
  void Export(RequestId id) override;
  std::vector<KvTransfer> TakeExports() override { return std::exchange(exports_, {}); }
  void Import(KvTransfer kv) override;
  /// Throws Error(kModel) if the file cannot be loaded any more.
  void Load() override;
  void Unload() override;
  Residency residency() const override {
    return model_ ? Residency::kLoaded : Residency::kUnloaded;
  }
  EngineSpans TakeSpans() override { return spans_.Take(); }

  /// Passes from now on have so many threads, in place of LlamaSetup::threads; at least 1. What the
  /// best passes are is found for each number of threads by itself.
  void UseThreads(int32_t threads);

  /// One batched pass, or nothing if there is nothing to do. What Poll repeats; for tests and the
  /// engine's own thread.
  void Step();
  /// Throws by HALO_CHECK if sequences, holders, tree and counts do not agree. For tests.
  void CheckInvariants() const;
  const KvRoom::Shape& room_shape() const;

 private:
  using HolderId = TokenTree::HolderId;

  /// A request on its way.
  struct Live {
    Request request;
    Completion completion;
    enum class State : uint8_t { kWaiting, kPrefilling, kDecoding } state = State::kWaiting;
    std::vector<TokenId> tokens;  ///< prompt, then the answer so far
    int32_t prompt_size = 0;
    int32_t max_tokens = 0;  ///< of the answer, after the context is taken into account
    int32_t computed = 0;    ///< leading tokens whose KV is in `sequence`
    int32_t sequence = -1;
    HolderId holder = -1;
    size_t group = 0;        ///< index into groups_
    double engine_us = 0.0;  ///< its share of passes so far
    int64_t passed = 0;      ///< by how many requests behind it
    int32_t high_water = 0;  ///< most tokens that were ever computed: below it is recomputation
    std::shared_ptr<const KvBlob> spilled;
    std::string text;                       ///< pieces of the answer so far, raw bytes
    bool counted = false;                   ///< reuse and prefill were counted (first attempt)
    std::shared_ptr<TokenGrammar> grammar;  ///< shared by requests with the same text; null: none
    TokenGrammar::Cursor cursor;            ///< in `grammar`, behind the answer so far
    PromptLookup lookup;
    GuessRate* guesses = nullptr;  ///< of all requests of its operator
    std::vector<TokenId> draft;    ///< guessed tokens that this step computes behind its last one

    /// Tokens of the answer so far.
    int32_t sampled() const { return static_cast<int32_t>(tokens.size()) - prompt_size; }
  };

  /// KV of a finished request, or a static prefix.
  struct Kept {
    RequestId request = 0;  ///< 0: a static prefix
    size_t group = 0;       ///< index into groups_
    std::vector<TokenId> tokens;
    int32_t consumers = 0;
    bool is_static = false;
    // Where it lies, one of:
    int32_t sequence = -1;
    std::shared_ptr<const KvBlob> blob;
    std::shared_ptr<KvDisk::Place> place;
    int64_t last_used = 0;
  };

  struct Sequence {
    Live* live = nullptr;  ///< running here
    HolderId kept = -1;    ///< idle KV lying here
  };

  /// (-priority, order, id): next first.
  using Rank = std::tuple<int64_t, int64_t, RequestId>;

  /// Requests of one adapter, and the KV that it made.
  struct Group {
    std::string adapter;                 ///< "": the model as it is, always the first group
    llama_adapter_lora* lora = nullptr;  ///< owned by the model
    float scale = 0.0F;
    std::map<Rank, Live*> waiting;
    TokenTree tree;
  };

  // Admission (admission.cc)
  static Rank RankOf(const Live& live);
  Group& GroupOf(const Live& live) { return groups_[live.group]; }
  bool AnyWaiting() const;
  bool IsClosedTo(const Rank& rank) const;
  void CountPassed(const Rank& by);
  size_t NextGroup() const;
  bool ChooseGroup();
  bool WaitsForRefill() const;
  void Admit();
  enum class Admission : uint8_t { kStarted, kWaitsForPrefix, kNoRoom };
  Admission TryAdmit(Live& live);
  struct Source {
    HolderId holder = -1;
    int32_t tokens = 0;
    bool still_computed = false;  ///< a longer prefix is on its way
    int64_t cost = 0;             ///< TakeCost
  };
  Source FindPrefix(const Live& live) const;
  /// Tokens of KV written and read to take the first `tokens` of a holder's: a stream is copied
  /// whole, through host memory, whatever part of it is wanted. Least first.
  int64_t TakeCost(const Live& live, HolderId holder, int32_t tokens) const;
  /// Whether this request may go on where the kept KV lies.
  static bool TakesOver(const Live& live, const Kept& kept, int32_t tokens);
  bool MakeRoom(const Live& live);
  int32_t ChooseSequence(const Live& live, const Source& source, bool& in_place);
  bool TakePrefix(Live& live, const Source& source, bool in_place);
  void Consume(RequestId kept_request);
  bool PreemptFor(const Live& live);
  void Preempt(Live& live);
  int64_t WorstCaseTokens(const Live& live) const;

  // What is kept (kept_kv.cc)
  void KeepOrFree(Live& live);
  void KeepStaticPrefix(const Live& live);
  /// Puts what a running sequence has computed into host memory, for others that begin so.
  void KeepComputed(const Live& live, bool is_static);
  void SpillKept(HolderId holder);
  void DropKept(HolderId holder);  ///< for room
  void Forget(HolderId holder);
  Descriptor ExportBlob(const KvBlob& blob, int64_t& bytes);
  void DropAllKept();
  void EvictKeptOver(int64_t budget_bytes);
  /// False if it is worth no place on the disk, or there is none.
  bool MoveToDisk(Kept& kept);
  /// Of KV that is in no sequence; null: it cannot be read back.
  std::shared_ptr<const KvBlob> BlobOf(const Kept& kept);
  double PrefillUsPerToken() const;
  void FreeSequence(int32_t sequence);
  void Compact();
  void MoveSequence(int32_t from, int32_t to);

  // Steps (llama_engine.cc)
  void Describe(const llama_model* model);
  void LoadAdapters();
  void EnsureRoom();
  void ShapeRoom(int64_t longest_request);
  void FailExpired();
  std::vector<Live*> ChoosePrefill() const;
  int32_t CountRunning(Live::State state) const;
  /// A request in this state; `urgent`: an urgent one.
  bool AnyRuns(Live::State state, bool urgent) const;
  /// False if there is nothing to prefill. `decoding` sequences wait for it.
  bool PrefillStep(int32_t decoding);
  /// One token of each of `decoding` sequences, or of as many as are computed together.
  void DecodeStep(int32_t decoding);
  void DraftFor(const std::vector<Live*>& lives);
  bool RunBatch(const std::vector<KvRoom::BatchToken>& batch, const std::vector<Live*>& lives);
  BatchingController& batching() { return batching_.at(threads_); }
  const BatchingController& batching() const { return batching_.at(threads_); }
  void Detach(Live& live);
  void RecordSpan(EngineSpan::Kind kind, int64_t start_us, size_t tokens = 0, size_t sequences = 0);

  // Answers (answers.cc)
  /// A request whose next token comes from these logits, [vocabulary]. Those of its draft come
  /// after it, each behind one token more.
  struct Drawn {
    Live* live = nullptr;
    const float* logits = nullptr;
  };
  void SampleNext(std::span<const Drawn> drawn);
  void TakeDrawn(std::span<const Drawn> of_one, std::span<const TokenDraw> draws);
  static void AddToHash(Live& live, std::span<const float> logits);
  // The request goes on: true. It has ended and is gone: false.
  bool SampleByGrammar(Live& live, std::span<const float> logits);
  /// `must_end`: nothing but an end token may follow.
  bool GoOnWith(Live& live, TokenId token, bool must_end);
  TokenId ChooseByGrammar(Live& live, std::span<const float> logits, bool hold_back_end,
                          double draw);
  /// True if nothing but an end token may follow.
  bool FollowGrammar(Live& live, TokenId token);
  bool StopsHere(Live& live, TokenId token);
  void Finish(Live& live, FinishReason reason);
  void Fail(Live& live, const char* code, std::string message, bool retriable);

  LlamaEngineOptions options_;
  const Clock& clock_;
  LlamaModelPointer model_;  ///< null: unloaded
  EngineDescription description_;
  std::unique_ptr<KvRoom> room_;  ///< null: nothing has run since it was loaded
  KvRoom::Shape last_shape_;      ///< of the last room; tokens 0: there was none
  int32_t threads_;               ///< of a pass
  /// By the number of threads that passes have, for a room of this layout and size.
  std::map<int32_t, BatchingController> batching_;
  bool exact_ = false;
  bool can_cut_ = true;  ///< full attention: prefixes can be taken

  std::unordered_map<RequestId, std::unique_ptr<Live>> live_;
  std::deque<Group> groups_;
  size_t group_ = 0;       ///< whose adapter is applied
  std::set<Rank> closes_;  ///< waiting requests that nothing behind them may pass any more
  std::vector<Sequence> sequences_;  ///< [room sequences]
  int32_t running_ = 0;
  bool prefilled_last_ = false;     ///< the last step computed prompts
  int64_t running_worst_case_ = 0;  ///< tokens, over running requests

  std::unordered_map<HolderId, Live*> live_holders_;
  std::unordered_map<HolderId, Kept> kept_;
  std::unordered_map<RequestId, HolderId> kept_of_request_;
  HolderId next_holder_ = 1;
  int64_t kept_bytes_ = 0;  ///< of blobs
  std::optional<KvDisk> disk_;
  int64_t use_counter_ = 0;

  std::unordered_map<std::string, GuessRate> guess_rates_;  ///< by operator
  int32_t drafted_steps_ = 0;  ///< decode steps since the last one without drafts

  StepSampler sampler_;
  GrammarCache grammars_;
  std::vector<TokenId> end_tokens_;  ///< ascending
  std::vector<Completion> completed_;
  std::vector<KvTransfer> exports_;
  SpanLog spans_;                ///< empty unless they are recorded
  EngineStatistics statistics_;  ///< what KvRoom does not count, and rooms that were replaced
};

}  // namespace halo
