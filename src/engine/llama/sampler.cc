#include "engine/llama/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"

// The three loops over the whole vocabulary are compiled for several instruction sets and chosen at run time, so that a
// binary built without -march=native samples at full speed. ThreadSanitizer starts before the choice can run.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define HALO_VECTOR_CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("O3")))
#else
#define HALO_VECTOR_CLONES
#endif

namespace halo {
namespace {

constexpr size_t kLanes = 16;
constexpr size_t kBuckets = 1024;
/// Below this many candidates ordering them all is cheaper than bucketing.
constexpr size_t kSmall = 256;
/// exp of less than this is 0 beside a largest weight of 1, even summed over a million tokens.
constexpr float kLowestExponent = -60.0F;

HALO_VECTOR_CLONES float Largest(const float* values, size_t count) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  float largest = -std::numeric_limits<float>::infinity();
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  for (; i < count; ++i) largest = values[i] > largest ? values[i] : largest;
  return largest;
}

/// exp(x) for x in [kLowestExponent, 0] to about 2 ulp: 2^n * p(f) with a degree-6 polynomial (Cephes' expf).
inline float FastExp(float x) {
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const float whole = std::floor(x * kLog2E + 0.5F);
  const float f = x - whole * kLn2High - whole * kLn2Low;
  float p = 1.9875691500e-4F;
  p = p * f + 1.3981999507e-3F;
  p = p * f + 8.3334519073e-3F;
  p = p * f + 4.1665795894e-2F;
  p = p * f + 1.6666665459e-1F;
  p = p * f + 5.0000001201e-1F;
  p = p * f * f + f + 1.0F;
  const int32_t exponent = (static_cast<int32_t>(whole) + 127) << 23;
  return p * std::bit_cast<float>(exponent);
}

/// weights[i] = exp((logits[i] - largest) * scale); returns their sum. NaN and -inf weigh nothing.
HALO_VECTOR_CLONES double Exponentiate(const float* logits, float* weights, size_t count, float largest,
                                       float scale) {
  double total = 0.0;
  constexpr size_t kBlock = 4096;  // float lanes are emptied into a double before they lose digits
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t end = std::min(count, start + kBlock);
    float lanes[kLanes] = {};
    size_t i = start;
    for (; i + kLanes <= end; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float x = (logits[i + lane] - largest) * scale;
        const float clamped = x > kLowestExponent ? x : kLowestExponent;
        const float weight = x > kLowestExponent ? FastExp(clamped) : 0.0F;
        weights[i + lane] = weight;
        lanes[lane] += weight;
      }
    }
    for (; i < end; ++i) {
      const float x = (logits[i] - largest) * scale;
      weights[i] = x > kLowestExponent ? FastExp(x) : 0.0F;
      lanes[0] += weights[i];
    }
    for (const float lane : lanes) total += static_cast<double>(lane);
  }
  return total;
}

HALO_VECTOR_CLONES bool AnyAtLeast(const float* weights, size_t count, float threshold) {
  int any = 0;
  for (size_t i = 0; i < count; ++i) any |= weights[i] >= threshold ? 1 : 0;
  return any != 0;
}

}  // namespace

int32_t ArgMax(std::span<const float> values) {
  const float largest = Largest(values.data(), values.size());
  const auto found = std::find(values.begin(), values.end(), largest);
  return found == values.end() ? -1 : static_cast<int32_t>(found - values.begin());
}

TokenId Sampler::Sample(std::span<const float> logits, const SamplingParameters& parameters,
                        std::span<const TokenId> forbidden, double draw) {
  if (!forbidden.empty()) {
    logits_.assign(logits.begin(), logits.end());
    for (const TokenId token : forbidden) {
      logits_[static_cast<size_t>(token)] = -std::numeric_limits<float>::infinity();
    }
    logits = logits_;
  }
  if (parameters.temperature <= 0.0F) return ArgMax(logits);

  const float largest = Largest(logits.data(), logits.size());
  if (!(largest > -std::numeric_limits<float>::infinity())) return -1;
  weights_.resize(logits.size());
  double mass = Exponentiate(logits.data(), weights_.data(), logits.size(), largest, 1.0F / parameters.temperature);

  const bool cut_k = parameters.top_k > 0 && static_cast<size_t>(parameters.top_k) < logits.size();
  const bool cut_p = parameters.top_p < 1.0F;
  if (!cut_k && !cut_p && parameters.min_p <= 0.0F) return WalkAll(draw, mass);

  float threshold = std::max(parameters.min_p, std::numeric_limits<float>::min());
  // With top_k or min_p the nucleus is taken of a smaller mass, for which the bound below would not hold.
  if (cut_p && !cut_k && parameters.min_p <= 0.0F) {
    threshold = static_cast<float>((1.0 - static_cast<double>(parameters.top_p)) * mass /
                                   static_cast<double>(logits.size()) * 0.999);
  }
  Gather(std::min(threshold, 1.0F));
  if (cut_k) KeepTopK(static_cast<size_t>(parameters.top_k));
  if (cut_p) {
    if (cut_k || parameters.min_p > 0.0F) {
      mass = 0.0;
      for (const Candidate& candidate : candidates_) mass += static_cast<double>(candidate.weight);
    }
    KeepNucleus(static_cast<double>(parameters.top_p) * mass);
  }
  return Walk(draw);
}

void Sampler::Gather(float threshold) {
  candidates_.clear();
  constexpr size_t kBlock = 64;  // most blocks hold no candidate and are passed over at vector speed
  for (size_t start = 0; start < weights_.size(); start += kBlock) {
    const size_t end = std::min(weights_.size(), start + kBlock);
    if (!AnyAtLeast(weights_.data() + start, end - start, threshold)) continue;
    for (size_t i = start; i < end; ++i) {
      if (weights_[i] >= threshold) candidates_.push_back({weights_[i], static_cast<TokenId>(i)});
    }
  }
}

namespace {

/// Larger weight first, then lower id: a total order.
struct LikelierFirst {
  template <typename C>
  bool operator()(const C& a, const C& b) const {
    return a.weight != b.weight ? a.weight > b.weight : a.token < b.token;
  }
};

/// Bucket 0 holds the largest weights. The top bits of a positive float order like its value: 3 bits of mantissa and
/// the exponent make about 700 buckets over the range of weights.
size_t BucketOf(float weight) {
  constexpr uint32_t kOneBits = 0x3F800000U >> 20;
  const uint32_t bits = std::bit_cast<uint32_t>(weight) >> 20;
  return std::min<size_t>(kBuckets - 1, kOneBits - std::min(bits, kOneBits));
}

}  // namespace

void Sampler::KeepTopK(size_t k) {
  if (candidates_.size() <= k) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k), candidates_.end(),
                   LikelierFirst{});
  candidates_.resize(k);
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

void Sampler::KeepNucleus(double mass_to_keep) {
  // The buckets wholly inside the nucleus are kept as they are; `edge` is the one in which it ends.
  bucket_mass_.assign(kBuckets, 0.0);
  size_t edge = 0;
  double kept = 0.0;
  if (candidates_.size() > kSmall) {
    for (const Candidate& candidate : candidates_) {
      bucket_mass_[BucketOf(candidate.weight)] += static_cast<double>(candidate.weight);
    }
    while (edge + 1 < kBuckets && kept + bucket_mass_[edge] < mass_to_keep) kept += bucket_mass_[edge++];
  }
  const bool bucketed = candidates_.size() > kSmall;
  const auto lower_id = [](const Candidate& a, const Candidate& b) { return a.token < b.token; };
  std::vector<Candidate> inside;  // stays in id order: a flat distribution keeps most of the vocabulary
  std::vector<Candidate> border;
  for (const Candidate& candidate : candidates_) {
    const size_t bucket = bucketed ? BucketOf(candidate.weight) : 0;
    if (bucket < edge) inside.push_back(candidate);
    if (bucket == edge) border.push_back(candidate);
  }
  std::sort(border.begin(), border.end(), LikelierFirst{});
  size_t taken = 0;
  while (taken < border.size() && (kept < mass_to_keep || (inside.empty() && taken == 0))) {
    kept += static_cast<double>(border[taken++].weight);
  }
  border.resize(taken);
  std::sort(border.begin(), border.end(), lower_id);
  candidates_.resize(inside.size() + border.size());
  std::merge(inside.begin(), inside.end(), border.begin(), border.end(), candidates_.begin(), lower_id);
}

TokenId Sampler::Walk(double draw) const {
  HALO_CHECK(!candidates_.empty(), "the likeliest token is always a candidate");
  double mass = 0.0;
  for (const Candidate& candidate : candidates_) mass += static_cast<double>(candidate.weight);
  double left = draw * mass;
  for (const Candidate& candidate : candidates_) {
    left -= static_cast<double>(candidate.weight);
    if (left < 0.0) return candidate.token;
  }
  return candidates_.back().token;
}

TokenId Sampler::WalkAll(double draw, double mass) const {
  double left = draw * mass;
  TokenId last = 0;
  for (size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] <= 0.0F) continue;
    last = static_cast<TokenId>(i);
    left -= static_cast<double>(weights_[i]);
    if (left < 0.0) return last;
  }
  return last;
}

}  // namespace halo
