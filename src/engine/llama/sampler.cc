#include "engine/llama/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>

#include "base/check.h"

// The three loops over the whole vocabulary are compiled for several instruction sets and chosen at
// run time, so that a binary built without -march=native samples at full speed. ThreadSanitizer
// starts before the choice can run.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
#define HALO_VECTOR_CLONES __attribute__((target_clones("avx2", "default"), optimize("O3")))
#define HALO_VECTORS_OF(instructions) __attribute__((target(instructions), optimize("O3")))
#else
#define HALO_VECTOR_CLONES
#endif

namespace halo {
namespace {

constexpr size_t kLanes = 8;       // of a 256-bit register
constexpr size_t kWideLanes = 16;  // of a 512-bit one
constexpr size_t kBuckets = 1024;
/// Below this many candidates ordering them all is cheaper than bucketing.
constexpr size_t kSmall = 256;
/// exp of less than this is 0 beside a largest weight of 1, even summed over a million tokens.
constexpr float kLowestExponent = -60.0F;

HALO_VECTOR_CLONES float Largest(const float* __restrict values, size_t count) {
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

// Written with the compilers' vector types: neither gcc 12 nor clang 14 vectorizes the plain loop.
template <size_t kCount>
struct Vector {
  typedef float Floats __attribute__((vector_size(kCount * sizeof(float))));
  typedef int32_t Ints __attribute__((vector_size(kCount * sizeof(int32_t))));
};

/// x = exp(x) for x <= 0 to about 2 ulp, 0 below kLowestExponent: 2^n * p(f) with a degree-6
/// polynomial (Cephes' expf). By reference, since a vector argument's calling convention depends on
/// the instruction set.
template <size_t kCount>
inline __attribute__((always_inline)) void ExpOfNegative(typename Vector<kCount>::Floats& x) {
  using Floats = typename Vector<kCount>::Floats;
  using Ints = typename Vector<kCount>::Ints;
  constexpr float kLog2E = 1.44269504088896341F;
  constexpr float kLn2High = 0.693359375F;
  constexpr float kLn2Low = -2.12194440e-4F;
  const Ints in_range = x > kLowestExponent;  // false for NaN
  x = reinterpret_cast<Floats>(reinterpret_cast<Ints>(x) & in_range);
  // Truncation rounds to the nearest, since x is not positive.
  const Ints n = __builtin_convertvector(x * kLog2E - 0.5F, Ints);
  const Floats whole = __builtin_convertvector(n, Floats);
  const Floats f = x - whole * kLn2High - whole * kLn2Low;
  Floats p = 1.9875691500e-4F * f + 1.3981999507e-3F;
  p = p * f + 8.3334519073e-3F;
  p = p * f + 4.1665795894e-2F;
  p = p * f + 1.6666665459e-1F;
  p = p * f + 5.0000001201e-1F;
  p = p * f * f + f + 1.0F;
  constexpr int32_t kExponentBias = 127;
  constexpr int32_t kMantissaBits = 23;
  const Floats power = reinterpret_cast<Floats>((n + kExponentBias) << kMantissaBits);
  x = reinterpret_cast<Floats>(reinterpret_cast<Ints>(p * power) & in_range);
}

/// weights[i] = exp((logits[i] - largest) * scale); returns their sum. NaN and -inf weigh nothing.
/// `count` is a multiple of kWideLanes.
template <size_t kCount>
inline __attribute__((always_inline)) double ExponentiateBy(const float* __restrict logits,
                                                            float* __restrict weights, size_t count,
                                                            float largest, float scale) {
  using Floats = typename Vector<kCount>::Floats;
  double total = 0.0;
  constexpr size_t kBlock = 4096;  // float lanes are emptied into a double before they lose digits
  for (size_t start = 0; start < count; start += kBlock) {
    const size_t end = std::min(count, start + kBlock);
    Floats sum = {};
    for (size_t i = start; i < end; i += kCount) {
      Floats weight;
      std::memcpy(&weight, logits + i, sizeof(weight));
      weight = (weight - largest) * scale;
      ExpOfNegative<kCount>(weight);
      std::memcpy(weights + i, &weight, sizeof(weight));
      sum += weight;
    }
    for (size_t lane = 0; lane < kCount; ++lane) total += static_cast<double>(sum[lane]);
  }
  return total;
}

using Exponentiator = double(const float* __restrict, float* __restrict, size_t, float, float);

double ExponentiatePlain(const float* __restrict logits, float* __restrict weights, size_t count,
                         float largest, float scale) {
  return ExponentiateBy<kLanes>(logits, weights, count, largest, scale);
}

#ifdef HALO_VECTORS_OF
HALO_VECTORS_OF("avx2,fma")
double ExponentiateFused(const float* __restrict logits, float* __restrict weights, size_t count,
                         float largest, float scale) {
  return ExponentiateBy<kLanes>(logits, weights, count, largest, scale);
}

HALO_VECTORS_OF("avx512f,avx512dq,avx512vl,fma")
double ExponentiateWide(const float* __restrict logits, float* __restrict weights, size_t count,
                        float largest, float scale) {
  return ExponentiateBy<kWideLanes>(logits, weights, count, largest, scale);
}
#endif

/// Clones have one source and one instruction set each; these differ in lanes and need several. The
/// sum is rounded otherwise by each, so a machine keeps to one.
Exponentiator* ChooseExponentiator() {
#ifdef HALO_VECTORS_OF
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("fma"))
    return ExponentiateWide;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return ExponentiateFused;
#endif
  return ExponentiatePlain;
}

double Exponentiate(const float* logits, float* weights, size_t count, float largest, float scale) {
  static Exponentiator* const exponentiate = ChooseExponentiator();
  return exponentiate(logits, weights, count, largest, scale);
}

HALO_VECTOR_CLONES bool AnyAtLeast(const float* __restrict weights, size_t count, float threshold) {
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
  return SampleFrom(logits, parameters, draw);
}

/// Logits of dense masks keep their places; those of tokens outside become -inf.
void Sampler::CopyAllowed(std::span<const float> logits, const TokenMask& allowed) {
  constexpr size_t kWordBits = 64;
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  logits_.resize(logits.size());
  for (size_t word = 0; word < allowed.bits.size(); ++word) {
    const uint64_t bits = allowed.bits[word];
    const size_t begin = word * kWordBits;
    const size_t end = std::min(begin + kWordBits, logits.size());
    if (bits == ~uint64_t{0}) {
      std::copy(logits.begin() + static_cast<ptrdiff_t>(begin),
                logits.begin() + static_cast<ptrdiff_t>(end),
                logits_.begin() + static_cast<ptrdiff_t>(begin));
      continue;
    }
    for (size_t i = begin; i < end; ++i) {
      logits_[i] = (bits >> (i - begin) & 1U) != 0 ? logits[i] : kNever;
    }
  }
}

TokenId Sampler::SampleAllowed(std::span<const float> logits, const SamplingParameters& parameters,
                               const TokenMask& allowed, std::span<const TokenId> also,
                               double draw) {
  if (allowed.is_dense) {
    CopyAllowed(logits, allowed);
    for (const TokenId token : also) {
      logits_[static_cast<size_t>(token)] = logits[static_cast<size_t>(token)];
    }
  } else {
    few_.clear();
    std::set_union(allowed.tokens.begin(), allowed.tokens.end(), also.begin(), also.end(),
                   std::back_inserter(few_));
    logits_.clear();
    for (const TokenId token : few_) logits_.push_back(logits[static_cast<size_t>(token)]);
  }
  // Without this, the likeliest of nothing but -inf would be one that is not allowed.
  const bool any =
      std::any_of(logits_.begin(), logits_.end(), [](float logit) { return std::isfinite(logit); });
  if (!any) return -1;
  const TokenId drawn = SampleFrom(logits_, parameters, draw);
  return allowed.is_dense || drawn < 0 ? drawn : few_[static_cast<size_t>(drawn)];
}

TokenId Sampler::SampleFrom(std::span<const float> logits, const SamplingParameters& parameters,
                            double draw) {
  if (parameters.temperature <= 0.0F) return ArgMax(logits);

  const float largest = Largest(logits.data(), logits.size());
  if (!std::isfinite(largest)) return -1;
  // Below the smallest temperature whose inverse is a number, nothing but the likeliest token has
  // any weight.
  const float scale = 1.0F / parameters.temperature;
  if (!std::isfinite(scale)) return ArgMax(logits);
  const double mass = Weigh(logits, largest, scale);
  const bool cut_k = parameters.top_k > 0 && static_cast<size_t>(parameters.top_k) < logits.size();
  const bool cut_p = parameters.top_p < 1.0F;
  const double top_p = static_cast<double>(parameters.top_p);
  if (!cut_k && parameters.min_p <= 0.0F) {
    if (!cut_p) return WalkAll(draw, mass);
    GatherNucleus(top_p * mass, (1.0 - top_p) * mass / static_cast<double>(logits.size()));
    KeepNucleus(top_p * mass);
    return Walk(draw);
  }
  Gather(std::clamp(parameters.min_p, std::numeric_limits<float>::min(), 1.0F));
  if (cut_k) KeepTopK(static_cast<size_t>(parameters.top_k));
  if (cut_p) KeepNucleus(top_p * GatheredMass());
  return Walk(draw);
}

double Sampler::Weigh(std::span<const float> logits, float largest, float scale) {
  const size_t whole = logits.size() / kWideLanes * kWideLanes;
  weights_.resize(whole + kWideLanes);
  double mass = Exponentiate(logits.data(), weights_.data(), whole, largest, scale);
  if (whole < logits.size()) {
    float tail[kWideLanes];
    std::fill(tail, tail + kWideLanes, -std::numeric_limits<float>::infinity());
    std::copy(logits.begin() + static_cast<ptrdiff_t>(whole), logits.end(), tail);
    mass += Exponentiate(tail, weights_.data() + whole, kWideLanes, largest, scale);
  }
  weights_.resize(logits.size());
  return mass;
}

double Sampler::GatheredMass() const {
  double mass = 0.0;
  for (const Candidate& candidate : candidates_) mass += static_cast<double>(candidate.weight);
  return mass;
}

void Sampler::GatherNucleus(double mass_to_keep, double lowest) {
  // If the tokens above a threshold hold enough, the nucleus is among them. Most distributions end
  // at the first try.
  for (const float threshold : {0x1p-5F, 0x1p-9F, 0x1p-13F}) {
    if (static_cast<double>(threshold) <= lowest) break;
    Gather(threshold);
    if (GatheredMass() >= mass_to_keep) return;
  }
  constexpr double kRounding = 0.999;
  Gather(std::min(
      1.0F, std::max(static_cast<float>(lowest * kRounding), std::numeric_limits<float>::min())));
}

void Sampler::Gather(float threshold) {
  candidates_.clear();
  constexpr size_t kBlock =
      64;  // most blocks hold no candidate and are passed over at vector speed
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

/// Bucket 0 holds the largest weights. The top bits of a positive float order like its value: 3
/// bits of mantissa and the exponent make about 700 buckets over the range of weights.
size_t BucketOf(float weight) {
  constexpr uint32_t kOneBits = 0x3F800000U >> 20;
  const uint32_t bits = std::bit_cast<uint32_t>(weight) >> 20;
  return std::min<size_t>(kBuckets - 1, kOneBits - std::min(bits, kOneBits));
}

}  // namespace

void Sampler::KeepTopK(size_t k) {
  if (candidates_.size() <= k) return;
  std::nth_element(candidates_.begin(), candidates_.begin() + static_cast<ptrdiff_t>(k),
                   candidates_.end(), LikelierFirst{});
  candidates_.resize(k);
  std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
    return a.token < b.token;
  });  // the draw walks in id order
}

void Sampler::KeepNucleus(double mass_to_keep) {
  // Only the bucket in which the nucleus ends is looked at closely; `kept` is the mass of those
  // before it.
  double kept = 0.0;
  border_.clear();
  if (candidates_.size() > kSmall) {
    bucket_mass_.assign(kBuckets, 0.0);
    for (const Candidate& candidate : candidates_) {
      bucket_mass_[BucketOf(candidate.weight)] += static_cast<double>(candidate.weight);
    }
    size_t edge = 0;
    while (edge + 1 < kBuckets && kept + bucket_mass_[edge] < mass_to_keep)
      kept += bucket_mass_[edge++];
    for (const Candidate& candidate : candidates_) {
      if (BucketOf(candidate.weight) == edge) border_.push_back(candidate);
    }
  } else {
    border_ = candidates_;
  }
  if (border_.empty()) return;  // rounding put the edge behind the last: all are kept
  // Halve the border towards the token that completes the mass.
  auto first = border_.begin();
  auto last = border_.end();
  while (last - first > static_cast<ptrdiff_t>(kSmall)) {
    const auto middle = first + (last - first) / 2;
    std::nth_element(first, middle, last, LikelierFirst{});
    double upper = 0.0;
    for (auto it = first; it != middle; ++it) upper += static_cast<double>(it->weight);
    if (kept + upper >= mass_to_keep) {
      last = middle;
    } else {
      kept += upper;
      first = middle;
    }
  }
  std::sort(first, last, LikelierFirst{});
  auto end = first;
  while (end + 1 != last && kept + static_cast<double>(end->weight) < mass_to_keep) {
    kept += static_cast<double>((end++)->weight);
  }
  const Candidate least = *end;
  std::erase_if(candidates_,
                [&least](const Candidate& candidate) { return LikelierFirst{}(least, candidate); });
}

TokenId Sampler::Walk(double draw) const {
  HALO_CHECK(!candidates_.empty(), "the likeliest token is always a candidate");
  double left = draw * GatheredMass();
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
