// Attend and AttendBackward of layer_math.h. Scores are computed in blocks of rows against all keys
// before the block's end, so that half of the square is not computed; on the way back they are
// computed again instead of kept.
#include <algorithm>
#include <cmath>
#include <vector>

#include "demo_model/fast_exp.h"
#include "demo_model/layer_math.h"

namespace halo::demo {
namespace {

constexpr int64_t kBlockRows = 128;

/// One document and one key head: what is computed apart from everything else.
struct Part {
  int64_t start = 0;   ///< first row of the document
  int64_t length = 0;  ///< rows
  int64_t kv_head = 0;
};

std::vector<Part> PartsOf(const AttentionShape& shape) {
  std::vector<Part> parts;
  for (size_t i = 0; i + 1 < shape.starts.size(); ++i) {
    for (int64_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head)
      parts.push_back({shape.starts[i], shape.starts[i + 1] - shape.starts[i], kv_head});
  }
  return parts;
}

/// Scores of `rows` queries from row `first` of a document against its keys before first + rows.
template <typename Real>
void BlockScores(const AttentionShape& shape, const AttentionInputs<Real>& in, const Part& part,
                 int64_t head, int64_t first, int64_t rows, const PackedMatrix<Real>& keys_packed,
                 Real* scores) {
  const int64_t query_width = shape.heads * shape.head_width;
  const Real* query = in.query + (part.start + first) * query_width + head * shape.head_width;
  const int64_t keys = first + rows;
  Multiply<Real>({rows, keys, shape.head_width}, Rows(query, query_width), keys_packed, scores,
                 keys, Accumulate::kReplace);
}

template <typename Real>
void AttendPart(const AttentionShape& shape, const AttentionInputs<Real>& in, const Part& part,
                Real* mixed, Real* log_sums) {
  const int64_t query_width = shape.heads * shape.head_width;
  const int64_t key_width = shape.kv_heads * shape.head_width;
  const int64_t rows_of_all = shape.starts.back();
  const Real scale = 1 / std::sqrt(static_cast<Real>(shape.head_width));
  std::vector<Real> scores(static_cast<size_t>(std::min(kBlockRows, part.length) * part.length));
  const int64_t key_offset = part.start * key_width + part.kv_head * shape.head_width;
  PackedMatrix<Real> keys_packed, values_packed;
  keys_packed.Pack(Transposed(in.key + key_offset, key_width), shape.head_width, part.length);
  values_packed.Pack(Rows(in.value + key_offset, key_width), part.length, shape.head_width);
  const int64_t group = shape.heads / shape.kv_heads;
  for (int64_t head = part.kv_head * group; head < (part.kv_head + 1) * group; ++head) {
    for (int64_t first = 0; first < part.length; first += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, part.length - first);
      const int64_t keys = first + rows;
      BlockScores(shape, in, part, head, first, rows, keys_packed, scores.data());
      for (int64_t row = 0; row < rows; ++row) {
        Real* line = scores.data() + row * keys;
        const int64_t seen = first + row + 1;
        const Real most = *std::max_element(line, line + seen);
        Real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < seen; ++i) {
          line[i] = FastExp((line[i] - most) * scale);
          sum += line[i];
        }
        const Real inverse = 1 / sum;
        for (int64_t i = 0; i < seen; ++i) line[i] *= inverse;
        std::fill(line + seen, line + keys, Real{0});
        log_sums[head * rows_of_all + part.start + first + row] = most * scale + std::log(sum);
      }
      Multiply<Real>({rows, shape.head_width, keys}, Rows<Real>(scores.data(), keys), values_packed,
                     mixed + (part.start + first) * query_width + head * shape.head_width,
                     query_width, Accumulate::kReplace);
    }
  }
}

/// Turns a block's scores into weights and `score_gradients`, which hold the gradients of the
/// weights, into those of the scores. `line_sums` [rows]: the gradient along each row's mixture.
template <typename Real>
void SoftmaxBackward(int64_t first, int64_t rows, Real scale, const Real* log_sums,
                     const Real* line_sums, Real* scores, Real* score_gradients) {
  const int64_t keys = first + rows;
  for (int64_t row = 0; row < rows; ++row) {
    Real* line = scores + row * keys;
    Real* gradient = score_gradients + row * keys;
    const int64_t seen = first + row + 1;
    const Real log_sum = log_sums[row], line_sum = line_sums[row];
    for (int64_t i = 0; i < seen; ++i) {
      line[i] = FastExp(line[i] * scale - log_sum);
      gradient[i] = line[i] * (gradient[i] - line_sum) * scale;
    }
    std::fill(line + seen, line + keys, Real{0});
    std::fill(gradient + seen, gradient + keys, Real{0});
  }
}

template <typename Real>
void AttendPartBackward(const AttentionShape& shape, const AttentionInputs<Real>& in,
                        const Part& part, const Real* mixed, const Real* log_sums,
                        const Real* mixed_gradient, const AttentionGradients<Real>& out) {
  const int64_t width = shape.head_width;
  const int64_t query_width = shape.heads * width, key_width = shape.kv_heads * width;
  const int64_t key_offset = part.start * key_width + part.kv_head * width;
  const Real scale = 1 / std::sqrt(static_cast<Real>(width));
  const size_t most = static_cast<size_t>(std::min(kBlockRows, part.length) * part.length);
  std::vector<Real> scores(most), gradients(most), line_sums(kBlockRows);
  PackedMatrix<Real> keys_packed, keys_by_row, values_packed;
  keys_packed.Pack(Transposed(in.key + key_offset, key_width), width, part.length);
  keys_by_row.Pack(Rows(in.key + key_offset, key_width), part.length, width);
  values_packed.Pack(Transposed(in.value + key_offset, key_width), width, part.length);
  for (int64_t row = 0; row < part.length; ++row) {
    std::fill_n(out.key + key_offset + row * key_width, width, Real{0});
    std::fill_n(out.value + key_offset + row * key_width, width, Real{0});
  }
  const int64_t group = shape.heads / shape.kv_heads;
  for (int64_t head = part.kv_head * group; head < (part.kv_head + 1) * group; ++head) {
    for (int64_t first = 0; first < part.length; first += kBlockRows) {
      const int64_t rows = std::min(kBlockRows, part.length - first);
      const int64_t keys = first + rows;
      const int64_t offset = (part.start + first) * query_width + head * width;
      const MatrixView<Real> query{in.query + offset, query_width, 1};
      const MatrixView<Real> above{mixed_gradient + offset, query_width, 1};
      for (int64_t row = 0; row < rows; ++row) {
        Real sum = 0;
        for (int64_t i = 0; i < width; ++i)
          sum += mixed[offset + row * query_width + i] * above.data[row * query_width + i];
        line_sums[static_cast<size_t>(row)] = sum;
      }
      BlockScores(shape, in, part, head, first, rows, keys_packed, scores.data());
      Multiply<Real>({rows, keys, width}, above, values_packed, gradients.data(), keys,
                     Accumulate::kReplace);
      SoftmaxBackward(first, rows, scale,
                      log_sums + head * shape.starts.back() + part.start + first, line_sums.data(),
                      scores.data(), gradients.data());
      Multiply<Real>({rows, width, keys}, Rows<Real>(gradients.data(), keys), keys_by_row,
                     out.query + offset, query_width, Accumulate::kReplace);
      Multiply<Real>({keys, width, rows}, Transposed<Real>(gradients.data(), keys), query,
                     out.key + key_offset, key_width, Accumulate::kAdd);
      Multiply<Real>({keys, width, rows}, Transposed<Real>(scores.data(), keys), above,
                     out.value + key_offset, key_width, Accumulate::kAdd);
    }
  }
}

}  // namespace

template <typename Real>
void Attend(const AttentionShape& shape, const AttentionInputs<Real>& in, Real* mixed,
            Real* log_sums) {
  const std::vector<Part> parts = PartsOf(shape);
  for (const Part& part : parts) AttendPart(shape, in, part, mixed, log_sums);
}

template <typename Real>
void AttendBackward(const AttentionShape& shape, const AttentionInputs<Real>& in, const Real* mixed,
                    const Real* log_sums, const Real* mixed_gradient,
                    const AttentionGradients<Real>& out) {
  const std::vector<Part> parts = PartsOf(shape);
  for (const Part& part : parts)
    AttendPartBackward(shape, in, part, mixed, log_sums, mixed_gradient, out);
}

#define HALO_INSTANTIATE(Real)                                                                   \
  template void Attend<Real>(const AttentionShape&, const AttentionInputs<Real>&, Real*, Real*); \
  template void AttendBackward<Real>(const AttentionShape&, const AttentionInputs<Real>&,        \
                                     const Real*, const Real*, const Real*,                      \
                                     const AttentionGradients<Real>&)
HALO_INSTANTIATE(float);
HALO_INSTANTIATE(double);
#undef HALO_INSTANTIATE

}  // namespace halo::demo
