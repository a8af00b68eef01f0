#include "model/synth_logits.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "base/random.h"

namespace halo {
namespace {

constexpr int kContexts = 512;
// Only the largest draws of a context carry probability: at the deviations met here the 512th of
// 50,000 is exp(-14) times as likely as the first.
constexpr int64_t kTopDraws = 512;

// z such that a standard normal draw is larger with probability exp(log_tail), for log_tail <
// log(1/2).
double NormalQuantile(double log_tail) {
  double z = std::sqrt(-2 * log_tail);
  for (int step = 0; step < 8; ++step) {
    const double tail = 0.5 * std::erfc(z / std::numbers::sqrt2);
    const double density = std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi);
    z += (std::log(tail) - log_tail) * tail / density;
  }
  return z;
}

// The largest of `tokens` standard normal draws, in falling order, for each context: order
// statistics of uniform draws are partial sums of exponential ones.
std::vector<std::vector<double>> TopDraws(int64_t tokens) {
  constexpr uint64_t kStream = 0x68616c6f;
  RandomStream random(kStream);
  const int64_t kept = std::min(kTopDraws, tokens / 4);
  std::vector<std::vector<double>> contexts(kContexts);
  for (std::vector<double>& draws : contexts) {
    double sum = 0;
    for (int64_t k = 0; k < kept; ++k) {
      sum -= std::log(1 - random.Uniform());
      draws.push_back(NormalQuantile(std::min(std::log(sum / static_cast<double>(tokens)), -0.7)));
    }
  }
  return contexts;
}

// log of the sum of exp(deviation * draw).
double LogPartition(const std::vector<double>& draws, double deviation) {
  double sum = 0;
  for (const double z : draws) sum += std::exp(deviation * (z - draws.front()));
  return deviation * draws.front() + std::log(sum);
}

double MeanTopProbability(const std::vector<std::vector<double>>& contexts, double deviation) {
  double sum = 0;
  for (const std::vector<double>& draws : contexts) {
    sum += std::exp(deviation * draws.front() - LogPartition(draws, deviation));
  }
  return sum / static_cast<double>(contexts.size());
}

// Mean of the end token's probability when its logit is normal.
double MeanEndProbability(const std::vector<double>& log_partitions, double end_mean,
                          double end_deviation) {
  constexpr int kSteps = 200;
  constexpr double kReach = 6;
  double sum = 0;
  double weights = 0;
  for (int i = 0; i <= kSteps; ++i) {
    const double z = kReach * (2.0 * i / kSteps - 1);
    const double weight = std::exp(-0.5 * z * z);
    weights += weight;
    for (const double log_partition : log_partitions) {
      sum += weight / (1 + std::exp(log_partition - end_mean - end_deviation * z));
    }
  }
  return sum / (weights * static_cast<double>(log_partitions.size()));
}

// Where a rising function reaches `goal`, rounded so that the last bits of a machine's mathematics
// library do not reach the file.
template <typename Function>
double SolveRising(double low, double high, double goal, const Function& function) {
  constexpr int kHalvings = 40;
  constexpr double kSteps = 256;
  for (int i = 0; i < kHalvings; ++i) {
    const double middle = 0.5 * (low + high);
    (function(middle) < goal ? low : high) = middle;
  }
  return std::round(low * kSteps) / kSteps;
}

}  // namespace

LogitScale ComputeLogitScale(int64_t tokens, double mean_output_tokens) {
  const std::vector<std::vector<double>> contexts = TopDraws(tokens);
  LogitScale scale;
  scale.deviation = SolveRising(
      1, 40, 0.5, [&](double deviation) { return MeanTopProbability(contexts, deviation); });
  if (mean_output_tokens <= 0) return scale;
  std::vector<double> log_partitions;
  for (const std::vector<double>& draws : contexts) {
    log_partitions.push_back(LogPartition(draws, scale.deviation));
  }
  scale.end_row_scale = SolveRising(0.25, 64, 1 / mean_output_tokens, [&](double row_scale) {
    return MeanEndProbability(log_partitions, 0, row_scale * scale.deviation);
  });
  return scale;
}

double CorrectEndRow(const EndLogits& measured, double mean_output_tokens) {
  const double count = static_cast<double>(measured.end.size());
  double mean = 0;
  for (const double logit : measured.end) mean += logit / count;
  double variance = 0;
  for (const double logit : measured.end) variance += (logit - mean) * (logit - mean) / count;
  return SolveRising(0.25, 4, 1 / mean_output_tokens, [&](double factor) {
    return MeanEndProbability(measured.log_partitions, factor * mean, factor * std::sqrt(variance));
  });
}

}  // namespace halo
