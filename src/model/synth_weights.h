#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace halo {

/// One tensor to be filled. Rows are the second dimension; a vector is one row.
struct WeightTensor {
  std::string name;
  int64_t columns = 0;
  int64_t rows = 0;               ///< 0: a vector of `columns`
  int32_t type = 0;               ///< ggml_type
  double deviation = 0;           ///< of the random elements
  std::vector<float> row_scales;  ///< [rows] factor of each row; empty: all 1
  std::vector<float> values;      ///< [columns] a vector's elements, instead of random ones
  uint64_t offset = 0;            ///< of the data in the file
};

/// Bytes of the tensor's data.
uint64_t WeightBytes(const WeightTensor& tensor);

/// Writes all tensors into the open file `descriptor`, each at its offset. The elements are nearly
/// normal draws that depend on `seed`, the tensor's name and the element's index only, so the bytes
/// do not depend on the number of threads: at most `most_threads`, no more than the machine has,
/// and none outlives the call. Throws Error(kIo) naming `path`.
void WriteWeights(int descriptor, const std::string& path, const std::vector<WeightTensor>& tensors,
                  uint64_t seed, unsigned most_threads = 8);

}  // namespace halo
