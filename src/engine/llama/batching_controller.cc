#include "engine/llama/batching_controller.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/check.h"

namespace halo {
namespace {

constexpr size_t kReadings = 9;
/// Readings of each number in a trial: after the fewer it ends unless the other one seems better by
/// a little.
constexpr size_t kFewReadings = 5;
constexpr size_t kManyReadings = 15;
constexpr double kClearGain = 0.06;
constexpr double kLeastGain = 0.02;
/// A pass of fewer units than this share of what was wanted says nothing of that.
constexpr double kFullShare = 0.8;
/// A trial for which there is too little work is given up.
constexpr int32_t kMostTrialPasses = 96;
constexpr int32_t kFirstPause = 8;
constexpr int32_t kLongestPause = 1024;
/// What is tried beside the number in force, most telling first.
constexpr std::array kRatios = {0.5, 2.0, 0.75, 1.5};
/// Refills of a larger share would leave a batch narrow for long.
constexpr int32_t kLeastRefills = 4;
/// Fixed costs of a prefill pass in those of a decode pass: what is believed of measurements.
constexpr double kLeastFixedRatio = 0.25, kMostFixedRatio = 8.0;
/// The same before both were measured: 2 to 4 ms and 1 to 2 ms with the tiny shape on a CPU.
constexpr double kUnmeasuredFixedRatio = 2.0;
/// Weight of the last answer in their mean length.
constexpr double kAnswerWeight = 1.0 / 32.0;

double MedianOf(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

bool IsFull(int32_t units, int32_t wanted) {
  return units <= wanted && static_cast<double>(units) >= kFullShare * wanted;
}

}  // namespace

void RecentMedian::Add(double value) {
  if (values_.size() < kReadings) {
    values_.push_back(value);
    return;
  }
  values_[next_] = value;
  next_ = (next_ + 1) % kReadings;
}

double RecentMedian::Value() const { return values_.empty() ? 0.0 : MedianOf(values_); }

TriedNumber::TriedNumber(int32_t value, int32_t least, int32_t most)
    : value_(value), least_(least), most_(most), until_trial_(kFirstPause), pause_(kFirstPause) {
  HALO_CHECK(least >= 1 && least <= value && value <= most, "a number lies within its bounds");
}

int32_t TriedNumber::most_wanted() const {
  if (trial_) return std::max(value_, trial_->other);
  // Room for more has to be there before it can be tried.
  const std::optional<int32_t> other = until_trial_ == 0 ? Candidate(value_) : std::nullopt;
  return std::max(value_, other.value_or(value_));
}

std::optional<int32_t> TriedNumber::Candidate(int32_t usual) const {
  const double wanted = std::round(kRatios[ratio_] * usual);
  const auto other = static_cast<int32_t>(std::clamp<double>(wanted, least_, most_));
  if (other == usual || other == value_) return std::nullopt;
  return other;
}

void TriedNumber::Start(int32_t work) {
  const int32_t usual = std::min(value_, work);
  const std::optional<int32_t> other = usual >= least_ ? Candidate(usual) : std::nullopt;
  if (other && *other <= work) {
    trial_ = Trial{usual, *other, 0, {}, {}};
    return;
  }
  // The next ratio: another time if this one only lacks work.
  ratio_ = (ratio_ + 1) % kRatios.size();
  if (ratio_ == 0) until_trial_ = pause_;
}

int32_t TriedNumber::Next(int32_t work) {
  if (!trial_ && until_trial_ == 0) Start(work);
  if (!trial_) return std::min(work, value_);
  const int32_t wanted = trial_->is_others_turn() ? trial_->other : trial_->usual;
  return std::min(work, wanted);
}

std::optional<double> TriedNumber::fixed_us() const {
  if (fixed_us_.empty()) return std::nullopt;
  return fixed_us_.Value();
}

void TriedNumber::Took(int32_t units, int64_t us) {
  if (units < 1 || us < 1) return;  // a clock too coarse to tell
  if (!trial_) {
    until_trial_ = std::max(0, until_trial_ - 1);
    return;
  }
  Trial& trial = *trial_;
  const bool others = trial.is_others_turn();
  if (IsFull(units, others ? trial.other : trial.usual)) {
    (others ? trial.other_us : trial.usual_us)
        .push_back(static_cast<double>(us) / static_cast<double>(units));
  }
  ++trial.passes;
  if (trial.other_us.size() == trial.usual_us.size() && trial.other_us.size() >= kFewReadings) {
    const double usual_us = MedianOf(trial.usual_us), other_us = MedianOf(trial.other_us);
    if (IsDecided(usual_us, other_us)) return End(usual_us, other_us);
  }
  if (trial.passes >= kMostTrialPasses) {
    trial_.reset();
    until_trial_ = pause_;
  }
}

bool TriedNumber::IsDecided(double usual_us, double other_us) const {
  const bool is_worse = other_us >= usual_us;
  const bool is_clear = other_us < (1.0 - kClearGain) * usual_us;
  return is_worse || is_clear || trial_->other_us.size() >= kManyReadings;
}

void TriedNumber::End(double usual_us, double other_us) {
  const int32_t usual = trial_->usual, other = trial_->other;
  trial_.reset();
  // A unit costs e + a / units, where a is what the pass costs by itself.
  fixed_us_.Add(std::max(0.0, (usual_us - other_us) / (1.0 / usual - 1.0 / other)));
  if (other_us < (1.0 - kLeastGain) * usual_us) {
    value_ = other;
    pause_ = kFirstPause;  // the same ratio once more
  } else {
    ratio_ = (ratio_ + 1) % kRatios.size();
    pause_ = std::min(kLongestPause, 3 * pause_ / 2);
  }
  until_trial_ = pause_;
}

BatchingController::BatchingController(const BatchingLimits& limits)
    : limits_(limits),
      pass_tokens_(
          std::clamp(kFirstPassTokens, std::min(limits.micro_batch_tokens, limits.batch_tokens),
                     limits.batch_tokens),
          std::min(limits.micro_batch_tokens, limits.batch_tokens), limits.batch_tokens),
      running_(limits.sequences, 1, limits.sequences) {}

int32_t BatchingController::RunningSequences() const {
  if (limits_.fixed_running_sequences > 0)
    return std::min(limits_.fixed_running_sequences, limits_.sequences);
  return running_.most_wanted();
}

int32_t BatchingController::RefillSequences() const {
  const int32_t running = RunningSequences();
  if (limits_.fixed_refill_sequences > 0) return std::min(limits_.fixed_refill_sequences, running);
  if (answer_tokens_ <= 0.0) return 1;
  double ratio = kUnmeasuredFixedRatio;
  if (pass_tokens_.fixed_us() && running_.fixed_us()) {
    ratio = std::clamp(*pass_tokens_.fixed_us() / std::max(1.0, *running_.fixed_us()),
                       kLeastFixedRatio, kMostFixedRatio);
  }
  const double refill = running * std::sqrt(2.0 * ratio / answer_tokens_);
  const double most = std::max(1, running / kLeastRefills);
  return static_cast<int32_t>(std::lround(std::clamp(refill, 1.0, most)));
}

bool BatchingController::IsDecodeDue(int32_t decoding) const {
  if (decoding == 0) return false;
  if (decode_us_.empty()) return unmeasured_passes_ >= kMostFirstPasses;
  return stalled_us_ >= StallBoundUs();
}

int32_t BatchingController::PrefillTokens(int64_t tokens, int32_t decoding) {
  const auto work = static_cast<int32_t>(std::min<int64_t>(tokens, limits_.batch_tokens));
  if (limits_.fixed_pass_tokens > 0) return std::min(work, limits_.fixed_pass_tokens);
  const int32_t wanted = pass_tokens_.Next(work);
  if (decoding == 0 || decode_us_.empty() || prefill_token_us_.empty()) return wanted;
  const double fits = (StallBoundUs() - stalled_us_) / prefill_token_us_.Value();
  if (fits >= wanted) return wanted;
  return std::min(wanted, std::max(limits_.micro_batch_tokens, static_cast<int32_t>(fits)));
}

int32_t BatchingController::DecodeSequences(int32_t decoding) {
  if (limits_.fixed_running_sequences > 0)
    return std::min(decoding, limits_.fixed_running_sequences);
  return running_.Next(decoding);
}

void BatchingController::PrefillTook(int32_t tokens, int32_t decoding, int64_t us) {
  pass_tokens_.Took(tokens, us);
  if (tokens > 0 && us > 0) prefill_token_us_.Add(static_cast<double>(us) / tokens);
  if (decoding == 0) return;
  stalled_us_ += static_cast<double>(us);
  ++unmeasured_passes_;
}

void BatchingController::DecodeTook(int32_t sequences, bool drafted, int64_t us) {
  stalled_us_ = 0.0;
  unmeasured_passes_ = 0;
  if (drafted) return;
  running_.Took(sequences, us);
  if (us > 0) {
    decode_us_.Add(static_cast<double>(us));
    decode_token_us_.Add(static_cast<double>(us) / sequences);
  }
}

int32_t BatchingController::DraftTokens(double right, int32_t most) const {
  if (limits_.fixed_draft_tokens > 0) return std::min(limits_.fixed_draft_tokens, most);
  if (decode_token_us_.empty() || prefill_token_us_.empty()) return 0;
  int32_t count = 0;
  for (double all = right; count < most; all *= right, ++count) {
    if (all * decode_token_us_.Value() <= prefill_token_us_.Value()) break;
  }
  return count;
}

void BatchingController::AnswerEnded(int64_t tokens) {
  const auto length = static_cast<double>(tokens);
  answer_tokens_ =
      answer_tokens_ <= 0.0 ? length : answer_tokens_ + kAnswerWeight * (length - answer_tokens_);
}

}  // namespace halo
