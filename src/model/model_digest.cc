#include "model/model_digest.h"

#include <algorithm>
#include <fstream>

#include "base/error.h"
#include "base/hash.h"

namespace halo {

std::string ModelFileDigest(const std::string& path) {
  constexpr int64_t kEnd = 1 << 20;
  std::ifstream file(path, std::ios::binary | std::ios::ate);
  const int64_t size = file ? static_cast<int64_t>(file.tellg()) : -1;
  const int64_t each = std::min(std::max<int64_t>(size, 0), kEnd);
  std::string first(static_cast<size_t>(each), '\0'), last = first;
  file.seekg(0);
  file.read(first.data(), each);
  file.seekg(size - each);
  file.read(last.data(), each);
  if (size < 0 || !file) throw Error(ErrorCode::kModel, path + ": cannot be read");
  return SignatureBuilder().Add(size).Add(first).Add(last).Finish().ToHex();
}

}  // namespace halo
