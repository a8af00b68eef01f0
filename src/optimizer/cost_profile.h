#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/estimate.h"

namespace halo {

/// Seconds of one prefill pass over `prompts` prompts of `tokens` new tokens each, after `context`
/// tokens of each that are there already: base_s + context_s * context. Points ascend by (prompts,
/// tokens). Between two of equal prompts, linear in tokens; between two numbers of prompts, linear
/// in prompts.
struct PrefillPoint {
  int32_t tokens = 0;  ///< of each prompt
  double base_s = 0.0;
  double context_s = 0.0;
  int32_t prompts = 1;
};

/// How the engine puts prompts into passes, which decides which points matter.
struct PrefillPasses {
  int32_t batch_tokens = 2048;  ///< most tokens of a pass
  int32_t long_tokens = 128;    ///< prompts with at least so many go by few
  int32_t long_together = 4;    ///< most long prompts of a pass
  int32_t sequences = 64;       ///< most short prompts of a pass

  friend bool operator==(const PrefillPasses&, const PrefillPasses&) = default;
};

/// Seconds of one decode step of `sequences` sequences whose KV is `context` tokens long each:
/// base_s + context_s * context. Between two points linear in sequences.
struct DecodePoint {
  int32_t sequences = 0;
  double base_s = 0.0;
  double context_s = 0.0;
};

/// What one model costs on one device. Units are in the names; tokens are the model's.
struct ModelProfile {
  std::string model;         ///< name that a person knows it by; says nothing
  std::string model_digest;  ///< of the file: what the profile belongs to
  PrefillPasses passes;
  std::vector<PrefillPoint> prefill;
  std::vector<DecodePoint> decode;
  double part_s = 0.0;            ///< of a prefill pass, for each part but one that it is cut into
  double sampling_token_s = 0.0;  ///< of a drawn token (temperature > 0)
  double greedy_token_s = 0.0;    ///< of a token at temperature 0
  double grammar_token_s = 0.0;   ///< more, for a token that is kept to a schema
  double load_s = 0.0;  ///< until the first token can be computed; the file in the page cache
  int64_t weights_bytes = 0;
  int64_t kv_token_bytes = 0;
  double copy_token_s = 0.0, spill_token_s = 0.0, restore_token_s = 0.0;
  double copy_s = 0.0, spill_s = 0.0, restore_s = 0.0;  ///< of each, whatever its length
  double room_byte_s = 0.0;     ///< to lay out room for KV, for each byte of it (first touch)
  double relative_error = 0.0;  ///< of what the points predict, by measurements kept apart
  bool measured = false;        ///< false: conservative defaults
  bool exact = false;           ///< measured with the kernels of exact answers
};

/// The costs of a machine: what `halo calibrate` measured, kept up by runs.
struct CostProfile {
  static constexpr int32_t kVersion = 1;
  std::string machine;  ///< MachineFingerprint() where it was measured
  int32_t threads = 0;
  std::vector<ModelProfile> models;

  const ModelProfile* Find(const std::string& model_digest) const;
};

/// How prompts come to an engine.
struct PrefillArrival {
  /// Prompts that a pass finds, on average; 0: all of them are there at once.
  double together = 0.0;
  /// Tokens between the shortest and the longest; a pass is cut into parts of equal lengths.
  double spread_tokens = 0.0;
};

/// Total engine seconds to prefill `prompts` prompts of `tokens` new tokens each, after `context`
/// tokens each that are there, in passes as the engine makes them. `prompts` may be a share of one:
/// that share of a prompt's seconds.
double PrefillSeconds(const ModelProfile& profile, double prompts, double tokens, double context,
                      const PrefillArrival& arrival = {});
/// Prompts that a pass finds where each takes the place of an answer that has ended: `sequences`
/// run, and answers of `output_tokens` on average end independently of each other.
/// PrefillArrival::together of operators that follow others.
double PromptsOfPass(double sequences, double output_tokens);
/// Total engine seconds to decode `tokens` tokens in steps of `sequences` at a mean length of
/// `context` tokens; sampling and grammars not included.
double DecodeSeconds(const ModelProfile& profile, double tokens, double sequences, double context);

/// Rates that a slow machine has, from the size of the weights: for models nobody has measured.
ModelProfile DefaultProfile(const std::string& model, int64_t weights_bytes,
                            int64_t kv_token_bytes);

/// JSON, one object, numbers in full precision. Reading throws Error(kConfig) naming `path` and
/// everything that is wrong: another version, keys that are missing or unknown, numbers that are no
/// costs (negative, not finite, huge), points out of order, more than a machine could have
/// measured.
std::string ToJson(const CostProfile& profile);
CostProfile ReadCostProfile(const std::string& text, const std::string& path);

}  // namespace halo
