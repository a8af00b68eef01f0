#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "base/random.h"

namespace halo::workload {

/// The draws of one thing (a row of a table): they depend on the seed, the kind and the number
/// alone, never on what was drawn before, so that a smaller data set is the beginning of a larger
/// one wherever its rules allow it.
RandomStream DrawsOf(uint64_t seed, std::string_view kind, uint64_t number);

/// Uniform in [low, high].
int64_t Between(RandomStream& draws, int64_t low, int64_t high);

/// True with this probability.
bool Chance(RandomStream& draws, double probability);

template <typename T>
const T& Pick(RandomStream& draws, std::span<const T> values) {
  return values[draws.Below(values.size())];
}

/// Ranks 0, 1, ... with probabilities proportional to 1 / (rank + 1)^exponent.
class Zipf {
 public:
  Zipf(size_t count, double exponent);
  size_t Draw(RandomStream& draws) const;
  size_t count() const { return cumulative_.size(); }

 private:
  std::vector<double> cumulative_;  // of the last: 1
};

}  // namespace halo::workload
