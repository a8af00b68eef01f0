#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace halo {

/// The middle one of what was read last: outliers of a machine that others use, too, do not show.
class RecentMedian {
 public:
  void Add(double value);
  bool empty() const { return values_.empty(); }
  /// 0 before the first value.
  double Value() const;

 private:
  std::vector<double> values_;  ///< [at most kReadings], a ring
  size_t next_ = 0;
};

/// A number that passes are limited by (tokens, sequences: "units"), found by trials.
///
/// A trial makes passes with the number in force and with another one in turns, so that a machine
/// that becomes slower meanwhile does so for both, and compares medians of the time a unit. It ends
/// early unless the other one seems better by a little. The other number takes over if it is better
/// by kLeastGain. Half, twice, three quarters and one and a half of the number are tried, then
/// trials become rarer, so that what they cost goes to nothing while a machine that changes is
/// still noticed.
class TriedNumber {
 public:
  /// Stays within [least, most]; least <= value <= most.
  TriedNumber(int32_t value, int32_t least, int32_t most);

  /// The number in force.
  int32_t value() const { return value_; }
  /// Most units that may be needed for the next pass: more than value() while more is tried.
  int32_t most_wanted() const;
  /// Most units of the next pass, of `work` that there are. May start a trial.
  int32_t Next(int32_t work);
  /// A pass of `units` took `us` microseconds.
  void Took(int32_t units, int64_t us);
  /// Microseconds that a pass takes however few units it has, as the last trials say; nothing
  /// before one has ended.
  std::optional<double> fixed_us() const;

 private:
  /// Two numbers in turns.
  struct Trial {
    // No initializers: clang 14 makes no std::optional of a class within a class that has them.
    int32_t usual, other;
    int32_t passes;                          ///< also those that had too little work
    std::vector<double> usual_us, other_us;  ///< a unit
    bool is_others_turn() const { return other_us.size() < usual_us.size(); }
  };
  std::optional<int32_t> Candidate(int32_t usual) const;
  void Start(int32_t work);
  bool IsDecided(double usual_us, double other_us) const;
  void End(double usual_us, double other_us);

  int32_t value_, least_, most_;
  std::optional<Trial> trial_;
  size_t ratio_ = 0;         ///< next of the ratios to be tried
  int32_t until_trial_ = 0;  ///< passes
  int32_t pause_;            ///< passes between two trials
  RecentMedian fixed_us_;    ///< of a trial
};

/// What passes may be at most, and what of it is fixed. Fixed numbers are those of measurements and
/// tests; 0: the controller's choice.
struct BatchingLimits {
  int32_t sequences = 1;             ///< that the room holds
  int32_t batch_tokens = 2048;       ///< most tokens of a pass
  int32_t micro_batch_tokens = 512;  ///< computed together; a pass below that wastes the machine
  int32_t fixed_pass_tokens = 0;
  int32_t fixed_running_sequences = 0;
  int32_t fixed_refill_sequences = 0;
  int32_t fixed_draft_tokens = 0;
};

/// How passes are made up: their tokens, how many requests run side by side, how prefill and decode
/// take turns. Finds what gives most tokens a second on this machine from what passes took. A
/// function of what it was told: no clock, no randomness.
///
/// Decode is fastest at some number of sequences, beyond which more of them gain nothing or cost
/// (unified cells: every token scans all of them); prefill at some number of tokens a pass. Both
/// are TriedNumbers, which need to know nothing of why.
///
/// The prefill share. A sequence that has become free can be filled at once, by a pass over one
/// prompt, or with others later. Every pass costs something however small it is (the weights are
/// read): `p` of prefill, `d` of decode. With refills of G sequences a prompt costs p / G of the
/// first, and each of the m tokens of an answer is decoded by a pass that lacks (G - 1) / 2 of n
/// sequences, which costs d (G - 1) / (2 n^2) more. The sum is least at G = n sqrt(2 p / (d m)).
///
/// Bound. While a request decodes, prefill takes at most as long as kMostStallPasses decode passes,
/// and one micro-batch more, before decode has a pass: what that pass lacks in width costs less
/// than 1 / kMostStallPasses.
///
/// Tried and left out: prefill and decode in one pass. On a CPU 63 sequences beside a prompt of 330
/// tokens take 62 ms in one pass and 53 ms in two (docs/benchmarks/processor.md).
class BatchingController {
 public:
  static constexpr int32_t kFirstPassTokens = 1024;  ///< before anything was measured
  static constexpr int32_t kMostStallPasses = 64;
  /// Prefill passes before the first decode pass, which shows what the bound is.
  static constexpr int32_t kMostFirstPasses = 8;

  explicit BatchingController(const BatchingLimits& limits);

  /// Most requests to run side by side.
  int32_t RunningSequences() const;
  /// Free sequences to wait for before requests begin while others decode.
  int32_t RefillSequences() const;
  /// Whether decode has waited for prefill as long as it may; `decoding` sequences do.
  bool IsDecodeDue(int32_t decoding) const;
  /// Most tokens of the next prefill pass, of `tokens` that there are, while `decoding` sequences
  /// wait for it.
  int32_t PrefillTokens(int64_t tokens, int32_t decoding);
  /// Sequences of the next decode pass, of `decoding`.
  int32_t DecodeSequences(int32_t decoding);

  /// Guessed tokens of each sequence that are worth computing in the next decode pass, where each
  /// one is right with probability `right` if those before it are; at most `most`. One that is
  /// right saves its share of a later pass, any costs what a token of a wide pass does.
  int32_t DraftTokens(double right, int32_t most) const;

  /// A prefill pass of `tokens` took `us`, while `decoding` sequences waited.
  void PrefillTook(int32_t tokens, int32_t decoding, int64_t us);
  /// `drafted`: with guessed tokens beside them.
  void DecodeTook(int32_t sequences, bool drafted, int64_t us);
  /// An answer of `tokens` has ended.
  void AnswerEnded(int64_t tokens);

 private:
  double StallBoundUs() const { return kMostStallPasses * decode_us_.Value(); }

  BatchingLimits limits_;
  TriedNumber pass_tokens_, running_;
  RecentMedian decode_us_;         ///< of a pass
  RecentMedian decode_token_us_;   ///< of a sequence's share of a pass
  RecentMedian prefill_token_us_;  ///< of a token of a pass
  double answer_tokens_ = 0.0;     ///< mean of the last ones; 0: none has ended
  double stalled_us_ = 0.0;        ///< prefill while others decoded, since the last decode pass
  int32_t unmeasured_passes_ = 0;  ///< the same in passes, for as long as none was measured
};

}  // namespace halo
