#pragma once

#include <cstdint>
#include <string>

#include "base/random.h"

namespace halo::test {

/// A copy of a GGUF file with one to three things in its header changed: bytes and 4- and 8-byte
/// numbers anywhere, or, more often, values of keys and of tensors' entries, in place, to numbers
/// on which programs tend to trip.
std::string Mutated(const std::string& file, RandomStream& random);

}  // namespace halo::test
