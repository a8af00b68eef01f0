#include "bench/answer_scoring.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace halo::bench {
namespace {

using Json = nlohmann::json;

/// Names of the criteria that hold, "task" among them.
std::vector<std::string> Holding(const std::string& workflow, const Json& outputs,
                                 const Json& expected = Json::object()) {
  const std::vector<Criterion> criteria = CriteriaOf(workflow);
  const std::vector<bool> scores = Score(criteria, outputs, expected);
  std::vector<std::string> names;
  if (scores.at(0)) names.emplace_back("task");
  for (size_t i = 0; i < criteria.size(); ++i) {
    if (scores.at(i + 1)) names.push_back(criteria[i].name);
  }
  return names;
}

using Names = std::vector<std::string>;

const Json kMessage = {{"product", "red kettle"},
                       {"problem", "does not heat up"},
                       {"sentiment", "neutral"},
                       {"urgency", "high"},
                       {"escalated_by", {"sales", "operations"}}};

Json MessageAnswers() {
  return {{"extract",
           {{"product", "red kettle"},
            {"problem", "does not heat up"},
            {"sentiment", "neutral"},
            {"urgency", "high"}}},
          {"reply", "We are sorry that your red kettle does not heat up."},
          {"support", "The customer is calm. Verdict: wait."},
          {"engineering", "The fault was seen once. Verdict: wait."},
          {"operations", "It is urgent. Verdict: escalate."},
          {"verdict", "The red kettle: wait, by 2 of 3 votes (support and engineering)."}};
}

TEST(AnswerScoring, CustomerMessages) {
  const Names all = {"task",    "valid JSON",       "product",        "problem",       "sentiment",
                     "urgency", "reply names both", "verdicts right", "majority right"};
  EXPECT_EQ(Holding("customer_messages", MessageAnswers(), kMessage), all);

  Json wrong = MessageAnswers();
  wrong["extract"]["problem"] = "does not cool";
  wrong["operations"] = "It is urgent. Verdict: wait.";
  EXPECT_EQ(Holding("customer_messages", wrong, kMessage),
            (Names{"valid JSON", "product", "sentiment", "urgency", "reply names both",
                   "majority right"}))
      << "the majority is judged by the verdicts that were given";

  wrong = MessageAnswers();
  wrong["reply"] = "We are sorry that your red kettle is cold.";
  wrong["verdict"] = "The red kettle: escalate, by 2 of 3 votes.";
  wrong["support"] = "The customer is calm.";
  EXPECT_EQ(Holding("customer_messages", wrong, kMessage),
            (Names{"valid JSON", "product", "problem", "sentiment", "urgency"}));

  EXPECT_EQ(Holding("customer_messages", Json::object(), kMessage), Names{});
}

TEST(AnswerScoring, WhatIsExpectedMustBeThere) {
  Json expected = kMessage;
  expected.erase("urgency");
  EXPECT_THROW(Holding("customer_messages", MessageAnswers(), expected), std::runtime_error);
  EXPECT_THROW(Holding("customer_messages", Json::object(), expected), std::runtime_error)
      << "also where there is no answer to judge";
}

TEST(AnswerScoring, RecordsAreTextOfOneObject) {
  const Json expected = Json::parse(
      R"({"product": "lamp", "months_used": 3, "praised": ["quiet"], "criticized": [], "buys_again": null})");
  const Names all = {"task",    "valid JSON", "product",   "months_used",
                     "praised", "criticized", "buys_again"};
  EXPECT_EQ(Holding("review_extraction_3step", {{"record", expected.dump()}}, expected), all);
  Json other = expected;
  other["praised"] = {"quiet", "cheap"};
  EXPECT_EQ(Holding("review_extraction_3step", {{"record", other.dump()}}, expected),
            (Names{"valid JSON", "product", "months_used", "criticized", "buys_again"}));
  other = expected;
  other["more"] = 1;
  EXPECT_EQ(Holding("review_extraction_3step", {{"record", other.dump()}}, expected).front(),
            "product")
      << "a sixth key is not the form that was asked for";
  for (const std::string text : {"{\"product\": \"lamp\"", "[1]", "lamp", ""})
    EXPECT_EQ(Holding("review_extraction_3step", {{"record", text}}, expected), Names{}) << text;
  EXPECT_EQ(Holding("review_extraction_3step", {{"record", nullptr}}, expected), Names{});
}

TEST(AnswerScoring, JudgesOfAVote) {
  Json outputs = {
      {"practical", "I would say: heat. Answer: heat."},
      {"skeptical", "Answer: habit."},
      {"factual", "Answer: heat."},
      {"creative", "Answer: pressure."},
      {"judge", "The final answer is: heat. It is supported by practical and factual, 2 of 4."}};
  EXPECT_EQ(Holding("voting_4way", outputs),
            (Names{"task", "all take a side", "judge names a winner", "supporters right"}));
  outputs["judge"] =
      "The final answer is: heat. It is supported by practical and creative, 2 of 4.";
  EXPECT_EQ(Holding("voting_4way", outputs),
            (Names{"task", "all take a side", "judge names a winner"}));
  outputs["judge"] = "The final answer is: habit. It is supported by skeptical, 1 of 4.";
  EXPECT_EQ(Holding("voting_4way", outputs), (Names{"all take a side", "supporters right"}));
  outputs["factual"] = "Answer: pressure.";
  outputs["judge"] =
      "The final answer is: pressure. It is supported by factual and creative, 2 of 4.";
  EXPECT_EQ(Holding("voting_4way", outputs).size(), 4U);
  outputs["creative"] = "I do not know";
  EXPECT_EQ(Holding("voting_4way", outputs), Names{});
}

TEST(AnswerScoring, AnyWinnerOfATieIsOne) {
  Json outputs = {{"teacher", "Answer: yes."},
                  {"engineer", "Answer: no."},
                  {"historian", "Answer: yes."},
                  {"critic", "Answer: no."}};
  for (const std::string side : {"yes", "no"}) {
    outputs["judge"] = "The final answer is: " + side + ". It is supported by";
    EXPECT_EQ(Holding("voting_4way_two_models", outputs).front(), "task") << side;
  }
}

TEST(AnswerScoring, ArgumentsAndDebates) {
  Json outputs = {{"argue", "My position is: yes. Answer: yes."},
                  {"attack", "It fails if nobody helps. This flaw is small."},
                  {"resolve", "The argument stands. Answer: yes."}};
  EXPECT_EQ(Holding("adversarial_3step", outputs).front(), "task");
  outputs["attack"] = "This flaw is serious.";
  EXPECT_EQ(Holding("adversarial_3step", outputs), (Names{"position stated", "flaw judged"}));
  outputs["resolve"] = "The argument does not stand. Answer: open.";
  EXPECT_EQ(Holding("adversarial_3step", outputs).front(), "task");

  outputs = {{"propose", "Answer: no."}, {"defend", "Answer: no."}, {"judge", "Answer: yes."}};
  EXPECT_EQ(Holding("adversarial_4step_two_models", outputs), Names{"defense keeps the answer"});
  outputs = {{"op0", "Nothing"}, {"op1", "Nothing"}};
  EXPECT_EQ(Holding("seed_example", outputs), Names{}) << "no side is not the same side";
}

TEST(AnswerScoring, ConversationsKeepToTheirTopic) {
  const Json outputs = {{"opening", "About a small pond: yes."},
                        {"follow_up", "For a small pond I would wait."},
                        {"closing", "We talked about a pond."}};
  EXPECT_EQ(Holding("multi_turn", outputs, {{"topic", "a small pond"}}),
            (Names{"opening names the topic", "follow_up names the topic"}));
}

/// w1_... to w6_...: their answers are not scored, what they execute is measured.
bool IsEvaluationWorkload(const std::filesystem::path& path) {
  const std::string name = path.stem();
  return name.size() > 2 && name[0] == 'w' && name[1] >= '1' && name[1] <= '6' && name[2] == '_';
}

TEST(AnswerScoring, EveryShippedWorkflowHasCriteriaAndATask) {
  size_t files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(HALO_SOURCE_DIR) + "/workflows")) {
    if (entry.path().extension() != ".yaml" || IsEvaluationWorkload(entry.path())) continue;
    ++files;
    const std::vector<Criterion> criteria = CriteriaOf(entry.path().stem());
    EXPECT_TRUE(std::any_of(criteria.begin(), criteria.end(), [](const Criterion& criterion) {
      return criterion.in_task;
    })) << entry.path();
  }
  EXPECT_GT(files, 0U);
  EXPECT_THROW(CriteriaOf("unheard_of"), std::invalid_argument);
}

}  // namespace
}  // namespace halo::bench
