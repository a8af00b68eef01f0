#include "demo_model/matrix_product.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace halo::demo {
namespace {

// Two vectors a row and as many rows as leave registers for what is loaded: 24 + 3 of 32 with
// AVX-512, 12 + 3 of 16 without.
#ifdef __AVX512F__
constexpr int64_t kVectorBytes = 64;
constexpr int64_t kTileRows = 12;
#else
constexpr int64_t kVectorBytes = 32;
constexpr int64_t kTileRows = 6;
#endif
// A panel of B (256 x 32 floats) stays in the first-level cache while the panels of A pass.
constexpr int64_t kDepthBlock = 256;
constexpr int64_t kRowBlock = 16 * kTileRows;

template <typename Real>
struct Lanes {
  typedef Real Vector __attribute__((vector_size(kVectorBytes)));
  static constexpr int64_t kCount = kVectorBytes / static_cast<int64_t>(sizeof(Real));
  static constexpr int64_t kTileColumns = 2 * kCount;
};

template <typename Real>
struct Sums {
  typename Lanes<Real>::Vector low[kTileRows] = {};
  typename Lanes<Real>::Vector high[kTileRows] = {};
};

template <typename Vector, typename Real>
Vector Load(const Real* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof(Vector));
  return vector;
}

/// sums = A B of packed panels: `a` [depth, kTileRows], `b` [depth, kTileColumns].
template <typename Real, size_t... kRow>
inline void SumTile(int64_t depth, const Real* a, const Real* b, Sums<Real>& sums,
                    std::index_sequence<kRow...>) {
  using Vector = typename Lanes<Real>::Vector;
  Sums<Real> local;
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load<Vector>(b);
    const Vector high = Load<Vector>(b + Lanes<Real>::kCount);
    ((local.low[kRow] += low * a[kRow], local.high[kRow] += high * a[kRow]), ...);
    a += kTileRows;
    b += Lanes<Real>::kTileColumns;
  }
  sums = local;
}

template <typename Real>
void StoreTile(const Sums<Real>& sums, int64_t rows, int64_t columns, Real* c, int64_t c_stride,
               Accumulate accumulate) {
  using Vector = typename Lanes<Real>::Vector;
  constexpr int64_t kCount = Lanes<Real>::kCount;
  const bool whole = columns == Lanes<Real>::kTileColumns;
  for (int64_t row = 0; row < rows; ++row, c += c_stride) {
    Vector low = sums.low[row], high = sums.high[row];
    if (whole) {
      if (accumulate == Accumulate::kAdd) {
        low += Load<Vector>(c);
        high += Load<Vector>(c + kCount);
      }
      std::memcpy(c, &low, sizeof(low));
      std::memcpy(c + kCount, &high, sizeof(high));
      continue;
    }
    for (int64_t column = 0; column < columns; ++column) {
      const Real sum = column < kCount ? low[column] : high[column - kCount];
      c[column] = accumulate == Accumulate::kAdd ? c[column] + sum : sum;
    }
  }
}

/// Copies `count` rows (or columns, with the view transposed) into panels of `width`, depth by
/// depth: element (i, k) goes to packed[i / width][k][i % width]. The last panel is filled with
/// zeros.
template <typename Real>
void Pack(MatrixView<Real> from, int64_t count, int64_t depth, int64_t width, Real* packed) {
  for (int64_t first = 0; first < count; first += width) {
    const int64_t used = std::min(width, count - first);
    const Real* source = from.data + first * from.row_stride;
    if (from.row_stride == 1) {
      for (int64_t k = 0; k < depth; ++k, packed += width) {
        const Real* line = source + k * from.column_stride;
        std::copy(line, line + used, packed);
        std::fill(packed + used, packed + width, Real{0});
      }
      continue;
    }
    for (int64_t i = 0; i < width; ++i) {
      const Real* line = source + i * from.row_stride;
      for (int64_t k = 0; k < depth; ++k)
        packed[k * width + i] = i < used ? line[k * from.column_stride] : Real{0};
    }
    packed += depth * width;
  }
}

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// A thread's room for packed panels; kept from call to call.
template <typename Real>
Real* PanelRoom(int which, int64_t elements) {
  static thread_local std::vector<Real> rooms[2];
  std::vector<Real>& room = rooms[which];
  if (static_cast<int64_t>(room.size()) < elements) room.resize(static_cast<size_t>(elements));
  return room.data();
}

}  // namespace

template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
              int64_t c_stride, Accumulate accumulate) {
  constexpr int64_t kTileColumns = Lanes<Real>::kTileColumns;
  const int64_t most_depth = std::min(shape.depth, kDepthBlock);
  Real* packed_b = PanelRoom<Real>(0, most_depth * RoundUp(shape.columns, kTileColumns));
  Real* packed_a = PanelRoom<Real>(1, most_depth * kRowBlock);
  const MatrixView<Real> columns_of_b{b.data, b.column_stride, b.row_stride};
  Sums<Real> sums;
  for (int64_t from = 0; from < shape.depth; from += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, shape.depth - from);
    const Accumulate how = from == 0 ? accumulate : Accumulate::kAdd;
    Pack(columns_of_b.From(0, from), shape.columns, depth, kTileColumns, packed_b);
    for (int64_t block = 0; block < shape.rows; block += kRowBlock) {
      const int64_t rows = std::min(kRowBlock, shape.rows - block);
      Pack(a.From(block, from), rows, depth, kTileRows, packed_a);
      for (int64_t column = 0; column < shape.columns; column += kTileColumns) {
        for (int64_t row = 0; row < rows; row += kTileRows) {
          SumTile(depth, packed_a + row * depth, packed_b + column * depth, sums,
                  std::make_index_sequence<kTileRows>());
          StoreTile(sums, std::min(kTileRows, rows - row),
                    std::min(kTileColumns, shape.columns - column),
                    c + (block + row) * c_stride + column, c_stride, how);
        }
      }
    }
  }
}

template <typename Real>
void MultiplyInParallel(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
                        int64_t c_stride, Accumulate accumulate) {
  // Few large parts, since each packs B for itself.
  constexpr int64_t kParts = 4;
  const int64_t part = RoundUp((shape.rows + kParts - 1) / kParts, kTileRows);
#pragma omp parallel for schedule(static)
  for (int64_t i = 0; i < kParts; ++i) {
    const int64_t first = i * part;
    if (first >= shape.rows) continue;
    const ProductShape own{std::min(part, shape.rows - first), shape.columns, shape.depth};
    Multiply(own, a.From(first), b, c + first * c_stride, c_stride, accumulate);
  }
}

template void Multiply<float>(const ProductShape&, MatrixView<float>, MatrixView<float>, float*,
                              int64_t, Accumulate);
template void Multiply<double>(const ProductShape&, MatrixView<double>, MatrixView<double>, double*,
                               int64_t, Accumulate);
template void MultiplyInParallel<float>(const ProductShape&, MatrixView<float>, MatrixView<float>,
                                        float*, int64_t, Accumulate);
template void MultiplyInParallel<double>(const ProductShape&, MatrixView<double>,
                                         MatrixView<double>, double*, int64_t, Accumulate);

}  // namespace halo::demo
