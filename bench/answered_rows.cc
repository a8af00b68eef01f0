#include "bench/answered_rows.h"

#include <fstream>
#include <stdexcept>

namespace halo::bench {
namespace {

using Json = nlohmann::json;

/// Calls `take(line, its object)`; what that throws gets file and line before it.
template <typename Take>
void ForEachLine(const std::string& path, Take take) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::string line;
  for (int64_t number = 1; std::getline(file, line); ++number) {
    try {
      take(line, Json::parse(line));
    } catch (const std::exception& error) {
      throw std::runtime_error(path + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  if (file.bad()) throw std::runtime_error(path + ": could not be read to its end");
}

template <typename Value>
void Insert(std::map<std::string, Value>& rows, const Json& row, Value value) {
  const std::string id = row.at("id").dump();
  if (!rows.emplace(id, std::move(value)).second)
    throw std::runtime_error("a second row with the id " + id);
}

}  // namespace

AnsweredRows ReadAnsweredRows(const std::string& path) {
  AnsweredRows rows;
  ForEachLine(path, [&](const std::string& line, const Json& row) {
    const bool ok = row.at("status") == "ok";
    Insert(rows, row, AnsweredRow{line, ok ? row.at("outputs") : Json::object(), ok});
  });
  return rows;
}

Expectations ReadExpectations(const std::string& path) {
  Expectations rows;
  ForEachLine(path, [&](const std::string&, const Json& row) {
    Insert(rows, row, row.value("expected", Json::object()));
  });
  return rows;
}

RowScores ScoreRows(const std::vector<Criterion>& criteria, const AnsweredRows& answers,
                    const Expectations& expectations) {
  RowScores scores;
  for (const auto& [id, expected] : expectations) {
    const auto answer = answers.find(id);
    if (answer == answers.end()) throw std::runtime_error("row " + id + " has no answers");
    scores[id] = Score(criteria, answer->second.outputs, expected);
  }
  if (answers.size() != expectations.size())
    throw std::runtime_error("there are answers to rows that nobody asked about");
  return scores;
}

int64_t CountRight(const RowScores& scores, size_t criterion) {
  int64_t right = 0;
  for (const auto& [id, row] : scores) right += row.at(criterion) ? 1 : 0;
  return right;
}

Discordance CompareTask(const RowScores& scores, const RowScores& reference) {
  Discordance counts;
  for (const auto& [id, row] : scores) {
    const bool before = reference.at(id).front();
    ++counts.of;
    counts.gained += row.front() && !before ? 1 : 0;
    counts.lost += !row.front() && before ? 1 : 0;
  }
  return counts;
}

int64_t CountEqual(const AnsweredRows& answers, const AnsweredRows& reference) {
  int64_t equal = 0;
  for (const auto& [id, row] : answers) {
    const auto other = reference.find(id);
    equal += other != reference.end() && other->second.line == row.line ? 1 : 0;
  }
  return equal;
}

}  // namespace halo::bench
