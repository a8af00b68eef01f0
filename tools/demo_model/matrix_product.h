#pragma once

#include <cstdint>
#include <vector>

namespace halo::demo {

/// A matrix in someone else's memory: element (i, j) is data[i * row_stride + j * column_stride].
/// One of the strides is 1.
template <typename Real>
struct MatrixView {
  const Real* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 1;

  MatrixView From(int64_t row, int64_t column = 0) const {
    return {data + row * row_stride + column * column_stride, row_stride, column_stride};
  }
};

/// A matrix whose rows lie one after another, `stride` elements apart.
template <typename Real>
MatrixView<Real> Rows(const Real* data, int64_t stride) {
  return {data, stride, 1};
}

/// The transpose of the same.
template <typename Real>
MatrixView<Real> Transposed(const Real* data, int64_t stride) {
  return {data, 1, stride};
}

struct ProductShape {
  int64_t rows = 0;     ///< of A and C
  int64_t columns = 0;  ///< of B and C
  int64_t depth = 0;    ///< columns of A, rows of B
};

enum class Accumulate : uint8_t { kReplace, kAdd };

/// The right-hand side of products, laid out for the kernel: in blocks of rows, and these in panels
/// of columns.
template <typename Real>
class PackedMatrix {
 public:
  /// Copies `rows` x `columns` of `from`; what was there before is replaced.
  void Pack(MatrixView<Real> from, int64_t rows, int64_t columns);
  /// The panel that begins with a column (a multiple of the panel's width) of the block that begins
  /// with a row (a multiple of the block's height): [rows of the block, width].
  const Real* Panel(int64_t row, int64_t column) const;

 private:
  int64_t rows_ = 0;
  int64_t padded_columns_ = 0;
  std::vector<Real> elements_;
};

/// C = A B, or C += A B, with the first `depth` rows and `columns` columns of B; rows of C are
/// `c_stride` elements apart. Each element's sum has one order, which depends on `depth` only. For
/// Real float and double.
template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, const PackedMatrix<Real>& b, Real* c,
              int64_t c_stride, Accumulate accumulate);

/// The same for a B that is used once.
template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
              int64_t c_stride, Accumulate accumulate);

}  // namespace halo::demo
