#include "bench/answered_rows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace halo::bench {
namespace {

using Json = nlohmann::json;
using testing::HasSubstr;
using testing::ThrowsMessage;

class AnsweredRowsTest : public testing::Test {
 protected:
  std::string Write(const std::string& text) {
    std::ofstream(path_) << text;
    return path_;
  }
  void TearDown() override { std::filesystem::remove(path_); }

 private:
  // Tests run in processes of their own, side by side in one folder.
  const std::string path_ =
      testing::TempDir() + "answered_rows_test-" + std::to_string(getpid()) + ".jsonl";
};

const std::vector<Criterion>& SaysYes() {
  static const std::vector<Criterion> criteria = {
      {"yes", true,
       [](const Json& outputs, const Json&) { return outputs.value("a", "") == "yes"; }}};
  return criteria;
}

AnsweredRow Answer(const std::string& text, const std::string& line = "") {
  return {line, {{"a", text}}, true};
}

TEST_F(AnsweredRowsTest, RowsAreReadByTheirIds) {
  const AnsweredRows rows =
      ReadAnsweredRows(Write("{\"id\":\"1\",\"status\":\"ok\",\"outputs\":{\"a\":\"yes\"}}\n"
                             "{\"id\":1,\"status\":\"failed\",\"outputs\":{\"a\":\"yes\"}}\n"));
  ASSERT_EQ(rows.size(), 2U) << "the number 1 is another id than the text";
  EXPECT_EQ(rows.at("\"1\"").outputs.at("a"), "yes");
  EXPECT_TRUE(rows.at("1").outputs.empty()) << "a failed row has no answers";
  EXPECT_THAT(rows.at("1").line, HasSubstr("failed"));
}

TEST_F(AnsweredRowsTest, ExpectationsMayBeMissing) {
  const Expectations rows = ReadExpectations(Write(
      "{\"id\":\"a\",\"prompt\":\"x\",\"expected\":{\"k\":1}}\n{\"id\":\"b\",\"prompt\":\"y\"}\n"));
  EXPECT_EQ(rows.at("\"a\"").at("k"), 1);
  EXPECT_TRUE(rows.at("\"b\"").empty());
}

TEST_F(AnsweredRowsTest, FaultsHaveTheirLine) {
  const std::string twice = Write("{\"id\":\"a\"}\n{\"id\":\"a\"}\n");
  EXPECT_THAT([&] { ReadExpectations(twice); },
              ThrowsMessage<std::runtime_error>(HasSubstr("jsonl:2: a second row")));
  EXPECT_THROW(ReadExpectations(Write("{\"prompt\":\"x\"}\n")), std::runtime_error);
  EXPECT_THROW(ReadAnsweredRows(Write("not JSON\n")), std::runtime_error);
  EXPECT_THROW(ReadAnsweredRows("/nowhere/rows.jsonl"), std::runtime_error);
}

TEST_F(AnsweredRowsTest, ScoresNeedEveryRowOnce) {
  const Expectations expectations = {{"1", Json::object()}, {"2", Json::object()}};
  const RowScores scores =
      ScoreRows(SaysYes(), {{"1", Answer("yes")}, {"2", Answer("no")}}, expectations);
  EXPECT_EQ(CountRight(scores, 0), 1);
  EXPECT_EQ(CountRight(scores, 1), 1);
  EXPECT_THROW(ScoreRows(SaysYes(), {{"1", Answer("yes")}}, expectations), std::runtime_error);
  EXPECT_THROW(
      ScoreRows(SaysYes(), {{"1", Answer("")}, {"2", Answer("")}, {"3", Answer("")}}, expectations),
      std::runtime_error);
}

TEST_F(AnsweredRowsTest, PairsAreComparedRowByRow) {
  const RowScores before = {{"1", {true}}, {"2", {true}}, {"3", {false}}, {"4", {false}}};
  const RowScores after = {{"1", {true}}, {"2", {false}}, {"3", {true}}, {"4", {true}}};
  const Discordance counts = CompareTask(after, before);
  EXPECT_EQ(counts.of, 4);
  EXPECT_EQ(counts.gained, 2);
  EXPECT_EQ(counts.lost, 1);
}

TEST_F(AnsweredRowsTest, EqualMeansEveryByte) {
  const AnsweredRows reference = {{"1", Answer("yes", "x")}, {"2", Answer("yes", "y")}};
  EXPECT_EQ(CountEqual(reference, reference), 2);
  EXPECT_EQ(CountEqual({{"1", Answer("yes", "x")}, {"2", Answer("yes", "y ")}}, reference), 1);
}

}  // namespace
}  // namespace halo::bench
