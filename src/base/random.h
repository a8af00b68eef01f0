#pragma once

#include <array>
#include <cstdint>

namespace halo {

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11): the block
/// of four 32-bit words at (key, counter). Pure, so a draw depends on nothing but its place.
std::array<uint32_t, 4> Philox4x32(uint64_t key, uint64_t counter);

/// Draw `index` of the stream `key`, uniform in [0, 1) with 53 bits.
double UniformDraw(uint64_t key, uint64_t index);

/// A small sequential generator over one Philox stream, for tests, simulations and synthetic
/// models.
class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : key_(key) {}
  double Uniform() { return UniformDraw(key_, index_++); }
  /// Uniform in [0, bound); `bound` must be positive.
  uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>(Uniform() * static_cast<double>(bound));
  }

 private:
  uint64_t key_;
  uint64_t index_ = 0;
};

}  // namespace halo
