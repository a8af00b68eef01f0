#pragma once

#include <cstdint>

namespace halo::demo {

/// A matrix in someone else's memory: element (i, j) is data[i * row_stride + j * column_stride].
template <typename Real>
struct MatrixView {
  const Real* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 1;

  MatrixView From(int64_t row, int64_t column = 0) const {
    return {data + row * row_stride + column * column_stride, row_stride, column_stride};
  }
};

/// A matrix whose rows lie one after another.
template <typename Real>
MatrixView<Real> Rows(const Real* data, int64_t columns) {
  return {data, columns, 1};
}

/// The transpose of the same.
template <typename Real>
MatrixView<Real> Transposed(const Real* data, int64_t columns) {
  return {data, 1, columns};
}

struct ProductShape {
  int64_t rows = 0;     ///< of A and C
  int64_t columns = 0;  ///< of B and C
  int64_t depth = 0;    ///< columns of A, rows of B
};

enum class Accumulate : uint8_t { kReplace, kAdd };

/// C = A B, or C += A B; rows of C are `c_stride` elements apart. Each element's sum has one order,
/// which depends on `depth` only. For Real float and double.
template <typename Real>
void Multiply(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
              int64_t c_stride, Accumulate accumulate);

/// The same with the rows of C shared out over OpenMP's threads: the same bits for any number of
/// them.
template <typename Real>
void MultiplyInParallel(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b, Real* c,
                        int64_t c_stride, Accumulate accumulate);

}  // namespace halo::demo
