#include "session/calibrate.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <thread>

#include "base/clock.h"
#include "engine/llama/llama_engine.h"
#include "model/gguf_check.h"
#include "model/model_digest.h"
#include "session/machine.h"
#include "session/profile_store.h"

namespace halo {
namespace {

/// What a decode step takes at any context: a line through the contexts that were measured.
std::vector<DecodePoint> DecodePoints(const std::vector<MeasuredPass>& measured) {
  std::vector<MeasuredPass> steps;
  for (const MeasuredPass& pass : measured) {
    if (!pass.held_out) steps.push_back(pass);
  }
  std::sort(steps.begin(), steps.end(), [](const MeasuredPass& a, const MeasuredPass& b) {
    return std::pair(a.sequences, a.context) < std::pair(b.sequences, b.context);
  });
  std::vector<DecodePoint> points;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (points.empty() || points.back().sequences != steps[i].sequences) {
      points.push_back({steps[i].sequences, steps[i].seconds, 0.0});
      continue;
    }
    const MeasuredPass& less = steps[i - 1];
    DecodePoint& point = points.back();
    // A longer context is never quicker; what looks like it is noise.
    point.context_s =
        std::max(0.0, (steps[i].seconds - less.seconds) / (steps[i].context - less.context));
    // Nor is a short context most of a step, which reads every weight.
    point.base_s = std::max(less.seconds / 2.0, less.seconds - point.context_s * less.context);
  }
  return points;
}

/// What a context costs a prompt's token, measured at some passes.
struct ContextRate {
  int32_t prompts = 1, tokens = 1;
  double token_s = 0.0;  ///< for each token of context
};

/// Of the pass most like this one; attention of few and of many rows runs in other kernels.
double ContextRateOf(const std::vector<ContextRate>& rates, int32_t prompts, int32_t tokens) {
  double nearest = std::numeric_limits<double>::infinity(), token_s = 0.0;
  for (const ContextRate& rate : rates) {
    const double distance = std::abs(std::log(static_cast<double>(tokens) / rate.tokens)) +
                            0.5 * std::abs(std::log(static_cast<double>(prompts) / rate.prompts));
    if (distance < nearest) {
      nearest = distance;
      token_s = rate.token_s;
    }
  }
  return token_s;
}

std::vector<PrefillPoint> PrefillPoints(const std::vector<MeasuredPass>& measured,
                                        const std::vector<DecodePoint>& decode) {
  std::vector<PrefillPoint> points;
  for (const MeasuredPass& pass : measured) {
    if (!pass.held_out && pass.context == 0 && pass.spread_tokens == 0)
      points.push_back({pass.tokens, pass.seconds, 0.0, pass.sequences});
  }
  std::vector<ContextRate> rates;
  for (const MeasuredPass& pass : measured) {
    if (pass.held_out || pass.context == 0) continue;
    for (const PrefillPoint& base : points) {
      if (base.prompts != pass.sequences || base.tokens != pass.tokens) continue;
      const double more_s = std::max(0.0, pass.seconds - base.base_s);
      rates.push_back({base.prompts, base.tokens,
                       more_s / pass.context / (double{1} * base.prompts * base.tokens)});
    }
  }
  for (PrefillPoint& point : points) {
    point.context_s = ContextRateOf(rates, point.prompts, point.tokens) *
                      static_cast<double>(point.prompts) * point.tokens;
  }
  // A pass over one token of each prompt is what a decode step is.
  for (const DecodePoint& step : decode) {
    const bool has_others =
        std::any_of(points.begin(), points.end(),
                    [&](const PrefillPoint& point) { return point.prompts == step.sequences; });
    if (has_others) points.push_back({1, step.base_s, step.context_s, step.sequences});
  }
  std::sort(points.begin(), points.end(), [](const PrefillPoint& a, const PrefillPoint& b) {
    return std::pair(a.prompts, a.tokens) < std::pair(b.prompts, b.tokens);
  });
  return points;
}

/// fixed_s + token_s * tokens, by least squares.
void FitMoves(const std::vector<MeasuredMove>& moves, double& fixed_s, double& token_s) {
  if (moves.empty()) return;
  double tokens = 0.0, seconds = 0.0, squares = 0.0, products = 0.0;
  for (const MeasuredMove& move : moves) {
    tokens += move.tokens;
    seconds += move.seconds;
  }
  const auto count = static_cast<double>(moves.size());
  for (const MeasuredMove& move : moves) {
    const double apart = move.tokens - tokens / count;
    squares += apart * apart;
    products += apart * (move.seconds - seconds / count);
  }
  if (products <= 0.0 || squares <= 0.0) {
    // Longer ones were no slower: how memory was had said more than how much. By the token, then,
    // which costs long ones dearly rather than nothing.
    fixed_s = 0.0;
    token_s = tokens > 0.0 ? seconds / tokens : 0.0;
    return;
  }
  token_s = products / squares;
  fixed_s = std::max(0.0, (seconds - token_s * tokens) / count);
}

/// What is predicted of a pass that was measured.
double PredictedSeconds(const ModelProfile& profile, const MeasuredPass& pass, bool is_decode) {
  if (is_decode) return DecodeSeconds(profile, pass.sequences, pass.sequences, pass.context);
  // Lengths that are known to differ are all parts of their own.
  const double parts_s = pass.spread_tokens > 0 ? (pass.sequences - 1) * profile.part_s : 0.0;
  return PrefillSeconds(profile, pass.sequences, pass.tokens, pass.context) + parts_s;
}

/// What passes over prompts of different lengths take more, for each part but one.
double PartSeconds(const ModelProfile& profile, const std::vector<MeasuredPass>& measured) {
  double sum_s = 0.0;
  int32_t count = 0;
  for (const MeasuredPass& pass : measured) {
    if (pass.held_out || pass.spread_tokens == 0) continue;
    const double even_s = PrefillSeconds(profile, pass.sequences, pass.tokens, pass.context);
    sum_s += std::max(0.0, pass.seconds - even_s) / (pass.sequences - 1);
    ++count;
  }
  return count > 0 ? sum_s / count : 0.0;
}

/// Four of five predictions of held-out passes are off by at most this share.
double RelativeError(const ModelProfile& profile, const Calibration& calibration) {
  std::vector<double> errors;
  for (const bool is_decode : {false, true}) {
    for (const MeasuredPass& pass : is_decode ? calibration.decode : calibration.prefill) {
      if (pass.held_out && pass.seconds > 0.0)
        errors.push_back(std::abs(PredictedSeconds(profile, pass, is_decode) / pass.seconds - 1.0));
    }
  }
  constexpr double kUnknown = 0.25;  // nothing was held out
  if (errors.empty()) return kUnknown;
  std::sort(errors.begin(), errors.end());
  constexpr double kShare = 0.8;
  return errors[static_cast<size_t>(std::ceil(kShare * static_cast<double>(errors.size()))) - 1];
}

std::string PassLines(const ModelProfile& profile, const Calibration& calibration) {
  std::string text;
  for (const bool is_decode : {false, true}) {
    std::vector<MeasuredPass> passes = is_decode ? calibration.decode : calibration.prefill;
    std::sort(passes.begin(), passes.end(), [](const MeasuredPass& a, const MeasuredPass& b) {
      return std::tuple(a.sequences, a.tokens, a.context) <
             std::tuple(b.sequences, b.tokens, b.context);
    });
    text += fmt::format("\n{:<9}{:>9}{:>8}{:>9}{:>12}{:>12}\n", is_decode ? "decode" : "prefill",
                        is_decode ? "sequences" : "prompts", "tokens", "context", "ms", "tokens/s");
    for (const MeasuredPass& pass : passes) {
      const double tokens = static_cast<double>(pass.sequences) * pass.tokens;
      text += fmt::format("{:<9}{:>9}{:>8}{:>9}{:>12.3f}{:>12.0f}", "", pass.sequences, pass.tokens,
                          pass.context, pass.seconds * 1e3, tokens / pass.seconds);
      if (pass.spread_tokens > 0) text += fmt::format("  lengths differ by {}", pass.spread_tokens);
      if (pass.held_out) {
        text += fmt::format("  held out, predicted {:.3f} ms",
                            PredictedSeconds(profile, pass, is_decode) * 1e3);
      }
      text += "\n";
    }
  }
  return text;
}

std::string Report(const ModelProfile& profile, const Calibration& calibration) {
  std::string text = PassLines(profile, calibration);
  text += fmt::format(
      "\n{:<22}{:>12.1f} us at temperature 0.7, {:.1f} us greedy, {:.1f} us more "
      "under a schema\n",
      "a token's sampling", profile.sampling_token_s * 1e6, profile.greedy_token_s * 1e6,
      profile.grammar_token_s * 1e6);
  text += fmt::format("{:<22}{:>12.3f} s\n", "load", profile.load_s);
  text += fmt::format("{:<22}{:>12.3f} ms more for each other length\n", "prompts of a pass",
                      profile.part_s * 1e3);
  const auto move = [&](const char* name, double fixed_s, double token_s,
                        const std::vector<MeasuredMove>& moves) {
    text += fmt::format("{:<22}{:>12.3f} ms and {:.3f} us a token:", name, fixed_s * 1e3,
                        token_s * 1e6);
    for (const MeasuredMove& one : moves)
      text += fmt::format(" {} in {:.3f} ms", one.tokens, one.seconds * 1e3);
    text += "\n";
  };
  move("KV copied", profile.copy_s, profile.copy_token_s, calibration.copies);
  move("KV spilled", profile.spill_s, profile.spill_token_s, calibration.spills);
  move("KV restored", profile.restore_s, profile.restore_token_s, calibration.restores);
  text += fmt::format("{:<22}{:>12.2f} ms a MiB\n", "room for KV",
                      profile.room_byte_s * 1e3 * (1 << 20));
  text += fmt::format("{:<22}{:>12} bytes a token, weights {:.1f} MB, {} kernels\n", "KV",
                      profile.kv_token_bytes, static_cast<double>(profile.weights_bytes) * 1e-6,
                      profile.exact ? "exact" : "stock");
  text += fmt::format("{:<22}{:>12.1f} % (four of five held-out passes)\n", "error at most",
                      profile.relative_error * 100.0);
  text += fmt::format("{:<22}{:>12.1f} s, {} rounds\n", "took", calibration.elapsed_s,
                      calibration.rounds);
  constexpr double kMuch = 0.25;
  if (calibration.disturbed_share > kMuch) {
    text += fmt::format(
        "note: during {:.0f} % of the readings something else used the cores; "
        "calibrate again when the machine is quiet\n",
        calibration.disturbed_share * 100.0);
  }
  return text;
}

}  // namespace

ModelProfile ProfileFrom(const Calibration& calibration, const std::string& model,
                         const std::string& model_digest) {
  ModelProfile profile;
  profile.model = model;
  profile.model_digest = model_digest;
  profile.passes.batch_tokens = LlamaEngine::kBatchTokens;
  profile.passes.long_tokens = LlamaEngine::kLongPromptTokens;
  profile.passes.sequences = LlamaEngine::kDefaultSequences;
  profile.passes.long_together =
      calibration.on_accelerator ? LlamaEngine::kDefaultSequences : LlamaEngine::kLongTogether;
  profile.decode = DecodePoints(calibration.decode);
  profile.prefill = PrefillPoints(calibration.prefill, profile.decode);
  profile.part_s = PartSeconds(profile, calibration.prefill);
  profile.sampling_token_s = calibration.sampling_token_s;
  profile.greedy_token_s = calibration.greedy_token_s;
  profile.grammar_token_s = calibration.grammar_token_s;
  profile.load_s = calibration.load_s;
  profile.weights_bytes = calibration.weights_bytes;
  profile.kv_token_bytes = calibration.kv_token_bytes;
  FitMoves(calibration.copies, profile.copy_s, profile.copy_token_s);
  FitMoves(calibration.spills, profile.spill_s, profile.spill_token_s);
  FitMoves(calibration.restores, profile.restore_s, profile.restore_token_s);
  profile.room_byte_s = calibration.room_byte_s;
  profile.exact = calibration.exact;
  profile.measured = true;
  profile.relative_error = RelativeError(profile, calibration);
  return profile;
}

CalibrateOutcome CalibrateModel(const CalibrateRequest& request) {
  const SteadyClock clock;
  CalibrationOptions options;
  options.threads = request.threads > 0
                        ? request.threads
                        : static_cast<int32_t>(std::max(1U, std::thread::hardware_concurrency()));
  CalibrateOutcome outcome;
  outcome.machine = MachineFingerprint(options.threads);
  CheckGguf(request.model_path);
  CheckProfileFile(request.profile_path, outcome.machine);
  const std::string digest = ModelFileDigest(request.model_path);
  options.model_name = request.model;
  options.model_path = request.model_path;
  options.vocabulary = Vocabulary::Load(request.model_path);
  options.budget_s = request.budget_s;
  options.on_progress = request.on_progress;
  const Calibration calibration = Calibrate(options, clock);
  outcome.profile = ProfileFrom(calibration, request.model, digest);
  StoreModelProfile(request.profile_path, outcome.machine, options.threads, outcome.profile);
  outcome.report = Report(outcome.profile, calibration);
  return outcome;
}

}  // namespace halo
