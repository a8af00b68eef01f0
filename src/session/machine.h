#pragma once

#include <cstdint>
#include <string>

namespace halo {

/// What a cost profile belongs to, in words: processor, cores, memory, accelerators, threads,
/// versions of Halo and llama.cpp and whether there are kernels of exact answers. Two machines with
/// the same words are taken to be equally fast.
std::string MachineFingerprint(int32_t threads);

/// What the rounding of answers may depend on, in words: processor, accelerators, this very build
/// of Halo and llama.cpp, and whether answers are computed `exactly`.
std::string ComputingFingerprint(bool exactly);

/// Name of a profile's file: of a fingerprint's hash, since it is long and holds spaces.
std::string ProfileFileName(const std::string& fingerprint);

}  // namespace halo
