#include "session/planning.h"

#include <gtest/gtest.h>

namespace halo {
namespace {

/// Calls that were made before, and whatever merged with them, say nothing of how many are made.
TEST(PlanningTest, WhatWasKnownBeforeIsNoPartOfTheHistory) {
  const Workflow workflow = ParseWorkflow(
      "start_ops: [a]\nend_ops: [a]\nops: {a: {model: m, prompt: Go., temperature: 0}}\n",
      "f.yaml");
  LogicalPlan plan = MakeLogicalPlan(workflow);
  std::vector<OptimizerSource> sources(1);
  sources[0].plan = &plan;
  sources[0].prompt_column = "prompt";
  sources[0].models.resize(1);
  RunReport report;
  report.operators.resize(1);
  OperatorCounts& counts = report.operators[0];
  // Each question is asked by two rows; an earlier run has asked three in four of them.
  counts.logical = 800;
  counts.merged = 400;
  counts.distinct = 400;
  counts.cached = 300;
  counts.executed = counts.calls = 100;
  OperatorHistory history;
  AddToHistory(sources, report, nullptr, history);
  const Signature operation = IdentifyOperators(plan, "prompt")[0].signature;
  const OperatorRecord* record = history.Find(operation, "");
  ASSERT_NE(record, nullptr);
  EXPECT_EQ(record->calls, 100);
  EXPECT_EQ(record->instances, 200) << "as a run without them would have it";

  counts.cached = 400;
  counts.executed = counts.calls = 0;
  OperatorHistory nothing;
  AddToHistory(sources, report, nullptr, nothing);
  EXPECT_EQ(nothing.Find(operation, ""), nullptr);
}

}  // namespace
}  // namespace halo
