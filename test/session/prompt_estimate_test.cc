#include "session/prompt_estimate.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "support/test_models.h"

namespace halo {
namespace {

class PromptEstimateTest : public testing::Test {
 protected:
  PromptEstimateTest() {
    rows_.spec = testing::TempDir() + "prompt_estimate_rows.jsonl";
    std::ofstream(rows_.spec) << R"({"id": 1, "title": "Rain"})"
                              << "\n";
  }

  /// Of a model that is shown a query's result cut to `prompt_tokens`.
  int64_t LongestWhereResultsAreCutTo(int64_t prompt_tokens) const {
    const Workflow workflow = ParseWorkflow(fmt::format(R"(graph:
  allow_hosts: ["127.0.0.1:1"]
  nodes:
    - {{id: in, type: input, outputs: [title]}}
    - {{id: found, type: http, url: "http://127.0.0.1:1/x", prompt_tokens: {}}}
    - {{id: say, model: m, system_prompt: "What is it?", inputs: [title, found], max_tokens: 100}}
)",
                                                        prompt_tokens),
                                            "flow.yaml");
    const LogicalPlan plan = MakeLogicalPlan(workflow);
    return EstimateLongestRequest(plan, rows_, "prompt", *vocabulary_);
  }

  RowOptions rows_;
  std::shared_ptr<const Vocabulary> vocabulary_ = Vocabulary::Load(test::TinyModel());
};

TEST_F(PromptEstimateTest, ALimitThatCutsNothingIsNoLength) {
  const int64_t usual = LongestWhereResultsAreCutTo(1500);
  EXPECT_GT(usual, 750 + 100);
  EXPECT_LT(usual, 1500);
  EXPECT_EQ(LongestWhereResultsAreCutTo(1 << 20), usual);
  EXPECT_EQ(LongestWhereResultsAreCutTo(500), usual - 500);
}

}  // namespace
}  // namespace halo
