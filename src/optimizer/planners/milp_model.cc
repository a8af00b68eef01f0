#include "optimizer/planners/milp_model.h"

#include <Cbc_C_Interface.h>

#include <algorithm>
#include <map>
#include <memory>

namespace halo {

MilpModel::Sum& MilpModel::Sum::Plus(const Sum& other, double times) {
  for (const auto& [variable, coefficient] : other.terms) {
    terms.emplace_back(variable, times * coefficient);
  }
  constant += times * other.constant;
  return *this;
}

MilpModel::Sum MilpModel::Variable(double low, double high, bool integer, double cost) {
  columns_.push_back({low, high, cost, integer});
  Sum sum;
  sum.terms.emplace_back(static_cast<int32_t>(columns_.size()) - 1, 1.0);
  return sum;
}

void MilpModel::AtLeast(const Sum& left, const Sum& right) {
  Row(Sum(left).Plus(right, -1.0), 0.0, kFree);
}

void MilpModel::Equal(const Sum& left, const Sum& right) {
  Row(Sum(left).Plus(right, -1.0), 0.0, 0.0);
}

void MilpModel::Row(const Sum& sum, double low, double high) {
  std::map<int32_t, double> terms;
  for (const auto& [variable, coefficient] : sum.terms) terms[variable] += coefficient;
  std::erase_if(terms, [](const auto& term) { return term.second == 0.0; });
  row_low_.push_back(low - sum.constant);
  row_high_.push_back(high == kFree ? kFree : high - sum.constant);
  rows_.emplace_back(terms.begin(), terms.end());
}

double MilpModel::Value(const Sum& sum, const std::vector<double>& values) {
  double value = sum.constant;
  for (const auto& [variable, coefficient] : sum.terms) value += coefficient * values[variable];
  return value;
}

MilpModel::Solution MilpModel::Solve(double limit_s) const {
  // By columns, as CBC takes them.
  std::vector<std::vector<std::pair<int, double>>> of_column(columns_.size());
  for (size_t row = 0; row < rows_.size(); ++row) {
    for (const auto& [variable, coefficient] : rows_[row]) {
      of_column[variable].emplace_back(static_cast<int>(row), coefficient);
    }
  }
  std::vector<CoinBigIndex> starts{0};
  std::vector<int> places;
  std::vector<double> values, low, high, cost;
  for (size_t column = 0; column < columns_.size(); ++column) {
    for (const auto& [row, coefficient] : of_column[column]) {
      places.push_back(row);
      values.push_back(coefficient);
    }
    starts.push_back(static_cast<CoinBigIndex>(places.size()));
    low.push_back(columns_[column].low);
    high.push_back(columns_[column].high);
    cost.push_back(columns_[column].cost);
  }
  const std::unique_ptr<Cbc_Model, void (*)(Cbc_Model*)> model(Cbc_newModel(), Cbc_deleteModel);
  Cbc_loadProblem(model.get(), static_cast<int>(columns_.size()), static_cast<int>(rows_.size()),
                  starts.data(), places.data(), values.data(), low.data(), high.data(), cost.data(),
                  row_low_.data(), row_high_.data());
  for (size_t column = 0; column < columns_.size(); ++column) {
    if (columns_[column].integer) Cbc_setInteger(model.get(), static_cast<int>(column));
  }
  Cbc_setParameter(model.get(), "log", "0");
  Cbc_setParameter(model.get(), "slog", "0");
  if (limit_s > 0.0) Cbc_setParameter(model.get(), "sec", std::to_string(limit_s).c_str());
  Cbc_solve(model.get());

  Solution solution;
  solution.nodes = Cbc_getNodeCount(model.get());
  const bool finished = Cbc_status(model.get()) == 0;
  const bool infeasible = Cbc_isProvenInfeasible(model.get()) != 0;
  if (!infeasible && Cbc_bestSolution(model.get()) != nullptr) {
    const double* best = Cbc_bestSolution(model.get());
    solution.values.assign(best, best + columns_.size());
  }
  solution.closed = finished && (infeasible || Cbc_isProvenOptimal(model.get()) != 0);
  solution.bound = Cbc_getBestPossibleObjValue(model.get());
  return solution;
}

}  // namespace halo
