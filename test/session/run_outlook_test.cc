#include "session/run_outlook.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

constexpr const char* kWorkflow = R"(graph:
  defaults: {model: m}
  nodes:
    - {id: in, type: input, outputs: [text]}
    - {id: first, prompt: "A {{ text }}", outputs: [a]}
    - {id: second, inputs: [a], prompt: "B {{ a }}", outputs: [b]}
)";

class RunOutlookTest : public testing::Test {
 protected:
  RunOutlookTest()
      : workflow_(ParseWorkflow(kWorkflow, "f.yaml")), logical_(MakeLogicalPlan(workflow_)) {
    plan_.sources.push_back({"f", &logical_, 100});
    for (const LogicalNode& node : logical_.nodes) {
      PlannedOperator planned;
      planned.op = node.op;
      planned.estimate.instances = Estimate::Exactly(100);
      planned.estimate.calls = Estimate::Exactly(100);
      planned.estimate.prompt_tokens = Estimate::Exactly(50);
      planned.estimate.reused_tokens = Estimate::Exactly(30);
      planned.estimate.output_tokens = Estimate::Exactly(node.op == 0 ? 20 : 100);
      plan_.operators.push_back(planned);
    }
    counts_.resize(2);
    counts_[0].id = "first";
    counts_[1].id = "second";
  }

  Progress At(double elapsed_s) {
    return RunOutlook(plan_, {plan_.sources[0].rows})
        .At({rows_, counts_, waits_, 7, 2}, 10'000'000, elapsed_s);
  }

  Workflow workflow_;
  LogicalPlan logical_;
  PhysicalPlan plan_;
  RunCounts rows_;
  std::vector<OperatorCounts> counts_;
  RunWaits waits_;
};

TEST_F(RunOutlookTest, AnOperatorThatHasNotBegunIsJudgedByItsTokens) {
  // 40 of 100 instances of `first` took 40 tokens and 1 s each; those of `second` will have three
  // times the tokens: 60 + 100 x 3 = 360 s of work, of which 40 took 10 s.
  counts_[0].ended = 40;
  counts_[0].engine_us = 40'000'000;
  counts_[0].prefilled_tokens = 800;
  counts_[0].output_tokens = 800;
  const Progress progress = At(10.0);
  EXPECT_NEAR(progress.left_s, 90.0, 1e-6);
  EXPECT_EQ(progress.rows_ok, 5);
  EXPECT_EQ(progress.rows_failed, 2);
  EXPECT_EQ(progress.instances_total, 200);
  EXPECT_EQ(progress.instances_done, 40);
  ASSERT_EQ(progress.operators.size(), 2U);
  EXPECT_EQ(progress.operators[0].id, "first");
  EXPECT_EQ(progress.operators[1].instances, 100);
}

TEST_F(RunOutlookTest, WhatOperatorsTookCountsOnceTheyHaveBegun) {
  counts_[0].ended = 100;
  counts_[0].engine_us = 100'000'000;
  counts_[1].ended = 50;
  counts_[1].engine_us = 300'000'000;
  EXPECT_NEAR(At(40.0).left_s, 30.0, 1e-6);
}

TEST_F(RunOutlookTest, WithoutAModelEveryInstanceCountsAlike) {
  counts_[0].ended = 100;
  EXPECT_LT(At(40.0).left_s, 0.0) << "a model is asked, and nothing is known of it yet";
  for (OperatorCounts& counts : counts_) counts.kind = OperatorKind::kSql;
  EXPECT_NEAR(At(40.0).left_s, 40.0, 1e-6);
}

TEST_F(RunOutlookTest, NothingIsForetoldTooSoonOrWithoutRows) {
  EXPECT_LT(At(10.0).left_s, 0.0);  // nothing has ended
  counts_[0].ended = 100;
  EXPECT_LT(At(1.0).left_s, 0.0);
  plan_.sources[0].rows = -1;
  const Progress open = At(40.0);
  EXPECT_LT(open.left_s, 0.0);
  EXPECT_EQ(open.rows_total, -1);
  EXPECT_EQ(open.instances_total, -1);
}

TEST_F(RunOutlookTest, OperatorsThatAreNotRunAreNotShown) {
  logical_.nodes[0].removed = true;
  const Progress progress = At(10.0);
  ASSERT_EQ(progress.operators.size(), 1U);
  EXPECT_EQ(progress.operators[0].id, "second");
  EXPECT_EQ(progress.instances_total, 100);
}

TEST_F(RunOutlookTest, SaysWhatTheRunWaitsFor) {
  waits_.retries = 3;
  waits_.asked_to_wait = 1;
  waits_.next_retry_us = 12'000'000;
  waits_.held_back = 2;
  waits_.for_budget = true;
  waits_.for_rows = true;
  waits_.models = {"judge"};
  EXPECT_EQ(At(1.0).waits,
            (std::vector<std::string>{
                "model judge to be loaded", "a rate limit (1 call later, the first in 2 s)",
                "another try of 2 failed calls, the first in 2 s",
                "a host's requests_per_second (2 calls)", "room in the budget", "rows"}));
}

}  // namespace
}  // namespace halo
