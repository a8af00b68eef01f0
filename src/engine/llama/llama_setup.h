#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo {

/// How the cells of a context are divided. Measured on 2 cores with a 135M shape
/// (docs/benchmarks/engine.md): split streams decode at full speed however many there are, but each
/// has a fixed size and a fork copies; unified cells fork for nothing and serve mixed lengths, but
/// every token's attention scans all cells in use.
enum class KvLayout : uint8_t { kAuto, kUnified, kSplit };

/// Whether logits must not depend on how work is batched (exactness.h).
enum class Exactness : uint8_t {
  kOff,
  kIfFree,   ///< where it is known to hold and costs nothing, else off
  kIfKnown,  ///< where it is known to hold for the model, layout and build, else off
  kRequired  ///< where it is not known to hold, the engine is not made
};

/// A LoRA adapter that requests may name.
struct LlamaAdapter {
  std::string name;  ///< Request::adapter; not ""
  std::string path;  ///< has passed CheckLoraAdapter
  double scale = 1.0;

  friend bool operator==(const LlamaAdapter&, const LlamaAdapter&) = default;
};

/// What a LlamaEngine is made from, as plain values: it can be made in another process.
struct LlamaSetup {
  std::string model_name;
  std::string model_path;              ///< has passed CheckGguf
  std::vector<LlamaAdapter> adapters;  ///< loaded with the model; distinct names
  int32_t threads = 1;
  std::vector<int32_t> devices = {};  ///< places in Accelerators(); empty: all there are
  bool load = true;                   ///< false: it is made unloaded (Engine::Load)
  int32_t sequences = 0;  ///< requests that run at once; 0: LlamaEngine::kDefaultSequences
  int64_t kv_bytes = 0;   ///< device memory for KV; 0: a quarter of the machine's memory
  int64_t kept_bytes =
      0;  ///< host memory for kept and spilled KV; 0: an eighth of the machine's memory
  std::string kept_folder;      ///< for kept KV that host memory has no room for; "": none
  int64_t kept_disk_bytes = 0;  ///< of a file there; 0: none
  int32_t context_tokens = 0;   ///< longest prompt and answer; 0: what the model was trained for
  int32_t expected_tokens =
      0;  ///< longest prompt and answer foreseen; a hint for the first shape of the room
  KvLayout layout = KvLayout::kAuto;
  /// Tokens that answers are guessed to copy are computed beside the ones that are known, where
  /// they are guessed well (prompt_lookup.h). No answer changes by it but by rounding, and where
  /// logits do not depend on the batch not by that.
  bool prompt_lookup = true;
  bool reuse = true;  ///< false: every prompt is computed from its first token (the reference)
  Exactness exactness = Exactness::kOff;
  bool hash_logits = false;   ///< fills Completion::logits_hash
  bool record_spans = false;  ///< Engine::TakeSpans gives what it did
  int32_t batch_tokens = 0;  ///< tokens of a prefill pass; 0: the controller's choice, at most 2048
  int32_t micro_batch_tokens = 0;  ///< most tokens that are computed together; 0: 512
  /// Requests that run side by side, at most `sequences`; 0: the controller's choice.
  int32_t running_sequences = 0;
  /// Free sequences that are filled together while others decode; 0: the controller's choice.
  int32_t refill_sequences = 0;
  /// Guessed tokens of each sequence in a decode step; 0: as many as pay.
  int32_t draft_tokens = 0;

  friend bool operator==(const LlamaSetup&, const LlamaSetup&) = default;
};

}  // namespace halo
