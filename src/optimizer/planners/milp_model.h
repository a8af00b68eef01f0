#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "optimizer/planners/problem_tables.h"

namespace halo {

/// A mixed integer program: least objective, row by row.
class MilpModel {
 public:
  static constexpr double kFree = std::numeric_limits<double>::infinity();

  /// A sum of coefficient * variable, and a constant.
  struct Sum {
    std::vector<std::pair<int32_t, double>> terms;
    double constant = 0.0;

    Sum() = default;
    Sum(double value) : constant(value) {}  // NOLINT: a number is a sum
    Sum& Plus(const Sum& other, double times = 1.0);
  };

  Sum Variable(double low, double high, bool integer, double cost = 0.0);
  Sum Binary() { return Variable(0.0, 1.0, true); }
  /// left >= right.
  void AtLeast(const Sum& left, const Sum& right);
  void Equal(const Sum& left, const Sum& right);

  struct Solution {
    bool closed = false;         ///< proved: optimal or, where values is empty, infeasible
    double bound = -kFree;       ///< of the objective
    std::vector<double> values;  ///< the best point found; empty: none
    int64_t nodes = 0;
  };
  /// By CBC. A limit of 0 seconds: none.
  Solution Solve(double limit_s) const;

  static double Value(const Sum& sum, const std::vector<double>& values);

 private:
  void Row(const Sum& sum, double low, double high);

  struct Column {
    double low, high, cost;
    bool integer;
  };
  std::vector<Column> columns_;
  std::vector<double> row_low_, row_high_;
  std::vector<std::vector<std::pair<int32_t, double>>> rows_;
};

}  // namespace halo
