// score_answers: how many rows' tasks are solved by answers that anybody wrote, and how each stands
// to the first. Prints JSON.
//
//   score_answers --workflow STEM --rows ROWS.jsonl --answers NAME=ANSWERS.jsonl ...
//
// STEM: whose criteria (answer_scoring.h). ANSWERS: lines of {"id", "status", "outputs"} as `halo
// run --all-outputs` writes them.
#include <CLI/CLI.hpp>
#include <iostream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bench/answered_rows.h"

namespace halo::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::string workflow, rows;
  std::vector<std::string> answers;
};

struct Scored {
  std::string name;
  AnsweredRows answers;
  RowScores scores;
};

Json ToJson(const Scored& one, const Scored& first) {
  const int64_t right = CountRight(one.scores, 0);
  const auto of = static_cast<int64_t>(one.scores.size());
  const Interval interval = WilsonInterval(right, of);
  const Discordance counts = CompareTask(one.scores, first.scores);
  int64_t equal = 0;
  for (const auto& [id, row] : one.answers)
    equal += row.outputs == first.answers.at(id).outputs ? 1 : 0;
  return {{"name", one.name},
          {"right", right},
          {"of", of},
          {"low", interval.low},
          {"high", interval.high},
          {"gained", counts.gained},
          {"lost", counts.lost},
          {"p", McNemarExactP(counts)},
          {"equal_rows", equal}};
}

void ScoreAnswers(const Flags& flags) {
  const std::vector<Criterion> criteria = CriteriaOf(flags.workflow);
  const Expectations expectations = ReadExpectations(flags.rows);
  std::vector<Scored> all;
  for (const std::string& text : flags.answers) {
    const size_t equals = text.find('=');
    if (equals == std::string::npos)
      throw std::invalid_argument("--answers " + text + ": expected NAME=FILE");
    Scored& one = all.emplace_back();
    one.name = text.substr(0, equals);
    one.answers = ReadAnsweredRows(text.substr(equals + 1));
    one.scores = ScoreRows(criteria, one.answers, expectations);
  }
  Json json = Json::array();
  for (const Scored& one : all) json.push_back(ToJson(one, all.front()));
  std::cout << json.dump(1) << "\n";
}

}  // namespace
}  // namespace halo::bench

int main(int argc, char** argv) {
  CLI::App app("How many rows' tasks are solved by answers.");
  halo::bench::Flags flags;
  app.add_option("--workflow", flags.workflow, "Stem of the workflow's file")->required();
  app.add_option("--rows", flags.rows, "Rows with `id` and `expected`")->required();
  app.add_option("--answers", flags.answers, "NAME=FILE (repeatable)")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    halo::bench::ScoreAnswers(flags);
    return 0;
  } catch (const std::exception& error) {
    std::cerr << "score_answers: " << error.what() << "\n";
    return 2;
  }
}
