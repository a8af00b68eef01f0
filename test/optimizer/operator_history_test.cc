#include "optimizer/operator_history.h"

#include <gtest/gtest.h>

#include "base/error.h"

namespace halo {
namespace {

constexpr Signature kOperation{1, 2};

TEST(OperatorHistoryTest, RecentRunsWeighMoreAndTheTextGivesItBack) {
  OperatorHistory history;
  history.Add(kOperation, "digest", {10, 8, 800, 80, 40, 200, 0, 6, 3, "a profile"});
  history.Add(kOperation, "digest", {10, 4, 400, 40, 80, 1600, 0, 2, 2, "a profile"});
  const OperatorHistory read = OperatorHistory::Read(history.ToJson(), "h.json");
  for (const OperatorHistory* each :
       std::initializer_list<const OperatorHistory*>{&history, &read}) {
    const OperatorRecord* record = each->Find(kOperation, "digest");
    ASSERT_NE(record, nullptr);
    EXPECT_DOUBLE_EQ(record->calls, 8 * OperatorHistory::kMemory + 4);
    EXPECT_DOUBLE_EQ(record->output_tokens, 40 * OperatorHistory::kMemory + 80);
    EXPECT_DOUBLE_EQ(record->engine_s, 6 * OperatorHistory::kMemory + 2);
    EXPECT_DOUBLE_EQ(record->profile_s, 3 * OperatorHistory::kMemory + 2);
    EXPECT_EQ(record->profile, "a profile");
    EXPECT_EQ(each->Find(kOperation, "another"), nullptr);
    EXPECT_EQ(each->Find({1, 3}, "digest"), nullptr);
  }
}

TEST(OperatorHistoryTest, SecondsCountBesideOneProfileOnly) {
  OperatorHistory history;
  history.Add(kOperation, "digest", {10, 8, 800, 80, 40, 200, 0, 6, 3, "old"});
  history.Add(kOperation, "digest", {10, 8, 800, 80, 40, 200, 0, 5, 4, "new"});
  // A run that was no measure leaves what was measured.
  history.Add(kOperation, "digest", {10, 8, 800, 80, 40, 200, 0});
  const OperatorRecord* record = history.Find(kOperation, "digest");
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(record->profile, "new");
  EXPECT_DOUBLE_EQ(record->engine_s / record->profile_s, 5.0 / 4.0);
}

TEST(OperatorHistoryTest, ARecordWithoutCallsSaysNothing) {
  OperatorHistory history;
  history.Add(kOperation, "", {10, 0, 0, 0, 0, 0, 0});
  EXPECT_EQ(history.Find(kOperation, ""), nullptr);
}

TEST(OperatorHistoryTest, RefusesWhatIsNoHistory) {
  const std::string record =
      R"("instances":1,"calls":1,"prompt_tokens":1,"reused_tokens":1,"output_tokens":1,"output_tokens_squared":1)";
  for (const std::string& text : {
           std::string(""),
           std::string("[]"),
           std::string(R"({"version":1})"),
           std::string(R"({"version":"1","operators":{}})"),
           std::string(R"({"version":2,"operators":{}})"),
           R"({"version":)" + std::string(1'000'000, '[') + std::string(1'000'000, ']') + "}",
           R"({"version":1,"operators":{"k":{)" + record + "}}}",
           R"({"version":1,"operators":{"k":{)" + record + R"(,"latency_s":1e300}}})",
           R"({"version":1,"operators":{"k":{)" + record + R"(,"latency_s":-1}}})",
           R"({"version":1,"operators":{"k":{)" + record + R"(,"latency_s":"1"}}})",
           R"({"version":1,"operators":{"k":{)" + record + R"(,"latency_s":1e999}}})",
       }) {
    try {
      OperatorHistory::Read(text, "h.json");
      ADD_FAILURE() << "taken: " << text.substr(0, 200);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kConfig) << text.substr(0, 200);
      EXPECT_NE(std::string(error.what()).find("h.json"), std::string::npos) << error.what();
    }
  }
  EXPECT_NO_THROW(OperatorHistory::Read(
      R"({"version":1,"operators":{"k":{)" + record + R"(,"latency_s":1}}})", "h.json"));
}

}  // namespace
}  // namespace halo
