#include "optimizer/cost_profile.h"

#include <algorithm>
#include <cmath>

namespace halo {
namespace {

/// What a point costs at a context.
template <typename Point>
double SecondsAt(const Point& point, double context) {
  return point.base_s + point.context_s * context;
}

double Between(double x, double x0, double y0, double x1, double y1) {
  return x1 > x0 ? y0 + (y1 - y0) * (x - x0) / (x1 - x0) : y1;
}

/// Points of one number of prompts: [first, last) of a profile's.
struct PrefillGroup {
  size_t first = 0, last = 0;
};

/// Seconds at `tokens`: linear between points; above the last by the slope of the last two, below
/// the first as the first, since a pass reads every weight however few its tokens are.
double SecondsOfGroup(const std::vector<PrefillPoint>& points, PrefillGroup group, double tokens,
                      double context) {
  const PrefillPoint& lowest = points[group.first];
  if (tokens <= lowest.tokens) return SecondsAt(lowest, context);
  if (group.last - group.first == 1) return SecondsAt(lowest, context) * tokens / lowest.tokens;
  size_t upper = group.first + 1;
  while (upper + 1 < group.last && points[upper].tokens < tokens) ++upper;
  const PrefillPoint& below = points[upper - 1];
  const PrefillPoint& above = points[upper];
  const double at_above = SecondsAt(above, context);
  // Noise may make the last two points cross; more tokens never cost less.
  return std::max(tokens > above.tokens ? at_above : 0.0,
                  Between(tokens, below.tokens, SecondsAt(below, context), above.tokens, at_above));
}

/// One pass over `prompts` (at least 1) prompts of `tokens` tokens each. Above the most prompts
/// that were measured, in proportion: by then the weights are read for many tokens at once.
double PassSeconds(const ModelProfile& profile, double prompts, double tokens, double context) {
  const std::vector<PrefillPoint>& points = profile.prefill;
  PrefillGroup below, above;
  for (size_t first = 0; first < points.size(); first = above.last) {
    below = above;
    above = {first, first + 1};
    while (above.last < points.size() && points[above.last].prompts == points[first].prompts)
      ++above.last;
    if (points[first].prompts >= prompts) break;
  }
  const double most = points[above.first].prompts;
  const double at_above = SecondsOfGroup(points, above, tokens, context);
  if (prompts >= most) return at_above * prompts / most;
  if (below.last == 0) return at_above;  // fewer than the fewest that were measured
  const double at_below = SecondsOfGroup(points, below, tokens, context);
  return Between(prompts, points[below.first].prompts, at_below, most, at_above);
}

/// How many lengths `prompts` prompts have, drawn evenly from `spread_tokens` + 1 lengths.
double DistinctLengths(double prompts, double spread_tokens) {
  const double lengths = 1.0 + std::max(0.0, spread_tokens);
  if (lengths <= 1.0) return 1.0;
  return std::max(1.0, lengths * -std::expm1(prompts * std::log1p(-1.0 / lengths)));
}

double StepSeconds(const ModelProfile& profile, double sequences, double context) {
  const std::vector<DecodePoint>& points = profile.decode;
  if (sequences <= points.front().sequences) return SecondsAt(points.front(), context);
  if (points.size() == 1)
    return SecondsAt(points.front(), context) * sequences / points.front().sequences;
  size_t upper = 1;
  while (upper + 1 < points.size() && points[upper].sequences < sequences) ++upper;
  const DecodePoint& below = points[upper - 1];
  const DecodePoint& above = points[upper];
  const double at_above = SecondsAt(above, context);
  return std::max(
      sequences > above.sequences ? at_above : 0.0,
      Between(sequences, below.sequences, SecondsAt(below, context), above.sequences, at_above));
}

}  // namespace

const ModelProfile* CostProfile::Find(const std::string& model_digest) const {
  for (const ModelProfile& model : models) {
    if (model.model_digest == model_digest) return &model;
  }
  return nullptr;
}

double PrefillSeconds(const ModelProfile& profile, double prompts, double tokens, double context,
                      const PrefillArrival& arrival) {
  if (profile.prefill.empty() || !(prompts > 0.0) || !(tokens > 0.0)) return 0.0;
  const PrefillPasses& passes = profile.passes;
  const double batch = passes.batch_tokens;
  const double whole = std::floor(tokens / batch);
  double seconds = 0.0;
  if (whole > 0.0) {
    // Passes that one prompt fills, each after those before it: a pass is linear in its context,
    // so their sum is so many times the one in the middle.
    const double middle = context + batch * (whole - 1.0) / 2.0;
    seconds += prompts * whole * PassSeconds(profile, 1.0, batch, middle);
  }
  const double rest = tokens - whole * batch;
  if (rest <= 0.0) return seconds;
  double at_most = rest >= passes.long_tokens ? passes.long_together : passes.sequences;
  if (arrival.together > 0.0) at_most = std::min(at_most, arrival.together);
  double together = std::max(1.0, std::min(std::floor(batch / rest), at_most));
  const auto pass = [&](double of) {
    const double parts = DistinctLengths(of, arrival.spread_tokens);
    return PassSeconds(profile, of, rest, context + whole * batch) + (parts - 1.0) * profile.part_s;
  };
  // All at once, the last pass has what is left; else passes vary about their mean anyway.
  if (arrival.together > 0.0) {
    together = std::min(together, std::max(1.0, prompts));
    return seconds + prompts / together * pass(together);
  }
  const double full = std::floor(prompts / together);
  const double left = prompts - full * together;
  if (full > 0.0) seconds += full * pass(together);
  return seconds + std::min(1.0, left) * pass(std::max(1.0, left));
}

double PromptsOfPass(double sequences, double output_tokens) {
  // Ends of answers in a step are about Poisson; a pass is made where there is one at least.
  const double ends = std::max(0.0, sequences) / std::max(1.0, output_tokens);
  return ends < 1e-6 ? 1.0 : ends / -std::expm1(-ends);
}

double DecodeSeconds(const ModelProfile& profile, double tokens, double sequences, double context) {
  if (profile.decode.empty() || !(tokens > 0.0)) return 0.0;
  const double together = std::max(1.0, sequences);
  return tokens / together * StepSeconds(profile, together, context);
}

// What two cores of an old laptop or a crowded virtual machine do, so that nobody is promised a run
// that then takes several times as long; the machine that Halo is developed on (2 cores) is three
// to six times as fast. With weights of one byte, a parameter, a token costs two operations for
// each byte of the weights; of two bytes (F16) half as many, which overstates on the safe side.
ModelProfile DefaultProfile(const std::string& model, int64_t weights_bytes,
                            int64_t kv_token_bytes) {
  constexpr double kBytesPerSecond = 6e9;  // of main memory, both cores together
  constexpr double kFlops = 3e10;          // of both cores, in matrix products
  constexpr double kAttentionFlops = 1e10;
  constexpr double kFlopsPerKvByte =
      4.0;                               // two products; four query heads share a KV head of halves
  constexpr double kPassSeconds = 1e-3;  // threads that wait for each other, layer by layer
  constexpr double kTouchBytesPerSecond = 5e8;
  const double weights = static_cast<double>(std::max<int64_t>(weights_bytes, 1 << 20));
  const double kv = static_cast<double>(std::max<int64_t>(kv_token_bytes, 256));
  const double read_s = kPassSeconds + weights / kBytesPerSecond;
  const double token_s = 2.0 * weights / kFlops;
  const double attention_s = kv * kFlopsPerKvByte / kAttentionFlops;  // a token, for each before it

  ModelProfile profile;
  profile.model = model;
  for (const int32_t prompts : {1, 64}) {
    for (const int32_t tokens : {1, 32, 512, 2048}) {
      const double all = static_cast<double>(tokens) * prompts;
      profile.prefill.push_back({tokens, read_s + all * (token_s + attention_s * tokens / 2.0),
                                 all * attention_s, prompts});
    }
  }
  for (const int32_t sequences : {1, 64})
    profile.decode.push_back({sequences, read_s + sequences * token_s, sequences * attention_s});
  profile.part_s = read_s;
  profile.sampling_token_s = 2e-3;  // 128k flat logits, one thread
  profile.greedy_token_s = 1e-4;
  profile.grammar_token_s = 1e-3;
  profile.load_s = 0.5 + weights / kTouchBytesPerSecond;
  profile.weights_bytes = weights_bytes;
  profile.kv_token_bytes = kv_token_bytes;
  profile.copy_token_s = profile.spill_token_s = profile.restore_token_s =
      kv / kTouchBytesPerSecond;
  profile.copy_s = profile.spill_s = profile.restore_s = 1e-3;
  profile.room_byte_s = 1.0 / kTouchBytesPerSecond;
  // A fast machine takes a fifth; a slower one than this is rare.
  profile.relative_error = 0.8;
  return profile;
}

}  // namespace halo
