#include "plan/plan_words.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace halo {

std::string RoundedWords(double value) {
  constexpr double kWhole = 9.95;
  if (value < kWhole) return fmt::format("{:g}", std::round(value * 10.0) / 10.0);
  return fmt::format("{:.0f}", value);
}

std::string SecondsWords(double seconds) {
  if (seconds < 0.0005) return "0 s";
  if (seconds < 0.9995) return fmt::format("{:.0f} ms", seconds * 1000.0);
  if (seconds < 99.95) return fmt::format("{:.1f} s", seconds);
  if (seconds < 5999.5) return fmt::format("{:.0f} min", seconds / 60.0);
  return fmt::format("{:.1f} h", seconds / 3600.0);
}

std::string SecondsWords(const Estimate& seconds) {
  if (seconds.is_exact()) return SecondsWords(seconds.value);
  return fmt::format("{} ({} to {})", SecondsWords(seconds.value), SecondsWords(seconds.low),
                     SecondsWords(seconds.high));
}

std::string CountWords(const Estimate& count) {
  if (count.is_exact()) return RoundedWords(count.value);
  return fmt::format("{} ({} to {})", RoundedWords(count.value), RoundedWords(count.low),
                     RoundedWords(count.high));
}

std::string PrefixGroupWords(const PrefixGroup& group) {
  const std::string saves =
      fmt::format("saves {} tokens", RoundedWords(std::round(group.saved_tokens)));
  if (group.values == 0)
    return fmt::format("{} tokens, {}", RoundedWords(std::round(group.tokens)), saves);
  return fmt::format("{} tokens, {} of them in every row, {} different in {} calls, {}",
                     RoundedWords(std::round(group.tokens)),
                     RoundedWords(std::round(group.constant_tokens)), RoundedWords(group.prefixes),
                     RoundedWords(group.calls), saves);
}

double ErrorFactor(double estimated, double actual) {
  if (estimated <= 0.0 || actual <= 0.0) return estimated == actual ? 1.0 : INFINITY;
  return std::max(estimated / actual, actual / estimated);
}

}  // namespace halo
