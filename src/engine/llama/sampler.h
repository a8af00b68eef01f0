#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/engine.h"
#include "model/span.h"
#include "model/token_mask.h"

namespace halo {

/// Draws one token from logits. A pure function of its arguments; the object only keeps its
/// buffers.
///
/// Probabilities are softmax(logits / temperature). min_p keeps those of at least min_p times the
/// largest, top_k the k largest of these, top_p the fewest of the largest of these that hold top_p
/// of their mass; the draw walks what is left in id order. Ties go to the lower id.
///
/// The vocabulary is never sorted. Tokens above a threshold are gathered; if they hold top_p of the
/// mass, the nucleus is among them. The lowest threshold is (1 - top_p) x mass / V: tokens below it
/// together hold less than 1 - top_p. Of the gathered, only the bucket in which the nucleus ends is
/// looked at closely, by halving. At temperature 0 nothing is gathered at all.
class Sampler {
 public:
  /// `logits`: [vocabulary]. `forbidden`: ids that may not be drawn now. `draw`: uniform in [0, 1).
  TokenId Sample(std::span<const float> logits, const SamplingParameters& parameters,
                 std::span<const TokenId> forbidden, double draw);
  /// The same among the tokens of `allowed` and `also` (few, ascending) only. -1 if no logit of
  /// theirs is finite. A grammar's few allowed tokens cost less than the whole vocabulary.
  TokenId SampleAllowed(std::span<const float> logits, const SamplingParameters& parameters,
                        const TokenMask& allowed, std::span<const TokenId> also, double draw);

 private:
  struct Candidate {
    float weight;
    TokenId token;
  };
  double Weigh(std::span<const float> logits, float largest, float scale);
  void Gather(float threshold);
  void GatherNucleus(double mass_to_keep, double lowest);
  double GatheredMass() const;
  void KeepTopK(size_t k);
  void KeepNucleus(double mass_to_keep);
  TokenId Walk(double draw) const;
  TokenId WalkAll(double draw, double mass) const;

  TokenId SampleFrom(std::span<const float> logits, const SamplingParameters& parameters,
                     double draw);
  void CopyAllowed(std::span<const float> logits, const TokenMask& allowed);

  std::vector<float> logits_;          // [vocabulary] or [allowed], a copy where ids are forbidden
  std::vector<TokenId> few_;           // [allowed] whose logits these are, where they are few
  std::vector<float> weights_;         // [vocabulary], exp((logit - max) / temperature)
  std::vector<Candidate> candidates_;  // in id order
  std::vector<Candidate> border_;
  std::vector<double> bucket_mass_;
};

/// Index of the largest value, the lowest among equals; NaN never wins. -1 if there is none.
int32_t ArgMax(std::span<const float> values);

}  // namespace halo
