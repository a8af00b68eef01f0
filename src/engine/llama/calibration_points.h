#pragma once

#include <cstdint>
#include <vector>

namespace halo {

/// A pass to measure: `sequences` sequences of `tokens` new tokens each, after `context`.
struct CalibrationPoint {
  int32_t sequences = 1;
  int32_t tokens = 1;
  int32_t context = 0;
  bool is_decode = false;
  bool held_out = false;  ///< the profile is checked with it
  /// Each prompt has so many tokens more than the one before it, `tokens` being the mean.
  int32_t step = 0;

  int32_t TokensOf(int32_t sequence) const {
    return tokens + step * (2 * sequence - sequences + 1) / 2;
  }
};

/// Cells of a room to measure in.
struct CalibrationRoom {
  int32_t sequences = 1;
  int32_t cells = 0;  ///< of each sequence
};

struct CalibrationLimits {
  int32_t trained_tokens = 0;  ///< the model's context
  int64_t kv_tokens = 0;       ///< room for KV, over all sequences
  int32_t sequences = 1;
  int32_t batch_tokens = 2048;
};

/// Below this a room is too small to tell a context's cost from noise.
inline constexpr int32_t kLeastCalibrationCells = 64;

/// Which passes are measured, and where: decode steps and wide passes over short prompts in `wide`,
/// passes over a few prompts in `deep`.
struct CalibrationPlan {
  CalibrationRoom wide, deep;
  std::vector<int32_t> contexts;  ///< descending: long, middle (held out), short
  std::vector<CalibrationPoint> points;

  /// Tokens computed in one round.
  double TokensOfRound() const;
  /// Leaves out points until a round computes at most `tokens` tokens, or no more can be left out.
  void Thin(double tokens);
};

CalibrationPlan PlanCalibration(const CalibrationLimits& limits);

}  // namespace halo
