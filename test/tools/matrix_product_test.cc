#include "demo_model/matrix_product.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/random.h"

namespace halo::demo {
namespace {

template <typename Real>
std::vector<Real> RandomMatrix(RandomStream& random, int64_t size) {
  std::vector<Real> values(static_cast<size_t>(size));
  for (Real& value : values) value = static_cast<Real>(random.Uniform() - 0.5);
  return values;
}

template <typename Real>
double At(MatrixView<Real> view, int64_t row, int64_t column) {
  return static_cast<double>(*view.From(row, column).data);
}

/// Largest difference from the sums as their definition has them.
template <typename Real>
double WorstError(const ProductShape& shape, MatrixView<Real> a, MatrixView<Real> b,
                  const std::vector<Real>& c, const std::vector<Real>& before) {
  double worst = 0;
  for (int64_t row = 0; row < shape.rows; ++row) {
    for (int64_t column = 0; column < shape.columns; ++column) {
      const auto place = static_cast<size_t>(row * shape.columns + column);
      double sum = static_cast<double>(before[place]);
      for (int64_t k = 0; k < shape.depth; ++k) sum += At(a, row, k) * At(b, k, column);
      worst = std::max(worst, std::abs(sum - static_cast<double>(c[place])));
    }
  }
  return worst;
}

/// Sizes around those of tiles, panels and blocks, with each of the operands as it lies and
/// transposed.
template <typename Real>
void CheckAllShapes(double tolerance) {
  RandomStream random(3);
  for (const int64_t rows : {1, 11, 12, 25, 200}) {
    for (const int64_t columns : {1, 31, 32, 65}) {
      for (const int64_t depth : {1, 64, 256, 300}) {
        const ProductShape shape{rows, columns, depth};
        const auto a = RandomMatrix<Real>(random, rows * depth);
        const auto b = RandomMatrix<Real>(random, depth * columns);
        for (const bool turned : {false, true}) {
          const auto view_a = turned ? Transposed(a.data(), rows) : Rows(a.data(), depth);
          const auto view_b = turned ? Transposed(b.data(), depth) : Rows(b.data(), columns);
          auto c = RandomMatrix<Real>(random, rows * columns);
          const auto before = c;
          Multiply<Real>(shape, view_a, view_b, c.data(), columns, Accumulate::kAdd);
          ASSERT_LT(WorstError(shape, view_a, view_b, c, before), tolerance)
              << rows << " x " << columns << " x " << depth << (turned ? " transposed" : "");
          Multiply<Real>(shape, view_a, view_b, c.data(), columns, Accumulate::kReplace);
          const std::vector<Real> zeros(c.size());
          ASSERT_LT(WorstError(shape, view_a, view_b, c, zeros), tolerance);
        }
      }
    }
  }
}

TEST(MatrixProduct, FloatsEqualTheDefinition) { CheckAllShapes<float>(1e-4); }
TEST(MatrixProduct, DoublesEqualTheDefinition) { CheckAllShapes<double>(1e-12); }

TEST(MatrixProduct, ReadsTheFirstRowsAndColumnsOfAPackedMatrix) {
  RandomStream random(4);
  const auto a = RandomMatrix<float>(random, 20 * 270);
  const auto b = RandomMatrix<float>(random, 400 * 70);
  PackedMatrix<float> packed;
  packed.Pack(Rows(b.data(), 70), 400, 70);
  const ProductShape shape{20, 40, 270};
  std::vector<float> c(20 * 40);
  Multiply<float>(shape, Rows(a.data(), 270), packed, c.data(), 40, Accumulate::kReplace);
  const std::vector<float> zeros(c.size());
  EXPECT_LT(WorstError(shape, Rows(a.data(), 270), Rows(b.data(), 70), c, zeros), 1e-4);
}

}  // namespace
}  // namespace halo::demo
