#include "model/mutation.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <vector>

#include "model/gguf_reader.h"

namespace halo::test {
namespace {

constexpr std::array<uint64_t, 22> kNumbers = {
    0,  1,  2,  3,  4,  5,  6,  7,   8,          12,         13,
    15, 16, 24, 26, 28, 31, 64, 600, 0x7FFFFFFF, 0xFFFFFFFF, 0x8000000000000000};

uint64_t Number(RandomStream& random) {
  if (random.Below(4) == 0) return random.Below(1024);
  return kNumbers[random.Below(kNumbers.size())];
}

void Store(std::string& bytes, uint64_t at, size_t width, uint64_t number) {
  if (at + width <= bytes.size()) std::memcpy(bytes.data() + at, &number, width);
}

void ChangeKey(std::string& bytes, const GgufFile& file, RandomStream& random) {
  const GgufValue& value = file.values()[random.Below(file.values().size())];
  const uint64_t base =
      static_cast<uint64_t>(value.data.data() - value.encoded.data()) + value.offset;
  switch (random.Below(8)) {
    case 0:  // the type
      return Store(bytes, value.offset, 4, random.Below(14));
    case 1:  // the key itself
      return Store(bytes, value.offset - 1 - random.Below(value.key.size()), 1,
                   'a' + random.Below(26));
    case 2:  // the number of elements, or what lies there
      return Store(bytes, value.offset + 8, 8, Number(random));
    default: {
      if (value.data.empty()) return;
      const size_t width =
          value.type == GgufType::kString ? 1 : std::max<size_t>(1, GgufTypeBytes(value.type));
      const uint64_t element = random.Below(std::max<uint64_t>(1, value.data.size() / width));
      return Store(bytes, base + element * width, width, Number(random));
    }
  }
}

void ChangeTensor(std::string& bytes, const std::string& original, const GgufFile& file,
                  RandomStream& random) {
  const GgufTensor& tensor = file.tensors()[random.Below(file.tensors().size())];
  const uint64_t at =
      static_cast<uint64_t>(tensor.name.data() - original.data()) + tensor.name.size();
  const uint64_t dims = static_cast<uint64_t>(tensor.n_dims);
  switch (random.Below(4)) {
    case 0:
      return Store(bytes, at, 4, random.Below(6));
    case 1:
      return Store(bytes, at + 4 + 8 * random.Below(dims), 8, Number(random));
    case 2:
      return Store(bytes, at + 4 + 8 * dims, 4, random.Below(45));
    default:
      return Store(bytes, at - 1 - random.Below(tensor.name.size()), 1, 'a' + random.Below(26));
  }
}

}  // namespace

std::string Mutated(const std::string& original, RandomStream& random) {
  std::string bytes = original;
  // The places are those of the original; views point into it.
  const GgufFile file = GgufFile::Parse(
      std::span(reinterpret_cast<const uint8_t*>(original.data()), original.size()), "original");
  const uint64_t header = file.tensors().empty() ? original.size() : file.tensors().front().offset;
  for (uint64_t left = 1 + random.Below(3); left > 0; --left) {
    switch (random.Below(8)) {
      case 0:
        Store(bytes, random.Below(header), 1, random.Below(256));
        break;
      case 1:
        Store(bytes, random.Below(header), random.Below(2) == 0 ? 4 : 8, Number(random));
        break;
      case 2:
        if (random.Below(16) == 0) bytes.resize(random.Below(bytes.size()) + 1);
        break;
      case 3:
        if (!file.tensors().empty()) ChangeTensor(bytes, original, file, random);
        break;
      default:
        ChangeKey(bytes, file, random);
    }
  }
  return bytes;
}

}  // namespace halo::test
