#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/descriptor.h"
#include "engine/engine.h"
#include "engine/llama/llama_setup.h"
#include "engine/shared_memory.h"

struct llama_adapter_lora;
struct llama_context;
struct llama_model;

namespace halo {

class SpanLog;

/// KV of one sequence, lying in host memory: of this process, or shared with the one it came from.
struct KvBlob {
  std::unique_ptr<uint8_t[]> own;
  size_t own_bytes = 0;
  MappedMemory shared;  ///< in place of `own`
  int32_t tokens = 0;   ///< positions 0 .. tokens - 1

  std::string_view data() const {
    if (!own) return shared.text();
    return {reinterpret_cast<const char*>(own.get()), own_bytes};
  }
  int64_t size() const { return static_cast<int64_t>(data().size()); }
};

/// One llama.cpp context and its sequences: where KV is written, moved, cut and copied. Knows
/// nothing of requests. The only class that calls llama_memory_* and llama_state_seq_*. Not
/// thread-safe.
class KvRoom {
 public:
  struct Shape {
    KvLayout layout = KvLayout::kSplit;  ///< never kAuto here
    int32_t sequences = 1;               ///< at most 256
    int32_t tokens_per_sequence =
        0;               ///< split: cells of each stream; unified: most cells of one sequence
    int64_t tokens = 0;  ///< cells over all sequences
    int32_t threads = 1;
    int32_t batch_tokens = 2048;  ///< most tokens of one Decode
    int32_t micro_batch_tokens = 512;
    bool exact = false;  ///< exactness.h; split only

    /// Most tokens of a Decode that want logits: one of each sequence, and as many in all for those
    /// of few sequences.
    int32_t most_logits() const { return std::max(sequences, 16); }
  };

  /// Copies are recorded in `spans`, which may be null and outlives the room. Throws Error(kConfig)
  /// if the context cannot be made.
  KvRoom(llama_model* model, const Shape& shape, SpanLog* spans = nullptr);
  ~KvRoom();

  const Shape& shape() const { return shape_; }
  llama_context* context() { return context_.get(); }

  /// From now on Decode has so many threads.
  void UseThreads(int32_t threads);
  /// From now on Decode computes with the adapter; null: with the model as it is.
  void Apply(llama_adapter_lora* adapter, float scale);

  /// One token of a batch.
  struct BatchToken {
    TokenId token;
    int32_t position;
    int32_t sequence;
    bool wants_logits;
  };
  /// Computes KV for `batch` (ordered by sequence; positions of one sequence ascending and next to
  /// what it holds). True if it worked; false leaves the memory as it was if `restored`, else the
  /// touched sequences are undefined.
  bool Decode(const std::vector<BatchToken>& batch, bool& restored);
  /// Logits after batch entry `index` of the last Decode: [vocabulary].
  const float* Logits(int32_t index);

  void Clear(int32_t sequence);
  /// Drops positions from `tokens` on. False if this memory cannot be cut (then the sequence is
  /// cleared).
  bool Cut(int32_t sequence, int32_t tokens);
  /// The first `tokens` positions of `from` become `to`, which is overwritten. False if that failed
  /// (`to` is empty).
  bool CopyPrefix(int32_t from, int32_t to, int32_t tokens);
  /// Nothing if the sequence is empty or the copy failed.
  std::shared_ptr<const KvBlob> Export(int32_t sequence, int32_t tokens);
  /// The same into memory that can be shared; nothing if that failed.
  Descriptor ExportShared(int32_t sequence, int32_t tokens, int64_t& bytes);
  Descriptor ExportShared(const KvBlob& blob, int64_t& bytes);
  /// The first `tokens` positions of the blob become `sequence`. False if that failed (it is empty
  /// then).
  bool Import(const KvBlob& blob, int32_t sequence, int32_t tokens);

  EngineStatistics& statistics() { return statistics_; }

 private:
  struct ContextDeleter {
    void operator()(llama_context* context) const;
  };
  struct Batch;

  Shape shape_;
  SpanLog* spans_;
  std::unique_ptr<llama_context, ContextDeleter> context_;
  std::unique_ptr<Batch> batch_;
  std::vector<uint8_t> scratch_;
  PreparedMemory prepared_;
  EngineStatistics statistics_;
};

}  // namespace halo
