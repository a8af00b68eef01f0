#include "model/synth_weights.h"

#include <fmt/format.h>
#include <ggml.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"

namespace halo {
namespace {

constexpr int64_t kChunkElements = int64_t{1} << 20;  // 4 MiB of floats, per thread

// A few rows of one tensor: the unit of work.
struct Chunk {
  const WeightTensor* tensor = nullptr;
  int64_t first_row = 0;
  int64_t rows = 0;
};

std::vector<Chunk> CutIntoChunks(const std::vector<WeightTensor>& tensors) {
  std::vector<Chunk> chunks;
  for (const WeightTensor& tensor : tensors) {
    const int64_t rows = std::max<int64_t>(tensor.rows, 1);
    const int64_t step = std::max<int64_t>(1, kChunkElements / tensor.columns);
    for (int64_t row = 0; row < rows; row += step) {
      chunks.push_back({&tensor, row, std::min(step, rows - row)});
    }
  }
  return chunks;
}

// The four bytes of a random word, summed: close to normal within 3.4 deviations, and much cheaper
// than a logarithm. Sums of hundreds of products follow, so the tails of one weight do not matter.
float NearlyNormal(uint32_t word) {
  constexpr uint32_t kLowBytes = 0x00FF00FFU;
  const uint32_t pairs = (word & kLowBytes) + ((word >> 8) & kLowBytes);
  const int32_t sum = static_cast<int32_t>((pairs & 0xFFFFU) + (pairs >> 16));
  return static_cast<float>(sum - 2 * 255);
}

// Standard deviation of NearlyNormal: four bytes of variance (256^2 - 1) / 12 each.
const double kNearlyNormalDeviation = std::sqrt((256.0 * 256.0 - 1.0) / 3.0);

void FillRandom(const WeightTensor& tensor, uint64_t key, int64_t row, float* out) {
  const float row_scale =
      tensor.row_scales.empty() ? 1.0F : tensor.row_scales[static_cast<size_t>(row)];
  const float scale = static_cast<float>(tensor.deviation / kNearlyNormalDeviation) * row_scale;
  // Rows start at a new block, so that a row's elements do not depend on where chunks begin.
  const uint64_t blocks_per_row = (static_cast<uint64_t>(tensor.columns) + 3) / 4;
  uint64_t counter = static_cast<uint64_t>(row) * blocks_per_row;
  for (int64_t column = 0; column < tensor.columns; column += 4, ++counter) {
    const std::array<uint32_t, 4> words = Philox4x32(key, counter);
    const int64_t filled = std::min<int64_t>(4, tensor.columns - column);
    for (int64_t i = 0; i < filled; ++i)
      out[column + i] = NearlyNormal(words[static_cast<size_t>(i)]) * scale;
  }
}

// Returns 0 or errno.
int WriteAll(int descriptor, const char* bytes, uint64_t count, uint64_t offset) {
  while (count > 0) {
    const ssize_t written = pwrite(descriptor, bytes, count, static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : EIO;
    bytes += written;
    count -= static_cast<uint64_t>(written);
    offset += static_cast<uint64_t>(written);
  }
  return 0;
}

// Takes chunks until there are none or a write fails; `first_error` keeps an errno.
void Work(int descriptor, uint64_t seed, const std::vector<Chunk>& chunks,
          std::atomic<size_t>& next, std::atomic<int>& first_error) {
  std::vector<float> elements;
  std::vector<char> packed;
  for (size_t i = next++; i < chunks.size() && first_error == 0; i = next++) {
    const Chunk& chunk = chunks[i];
    const WeightTensor& tensor = *chunk.tensor;
    const size_t columns = static_cast<size_t>(tensor.columns);
    elements.resize(static_cast<size_t>(chunk.rows) * columns);
    if (!tensor.values.empty()) {
      std::copy(tensor.values.begin(), tensor.values.end(), elements.begin());
    } else {
      const uint64_t key =
          SignatureBuilder().Add(static_cast<int64_t>(seed)).Add(tensor.name).Finish().low;
      for (int64_t row = 0; row < chunk.rows; ++row) {
        FillRandom(tensor, key, chunk.first_row + row,
                   elements.data() + static_cast<size_t>(row) * columns);
      }
    }
    const auto type = static_cast<ggml_type>(tensor.type);
    const size_t row_bytes = ggml_row_size(type, tensor.columns);
    packed.resize(row_bytes * static_cast<size_t>(chunk.rows));
    ggml_quantize_chunk(type, elements.data(), packed.data(), 0, chunk.rows, tensor.columns,
                        nullptr);
    const uint64_t offset = tensor.offset + row_bytes * static_cast<uint64_t>(chunk.first_row);
    const int error = WriteAll(descriptor, packed.data(), packed.size(), offset);
    if (error != 0) first_error = error;
  }
}

}  // namespace

uint64_t WeightBytes(const WeightTensor& tensor) {
  const uint64_t rows = static_cast<uint64_t>(std::max<int64_t>(tensor.rows, 1));
  return ggml_row_size(static_cast<ggml_type>(tensor.type), tensor.columns) * rows;
}

void WriteWeights(int descriptor, const std::string& path, const std::vector<WeightTensor>& tensors,
                  uint64_t seed, unsigned most_threads) {
  for (const WeightTensor& tensor : tensors) {
    HALO_CHECK(tensor.columns % ggml_blck_size(static_cast<ggml_type>(tensor.type)) == 0,
               "rows of whole blocks");
    HALO_CHECK(
        tensor.values.empty() || (tensor.rows == 0 && std::ssize(tensor.values) == tensor.columns),
        "only vectors have given values");
  }
  const std::vector<Chunk> chunks = CutIntoChunks(tensors);
  std::atomic<size_t> next = 0;
  std::atomic<int> error = 0;
  {
    std::vector<std::jthread> helpers;
    const unsigned threads =
        std::clamp(std::thread::hardware_concurrency(), 1U, std::max(most_threads, 1U));
    for (unsigned i = 1; i < threads; ++i) {
      helpers.emplace_back([&] { Work(descriptor, seed, chunks, next, error); });
    }
    Work(descriptor, seed, chunks, next, error);
  }
  if (error != 0) {
    throw Error(ErrorCode::kIo,
                fmt::format("{}: cannot be written: {}", path, std::strerror(error)));
  }
}

}  // namespace halo
