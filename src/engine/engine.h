#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/descriptor.h"
#include "base/error.h"
#include "base/hash.h"
#include "model/span.h"

namespace halo {

/// Names a request to its engine; chosen by the caller, never used twice.
using RequestId = uint64_t;

/// What an engine is and can do. Constant over the engine's life.
struct EngineDescription {
  std::string name;  ///< "llama", "simulated", ...
  std::string model;
  Signature vocabulary;        ///< Vocabulary::id(); zero without token ids
  int32_t context_tokens = 0;  ///< most tokens of prompt and answer of one request
  int32_t sequences = 0;       ///< most requests that run at once
  int64_t kv_bytes_per_token = 0;
  int64_t kv_tokens = 0;       ///< room, over all sequences
  bool has_token_ids = false;  ///< prompts are ids; otherwise text
  bool has_kv = false;         ///< Request::keep and Release mean something
  bool exact = false;  ///< logits do not depend on batches, chunks, threads and where KV came from

  friend bool operator==(const EngineDescription&, const EngineDescription&) = default;
};

/// Sampling of one request, every number resolved. Order of application, as in vLLM: temperature,
/// then min_p, top_k and top_p on the tempered probabilities.
struct SamplingParameters {
  float temperature = 0.0F;  ///< 0: the likeliest token, the lowest id among equals
  float top_p = 1.0F;
  int32_t top_k = 0;  ///< 0: off
  float min_p = 0.0F;
  int32_t max_tokens = 256;  ///< 0: the prompt is computed, for others that begin with it
  int32_t min_tokens = 0;    ///< no end token, no stop string before this many tokens
  std::vector<std::string> stop;
  uint64_t draw_key = 0;  ///< draw k of the answer is UniformDraw(draw_key, k)

  friend bool operator==(const SamplingParameters&, const SamplingParameters&) = default;
};

/// What is worth keeping of a request's KV after it has finished.
struct KeepHint {
  int32_t consumers = 0;  ///< requests still to come, with the same adapter, whose prompt begins
                          ///< with this one's prompt
  bool answer = false;    ///< they begin with prompt and answer (a conversation that goes on)

  /// Beyond them, no request is expected to begin with more of it than chance gives.
  bool lone = false;

  friend bool operator==(const KeepHint&, const KeepHint&) = default;
};

/// One LLM call. A plain value: it can be written to a pipe and read in another process.
struct Request {
  RequestId id = 0;
  std::vector<TokenId> prompt_tokens;  ///< for engines with token ids
  std::string prompt_text;             ///< for the others
  SamplingParameters sampling;
  /// The LoRA adapter that computes it, by the name that the engine was given it under; "": none.
  /// Another name fails the request ("unknown_adapter").
  std::string adapter;
  /// GBNF that the answer is kept to; "" for any text. End tokens are allowed exactly where the
  /// grammar may end, `min_tokens` or not where it must; no other control token ever is. What goes
  /// wrong with a grammar ("bad_grammar", "grammar_limit", "grammar_dead_end") fails the request.
  std::string grammar;
  int32_t static_prefix_tokens =
      0;  ///< leading tokens that every request of its operator has: always kept
  /// An earlier request, with the same adapter, of whose KeepHint this is one consumer; 0: none.
  RequestId consumes = 0;
  KeepHint keep;
  int32_t priority = 0;  ///< higher goes first and may preempt lower
  int64_t order = 0;     ///< among equal priorities lower goes first
  /// Something outside idles until it is answered: its tokens are not held up by the prompts of
  /// requests that came after it.
  bool urgent = false;
  int64_t deadline_us = 0;      ///< on the engine's clock; 0: none. Past it the request fails.
  std::string script_operator;  ///< who asks, for simulated engines and traces
  std::string script_row;
  /// Place of its row in the source: what shares of rows are told apart by where several workers
  /// run one operator.
  int64_t row_index = 0;
  /// The worker that the plan has it run on; -1: any. For whoever chooses among engines; it goes no
  /// further.
  int32_t worker = -1;
  int32_t script_sample = 0;   ///< which of the operator's samples
  int32_t script_attempt = 0;  ///< 0: the first

  friend bool operator==(const Request&, const Request&) = default;
};

enum class FinishReason : uint8_t { kEndToken, kStopString, kMaxTokens, kFailed };

/// The one answer to a request. Each submitted request gets exactly one, cancelled ones too
/// (failure "cancelled").
struct Completion {
  RequestId id = 0;
  FinishReason finish = FinishReason::kFailed;
  std::optional<Failure> failure;
  std::vector<TokenId> tokens;  ///< sampled ids, the end token included; a stop string's tokens too
  std::string text;             ///< well-formed UTF-8, cut before a stop string
  bool cut = false;  ///< text is shorter than what `tokens` say (a stop string was cut off)
  int64_t prompt_tokens = 0;  ///< = reused + prefilled
  int64_t reused_tokens = 0;
  int64_t prefilled_tokens = 0;
  int64_t recomputed_tokens = 0;  ///< computed again after a preemption
  int64_t output_tokens = 0;
  int64_t started_us = 0, finished_us = 0;
  int64_t engine_us = 0;     ///< its share of the passes that computed it: by tokens, by sequences
  uint64_t logits_hash = 0;  ///< over the logits of every sampled token, in order, where the engine
                             ///< was made to hash them
  int32_t worker = 0;        ///< that ran it; said by whoever chose among several

  friend bool operator==(const Completion&, const Completion&) = default;
};

/// Counters of an engine since it was made.
struct EngineStatistics {
  int64_t steps = 0;  ///< batched passes, prefill and decode
  int64_t decode_steps = 0;
  int64_t decode_tokens = 0;  ///< over decode steps; the mean batch is decode_tokens / decode_steps
  /// Guessed tokens that were computed in decode steps, and those of them that came out.
  int64_t draft_tokens = 0, accepted_tokens = 0;
  int64_t prefill_tokens = 0;
  int64_t busy_us = 0;
  int64_t prefill_us = 0, decode_us = 0, sampling_us = 0, copy_us = 0;
  int64_t grammar_us = 0;  ///< finding what grammars allow, and following them
  int64_t forks = 0;       ///< prefixes taken over from another request
  int64_t copies = 0;      ///< KV copied between sequences
  // Where KV of finished requests goes:
  int64_t keeps = 0;                        ///< stays in its sequence for others
  int64_t spills = 0, restores = 0;         ///< to and from host memory
  int64_t disk_writes = 0, disk_reads = 0;  ///< from host memory to the disk and back
  int64_t disk_faults = 0;                  ///< of the disk; nothing goes there after the first
  int64_t evictions = 0;  ///< dropped for room, to be computed again if it is wanted
  int64_t preemptions = 0;
  int64_t migrations = 0;  ///< KV given to another engine
  int64_t adapter_changes = 0;
  int64_t restarts = 0;  ///< of the process that hosts it
  int64_t loads = 0;     ///< of weights onto the device
  int64_t load_us = 0;   ///< that these took

  friend bool operator==(const EngineStatistics&, const EngineStatistics&) = default;
};

/// Something that an engine did, for traces.
struct EngineSpan {
  enum class Kind : uint8_t {
    kPrefill,  ///< a pass over prompts
    kDecode,   ///< a pass over one token of each sequence
    kSpill,    ///< KV to host memory
    kRestore,  ///< and back
    kCopy,     ///< KV between sequences
    kLoad,     ///< weights and adapters
    kLayOut,   ///< room for KV
    kRestart   ///< from the loss of its process until the next one has an engine
  };
  Kind kind = Kind::kPrefill;
  int64_t start_us = 0, end_us = 0;  ///< on the steady clock, which all processes share
  int64_t tokens = 0;                ///< computed by a pass; whose KV was moved
  // Of passes:
  int32_t sequences = 0;  ///< in the batch
  int32_t running = 0;    ///< sequences with a request
  int64_t kv_tokens = 0;  ///< in the sequences after it, kept ones included

  friend bool operator==(const EngineSpan&, const EngineSpan&) = default;
};
struct EngineSpans {
  std::vector<EngineSpan> spans;
  int64_t left_out = 0;  ///< nobody took them in time

  friend bool operator==(const EngineSpans&, const EngineSpans&) = default;
};

/// Fairness of engines that let requests pass one which waits for something other than a sequence
/// (its adapter's turn, its model, a prefix that is on its way): by so many requests behind it, for
/// each sequence of the engine, a request is passed at most; none behind it begins after that until
/// it has. Four rounds of all that run are what a change of adapter or model, which has to wait
/// until nothing runs, costs little beside.
inline constexpr int64_t kMostPassedPerSequence = 4;

/// KV of a finished request on its way from one engine to another of the same model. `kv` crosses
/// as what it is: sealed memory that processes share.
struct KvTransfer {
  RequestId id = 0;  ///< whose it is; the engine that takes it knows it by this
  std::string adapter;
  std::vector<TokenId> tokens;                ///< whose KV it is, in order
  int64_t bytes = 0;                          ///< of `kv`; 0: nothing was left of it
  std::shared_ptr<const Descriptor> kv = {};  ///< shared by those that hand it on; null: nothing
};

/// Where an engine's weights and its room for KV are. kChanging: it was told to load or unload, and
/// has not done so yet.
enum class Residency : uint8_t { kLoaded, kUnloaded, kChanging };

/// One model replica (docs/ARCHITECTURE.md). Nothing but plain values crosses; no call blocks but
/// Poll. One caller thread.
///
/// Life of a request:  Submit -> waiting -> running -> [preempted -> waiting ...] -> finished ->
/// one Completion. The engine's own business: batching, the order of work within priorities, the
/// prefix tree and where KV lies.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual const EngineDescription& Describe() const = 0;
  /// Takes a request. Whatever is wrong with it comes back as its Completion.
  virtual void Submit(Request request) = 0;
  /// Ends a request early; its Completion says "cancelled" unless it had finished.
  virtual void Cancel(RequestId id) = 0;
  /// Cancels every request that has not started; what runs goes on.
  virtual void CancelWaiting() = 0;
  /// `consumers` of what `id` keeps will never come (their rows failed, say).
  virtual void Release(RequestId id, int32_t consumers) = 0;
  /// Gives one consumer's share of what `id` keeps to another engine: a copy comes with
  /// TakeExports, also where nothing is left of it, and one consumer less is waited for here. This
  /// and Import are for engines with KV and token ids.
  virtual void Export(RequestId /*id*/) {}
  /// What Export has brought since, in order.
  virtual std::vector<KvTransfer> TakeExports() { return {}; }
  /// Takes KV for one request that is still to come, whose Request::consumes is the transfer's id.
  virtual void Import(KvTransfer /*kv*/) {}
  /// Takes weights onto the device, ahead of the first request that needs them.
  virtual void Load() {}
  /// Gives weights and room for KV back, so that another model may have the memory. What is kept
  /// stays, in host memory. Only while nothing is pending; the next request loads it again.
  virtual void Unload() {}
  virtual Residency residency() const { return Residency::kLoaded; }
  /// Works or waits until something has finished, nothing is left to do, or `deadline_us` on the
  /// engine's clock (0: do not wait, at most one step of work). Returns what finished, in order.
  virtual std::vector<Completion> Poll(int64_t deadline_us) = 0;
  /// Requests submitted and not yet completed.
  virtual int64_t pending() const = 0;
  virtual EngineStatistics Statistics() const = 0;
  /// What it did since it was last asked, where it was made to record that; each kind in order.
  virtual EngineSpans TakeSpans() { return {}; }
  /// For waiting on several things at once: a descriptor that is readable when Poll has something
  /// to do, the same over the engine's life. -1: the engine works inside Poll, so that whoever
  /// waits for it has to call that.
  virtual int ready_descriptor() const { return -1; }
};

}  // namespace halo
