#include "workload/draws.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/hash.h"

namespace halo::workload {

RandomStream DrawsOf(uint64_t seed, std::string_view kind, uint64_t number) {
  return RandomStream(SignatureBuilder()
                          .Add(static_cast<int64_t>(seed))
                          .Add(kind)
                          .Add(static_cast<int64_t>(number))
                          .Finish()
                          .low);
}

int64_t Between(RandomStream& draws, int64_t low, int64_t high) {
  HALO_CHECK(low <= high, "a range is not empty");
  return low + static_cast<int64_t>(draws.Below(static_cast<uint64_t>(high - low + 1)));
}

bool Chance(RandomStream& draws, double probability) { return draws.Uniform() < probability; }

Zipf::Zipf(size_t count, double exponent) {
  HALO_CHECK(count > 0, "there is something to draw from");
  double sum = 0;
  for (size_t rank = 0; rank < count; ++rank) {
    sum += std::pow(static_cast<double>(rank + 1), -exponent);
    cumulative_.push_back(sum);
  }
  for (double& value : cumulative_) value /= sum;
}

size_t Zipf::Draw(RandomStream& draws) const {
  const auto found = std::upper_bound(cumulative_.begin(), cumulative_.end(), draws.Uniform());
  return std::min(static_cast<size_t>(found - cumulative_.begin()), cumulative_.size() - 1);
}

}  // namespace halo::workload
