#include "demo_model/matrix_product.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

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
// A panel of B (256 x 32 floats) stays in the first-level cache while rows of A pass.
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

/// sums = A B of kTileRows rows of A, which lie `stride` elements apart, or next to each other with
/// `stride` between columns, and a panel of B [depth, kTileColumns].
template <typename Real, bool kTransposed, size_t... kRow>
inline void SumTile(int64_t depth, const Real* a, int64_t stride, const Real* b, Sums<Real>& sums,
                    std::index_sequence<kRow...>) {
  using Vector = typename Lanes<Real>::Vector;
  Sums<Real> local;
  for (int64_t k = 0; k < depth; ++k) {
    const Vector low = Load<Vector>(b);
    const Vector high = Load<Vector>(b + Lanes<Real>::kCount);
    const auto at = [&](int64_t row) { return kTransposed ? a[row] : a[row * stride]; };
    ((local.low[kRow] += low * at(kRow), local.high[kRow] += high * at(kRow)), ...);
    a += kTransposed ? stride : 1;
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

int64_t RoundUp(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

/// Writes `depth` rows of up to a panel's width of columns; the rest of a row is zeros.
template <typename Real>
void PackPanel(MatrixView<Real> from, int64_t depth, int64_t columns, Real* panel) {
  constexpr int64_t kWidth = Lanes<Real>::kTileColumns;
  if (columns < kWidth) std::fill(panel, panel + depth * kWidth, Real{0});
  if (from.column_stride == 1 && columns == kWidth) {
    for (int64_t k = 0; k < depth; ++k)
      std::memcpy(panel + k * kWidth, from.data + k * from.row_stride, kWidth * sizeof(Real));
    return;
  }
  for (int64_t column = 0; column < columns; ++column) {
    const Real* line = from.data + column * from.column_stride;
    for (int64_t k = 0; k < depth; ++k) panel[k * kWidth + column] = line[k * from.row_stride];
  }
}

/// The kernel for a tile of A that has all its rows.
template <typename Real>
void SumWholeTile(int64_t depth, MatrixView<Real> a, const Real* panel, Sums<Real>& sums) {
  constexpr auto kRows = std::make_index_sequence<kTileRows>();
  if (a.row_stride == 1) {
    SumTile<Real, true>(depth, a.data, a.column_stride, panel, sums, kRows);
  } else {
    SumTile<Real, false>(depth, a.data, a.row_stride, panel, sums, kRows);
  }
}

/// The last rows of A with zeros below them: what the kernel reads where A has too few.
template <typename Real>
class PaddedRows {
 public:
  MatrixView<Real> Fill(MatrixView<Real> a, int64_t rows, int64_t depth) {
    std::fill(std::begin(elements_), std::end(elements_), Real{0});
    for (int64_t k = 0; k < depth; ++k) {
      for (int64_t row = 0; row < rows; ++row)
        elements_[k * kTileRows + row] = a.data[row * a.row_stride + k * a.column_stride];
    }
    return Transposed<Real>(elements_, kTileRows);
  }

 private:
  Real elements_[kDepthBlock * kTileRows];
};

}  // namespace

template <typename Real>
void PackedMatrix<Real>::Pack(MatrixView<Real> from, int64_t rows, int64_t columns) {
  constexpr int64_t kWidth = Lanes<Real>::kTileColumns;
  rows_ = rows;
  padded_columns_ = RoundUp(columns, kWidth);
  const auto size = static_cast<size_t>(rows * padded_columns_);
  if (elements_.size() < size) elements_.resize(size);
  Real* panel = elements_.data();
  for (int64_t row = 0; row < rows; row += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, rows - row);
    for (int64_t column = 0; column < columns; column += kWidth, panel += depth * kWidth)
      PackPanel(from.From(row, column), depth, std::min(kWidth, columns - column), panel);
  }
}

template <typename Real>
const Real* PackedMatrix<Real>::Panel(int64_t row, int64_t column) const {
  const int64_t depth = std::min(kDepthBlock, rows_ - row);
  return elements_.data() + row * padded_columns_ + column * depth;
}

template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, const PackedMatrix<Real>& b, Real* c,
              int64_t c_stride, Accumulate accumulate) {
  constexpr int64_t kWidth = Lanes<Real>::kTileColumns;
  PaddedRows<Real> padded;
  Sums<Real> sums;
  for (int64_t from = 0; from < shape.depth; from += kDepthBlock) {
    const int64_t depth = std::min(kDepthBlock, shape.depth - from);
    const Accumulate how = from == 0 ? accumulate : Accumulate::kAdd;
    for (int64_t block = 0; block < shape.rows; block += kRowBlock) {
      const int64_t end = std::min(block + kRowBlock, shape.rows);
      for (int64_t column = 0; column < shape.columns; column += kWidth) {
        const Real* panel = b.Panel(from, column);
        const int64_t columns = std::min(kWidth, shape.columns - column);
        for (int64_t row = block; row < end; row += kTileRows) {
          const int64_t rows = std::min(kTileRows, end - row);
          MatrixView<Real> tile = a.From(row, from);
          if (rows < kTileRows) tile = padded.Fill(tile, rows, depth);
          SumWholeTile(depth, tile, panel, sums);
          StoreTile(sums, rows, columns, c + row * c_stride + column, c_stride, how);
        }
      }
    }
  }
}

template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
              int64_t c_stride, Accumulate accumulate) {
  // Kept from call to call, so that its memory is asked for once.
  static thread_local PackedMatrix<Real> packed;
  packed.Pack(b, shape.depth, shape.columns);
  Multiply(shape, a, packed, c, c_stride, accumulate);
}

#define HALO_INSTANTIATE(Real)                                                                   \
  template class PackedMatrix<Real>;                                                             \
  template void Multiply<Real>(const ProductShape&, MatrixView<Real>, const PackedMatrix<Real>&, \
                               Real*, int64_t, Accumulate);                                      \
  template void Multiply<Real>(const ProductShape&, MatrixView<Real>, MatrixView<Real>, Real*,   \
                               int64_t, Accumulate)
HALO_INSTANTIATE(float);
HALO_INSTANTIATE(double);
#undef HALO_INSTANTIATE

}  // namespace halo::demo
