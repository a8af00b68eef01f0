#pragma once

#include <string>

namespace halo {

/// Tells model files apart without reading gigabytes: XXH3 over the length and the first and last
/// MiB, 32 hexadecimal digits. Good for what a file costs (files that differ only in between have
/// the same shapes), not for what it answers. Throws Error(kModel) if it cannot be read.
std::string ModelFileDigest(const std::string& path);

}  // namespace halo
