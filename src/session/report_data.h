#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/executor.h"

namespace halo {

/// Counts of values by magnitude, in a room that does not grow: four steps to each doubling, so
/// that a quantile is right to 10 %.
class MagnitudeCounts {
 public:
  void Add(double value);
  void Add(const MagnitudeCounts& others);
  int64_t count() const { return count_; }
  /// The value below which a share of all lie; 0 if there are none.
  double Quantile(double share) const;
  /// How many lie from `low` up to below twice of it, for `low` a power of two.
  struct Bar {
    double low = 0.0;
    int64_t count = 0;
  };
  /// From the first doubling that has values to the last.
  std::vector<Bar> Doublings() const;

 private:
  static constexpr int32_t kSteps = 4, kDoublings = 64, kLowest = -20;  // from 2^-20
  std::array<int64_t, kSteps * kDoublings> counts_{};
  int64_t count_ = 0;
};

/// How much was going on over time, in a room that does not grow: when time runs out of the
/// columns, each two become one.
class ActivityOverTime {
 public:
  static constexpr size_t kColumns = 240;

  /// Something was under way from `start_us` to `end_us`, both since the start of the run.
  void Add(int64_t start_us, int64_t end_us);
  /// Mean of things under way in each of `columns` equal parts of [0, end_us).
  std::vector<double> Means(int64_t end_us, size_t columns) const;

 private:
  int64_t width_us_ = 1000;
  std::array<double, kColumns> busy_us_{};
};

/// What the report needs of a run while it goes on. Its memory depends on the operators, workers
/// and targets, and on the rows that are shown, not on the number of rows.
class ReportData final : public RunObserver {
 public:
  /// `samples`: how many rows are kept with prompts and answers, the first of each source.
  /// `text_of` says what a call asked.
  ReportData(int64_t start_us, int32_t samples,
             std::function<std::string(const CallRecord&)> text_of);

  /// A lane of the timeline, in order: what calls are given to, and the worker that runs them.
  void AddEngine(const std::string& name, const Engine& front, int32_t worker);

  void OnCall(const CallRecord& call) override;
  void OnToolCall(const ToolCallRecord& call) override;
  void OnAttempt(const CallRecord& call) override;
  void OnToolAttempt(const ToolCallRecord& call) override;
  void OnRow(size_t source, const RowResult& row) override;

  struct Lane {
    std::string name;
    ActivityOverTime calls;
    int64_t count = 0;
  };
  struct OfOperator {
    MagnitudeCounts latency_s, prompt_tokens, output_tokens;  ///< of attempts that began
    int64_t retries = 0;
  };
  struct SampleCall {
    std::string operator_id;
    std::string asked, answered;
    bool merged = false, failed = false;
  };
  struct SampleRow {
    std::string id;
    std::vector<SampleCall> calls;  ///< in the order in which they ended
    std::string result;             ///< the row as it was written; "": it was not
  };

  const std::vector<Lane>& workers() const { return workers_; }
  const std::map<std::string, Lane>& targets() const { return targets_; }
  /// By source and operator id.
  const std::map<std::pair<size_t, std::string>, OfOperator>& operators() const {
    return operators_;
  }
  const std::map<std::pair<size_t, int64_t>, SampleRow>& samples() const { return samples_; }

 private:
  SampleRow* SampleOf(size_t source, const Row& row);
  void Count(Lane& lane, int64_t started_us, int64_t finished_us) const;

  const int64_t start_us_;
  const int32_t most_samples_;
  std::function<std::string(const CallRecord&)> text_of_;
  std::vector<Lane> workers_;
  std::map<std::pair<const Engine*, int32_t>, size_t> worker_of_;
  std::map<std::string, Lane> targets_;
  std::map<std::pair<size_t, std::string>, OfOperator> operators_;
  std::map<std::pair<size_t, int64_t>, SampleRow> samples_;  // by source and index
};

}  // namespace halo
