#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bench/answer_scoring.h"
#include "bench/paired_statistics.h"

namespace halo::bench {

/// A row as `halo run -o FILE.jsonl --all-outputs` wrote it.
struct AnsweredRow {
  std::string line;        ///< every byte of it
  nlohmann::json outputs;  ///< by operator; an empty object for a row that failed
  bool ok = false;
};

/// By id, as JSON text. Throws std::runtime_error naming file and line, also for an id twice.
using AnsweredRows = std::map<std::string, AnsweredRow>;
AnsweredRows ReadAnsweredRows(const std::string& path);

/// What is true of each row of an input file: its `expected`, or an empty object. By id as JSON
/// text, which rows must have. Throws std::runtime_error naming file and line.
using Expectations = std::map<std::string, nlohmann::json>;
Expectations ReadExpectations(const std::string& path);

/// The scores of each row, the task's first (Score). Throws std::runtime_error unless the answers
/// are those of the rows that are expected, no more and no fewer.
using RowScores = std::map<std::string, std::vector<bool>>;
RowScores ScoreRows(const std::vector<Criterion>& criteria, const AnsweredRows& answers,
                    const Expectations& expectations);

/// How many rows hold a criterion; 0 is the task.
int64_t CountRight(const RowScores& scores, size_t criterion);

/// The task's rows that only `scores` solves, and that only `reference` does. Both of the same
/// rows.
Discordance CompareTask(const RowScores& scores, const RowScores& reference);

/// Rows that are the same byte for byte.
int64_t CountEqual(const AnsweredRows& answers, const AnsweredRows& reference);

}  // namespace halo::bench
