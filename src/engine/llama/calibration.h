#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/clock.h"
#include "model/vocabulary.h"

namespace halo {

struct CalibrationOptions {
  std::string model_name;
  std::string model_path;                        ///< has passed CheckGguf
  std::shared_ptr<const Vocabulary> vocabulary;  ///< of that file; immutable
  int32_t threads = 1;
  double budget_s = 180.0;  ///< no round is begun that would end later; one always is
  int64_t kv_bytes = 0;     ///< device memory for KV; 0: an eighth of the machine's memory
  /// Told where it stands, now and then; null: nobody is.
  std::function<void(const std::string&)> on_progress;
};

/// A pass of the engine's kind and what it took.
struct MeasuredPass {
  int32_t sequences = 1;
  int32_t tokens = 1;   ///< new ones of each sequence; 1 for decode steps
  int32_t context = 0;  ///< tokens of each that were there
  /// Longest less shortest, of prompts that all differ in length; 0: all equal.
  int32_t spread_tokens = 0;
  bool held_out = false;  ///< not to make a profile of, but to check it with
  double seconds = 0.0;   ///< median
  int32_t repetitions = 0;
};

/// KV of one sequence, copied or moved.
struct MeasuredMove {
  int32_t tokens = 0;
  double seconds = 0.0;  ///< median
};

/// Plain measurements of one model on this machine.
struct Calibration {
  std::vector<MeasuredPass> prefill, decode;
  std::vector<MeasuredMove> copies, spills, restores;
  double sampling_token_s = 0.0;  ///< a draw at temperature 0.7 and top_p 0.9
  double greedy_token_s = 0.0;    ///< median
  /// What a token under a grammar costs more than a greedy one, mean over an answer whose kind was
  /// seen before.
  double grammar_token_s = 0.0;
  double load_s = 0.0;       ///< of weights in the page cache, until a first token was computed
  double room_byte_s = 0.0;  ///< to lay out KV, for each byte
  int64_t weights_bytes = 0;
  int64_t kv_token_bytes = 0;
  bool exact = false;  ///< with the kernels of exact answers, where the engine would choose them
  bool on_accelerator = false;
  int32_t rounds = 0;
  double disturbed_share = 0.0;  ///< of the passes, while something else had the cores
  double elapsed_s = 0.0;
};

/// Measures passes as LlamaEngine makes them (llama_engine.cc), in the same split streams, with the
/// same kernels and batches, sampling between decode steps as there.
///
/// Everything is measured once in each of several rounds, in another order each time, so that what
/// happens on the machine meanwhile hits all alike; the result is the median. Readings during which
/// this process had less than nine tenths of its threads' time are disturbed: short ones are tried
/// again at once, and they count only where there are no others, the least of them then. The first
/// touch of memory is kept out by a warm-up.
///
/// Contexts are filled once and then taken from a copy: what KV says is of no matter to its speed.
/// Models so slow that a full round takes much of the budget are measured at fewer points.
///
/// Throws Error(kModel) or Error(kConfig), as making an engine does.
Calibration Calibrate(const CalibrationOptions& options, const Clock& clock);

}  // namespace halo
